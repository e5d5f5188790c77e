//! Conversions between wire messages and types.

use std::{fmt::Display, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use mesh_types::{
    Affinity, Availability, ClusterView, Endpoint, EndpointMode, EndpointState, Family, Generation, Health,
    HealthCheck, HealthNote, HealthSettings, InterfaceName, Listener, ListenerProcess, LocalEndpointId,
    MAX_WEIGHT, Mac, Name, Network, Node, NodeId, PortConfig, Protocol, PublishAt, PublishMode,
    ResolverError, ReturnMode, Role, Service, ServiceNetwork, Subnet, TaskDns, ViewChange, Vni,
};
use thiserror::Error;

use crate::v1;

/// A field of a message that holds no valid value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Invalid {
    fn new(field: &'static str, reason: impl Display) -> Self {
        Self { field, reason: reason.to_string() }
    }
}

impl From<Invalid> for tonic::Status {
    fn from(invalid: Invalid) -> Self {
        tonic::Status::invalid_argument(invalid.to_string())
    }
}

/// Reads an id from a message's field.
pub fn parse_id<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|e| Invalid::new(field, format!("{text:?}: {e}")))
}

fn address(field: &'static str, text: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::new(field, format!("{text:?} is not an IP address")))
}

fn addresses(field: &'static str, texts: &[String]) -> Result<Vec<IpAddr>, Invalid> {
    texts.iter().map(|t| address(field, t)).collect()
}

fn names(field: &'static str, texts: Vec<String>) -> Result<Vec<Name>, Invalid> {
    texts.into_iter().map(|t| name(field, t)).collect()
}

fn name(field: &'static str, text: String) -> Result<Name, Invalid> {
    Name::known(text).map_err(|e| Invalid::new(field, e))
}

fn range(text: &str) -> Result<IpNet, Invalid> {
    text.parse().map_err(|_| {
        Invalid::new("network.ip_ranges", format!("{text:?} is not a range such as 10.10.3.64/26"))
    })
}

fn port_number(field: &'static str, value: u32) -> Result<u16, Invalid> {
    u16::try_from(value)
        .map_err(|_| Invalid::new(field, format!("{value} is not a port number of 1 to 65535")))
}

/// Reads an endpoint's weight from a message's field.
pub fn weight(field: &'static str, value: u32) -> Result<u16, Invalid> {
    let weight = u16::try_from(value).ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
    weight.ok_or_else(|| Invalid::new(field, format!("{value} is not a weight of 1 to {MAX_WEIGHT}")))
}

