//! Making the cluster, and its secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use mesh_ipam::{PortPool, SubnetPool, VniPool};
use mesh_types::{
    ClusterId, DEFAULT_POOL, DEFAULT_POOL6, Family, INGRESS_NETWORK, Name, NetworkId, Node, Role, SharedMap,
    Subnet,
};

use super::Change;
use crate::{Authority, GossipKeys, NewNetwork, Rejection, Response, Secrets, state::Cluster};

/// The IPv4 pool and the IPv6 pool asked for, else [`mesh_types::DEFAULT_POOL`] and [`mesh_types::DEFAULT_POOL6`].
pub(super) fn pools(asked: &[IpNet]) -> Result<(SubnetPool, SubnetPool), Rejection> {
    let (mut v4, mut v6) = (None, None);
    for pool in asked {
        Subnet::new(*pool, None)?;
        let family = Family::of(pool.addr());
        let slot = if family == Family::V4 { &mut v4 } else { &mut v6 };
        if let Some(first) = slot.replace(*pool) {
            return Err(Rejection::PoolsOfOneFamily { family, first, second: *pool });
        }
    }
    let v4 = v4.unwrap_or_else(|| default_pool(DEFAULT_POOL));
    let v6 = v6.unwrap_or_else(|| default_pool(DEFAULT_POOL6));
    Ok((SubnetPool::new(v4), SubnetPool::new(v6)))
}

#[expect(clippy::expect_used, reason = "the constants are valid; a test makes a cluster with them")]
fn default_pool(text: &str) -> IpNet {
    text.parse().expect("a valid range")
}

impl Cluster {
    /// A cluster of one node, without networks.
    pub(super) fn new(
        id: ClusterId,
        node: Node,
        secrets: Secrets,
        gossip_keys: GossipKeys,
        (subnets, subnets6): (SubnetPool, SubnetPool),
    ) -> Self {
        Self {
            id,
            secrets,
            gossip_keys,
            authority: Authority::default(),
            unlock_key: None,
            subnets,
            subnets6,
            vnis: VniPool::default(),
            ports: PortPool::default(),
            nodes: SharedMap::from([(node.id, Arc::new(node))]),
            former_managers: BTreeSet::new(),
            networks: SharedMap::default(),
            pools: SharedMap::default(),
            services: SharedMap::default(),
            renewals: BTreeMap::new(),
            lease_grace_secs: super::DEFAULT_LEASE_GRACE,
        }
    }

    /// Adds the ingress network.
    pub(super) fn create_ingress(
        &mut self,
        id: NetworkId,
        subnets: &[IpNet],
        ipv6: bool,
        now: u64,
        version: u64,
    ) -> Result<(), Rejection> {
        let new = NewNetwork {
            id,
            name: ingress_name(),
            subnets: subnets.iter().map(|net| (*net, None)).collect(),
            ipv6,
            ip_ranges: Vec::new(),
            attachable: false,
            internal: false,
            ingress: true,
            mtu: None,
            labels: BTreeMap::new(),
            now,
            aux_addresses: BTreeMap::new(),
        };
        self.create_network(new, version)?;
        Ok(())
    }

    pub(super) fn rotate_join_token(&mut self, role: Role, secret: [u8; 16]) -> (Response, Change) {
        match role {
            Role::Worker => self.secrets.worker_token = secret,
            Role::Manager => self.secrets.manager_token = secret,
        }
        (Response::Done, Change::Hidden)
    }
}

#[expect(clippy::expect_used, reason = "the constant is a valid name; a test makes a cluster with it")]
fn ingress_name() -> Name {
    Name::new(INGRESS_NETWORK).expect("a valid name")
}
