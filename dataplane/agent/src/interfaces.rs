//! What a task's interfaces are like, for who has to tell its runtime.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_types::{ClusterView, Mac, Name, NetworkId, Owner};

use crate::{Agent, Attachment, LocalTask, attach::way_out, planner::Family, uplinks::task_mtu};

/// One interface of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInterface {
    /// Its network.
    pub network: NetworkId,
    /// The network's name.
    pub network_name: Name,
    /// Its name in the task.
    pub name: String,
    /// Name of its other end, on the node.
    pub host_name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses with the prefix lengths of their subnets, IPv4 first.
    pub addresses: Vec<IpNet>,
    /// The gateways of those subnets.
    pub gateways: Vec<IpAddr>,
    /// Those of them by which default routes of the task lead, where it had none of somebody else's.
    pub default_routes: Vec<IpAddr>,
    /// Its MTU in bytes, as the data path has it now.
    pub mtu: u32,
    /// Who joined the task to the network.
    pub owner: Option<Owner>,
}

impl Agent {
    /// The task's interfaces, in the order in which they were made.
    pub async fn interfaces(&self, task: &LocalTask) -> Vec<TaskInterface> {
        interfaces(&self.view(), task, self.inner_mtu().await)
    }
}

fn interfaces(view: &ClusterView, task: &LocalTask, inner_mtu: u32) -> Vec<TaskInterface> {
    let on = |a: &Attachment| view.networks.get(&a.network);
    let places: Vec<_> = task.attachments.iter().filter_map(|a| Some((a, on(a)?))).collect();
    let networks: Vec<_> = places.iter().map(|(_, network)| *network).collect();
    let ways_out = Family::ALL.map(|family| way_out(&networks, family));
    let made = places.iter().enumerate().map(|(at, (attachment, network))| {
        let subnets = attachment.addresses.iter().filter_map(|a| Some((*a, network.subnet_of(*a)?)));
        let leads =
            |family: Family| Family::ALL.iter().zip(ways_out).any(|(f, way)| *f == family && way == Some(at));
        let gateways: Vec<IpAddr> = subnets.clone().map(|(_, subnet)| subnet.gateway()).collect();
        TaskInterface {
            network: network.id,
            network_name: network.name.clone(),
            name: attachment.task_link.clone(),
            host_name: attachment.link.clone(),
            mac: attachment.mac,
            addresses: subnets.filter_map(|(a, s)| IpNet::new(a, s.net().prefix_len()).ok()).collect(),
            default_routes: gateways.iter().copied().filter(|g| leads(Family::of(*g))).collect(),
            gateways,
            mtu: task_mtu(inner_mtu, network),
            owner: attachment.owner.clone(),
        }
    });
    made.collect()
}
