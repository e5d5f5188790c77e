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
    /// Where others reach it.
    pub advertise_addr: IpAddr,
    /// Where its VXLAN packets came from when it joined.
    pub data_path_addr: IpAddr,
    /// Where its manager listens.
    pub listen_addr: SocketAddr,
    /// Managers known when it joined.
    pub managers: Vec<SocketAddr>,
    /// Where its VXLAN packets come from, as an operator said it.
    pub data_path: DataPathChoice,
}

/// Format version 1, which knew addresses only.
#[derive(Serialize, Deserialize)]
struct Membership1 {
    cluster: ClusterId,
    node: NodeId,
    name: Name,
    role: Role,
    advertise_addr: IpAddr,
    data_path_addr: IpAddr,
    listen_addr: SocketAddr,
    managers: Vec<SocketAddr>,
}

impl Format for Membership {
    fn decode(version: u8, bytes: &[u8]) -> Option<Self> {
        if version >= 2 {
            return kept::decode(bytes);
        }
        let old: Membership1 = kept::decode(bytes)?;
        Some(Self {
            cluster: old.cluster,
            node: old.node,
            name: old.name,
            role: old.role,
            advertise_addr: old.advertise_addr,
            data_path_addr: old.data_path_addr,
            listen_addr: old.listen_addr,
            managers: old.managers,
            data_path: DataPathChoice::Address(old.data_path_addr),
        })
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_of_version_1_is_read() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let old = Membership1 {
            cluster: ClusterId::from_u128(1),
            node: NodeId::from_u128(2),
            name: Name::new("n1").unwrap(),
            role: Role::Worker,
            advertise_addr: address,
            data_path_addr: IpAddr::from([10, 0, 1, 1]),
            listen_addr: (address, 2377).into(),
            managers: vec![(address, 2377).into()],
        };
        let bytes = postcard::to_stdvec(&old).unwrap();
        let read = Membership::decode(1, &bytes).unwrap();
        assert_eq!((read.node, read.managers.len()), (old.node, 1));
        assert_eq!(read.data_path, DataPathChoice::Address(old.data_path_addr));
        let now = postcard::to_stdvec(&read).unwrap();
        assert_eq!(Membership::decode(2, &now), Some(read));
    }
}
