//! Making a cluster.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use ipnet::IpNet;
use mesh_ca::{DEFAULT_VALIDITY, Identity, IdentityCell, JoinToken, RootCa};
use mesh_raft::RaftNode;
use mesh_store::{Command, Secrets, Sensitive};
use mesh_types::{Availability, ClusterId, Name, NetworkId, Node, NodeId, Role};

use crate::{
    ManagerError, ManagerOptions,
    manager::{Bound, open_raft},
    shared::unix_now,
};

/// A cluster to be made, with this node as its first manager.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// This node's name.
    pub name: Name,
    /// Where this node's VXLAN packets come from and go to.
    pub data_path_addr: IpAddr,
    /// Where subnets come from, at most one per family; [`mesh_types::DEFAULT_POOL`] and
    /// [`mesh_types::DEFAULT_POOL6`] unless set.
    pub pools: Vec<IpNet>,
    /// Whether the ingress network has IPv6.
    pub ingress_ipv6: bool,
}

/// Makes a cluster's state and this node's identity, both kept in the state folder. What an error leaves behind is
/// removed.
pub(crate) async fn init(
    options: &ManagerOptions,
    bound: &Bound,
    new: NewCluster,
) -> Result<(RaftNode, Arc<IdentityCell>), ManagerError> {
    let dir = options.raft_dir();
    if Identity::exists(&options.state_dir) || RaftNode::exists(&dir) {
        return Err(ManagerError::Exists(options.state_dir.clone()));
    }
    fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
    let made = make(options, bound, new).await;
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&dir);
    }
    made
}

async fn make(
    options: &ManagerOptions,
    bound: &Bound,
    new: NewCluster,
) -> Result<(RaftNode, Arc<IdentityCell>), ManagerError> {
    let (cluster, node) = (ClusterId::random(), NodeId::random());
    let now = SystemTime::now();
    let ca = RootCa::generate(cluster, now)?;
    let (key, csr) = Identity::request()?;
    let identity = Identity::new(key, ca.issue(&csr, node, Role::Manager, now, DEFAULT_VALIDITY)?)?;
    let cell = IdentityCell::new(identity)?;

    let raft = open_raft(options, bound, &cell).await?;
    let decided = decide(&raft, command(bound, new, &ca, node)).await;
    // Kept last: a folder with an identity holds a whole cluster.
    let kept = decided.and_then(|()| Ok(cell.current().save(&options.state_dir)?));
    if let Err(error) = kept {
        raft.shutdown().await;
        return Err(error);
    }
    Ok((raft, cell))
}

async fn decide(raft: &RaftNode, command: Command) -> Result<(), ManagerError> {
    raft.initialize().await.map_err(ManagerError::Initialize)?;
    match raft.propose(command).await {
        Ok(_) => Ok(()),
        Err(mesh_raft::ProposeError::Rejected(rejection)) => Err(rejection.into()),
        Err(error) => Err(ManagerError::Propose(error)),
    }
}

fn command(bound: &Bound, new: NewCluster, ca: &RootCa, id: NodeId) -> Command {
    let now = unix_now();
    let (ca_cert_pem, ca_key_pem) = ca.to_pem();
    Command::Init {
        cluster: ca.cluster(),
        node: Node {
            id,
            name: new.name,
            role: Role::Manager,
            advertise_addr: bound.advertise.ip(),
            data_path_addr: new.data_path_addr,
            availability: Availability::Active,
            labels: Default::default(),
            joined_at: now,
        },
        secrets: Box::new(Secrets {
            ca_cert_pem,
            ca_key_pem,
            worker_token: JoinToken::random_secret(),
            manager_token: JoinToken::random_secret(),
        }),
        gossip_key: Sensitive(rand::random()),
        pools: new.pools,
        ingress: NetworkId::random(),
        ingress_subnets: Vec::new(),
        ingress_ipv6: new.ingress_ipv6,
        now,
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManagerError {
    let path: PathBuf = path.to_owned();
    move |source| ManagerError::Io { action, path, source }
}
