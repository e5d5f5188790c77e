//! Making a cluster.

use std::{
    fs, io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use mesh_ca::{DEFAULT_VALIDITY, Identity, IdentityCell, JoinToken, RootCa};
use mesh_raft::RaftNode;
use mesh_store::{Command, Secrets, Sensitive, State};
use mesh_types::{Availability, ClusterId, Name, NetworkId, Node, NodeId, Role};

use crate::{
    ManagerError, ManagerOptions,
    error::io_error,
    identity::{issuing_ca, validity},
    keys,
    manager::{Bound, open_raft, open_raft_in},
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
    /// How long certificates are valid, in seconds; [`mesh_store::DEFAULT_CERT_VALIDITY`] unless set.
    pub cert_validity_secs: Option<u64>,
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
    let validity = new.cert_validity_secs.map_or(DEFAULT_VALIDITY, Duration::from_secs);
    let identity = Identity::new(key, ca.issue(&csr, node, Role::Manager, now, validity)?)?;
    let cell = IdentityCell::new(identity)?;

    let raft = open_raft(options, bound, &cell).await?;
    let settings = Command::UpdateCluster { cert_validity_secs: new.cert_validity_secs, unlock_key: None };
    let decided = match decide(&raft, command(bound, new, &ca, node)).await {
        Ok(()) => propose(&raft, settings).await,
        Err(error) => Err(error),
    };
    // Kept last: a folder with an identity holds a whole cluster.
    let kept = decided.and_then(|()| Ok(cell.current().save(&options.state_dir)?));
    if let Err(error) = kept {
        raft.shutdown().await;
        return Err(error);
    }
    Ok((raft, cell))
}

/// A cluster that goes on with this node as its only manager.
#[derive(Debug)]
pub struct RestoredCluster {
    /// What the cluster had decided.
    pub state: State,
    /// This node's name. A member of this name is this node.
    pub name: Name,
    /// Where this node's VXLAN packets come from and go to.
    pub data_path_addr: IpAddr,
}

/// Makes a cluster's state out of what it had decided before, and an identity for this node. What an error leaves behind
/// is removed.
pub(crate) async fn restore(
    options: &ManagerOptions,
    bound: &Bound,
    from: RestoredCluster,
) -> Result<(RaftNode, Arc<IdentityCell>), ManagerError> {
    let dir = options.raft_dir();
    if Identity::exists(&options.state_dir) || RaftNode::exists(&dir) {
        return Err(ManagerError::Exists(options.state_dir.clone()));
    }
    fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
    let made = restore_into(options, bound, from).await;
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&dir);
    }
    made
}

async fn restore_into(
    options: &ManagerOptions,
    bound: &Bound,
    from: RestoredCluster,
) -> Result<(RaftNode, Arc<IdentityCell>), ManagerError> {
    let known = from.state.node_named(&from.name).cloned();
    let mut node = known.unwrap_or_else(|| Node {
        id: NodeId::random(),
        name: from.name,
        role: Role::Manager,
        advertise_addr: bound.advertise.ip(),
        data_path_addr: from.data_path_addr,
        availability: Availability::Active,
        labels: Default::default(),
        joined_at: unix_now(),
        version: 0,
    });
    node.advertise_addr = bound.advertise.ip();
    node.data_path_addr = from.data_path_addr;
    let state = from.state.with_only_manager(node.clone());
    let ca = issuing_ca(&state).map_err(|status| ManagerError::Restore(status.message().to_owned()))?;
    let (key, csr) = Identity::request()?;
    let chain = ca.issue(&csr, node.id, Role::Manager, SystemTime::now(), validity(&state))?;
    let cell = IdentityCell::new(Identity::new(key, chain)?)?;
    let raft = open_raft(options, bound, &cell).await?;
    let decided = decide(&raft, Command::Restore(Box::new(state))).await;
    let kept = decided.and_then(|()| Ok(cell.current().save(&options.state_dir)?));
    if let Err(error) = kept {
        raft.shutdown().await;
        return Err(error);
    }
    Ok((raft, cell))
}

/// Makes this manager, which is stopped, the only one: everything that it has in its log counts as decided. Until this
/// returns the state on disk is the old one.
pub(crate) async fn force_new_cluster(
    options: &ManagerOptions,
    bound: &Bound,
    identity: &Arc<IdentityCell>,
) -> Result<(), ManagerError> {
    let (dir, own) = (options.raft_dir(), identity.current().own());
    let state = RaftNode::read(&dir, own.node, Some(keys::cipher(&options.keyring)))
        .await
        .map_err(ManagerError::Open)?;
    let Some(mut node) = state.node(own.node).cloned() else { return Err(ManagerError::Removed(own.node)) };
    node.advertise_addr = bound.advertise.ip();
    let fresh = options.state_dir.join("raft.new");
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &fresh)(error));
        }
        _ => {}
    }
    fs::create_dir_all(&fresh).map_err(io_error("make", &fresh))?;
    let raft = open_raft_in(options, fresh.clone(), bound, identity).await?;
    let decided = decide(&raft, Command::Restore(Box::new(state.with_only_manager(node)))).await;
    raft.shutdown().await;
    decided?;
    // Between the two a crash leaves the new one under its first name; `Manager::open` puts it in place.
    let lost = options.state_dir.join("raft.lost");
    match fs::remove_dir_all(&lost) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &lost)(error));
        }
        _ => {}
    }
    fs::rename(&dir, &lost).map_err(io_error("move away", &dir))?;
    fs::rename(&fresh, &dir).map_err(io_error("move into place", &fresh))?;
    // The old one is of no use any more, and of harm if somebody put it back.
    let _ = fs::remove_dir_all(&lost);
    Ok(())
}

/// Ends a [`force_new_cluster`] that was cut off between its last two steps.
pub(crate) fn finish_forced(options: &ManagerOptions) -> Result<(), ManagerError> {
    let (dir, fresh) = (options.raft_dir(), options.state_dir.join("raft.new"));
    if options.state_dir.join("raft.lost").exists() && !dir.exists() && fresh.exists() {
        fs::rename(&fresh, &dir).map_err(io_error("move into place", &fresh))?;
    }
    Ok(())
}

async fn decide(raft: &RaftNode, command: Command) -> Result<(), ManagerError> {
    raft.initialize().await.map_err(ManagerError::Initialize)?;
    propose(raft, command).await
}

async fn propose(raft: &RaftNode, command: Command) -> Result<(), ManagerError> {
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
            version: 0,
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
