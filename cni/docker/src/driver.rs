//! The network driver's calls.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use mesh_types::{Mac, PortConfig, Protocol, PublishAt, PublishMode};
use serde_json::{Map, Value, json};
use tracing::info;

use crate::{
    book::{KeptEndpoint, KeptNetwork},
    places::{self, ADDRESS_SPACE},
    plugin::{Plugin, PluginError, owner},
    protocol::{
        CreateEndpoint, CreateNetwork, EndpointOnly, INTERNAL, Interface, IpamData, Join, NetworkOnly,
        PORT_MAP, PortBinding,
    },
    sandbox::{self, LONGEST},
};

/// What our interfaces in containers are called, with a number. Docker numbers its own `eth`s without looking.
const INTERFACE: &str = "mesh";
/// What our keys among the options of an endpoint begin with: `--network name=prod,driver-opt=mesh.service=web`.
const OUR_OPTIONS: &str = "mesh.";

impl Plugin {
    pub(crate) async fn create_network(&self, request: CreateNetwork) -> Result<(), PluginError> {
        let reference = places::option(request.options.as_ref())?;
        let view = self.view_of(&reference).await?;
        let network = places::find(&view, &reference)?;
        let internal = request.options.as_ref().and_then(|options| options.get(INTERNAL)?.as_bool());
        if internal == Some(true) && !network.internal {
            return Err(PluginError::NotInternal(network.name.clone()));
        }
        let pools: Vec<&IpamData> = request.ipv4.iter().chain(&request.ipv6).flatten().collect();
        let ours: Vec<_> = pools.iter().filter(|pool| pool.address_space == ADDRESS_SPACE).collect();
        for pool in &ours {
            let net: Option<IpNet> = pool.pool.as_deref().and_then(|text| text.parse().ok());
            if !net.is_some_and(|net| network.subnets.iter().any(|subnet| subnet.net() == net.trunc())) {
                return Err(PluginError::TwoNetworks { name: network.name.clone() });
            }
        }
        let kept = KeptNetwork { network: network.id, addressed: !ours.is_empty() };
        info!(docker = request.network, network = %network.name, addressed = kept.addressed, "Docker's network");
        self.book.write(|pages| pages.networks.insert(request.network, kept))?;
        Ok(())
    }

    /// A network that nobody knows is gone: nothing is to be removed in the mesh, and Docker is to forget it.
    pub(crate) fn delete_network(&self, request: NetworkOnly) -> Result<(), PluginError> {
        Ok(self.book.write(|pages| {
            pages.networks.remove(&request.network);
        })?)
    }

    pub(crate) async fn create_endpoint(&self, request: CreateEndpoint) -> Result<Value, PluginError> {
        let place = self.place(&request.network).await?;
        let view = self.mesh.view().await?;
        places::by_id(&view, place.network)?;
        let interface = request.interface.unwrap_or_default();
        let mut addresses = Vec::new();
        if place.addressed {
            for text in [&interface.address, &interface.address6].into_iter().filter(|text| !text.is_empty())
            {
                addresses.push(address(text)?);
            }
        }
        // Docker shows it; and it may not be answered where the user chose it.
        let asked = (!interface.mac_address.is_empty()).then_some(interface.mac_address);
        let (mac, told) = match (&asked, addresses.first()) {
            (Some(text), _) => {
                let mac: Mac = text.parse().map_err(|_| PluginError::Address(text.clone()))?;
                if !mac.is_unicast() {
                    return Err(PluginError::GroupMac(mac));
                }
                (Some(mac), None)
            }
            (None, Some(first)) => (Some(Mac::of_address(*first)), Some(Mac::of_address(*first))),
            (None, None) => (None, None),
        };
        let options = request.options.unwrap_or_default();
        let kept = KeptEndpoint {
            network: request.network,
            addresses,
            mac,
            host_ports: host_ports(&options)?,
            options: our_options(&options),
            sandbox: None,
            interface: String::new(),
            settled: true,
        };
        self.book.write(|pages| pages.endpoints.insert(request.endpoint, kept))?;
        Ok(match told {
            Some(mac) => {
                json!({"Interface": Interface { mac_address: mac.to_string(), ..Interface::default() }})
            }
            None => json!({}),
        })
    }

