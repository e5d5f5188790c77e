//! What a node keeps of its membership: enough to come back after a restart.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Result;
use mesh_agent::{
    DataPathChoice,
    kept::{self, Durability, Format},
};
use mesh_types::{ClusterId, Name, NodeId, Role};
use serde::{Deserialize, Serialize};

/// The membership of this node, in `<state-dir>/membership`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its name when it joined.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// Where others reach it, as far as it was known when this was kept.
    pub advertise_addr: IpAddr,
    /// Where its VXLAN packets came from when it joined.
    pub data_path_addr: IpAddr,
    /// Where its manager listens.
    pub listen_addr: SocketAddr,
    /// Managers known when it joined.
    pub managers: Vec<SocketAddr>,
    /// Where its VXLAN packets come from, as an operator said it.
    pub data_path: DataPathChoice,
    /// Where others reach it, as an operator said it.
    pub advertise: DataPathChoice,
}

impl Format for Membership {}

impl Membership {
    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("membership")
    }

    /// The kept membership; `None` on a node that is in no cluster.
    pub fn load(state_dir: &Path) -> Result<Option<Self>> {
        Ok(kept::load(&Self::path(state_dir))?)
    }

    /// Keeps it. The last step of `init` and `join`: without it, a restart finds the node in no cluster.
    pub fn save(&self, state_dir: &Path) -> Result<()> {
        Ok(kept::save(&Self::path(state_dir), self, Durability::Disk)?)
    }
}
