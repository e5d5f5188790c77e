//! What `attach` and `run` say about a task.

use std::net::IpAddr;

use mesh_api::v1::{AttachRequest, attach_request};
use mesh_types::Name;

use crate::name::reference;

/// Options of both.
#[derive(Debug, Clone, clap::Args)]
pub struct TaskOptions {
    /// Network to join; may be repeated [default: those of the service]
    #[arg(long, value_name = "NETWORK", value_parser = reference, required_unless_present = "service")]
    network: Vec<String>,
    /// Service that the task belongs to; without one the network has to be attachable
    #[arg(long, value_parser = reference)]
    service: Option<String>,
    /// Name of the task [default: made from the service or the task's id]
    #[arg(long)]
    name: Option<Name>,
    /// Static address on the only network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Further name of the task on its networks; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<Name>,
}

impl TaskOptions {
    /// The request for a task in `namespace`.
    pub fn request(self, namespace: attach_request::Namespace) -> AttachRequest {
        AttachRequest {
            namespace: Some(namespace),
            name: self.name.map(String::from).unwrap_or_default(),
            service: self.service.unwrap_or_default(),
            networks: self.network,
            address: self.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            aliases: self.alias.into_iter().map(String::from).collect(),
        }
    }

    /// The task as an error names it.
    pub fn what(&self) -> String {
        match (&self.name, &self.service) {
            (Some(name), _) => format!("task {name}"),
            (None, Some(service)) => format!("a task of service {service}"),
            (None, None) => "a task".to_owned(),
        }
    }
}