    /// As [`Plugin::delete_network`]; what its join made goes too, if a leave was lost.
    pub(crate) async fn delete_endpoint(&self, request: EndpointOnly) -> Result<(), PluginError> {
        self.end(&request.endpoint).await?;
        Ok(self.book.write(|pages| {
            pages.endpoints.remove(&request.endpoint);
        })?)
    }

    pub(crate) fn endpoint_info(&self, request: EndpointOnly) -> Result<Value, PluginError> {
        let kept = self.endpoint(&request)?;
        let ports: Vec<_> = kept.host_ports.iter().map(ToString::to_string).collect();
        Ok(json!({"Value": {"mesh.owner": owner(&request.endpoint), "mesh.ports": ports}}))
    }

    pub(crate) async fn join(&self, request: Join) -> Result<Value, PluginError> {
        let Join { network, endpoint, sandbox_key } = request;
        let only = EndpointOnly { network, endpoint };
        let mut kept = self.endpoint(&only)?;
        let sandbox = PathBuf::from(sandbox_key);
        let wishes = self.wishes_now(&only, &kept, &sandbox).await?;
        kept = self.book.write(|pages| {
            let interface = free_interface(&pages.endpoints, &only.endpoint, &sandbox);
            let kept = KeptEndpoint { sandbox: Some(sandbox.clone()), interface, settled: false, ..kept };
            pages.endpoints.insert(only.endpoint.clone(), kept.clone());
            kept
        })?;
        match wishes {
            Some(wishes) if sandbox::is_there(&sandbox) => {
                if let Err(error) = self.attach(&only.endpoint, &kept, &wishes).await {
                    self.left(&only.endpoint)?;
                    return Err(error);
                }
                let (plugin, id) = (self.clone(), only.endpoint.clone());
                self.go_on(&only.endpoint, async move { plugin.settle(&id, &wishes).await });
            }
            wishes => {
                let (plugin, id) = (self.clone(), only.endpoint.clone());
                self.go_on(&only.endpoint, async move {
                    plugin.attach_later(id, kept, wishes, LONGEST).await;
                });
            }
        }
        // The daemon makes interface, addresses and routes, and Docker need not add its own way out.
        Ok(json!({"DisableGatewayService": true}))
    }

    pub(crate) async fn leave(&self, request: EndpointOnly) -> Result<(), PluginError> {
        self.end(&request.endpoint).await?;
        self.left(&request.endpoint)
    }

    /// Ends what a join made.
    pub(crate) async fn end(&self, endpoint: &str) -> Result<(), PluginError> {
        self.give_up(endpoint);
        Ok(self.mesh.detach(&owner(endpoint)).await?)
    }

    fn left(&self, endpoint: &str) -> Result<(), PluginError> {
        Ok(self.book.write(|pages| {
            if let Some(kept) = pages.endpoints.get_mut(endpoint) {
                kept.sandbox = None;
            }
        })?)
    }

    fn endpoint(&self, request: &EndpointOnly) -> Result<KeptEndpoint, PluginError> {
        let kept = self.book.read(|pages| pages.endpoints.get(&request.endpoint).cloned());
        let kept = kept.filter(|kept| kept.network == request.network);
        kept.ok_or_else(|| PluginError::UnknownEndpoint(request.endpoint.clone()))
    }
}

/// The first of `mesh0`, `mesh1`, ... that no other endpoint has in the sandbox.
fn free_interface(endpoints: &BTreeMap<String, KeptEndpoint>, own: &str, sandbox: &PathBuf) -> String {
    // A join that Docker repeats has one already.
    let others = endpoints.iter().filter(|(id, kept)| *id != own && kept.sandbox.as_ref() == Some(sandbox));
    let taken: Vec<_> = others.map(|(_, kept)| kept.interface.as_str()).collect();
    let names = (0..=taken.len()).map(|number| format!("{INTERFACE}{number}"));
    names.into_iter().find(|name| !taken.contains(&name.as_str())).unwrap_or_default()
}

