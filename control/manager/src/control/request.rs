//! Requests as commands have them. What cannot be told without the state is the state machine's to refuse.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::v1;
use mesh_store::{AliasChange, NetworkChange, NewNetwork, NewService, ServiceChange, State};
use mesh_types::{
    Affinity, DEFAULT_DRAIN_SECS, EndpointMode, Name, NameError, NetworkId, PortConfig, PortFilter, ServiceId,
};
use tonic::Status;

use super::find;
use crate::{shared::unix_now, status::invalid};

pub(super) fn network(request: v1::CreateNetworkRequest) -> Result<NewNetwork, Status> {
    let mtu =
        u16::try_from(request.mtu).map_err(|_| invalid("mtu", format!("{} is too large", request.mtu)))?;
    Ok(NewNetwork {
        id: NetworkId::random(),
        name: name(request.name)?,
        subnets: request.subnets.iter().map(subnet).collect::<Result<_, _>>()?,
        ipv6: request.ipv6,
        ip_ranges: request.ip_ranges.iter().map(|text| ip_range(text)).collect::<Result<_, _>>()?,
        attachable: request.attachable,
        internal: request.internal,
        ingress: request.ingress,
        mtu: (mtu != 0).then_some(mtu),
        labels: request.labels,
        now: unix_now(),
        aux_addresses: request
            .aux_addresses
            .into_iter()
            .map(|(name, text)| Ok((name, address("aux_address", &text)?)))
            .collect::<Result<_, Status>>()?,
    })
}

pub(super) fn service(request: v1::CreateServiceRequest, state: &State) -> Result<NewService, Status> {
    let endpoint_mode = match request.endpoint_mode() {
        v1::EndpointMode::Unspecified => EndpointMode::default(),
        given => EndpointMode::try_from(given)?,
    };
    let aliases = names(request.aliases)?;
    let mut networks = attachments(request.attachments, state)?;
    for reference in &request.networks {
        networks.push((find(state.networks(), reference)?.id, Vec::new()));
    }
    if networks.is_empty() {
        // Named here, so that the aliases hold there too.
        networks.extend(state.networks().find(|network| network.ingress).map(|n| (n.id, Vec::new())));
    }
    networks.iter_mut().for_each(|(_, own)| own.extend(aliases.iter().cloned()));
    Ok(NewService {
        id: ServiceId::random(),
        name: name(request.name)?,
        networks,
        endpoint_mode,
        ports: ports(request.ports)?,
        affinity: request.affinity.map(affinity),
        prefer_local: request.prefer_local,
        drain_timeout_secs: request.drain_timeout_secs.unwrap_or(DEFAULT_DRAIN_SECS),
        health: request.health.map(TryInto::try_into).transpose()?,
        labels: request.labels,
        now: unix_now(),
    })
}

pub(super) fn change(request: v1::UpdateServiceRequest, state: &State) -> Result<ServiceChange, Status> {
    use v1::update_service_request::{AffinityChange, HealthChange};
    let endpoint_mode = match request.endpoint_mode() {
        v1::EndpointMode::Unspecified => None,
        given => Some(EndpointMode::try_from(given)?),
    };
    let affinity = match request.affinity_change {
        None | Some(AffinityChange::NoAffinity(false)) => None,
        Some(AffinityChange::NoAffinity(true)) => Some(None),
        Some(AffinityChange::Affinity(given)) => Some(Some(affinity(given))),
    };
    let health = match request.health_change {
        None | Some(HealthChange::NoHealth(false)) => None,
        Some(HealthChange::NoHealth(true)) => Some(None),
        Some(HealthChange::Health(given)) => Some(Some(given.try_into()?)),
    };
    let left = request.remove_networks.iter().map(|reference| Ok(find(state.networks(), reference)?.id));
    Ok(ServiceChange {
        expected_version: request.expected_version,
        remove_networks: left.collect::<Result<_, Status>>()?,
        add_networks: attachments(request.add_networks, state)?,
        remove_aliases: aliases(request.remove_aliases, state, Name::known)?,
        add_aliases: aliases(request.add_aliases, state, Name::new)?,
        endpoint_mode,
        affinity,
        prefer_local: request.prefer_local,
        drain_timeout_secs: request.drain_timeout_secs,
        health,
        remove_ports: filters(&request.remove_ports)?,
        add_ports: ports(request.add_ports)?,
        set_labels: request.set_labels,
        remove_labels: request.remove_labels,
    })
}

pub(super) fn network_change(request: v1::UpdateNetworkRequest) -> NetworkChange {
    NetworkChange {
        expected_version: request.expected_version,
        attachable: request.attachable,
        set_labels: request.set_labels,
        remove_labels: request.remove_labels,
    }
}

fn attachments(
    attachments: Vec<v1::ServiceAttachment>,
    state: &State,
) -> Result<Vec<(NetworkId, Vec<Name>)>, Status> {
    let place = |on: v1::ServiceAttachment| {
        let network = find(state.networks(), &on.network)?;
        Ok((network.id, names(on.aliases)?))
    };
    attachments.into_iter().map(place).collect()
}

fn aliases(
    changes: Vec<v1::AliasChange>,
    state: &State,
    read: fn(String) -> Result<Name, NameError>,
) -> Result<Vec<AliasChange>, Status> {
    let change = |change: v1::AliasChange| {
        let network = match change.network.as_str() {
            "" => None,
            reference => Some(find(state.networks(), reference)?.id),
        };
        let alias = read(change.alias).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(AliasChange { network, alias })
    };
    changes.into_iter().map(change).collect()
}

pub(super) fn ports(ports: Vec<v1::Port>) -> Result<Vec<PortConfig>, Status> {
    // A protocol that is not said is the usual one.
    let complete = |mut port: v1::Port| {
        if port.protocol() == v1::Protocol::Unspecified {
            port.set_protocol(v1::Protocol::Tcp);
        }
        port
    };
    Ok(ports.into_iter().map(complete).map(TryInto::try_into).collect::<Result<_, _>>()?)
}

pub(super) fn filters(texts: &[String]) -> Result<Vec<PortFilter>, Status> {
    texts.iter().map(|text| text.parse().map_err(|e| invalid("ports", e))).collect()
}

fn affinity(affinity: v1::Affinity) -> Affinity {
    Affinity { timeout_secs: affinity.timeout_secs }
}

fn ip_range(text: &str) -> Result<IpNet, Status> {
    text.parse().map_err(|_| invalid("ip_range", format!("{text:?} is not a range such as 10.10.3.64/26")))
}

fn name(text: String) -> Result<Name, Status> {
    Name::new(text).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn names(texts: Vec<String>) -> Result<Vec<Name>, Status> {
    texts.into_iter().map(name).collect()
}

fn address(field: &str, text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| invalid(field, format!("{text:?} is not an IP address")))
}

fn subnet(subnet: &v1::Subnet) -> Result<(IpNet, Option<IpAddr>), Status> {
    let net = subnet.net.parse();
    let net =
        net.map_err(|_| invalid("subnet", format!("{:?} is not a subnet such as 10.10.3.0/24", subnet.net)))?;
    let gateway = match subnet.gateway.as_str() {
        "" => None,
        text => Some(address("gateway", text)?),
    };
    Ok((net, gateway))
}
