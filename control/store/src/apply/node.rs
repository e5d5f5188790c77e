//! Members.

use std::{net::IpAddr, sync::Arc};

use mesh_types::{Name, Node, NodeId, Role};

use super::{Change, Outcome, expect_version, same_name};
use crate::{
    Kind, NodeChange, Rejection, Response,
    state::{AddressUse, Cluster},
};

/// The most managers of a cluster: each change waits for a majority of them.
pub const MAX_MANAGERS: usize = 7;

impl Cluster {
    pub(super) fn add_node(&mut self, mut node: Node, version: u64) -> Outcome {
        if self.nodes.contains_key(&node.id) {
            return Err(Rejection::IdTaken { kind: Kind::Node, id: node.id.to_string() });
        }
        self.free_node_name(node.id, &node.name)?;
        if node.role == Role::Manager {
            self.room_for_a_manager()?;
        }
        node.version = version;
        self.nodes.insert(node.id, Arc::new(node.clone()));
        Ok((Response::Node(node), Change::View))
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Outcome {
        let node = self.known_node(id)?;
        self.keep_a_manager(node)?;
        if node.role == Role::Manager {
            self.former_managers.insert(id);
        }
        self.nodes.remove(&id);
        self.forget_certificate(id);
        self.gossip_keys_leaked(id);
        self.release_everywhere(&[AddressUse::Lease(id), AddressUse::Task(id)]);
        self.renewals.remove(&id);
        Ok((Response::Done, Change::View))
    }

    pub(super) fn update_node(&mut self, id: NodeId, change: NodeChange, version: u64) -> Outcome {
        let node = self.known_node(id)?;
        expect_version(Kind::Node, &node.name, node.version, change.expected_version)?;
        if let Some(name) = &change.name {
            self.free_node_name(id, name)?;
        }
        match change.role {
            Some(Role::Worker) => self.keep_a_manager(node)?,
            Some(Role::Manager) if node.role != Role::Manager => self.room_for_a_manager()?,
            _ => {}
        }
        if let Some(address) = change.data_path_addr.filter(|address| *address != node.data_path_addr) {
            self.free_data_path_addr(address)?;
        }
        if let Some(address) = change.advertise_addr.filter(|address| *address != node.advertise_addr) {
            self.free_advertise_addr(address)?;
        }
        let mut node = node.clone();
        node.name = change.name.unwrap_or(node.name);
        node.role = change.role.unwrap_or(node.role);
        node.advertise_addr = change.advertise_addr.unwrap_or(node.advertise_addr);
        node.data_path_addr = change.data_path_addr.unwrap_or(node.data_path_addr);
        node.availability = change.availability.unwrap_or(node.availability);
        node.labels.retain(|key, _| !change.remove_labels.contains(key));
        node.labels.extend(change.set_labels);
        if *self.known_node(id)? == node {
            return Ok((Response::Node(node), Change::Nothing));
        }
        node.version = version;
        let before = self.nodes.insert(id, Arc::new(node.clone()));
        if node.role == Role::Manager {
            self.former_managers.remove(&id);
        } else if before.as_ref().is_some_and(|before| before.role == Role::Manager) {
            self.former_managers.insert(id);
        }
        Ok((Response::Node(node), Change::View))
    }

    fn free_node_name(&self, id: NodeId, name: &Name) -> Result<(), Rejection> {
        match self.nodes.values().find(|other| other.id != id && same_name(&other.name, name)) {
            Some(other) => Err(Rejection::NodeNameTaken { name: other.name.clone(), holder: other.id }),
            None => Ok(()),
        }
    }

    /// Refuses an address that no packet can come from, and that of another node: its tasks' packets would go astray.
    fn free_data_path_addr(&self, address: IpAddr) -> Result<(), Rejection> {
        if address.is_unspecified() || address.is_multicast() {
            return Err(Rejection::DataPathAddress(address));
        }
        match self.nodes.values().find(|other| other.data_path_addr == address) {
            Some(other) => Err(Rejection::DataPathAddressTaken { address, node: other.name.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses an address that nobody can be reached at, and that of another node: it may still be there. Two nodes that
    /// have swapped their addresses are refused both.
    fn free_advertise_addr(&self, address: IpAddr) -> Result<(), Rejection> {
        if address.is_unspecified() || address.is_multicast() {
            return Err(Rejection::AdvertiseAddress(address));
        }
        match self.nodes.values().find(|other| other.advertise_addr == address) {
            Some(other) => Err(Rejection::AdvertiseAddressTaken { address, node: other.name.clone() }),
            None => Ok(()),
        }
    }

    fn room_for_a_manager(&self) -> Result<(), Rejection> {
        match self.nodes.values().filter(|node| node.role == Role::Manager).count() < MAX_MANAGERS {
            true => Ok(()),
            false => Err(Rejection::TooManyManagers),
        }
    }

    /// Refuses when `leaving` is the only manager.
    fn keep_a_manager(&self, leaving: &Node) -> Result<(), Rejection> {
        let another = self.nodes.values().any(|n| n.role == Role::Manager && n.id != leaving.id);
        if leaving.role == Role::Manager && !another {
            return Err(Rejection::LastManager(leaving.name.clone()));
        }
        Ok(())
    }
}