fn address(text: &str) -> Result<IpAddr, PluginError> {
    let parsed = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse());
    parsed.map_err(|_| PluginError::Address(text.to_owned()))
}

fn our_options(options: &Map<String, Value>) -> BTreeMap<String, String> {
    let ours = options.iter().filter(|(key, _)| key.starts_with(OUR_OPTIONS));
    ours.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// `docker run -p`, as ports of this node.
fn host_ports(options: &Map<String, Value>) -> Result<Vec<PortConfig>, PluginError> {
    let Some(value) = options.get(PORT_MAP).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let bindings: Vec<PortBinding> = serde_json::from_value(value.clone())
        .map_err(|source| PluginError::Malformed { call: PORT_MAP.to_owned(), source })?;
    let mut ports: Vec<PortConfig> = Vec::new();
    for binding in bindings {
        let port = host_port(&binding)?;
        // Docker names each family's unspecified address by itself.
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    Ok(ports)
}

fn host_port(binding: &PortBinding) -> Result<PortConfig, PluginError> {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    let protocol = known.into_iter().find(|protocol| protocol.number() == binding.proto);
    let protocol = protocol.ok_or(PluginError::PortProtocol(binding.proto))?;
    let target = binding.port;
    if binding.host_port == 0 {
        return Err(PluginError::AnyPort { target, protocol });
    }
    if binding.host_port_end != 0 && binding.host_port_end != binding.host_port {
        return Err(PluginError::PortRange { target, protocol });
    }
    let at = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| PluginError::Address(text.to_owned()))?),
    };
    let port = PortConfig {
        mode: PublishMode::Host,
        at: at.filter(|at| !at.is_unspecified()).map_or(PublishAt::Any, PublishAt::Address),
        ..PortConfig::new(binding.host_port, target, protocol)
    };
    match port.own_use() {
        Some(purpose) => Err(PluginError::PortReserved { port, purpose }),
        None => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(value: Value) -> Result<Vec<String>, String> {
        let options = [(PORT_MAP.to_owned(), value)].into_iter().collect();
        let ports = host_ports(&options).map_err(|e| e.to_string())?;
        Ok(ports.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ports_of_the_host() {
        let binding = |proto: u8, ip: &str, host: u16, end: u16| json!({"Proto": proto, "IP": "", "Port": 80, "HostIP": ip, "HostPort": host, "HostPortEnd": end});
        assert_eq!(
            ports(json!([binding(6, "127.0.0.1", 8080, 8080), binding(6, "::1", 8080, 8080)])),
            Ok(vec!["127.0.0.1:8080:80/tcp,mode=host".to_owned(), "[::1]:8080:80/tcp,mode=host".to_owned()])
        );
        assert_eq!(
            ports(json!([
                binding(6, "0.0.0.0", 8080, 8080),
                binding(6, "::", 8080, 8080),
                binding(17, "", 53, 0)
            ])),
            Ok(vec!["8080:80/tcp,mode=host".to_owned(), "53:80/udp,mode=host".to_owned()])
        );
        assert_eq!(
            ports(json!([binding(6, "192.0.2.1", 8080, 8080)])),
            Ok(vec!["192.0.2.1:8080:80/tcp,mode=host".to_owned()])
        );
        assert_eq!(ports(Value::Null), Ok(vec![]));
        assert!(ports(json!([binding(6, "", 0, 0)])).unwrap_err().contains("-p PORT:80"));
        assert!(ports(json!([binding(6, "", 80, 90)])).unwrap_err().contains("not a range"));
        assert!(ports(json!([binding(1, "", 80, 80)])).unwrap_err().contains("protocol 1"));
        assert!(ports(json!("x")).unwrap_err().contains(PORT_MAP));
        assert!(ports(json!([binding(6, "", 2377, 2377)])).unwrap_err().contains("2377/tcp"));
        assert!(ports(json!([binding(17, "127.0.0.1", 4789, 4789)])).unwrap_err().contains("VXLAN"));
        assert!(ports(json!([binding(17, "", 2377, 2377)])).is_ok());
    }
}