impl From<&TaskDns> for v1::TaskDns {
    fn from(dns: &TaskDns) -> Self {
        Self {
            servers: dns.servers.iter().map(ToString::to_string).collect(),
            search: dns.search.iter().map(ToString::to_string).collect(),
            options: dns.options.iter().map(ToString::to_string).collect(),
            hostname: dns.hostname.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::TaskDns> for TaskDns {
    type Error = ResolverError;
    fn try_from(dns: v1::TaskDns) -> Result<Self, ResolverError> {
        let hostname = (!dns.hostname.is_empty()).then(|| dns.hostname.try_into()).transpose()?;
        let dns = Self {
            servers: dns.servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?,
            search: dns.search.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            options: dns.options.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            hostname,
        };
        dns.check()?;
        Ok(dns)
    }
}

macro_rules! enums {
    ($($wire:ident <=> $ty:ident, $field:literal { $($variant:ident),* })*) => {$(
        impl From<$ty> for v1::$wire {
            fn from(value: $ty) -> Self {
                match value { $($ty::$variant => Self::$variant,)* }
            }
        }

        impl TryFrom<v1::$wire> for $ty {
            type Error = Invalid;
            fn try_from(value: v1::$wire) -> Result<Self, Invalid> {
                match value {
                    v1::$wire::Unspecified => Err(Invalid::new($field, "not given")),
                    $(v1::$wire::$variant => Ok(Self::$variant),)*
                }
            }
        }
    )*};
}

enums! {
    Role <=> Role, "role" { Worker, Manager }
    Availability <=> Availability, "availability" { Active, Pause, Drain }
    Protocol <=> Protocol, "protocol" { Tcp, Udp, Sctp }
    PublishMode <=> PublishMode, "port.mode" { Ingress, Host }
    ReturnMode <=> ReturnMode, "port.return_mode" { Tunnel, Direct }
    IpFamily <=> Family, "family" { V4, V6 }
    EndpointMode <=> EndpointMode, "endpoint_mode" { Vip, Dnsrr }
    EndpointState <=> EndpointState, "state" { Ready, Draining, Drained }
    Health <=> Health, "health" { None, Starting, Healthy, Unhealthy }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            name: node.name.to_string(),
            role: v1::Role::from(node.role).into(),
            advertise_addr: node.advertise_addr.to_string(),
            data_path_addr: node.data_path_addr.to_string(),
            availability: v1::Availability::from(node.availability).into(),
            labels: node.labels.clone(),
            joined_at: node.joined_at,
            version: node.version,
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = Invalid;
    fn try_from(node: v1::Node) -> Result<Self, Invalid> {
        Ok(Self {
            id: parse_id("node.id", &node.id)?,
            role: node.role().try_into()?,
            advertise_addr: address("node.advertise_addr", &node.advertise_addr)?,
            data_path_addr: address("node.data_path_addr", &node.data_path_addr)?,
            availability: node.availability().try_into()?,
            name: name("node.name", node.name)?,
            labels: node.labels,
            joined_at: node.joined_at,
            version: node.version,
        })
    }
}

impl From<&Subnet> for v1::Subnet {
    fn from(subnet: &Subnet) -> Self {
        Self { net: subnet.net().to_string(), gateway: subnet.gateway().to_string() }
    }
}

impl TryFrom<v1::Subnet> for Subnet {
    type Error = Invalid;
    fn try_from(subnet: v1::Subnet) -> Result<Self, Invalid> {
        let net = subnet.net.parse().map_err(|_| {
            Invalid::new("subnet", format!("{:?} is not a subnet such as 10.10.3.0/24", subnet.net))
        })?;
        let gateway = match subnet.gateway.as_str() {
            "" => None,
            text => Some(address("gateway", text)?),
        };
        Subnet::new(net, gateway).map_err(|e| Invalid::new("subnet", e))
    }
}

impl From<&Network> for v1::Network {
    fn from(network: &Network) -> Self {
        Self {
            id: network.id.to_string(),
            name: network.name.to_string(),
            vni: network.vni.get(),
            subnets: network.subnets.iter().map(Into::into).collect(),
            attachable: network.attachable,
            internal: network.internal,
            ingress: network.ingress,
            mtu: network.mtu.unwrap_or_default().into(),
            labels: network.labels.clone(),
            created_at: network.created_at,
            ip_ranges: network.ip_ranges.iter().map(ToString::to_string).collect(),
            aux_addresses: network.aux_addresses.iter().map(|(k, a)| (k.clone(), a.to_string())).collect(),
            version: network.version,
        }
    }
}

impl TryFrom<v1::Network> for Network {
    type Error = Invalid;
    fn try_from(network: v1::Network) -> Result<Self, Invalid> {
        let mtu = u16::try_from(network.mtu).map_err(|e| Invalid::new("network.mtu", e))?;
        Ok(Self {
            id: parse_id("network.id", &network.id)?,
            name: name("network.name", network.name)?,
            vni: Vni::new(network.vni).map_err(|e| Invalid::new("network.vni", e))?,
            subnets: network.subnets.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            attachable: network.attachable,
            internal: network.internal,
            ingress: network.ingress,
            mtu: (mtu != 0).then_some(mtu),
            labels: network.labels,
            created_at: network.created_at,
            ip_ranges: network.ip_ranges.iter().map(|text| range(text)).collect::<Result<_, _>>()?,
            aux_addresses: network
                .aux_addresses
                .into_iter()
                .map(|(name, text)| Ok((name, address("network.aux_addresses", &text)?)))
                .collect::<Result<_, Invalid>>()?,
            version: network.version,
        })
    }
}

impl From<PortConfig> for v1::Port {
    fn from(port: PortConfig) -> Self {
        Self {
            published: port.published.into(),
            target: port.target.into(),
            protocol: v1::Protocol::from(port.protocol).into(),
            mode: v1::PublishMode::from(port.mode).into(),
            at: match port.at {
                PublishAt::Any => None,
                PublishAt::Address(address) => Some(v1::port::At::Address(address.to_string())),
                PublishAt::Interface(name) => Some(v1::port::At::Interface(name.to_string())),
            },
            return_mode: v1::ReturnMode::from(port.return_mode).into(),
        }
    }
}

impl TryFrom<v1::Port> for PortConfig {
    type Error = Invalid;
    fn try_from(port: v1::Port) -> Result<Self, Invalid> {
        let target = port_number("port.target", port.target)?;
        if target == 0 {
            return Err(Invalid::new("port.target", "0 is not a port number of 1 to 65535"));
        }
        Ok(Self {
            published: port_number("port.published", port.published)?,
            target,
            protocol: port.protocol().try_into()?,
            mode: match port.mode() {
                v1::PublishMode::Unspecified => PublishMode::default(),
                given => given.try_into()?,
            },
            return_mode: match port.return_mode() {
                v1::ReturnMode::Unspecified => ReturnMode::default(),
                given => given.try_into()?,
            },
            at: match &port.at {
                None => PublishAt::Any,
                Some(v1::port::At::Address(text)) => PublishAt::address(address("port.address", text)?)
                    .map_err(|e| Invalid::new("port.address", e))?,
                Some(v1::port::At::Interface(text)) => PublishAt::Interface(
                    InterfaceName::new(text).map_err(|e| Invalid::new("port.interface", e))?,
                ),
            },
        })
    }
}

impl From<&Listener> for v1::Listener {
    fn from(listener: &Listener) -> Self {
        let process = listener.process.as_ref();
        Self {
            port: listener.port.into(),
            protocol: v1::Protocol::from(listener.protocol).into(),
            address: listener.address.to_string(),
            process: process.map(|p| p.name.clone()).unwrap_or_default(),
            pid: process.map(|p| p.pid).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Listener> for Listener {
    type Error = Invalid;
    fn try_from(listener: v1::Listener) -> Result<Self, Invalid> {
        let process = ListenerProcess { pid: listener.pid, name: listener.process.clone() };
        Ok(Self {
            port: port_number("listener.port", listener.port)?,
            protocol: listener.protocol().try_into()?,
            address: address("listener.address", &listener.address)?,
            process: (listener.pid != 0).then_some(process),
        })
    }
}

/// The listeners of one node as a message.
pub fn node_listeners(node: NodeId, listeners: &[Listener]) -> v1::NodeListeners {
    v1::NodeListeners { node_id: node.to_string(), listeners: listeners.iter().map(Into::into).collect() }
}

impl From<HealthSettings> for v1::HealthCheck {
    fn from(settings: HealthSettings) -> Self {
        Self {
            probe: settings.probe.map(|probe| probe.to_string()).unwrap_or_default(),
            interval_secs: settings.interval_secs,
            timeout_secs: settings.timeout_secs,
            retries: settings.retries,
            start_period_secs: settings.start_period_secs,
        }
    }
}

impl TryFrom<v1::HealthCheck> for HealthSettings {
    type Error = Invalid;
    fn try_from(check: v1::HealthCheck) -> Result<Self, Invalid> {
        let probe = match check.probe.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| Invalid::new("health.probe", e))?),
        };
        Ok(Self {
            probe,
            interval_secs: check.interval_secs,
            timeout_secs: check.timeout_secs,
            retries: check.retries,
            start_period_secs: check.start_period_secs,
        })
    }
}

impl From<HealthCheck> for v1::HealthCheck {
    fn from(check: HealthCheck) -> Self {
        HealthSettings::from(check).into()
    }
}

impl TryFrom<v1::HealthCheck> for HealthCheck {
    type Error = Invalid;
    fn try_from(check: v1::HealthCheck) -> Result<Self, Invalid> {
        HealthSettings::try_from(check)?.over(None).map_err(|e| Invalid::new("health", e))
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        let networks = service.networks.iter().map(|n| v1::ServiceNetwork {
            network_id: n.network.to_string(),
            vips: n.vips.iter().map(ToString::to_string).collect(),
            aliases: n.aliases.iter().map(ToString::to_string).collect(),
        });
        Self {
            id: service.id.to_string(),
            name: service.name.to_string(),
            networks: networks.collect(),
            endpoint_mode: v1::EndpointMode::from(service.endpoint_mode).into(),
            ports: service.ports.iter().map(|&p| p.into()).collect(),
            labels: service.labels.clone(),
            created_at: service.created_at,
            affinity: service.affinity.map(|a| v1::Affinity { timeout_secs: a.timeout_secs }),
            prefer_local: service.prefer_local,
            drain_timeout_secs: service.drain_timeout_secs,
            health: service.health.clone().map(Into::into),
            version: service.version,
        }
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = Invalid;
    fn try_from(service: v1::Service) -> Result<Self, Invalid> {
        let endpoint_mode = service.endpoint_mode().try_into()?;
        let network = |n: v1::ServiceNetwork| {
            Ok(ServiceNetwork {
                network: parse_id("service.network_id", &n.network_id)?,
                vips: addresses("service.vips", &n.vips)?,
                aliases: names("service.aliases", n.aliases)?,
            })
        };
        Ok(Self {
            id: parse_id("service.id", &service.id)?,
            name: name("service.name", service.name)?,
            networks: service.networks.into_iter().map(network).collect::<Result<_, Invalid>>()?,
            endpoint_mode,
            ports: service.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            affinity: service.affinity.map(|a| Affinity { timeout_secs: a.timeout_secs }),
            prefer_local: service.prefer_local,
            drain_timeout_secs: service.drain_timeout_secs,
            health: service.health.map(TryInto::try_into).transpose()?,
            labels: service.labels,
            created_at: service.created_at,
            version: service.version,
        })
    }
}

impl From<&ClusterView> for v1::ClusterView {
    fn from(view: &ClusterView) -> Self {
        Self {
            cluster_id: view.cluster.to_string(),
            version: view.version,
            nodes: view.nodes.values().map(Into::into).collect(),
            networks: view.networks.values().map(Into::into).collect(),
            services: view.services.values().map(Into::into).collect(),
            gossip_keys: view.gossip_keys.iter().map(|k| k.to_vec()).collect(),
            ca_generation: view.ca_generation,
        }
    }
}

impl TryFrom<v1::ClusterView> for ClusterView {
    type Error = Invalid;
    fn try_from(view: v1::ClusterView) -> Result<Self, Invalid> {
        let key = |k: Vec<u8>| k.try_into().map_err(|_| Invalid::new("gossip_keys", "a key has 32 bytes"));
        let nodes = view.nodes.into_iter().map(Node::try_from);
        let networks = view.networks.into_iter().map(Network::try_from);
        let services = view.services.into_iter().map(Service::try_from);
        Ok(Self {
            cluster: parse_id("cluster_id", &view.cluster_id)?,
            version: view.version,
            nodes: nodes.map(|n| n.map(|n| (n.id, n))).collect::<Result<_, _>>()?,
            networks: networks.map(|n| n.map(|n| (n.id, n))).collect::<Result<_, _>>()?,
            services: services.map(|s| s.map(|s| (s.id, s))).collect::<Result<_, _>>()?,
            gossip_keys: view.gossip_keys.into_iter().map(key).collect::<Result<_, _>>()?,
            ca_generation: view.ca_generation,
        })
    }
}

impl From<&ViewChange> for v1::ViewChange {
    fn from(change: &ViewChange) -> Self {
        Self {
            from_version: change.from,
            now: Some((&change.now).into()),
            removed_nodes: change.removed_nodes.iter().map(ToString::to_string).collect(),
            removed_networks: change.removed_networks.iter().map(ToString::to_string).collect(),
            removed_services: change.removed_services.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::ViewChange> for ViewChange {
    type Error = Invalid;
    fn try_from(change: v1::ViewChange) -> Result<Self, Invalid> {
        fn ids<T: FromStr<Err: Display>>(field: &'static str, texts: &[String]) -> Result<Vec<T>, Invalid> {
            texts.iter().map(|text| parse_id(field, text)).collect()
        }
        Ok(Self {
            from: change.from_version,
            now: change.now.ok_or_else(|| Invalid::new("change.now", "not given"))?.try_into()?,
            removed_nodes: ids("change.removed_nodes", &change.removed_nodes)?,
            removed_networks: ids("change.removed_networks", &change.removed_networks)?,
            removed_services: ids("change.removed_services", &change.removed_services)?,
        })
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            network_id: endpoint.network.to_string(),
            node_id: endpoint.node.to_string(),
            task_id: endpoint.task.to_string(),
            name: endpoint.name.to_string(),
            service_id: endpoint.service.map(|s| s.to_string()).unwrap_or_default(),
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
            mac: endpoint.mac.to_string(),
            local_id: endpoint.local_id.0,
            generation: endpoint.generation.0.into(),
            aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
            state: v1::EndpointState::from(endpoint.state).into(),
            weight: endpoint.weight.into(),
            health: v1::Health::from(endpoint.health).into(),
            health_note: endpoint.health_note.as_ref().map(|n| n.as_str().to_owned()).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = Invalid;
    fn try_from(endpoint: v1::Endpoint) -> Result<Self, Invalid> {
        let state = endpoint.state().try_into()?;
        let health = endpoint.health().try_into()?;
        let health_note = match endpoint.health_note {
            note if note.is_empty() => None,
            note => Some(HealthNote::try_from(note).map_err(|e| Invalid::new("health_note", e))?),
        };
        let generation = u16::try_from(endpoint.generation).map_err(|e| Invalid::new("generation", e))?;
        let service = match endpoint.service_id.as_str() {
            "" => None,
            text => Some(parse_id("service_id", text)?),
        };
        Ok(Self {
            network: parse_id("network_id", &endpoint.network_id)?,
            node: parse_id("node_id", &endpoint.node_id)?,
            task: parse_id("task_id", &endpoint.task_id)?,
            name: name("name", endpoint.name)?,
            service,
            addresses: addresses("addresses", &endpoint.addresses)?,
            mac: endpoint.mac.parse::<Mac>().map_err(|e| Invalid::new("mac", e))?,
            local_id: LocalEndpointId(endpoint.local_id),
            generation: Generation(generation),
            aliases: names("aliases", endpoint.aliases)?,
            state,
            weight: weight("weight", endpoint.weight)?,
            health,
            health_note,
        })
    }
}

#[cfg(test)]
mod tests;
