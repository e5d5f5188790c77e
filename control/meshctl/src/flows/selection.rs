//! Which flows, as arguments.

use mesh_api::v1::FlowFilter;

use crate::name::reference;

/// Conditions that flows have to meet.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Service that it is for
    #[arg(long, value_name = "SERVICE", value_parser = reference)]
    service: Vec<String>,
    /// Network of the virtual address, or of the task
    #[arg(long, value_name = "NETWORK", value_parser = reference)]
    network: Vec<String>,
    /// Who began it: an address, a range such as 10.0.0.0/8, or a task
    #[arg(long, value_name = "ADDRESS|CIDR|TASK", value_parser = reference)]
    client: Vec<String>,
    /// Task that began or serves it
    #[arg(long, value_name = "TASK", value_parser = reference)]
    task: Vec<String>,
    /// Transport: tcp, udp, sctp, icmp or icmpv6
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp", "sctp", "icmp", "icmpv6"])]
    protocol: Vec<String>,
    /// What has been seen of it: new, answered, established, closing, closed or reset
    #[arg(long, value_name = "STATE", value_parser = ["new", "answered", "established", "closing", "closed", "reset"])]
    state: Vec<String>,
    /// Port that the client speaks to
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
}

impl From<Selection> for FlowFilter {
    fn from(selection: Selection) -> Self {
        let Selection { service, network, client, task, protocol, state, port } = selection;
        Self {
            services: service,
            networks: network,
            clients: client,
            tasks: task,
            protocols: protocol,
            states: state,
            ports: port.into_iter().map(u32::from).collect(),
        }
    }
}
