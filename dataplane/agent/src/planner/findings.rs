//! What is decided but cannot be done on this node.

use std::net::IpAddr;

use mesh_types::{Name, PortConfig, PublishAt};
use thiserror::Error;

use super::{Facts, places::interface_addresses};

/// Something that an operator should know of.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Finding {
    /// A node whose data path address is of the other family: no packet gets there.
    #[error(
        "node {node} cannot be reached: its data path address {address} and this node's, {own}, are of different \
         families; let one of the two leave, and join again with an address of the other's family as --data-path-addr"
    )]
    OtherFamily {
        /// The node.
        node: Name,
        /// Its data path address.
        address: IpAddr,
        /// This node's.
        own: IpAddr,
    },
    /// A port of a task that something else has.
    #[error("port {port} of this node does not lead to task {task}: {by} has it")]
    HostPort {
        /// The port.
        port: String,
        /// The task.
        task: Name,
        /// What has it.
        by: String,
    },
    /// A port published on an interface, one of whose addresses another service has the port of.
    #[error(
        "{port} of service {service} is not open on {address}: service {by} publishes it there by address"
    )]
    Taken {
        /// The port.
        port: String,
        /// Its service.
        service: Name,
        /// The address.
        address: IpAddr,
        /// The service that has it.
        by: Name,
    },
}

/// All there are.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let own = facts.settings().vtep;
    let others = facts.view().nodes.values().filter(|n| n.id != facts.node());
    let unreached = others.filter(|n| n.data_path_addr.is_ipv4() != own.is_ipv4());
    let mut all: Vec<_> = unreached
        .map(|n| Finding::OtherFamily { node: n.name.clone(), address: n.data_path_addr, own })
        .collect();
    for service in facts.view().services.values() {
        for port in &service.ports {
            all.extend(taken(facts, port).filter(|(by, _)| *by != service.name).map(|(by, address)| {
                Finding::Taken { port: port.place(), service: service.name.clone(), address, by }
            }));
        }
    }
    all
}

/// Addresses of the port's interface at which a service publishes the same port by address.
fn taken<'a>(facts: &'a Facts, port: &'a PortConfig) -> impl Iterator<Item = (Name, IpAddr)> + 'a {
    let interface = match port.at {
        PublishAt::Interface(interface) => Some(interface),
        PublishAt::Any | PublishAt::Address(_) => None,
    };
    let addresses = interface.into_iter().flat_map(|i| interface_addresses(facts, i));
    addresses.filter_map(|address| {
        let by = facts.publisher_at(address, port)?;
        Some((facts.view().services.get(&by)?.name.clone(), address))
    })
}
