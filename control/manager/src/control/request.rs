//! Requests as commands have them. What cannot be told without the state is the state machine's to refuse.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::v1;
use mesh_store::{NewNetwork, NewService, State};
use mesh_types::{EndpointMode, Name, NetworkId, PortConfig, Protocol, ServiceId};
use tonic::Status;

use crate::{shared::unix_now, status::invalid};

pub(super) fn network(request: v1::CreateNetworkRequest) -> Result<NewNetwork, Status> {
    let mtu =
        u16::try_from(request.mtu).map_err(|_| invalid("mtu", format!("{} is too large", request.mtu)))?;
    Ok(NewNetwork {
        id: NetworkId::random(),
        name: name(request.name)?,
        subnets: request.subnets.iter().map(subnet).collect::<Result<_, _>>()?,
        ip_range: None,
        attachable: request.attachable,
        internal: request.internal,
        ingress: false,
        mtu: (mtu != 0).then_some(mtu),
        labels: request.labels,
        now: unix_now(),
    })
}

pub(super) fn service(request: v1::CreateServiceRequest, state: &State) -> Result<NewService, Status> {
    let endpoint_mode = match request.endpoint_mode() {
        v1::EndpointMode::Unspecified => EndpointMode::default(),
        given => EndpointMode::try_from(given)?,
    };
    let aliases = request.aliases.into_iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let mut networks = super::networks(state, &request.networks)?;
    if networks.is_empty() {
        // Named here, so that the aliases hold there too.
        networks.extend(state.networks().find(|network| network.ingress).map(|network| network.id));
    }
    Ok(NewService {
        id: ServiceId::random(),
        name: name(request.name)?,
        networks: networks.into_iter().map(|network| (network, aliases.clone())).collect(),
        endpoint_mode,
        ports: request.ports.into_iter().map(|p| port(Some(p))).collect::<Result<_, _>>()?,
        labels: request.labels,
        now: unix_now(),
    })
}

pub(super) fn port(port: Option<v1::Port>) -> Result<PortConfig, Status> {
    Ok(port
        .ok_or_else(|| invalid("port", "not given; write PUBLISHED:TARGET, for example 8080:80"))?
        .try_into()?)
}

pub(super) fn published(request: &v1::UnpublishRequest) -> Result<(u16, Protocol), Status> {
    let number = u16::try_from(request.published).ok().filter(|number| *number != 0);
    let number = number.ok_or_else(|| {
        invalid("published", format!("{} is not a port number of 1 to 65535", request.published))
    })?;
    let protocol = match request.protocol() {
        v1::Protocol::Unspecified => Protocol::default(),
        given => given.try_into()?,
    };
    Ok((number, protocol))
}

fn name(text: String) -> Result<Name, Status> {
    Name::new(text).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn subnet(subnet: &v1::Subnet) -> Result<(IpNet, Option<IpAddr>), Status> {
    let net = subnet.net.parse();
    let net =
        net.map_err(|_| invalid("subnet", format!("{:?} is not a subnet such as 10.10.3.0/24", subnet.net)))?;
    let gateway = match subnet.gateway.as_str() {
        "" => None,
        text => {
            let address = text.parse();
            Some(address.map_err(|_| invalid("gateway", format!("{text:?} is not an IP address")))?)
        }
    };
    Ok((net, gateway))
}
