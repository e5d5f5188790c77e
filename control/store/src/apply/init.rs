//! Making the cluster, and its secrets.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use mesh_ipam::{PortPool, SubnetPool, VniPool};
use mesh_types::{ClusterId, INGRESS_NETWORK, Name, NetworkId, Node, Role, Subnet};

use super::{Change, network::refuse_ipv6};
use crate::{
    NewNetwork, Rejection, Response, Secrets,
    state::{Cluster, GossipKeys},
};

/// The pool asked for, else [`mesh_types::DEFAULT_POOL`].
pub(super) fn pool(asked: Option<IpNet>) -> Result<SubnetPool, Rejection> {
    let range = match asked {
        Some(range) => range,
        None => Ipv4Net::new_assert([10, 0, 0, 0].into(), 8).into(),
    };
    refuse_ipv6(range)?;
    Subnet::new(range, None)?;
    Ok(SubnetPool::new(range))
}

impl Cluster {
    /// A cluster of one node, without networks.
    pub(super) fn new(
        id: ClusterId,
        node: Node,
        secrets: Secrets,
        gossip_key: [u8; 32],
        subnets: SubnetPool,
    ) -> Self {
        Self {
            id,
            secrets,
            gossip_keys: GossipKeys(vec![gossip_key]),
            subnets,
            vnis: VniPool::default(),
            ports: PortPool::default(),
            nodes: BTreeMap::from([(node.id, node)]),
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// Adds the ingress network.
    pub(super) fn create_ingress(
        &mut self,
        id: NetworkId,
        subnet: Option<IpNet>,
        now: u64,
    ) -> Result<(), Rejection> {
        self.create_network(NewNetwork {
            id,
            name: ingress_name(),
            subnets: subnet.map(|net| (net, None)).into_iter().collect(),
            ip_range: None,
            attachable: false,
            internal: false,
            ingress: true,
            mtu: None,
            labels: BTreeMap::new(),
            now,
        })?;
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
