//! What `attach` and `run` say about a task.

use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_api::v1::{AttachRequest, attach_request};
use mesh_types::{
    Hostname, Name, Nameserver, PortConfig, PublishMode, ResolverOption, ReturnMode, SearchDomain, TaskDns,
};

use crate::{failure::Failure, name::reference};

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
    /// Static IPv4 address on the only network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Static IPv6 address on the only network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Further name of the task on its networks; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<Name>,
    /// Share of the service's new connections, in relation to those of its other tasks: 1 to 100
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    weight: u16,
    /// How long the task may keep its connections when it drains, for example 90s [default: the service's]
    #[arg(long, value_name = "TIME", value_parser = mesh_types::parse_seconds)]
    drain_timeout: Option<u32>,
    /// Name server for names that are not the cluster's, asked from within the task; up to three [default: the node's]
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<Nameserver>,
    /// Domain that names are looked for in; may be repeated, `.` for none [default: the node's]
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<SearchDomain>,
    /// Option for the resolver, for example ndots:1; may be repeated [default: the node's, and ndots:0]
    #[arg(long, value_name = "OPTION", alias = "dns-opt")]
    dns_option: Vec<ResolverOption>,
    /// Port of this node alone that leads to this task alone, for example 8080:80 or 10.0.0.5:53:53/udp; may be repeated
    #[arg(long, value_name = "[ADDRESS:]PORT:TARGET[/PROTOCOL]", value_parser = host_port)]
    host_port: Vec<PortConfig>,
    /// Host name, by which the task is found on its networks too
    #[arg(long, value_name = "NAME")]
    hostname: Option<Hostname>,
}

/// A port in mode host, which nothing else can be said of.
fn host_port(text: &str) -> Result<PortConfig, String> {
    let port: PortConfig = text.parse().map_err(|error: mesh_types::PortError| error.to_string())?;
    match port.return_mode {
        ReturnMode::Tunnel => Ok(PortConfig { mode: PublishMode::Host, ..port }),
        ReturnMode::Direct => Err("a port of this node alone has no way of return to choose".to_owned()),
    }
}

impl TaskOptions {
    /// The request for a task in `namespace`.
    pub fn request(self, namespace: attach_request::Namespace) -> AttachRequest {
        let dns = (&self.dns()).into();
        let v4 = self.ip.map(|ip| ip.to_string());
        let addresses = v4.into_iter().chain(self.ip6.map(|ip| ip.to_string())).collect();
        AttachRequest {
            namespace: Some(namespace),
            name: self.name.map(String::from).unwrap_or_default(),
            service: self.service.unwrap_or_default(),
            networks: self.network,
            addresses,
            aliases: self.alias.into_iter().map(String::from).collect(),
            weight: self.weight.into(),
            drain_timeout_secs: self.drain_timeout,
            dns: Some(dns),
            host_ports: self.host_port.into_iter().map(Into::into).collect(),
            ..AttachRequest::default()
        }
    }

    /// What cannot be seen of one option alone: refused before anything is done.
    pub fn check(&self) -> Result<(), Failure> {
        self.dns().check().map_err(|error| Failure::Usage(error.to_string()))
    }

    fn dns(&self) -> TaskDns {
        TaskDns {
            servers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
            hostname: self.hostname.clone(),
        }
    }

    /// The task's host name.
    pub fn hostname(&self) -> Option<&Hostname> {
        self.hostname.as_ref()
    }

    /// Whether the task belongs to a service.
    pub fn has_service(&self) -> bool {
        self.service.is_some()
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
