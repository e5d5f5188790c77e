//! What is asked of meshd for one container: of the configuration, the runtime's additions and `CNI_ARGS`.

use std::path::Path;

use mesh_api::v1::{AttachRequest, TaskDns, attach_request::Namespace};
use mesh_types::{InterfaceName, Name, Owner, PortConfig};

use crate::{arguments::Arguments, config::Config, error::CniError};

/// One container's wishes.
#[derive(Debug)]
pub struct Wishes {
    /// The request for its task.
    pub request: AttachRequest,
    /// Ports of its service, to be open on every node.
    pub publish: Vec<PortConfig>,
}

impl Wishes {
    /// Puts them together; what is said about the container alone comes before what the network's file says.
    pub fn new(
        config: &Config,
        args: Arguments,
        namespace: &Path,
        interface: InterfaceName,
        owner: Owner,
    ) -> Result<Self, CniError> {
        let service = args.service.or_else(|| config.service.clone());
        let publish = [config.publish.clone(), args.publish].concat();
        if let (Some(port), None) = (publish.first(), &service) {
            return Err(CniError::config(format!(
                "port {port} is to be published on every node, but of no service: name one with \"service\" or \
                 MESH_SERVICE, or use the capability portMappings for a port of this node alone"
            )));
        }
        // What the runtime gives has taken the place of the file's in `config` already.
        let addresses = if config.addresses.is_empty() { args.addresses } else { config.addresses.clone() };
        if let Some(error) = config.aliases.iter().find_map(|alias| Name::new(alias.as_str()).err()) {
            return Err(CniError::config(format!("\"aliases\": {error}")));
        }
        let aliases = config.aliases.iter().cloned().chain(args.aliases);
        let mac = config.mac.or(args.mac);
        let request = AttachRequest {
            namespace: Some(Namespace::Path(namespace.to_string_lossy().into_owned())),
            name: args.name.map(String::from).unwrap_or_default(),
            service: service.unwrap_or_default(),
            networks: vec![args.network.unwrap_or_else(|| config.network.clone())],
            addresses: addresses.iter().map(ToString::to_string).collect(),
            aliases: aliases.map(String::from).collect(),
            weight: args.weight.or(config.weight).map_or(0, u32::from),
            drain_timeout_secs: None,
            dns: Some(TaskDns {
                servers: config.dns.servers.iter().map(ToString::to_string).collect(),
                search: config.dns.search.iter().map(ToString::to_string).collect(),
                options: config.dns.options.iter().map(ToString::to_string).collect(),
                hostname: String::new(),
            }),
            owner: owner.into(),
            interface: interface.to_string(),
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            host_ports: config.port_mappings.iter().map(|port| (*port).into()).collect(),
        };
        Ok(Self { request, publish })
    }
}
