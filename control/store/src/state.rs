//! The state and what can be read of it.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use mesh_types::{ClusterView, NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::{Command, Rejection, Response, Secrets};

/// The most addresses that one [`Command::Lease`] gives.
pub const MAX_LEASE: u32 = 8;
/// The MTUs that a network may be given, in bytes.
pub const MTU_RANGE: RangeInclusive<u16> = 576..=65_485;

/// The cluster's decided state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    version: u64,
}

impl State {
    /// Carries `command` out, or refuses it and changes nothing.
    pub fn apply(&mut self, _command: Command) -> Result<Response, Rejection> {
        Err(Rejection::NotInitialized)
    }

    /// What every node may know; none before [`Command::Init`].
    pub fn view(&self) -> Option<ClusterView> {
        None
    }

    /// The addresses that `node` may attach tasks with, in order.
    pub fn leases_of(&self, _node: NodeId) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        BTreeMap::new()
    }

    /// What only managers may know; none before [`Command::Init`].
    pub fn secrets(&self) -> Option<&Secrets> {
        None
    }
}
