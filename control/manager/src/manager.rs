//! Start and end of a manager.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_api::{
    transport::tls_incoming,
    v1::{
        cluster_server::ClusterServer, control_server::ControlServer, dispatcher_server::DispatcherServer,
        identity_server::IdentityServer, join_server::JoinServer, raft_server::RaftServer,
    },
};
use mesh_ca::{IdentityCell, Keyring, client_config, server_config, server_name};
use mesh_raft::{GrpcTransport, Progress, ProposeError, RaftNode, RaftOptions, Standing, TransportError};
use mesh_store::State;
use mesh_types::{MANAGER_PORT, NodeId, Role};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, transport::Server};
use tracing::{debug, info, warn};

use crate::{
    Cluster, Control, EndpointView, ManagerError, NewCluster, NodeStatus, RestoredCluster,
    access::AccessLayer,
    arriving::ArrivingLayer,
    cluster::join_token,
    connectivity,
    dispatcher::Dispatcher,
    error::io_error,
    events::Events,
    gossip_keys,
    identity::Identity,
    init,
    join::Join,
    keys, membership,
    peers::{MAX_MESSAGE, Peers},
    rate::FailedJoins,
    reports::Listeners,
    shared::{Place, Shared},
    silence,
    touch::Touch,
    traces, versions,
    watching::Traffic,
};

/// Longest wait at start for a state that is there.
const START: Duration = Duration::from_secs(10);
/// Longest wait for an answer of the manager that leads.
const ASK: Duration = Duration::from_secs(2);
/// Longest time that a call may take from its headers to the head of its answer, its body's arrival included; more than
/// any wait inside. What streams for longer streams behind that head.
const CALL: Duration = Duration::from_secs(60);
/// Calls under way on one connection; a manager that forwards for many clients has hundreds.
const STREAMS: u32 = 1_024;
/// Largest request of nodes that are no members yet, and of members about their certificates, in bytes.
const SMALL_MESSAGE: usize = 64 << 10;
/// Longest wait at the end for calls under way.
const DRAIN: Duration = Duration::from_secs(3);
/// After this silence a connection is probed, so that sessions of dead nodes end.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Without an answer for this long it is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);

/// How a manager is made or opened.
pub struct ManagerOptions {
    /// The daemon's state folder, which must exist. The identity is in it, the replicated state in its folder `raft`.
    pub state_dir: PathBuf,
    /// Where to listen for other nodes.
    pub listen: SocketAddr,
    /// Where other nodes reach that; port 0 stands for the port listened on.
    pub advertise: SocketAddr,
    /// What runs.
    pub endpoints: Arc<dyn EndpointView>,
    /// What the replicated state is encrypted with.
    pub keyring: Arc<Keyring>,
}

impl ManagerOptions {
    pub(crate) fn raft_dir(&self) -> PathBuf {
        raft_dir(&self.state_dir)
    }
}

fn raft_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("raft")
}

/// A running manager. Dropping it stops the servers; [`Manager::shutdown`] also waits for the state to be closed.
pub struct Manager {
    shared: Arc<Shared>,
    identity: Arc<IdentityCell>,
    listen: SocketAddr,
    server: JoinHandle<()>,
    stop: DropGuard,
}

/// The listener and the address that others know it by.
pub(crate) struct Bound {
    listener: TcpListener,
    listen: SocketAddr,
    pub advertise: SocketAddr,
}

impl Manager {
    /// Makes a cluster with this node as its first manager.
    pub async fn init(options: ManagerOptions, new: NewCluster) -> Result<Self, ManagerError> {
        let bound = bind(&options).await?;
        let (raft, identity) = init::init(&options, &bound, new).await?;
        serve(options, bound, raft, identity).await
    }

    /// Makes a cluster anew from what it had decided before, with this node as its only manager.
    pub async fn restore(options: ManagerOptions, from: RestoredCluster) -> Result<Self, ManagerError> {
        let bound = bind(&options).await?;
        let (raft, identity) = init::restore(&options, &bound, from).await?;
        serve(options, bound, raft, identity).await
    }

    /// Goes on with the cluster in the state folder, whose other managers are lost, as its only manager: everything that
    /// this one knows counts as decided. The others have to become managers anew.
    pub async fn force_new_cluster(
        options: ManagerOptions,
        identity: Arc<IdentityCell>,
    ) -> Result<Self, ManagerError> {
        let bound = bind(&options).await?;
        init::force_new_cluster(&options, &bound, &identity).await?;
        let raft = open_raft(&options, &bound, &identity).await?;
        serve(options, bound, raft, identity).await
    }

    /// Becomes a further manager of the cluster that `identity` is of: the managers there bring it the state. An error
    /// leaves the state folder as it was.
    pub async fn join(options: ManagerOptions, identity: Arc<IdentityCell>) -> Result<Self, ManagerError> {
        let dir = options.raft_dir();
        if RaftNode::exists(&dir) {
            return Err(ManagerError::Exists(options.state_dir.clone()));
        }
        let bound = bind(&options).await?;
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        let joined = match open_raft(&options, &bound, &identity).await {
            Ok(raft) => serve(options, bound, raft, identity).await,
            Err(error) => Err(error),
        };
        if joined.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_dir_all(&dir);
        }
        joined
    }

    /// Goes on with the cluster in the state folder. `identity` is this node's, from the same folder.
    pub async fn open(options: ManagerOptions, identity: Arc<IdentityCell>) -> Result<Self, ManagerError> {
        init::finish_forced(&options)?;
        if !RaftNode::exists(&options.raft_dir()) {
            return Err(ManagerError::Empty(options.raft_dir()));
        }
        let bound = bind(&options).await?;
        let raft = open_raft(&options, &bound, &identity).await?;
        if let Err(error) = check_state(&options, &raft, &identity).await {
            raft.shutdown().await;
            return Err(error);
        }
        serve(options, bound, raft, identity).await
    }

    /// Removes the replicated state of a manager that is none any more.
    pub fn forget(state_dir: &Path) -> Result<(), ManagerError> {
        let dir = raft_dir(state_dir);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &dir)(error)),
            _ => Ok(()),
        }
    }

    /// Whether the state folder holds replicated state.
    pub fn has_state(state_dir: &Path) -> bool {
        RaftNode::exists(&raft_dir(state_dir))
    }

    /// The Control service for the daemon's own socket; it checks no caller.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    /// The Cluster service for the daemon's own socket; it checks no caller.
    pub fn cluster(&self) -> Cluster {
        Cluster(self.shared.clone())
    }

    /// This node's key and certificate.
    pub fn identity(&self) -> &Arc<IdentityCell> {
        &self.identity
    }

    /// The decided state, as it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.shared.state.clone()
    }

    /// The listeners that nodes say a published port shadows, as far as they are in session with this manager.
    pub fn listeners(&self) -> watch::Receiver<Arc<Listeners>> {
        self.shared.reports.watch()
    }

    /// The text that nodes of `role` join with.
    pub fn join_token(&self, role: Role) -> Option<String> {
        join_token(&self.shared.state(), role).ok().map(|token| token.to_string())
    }

    /// Whether a node is there.
    pub fn status_of(&self, node: NodeId) -> NodeStatus {
        self.shared.status_of(node)
    }

    /// The manager that leads, as far as this one knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.shared.raft.leader().map(|(node, _)| node)
    }

    /// Has all nodes report what passes at them until the answer is dropped.
    pub fn traffic(&self) -> Traffic {
        Traffic::new(self.shared.clone())
    }

    /// Where managers listen, this one first.
    pub fn managers(&self) -> Vec<SocketAddr> {
        self.shared.place.managers(&self.shared.state())
    }

    /// Has the cluster know that this node is reached at `address` now; it may be known already.
    pub async fn follow_address(&self, address: IpAddr) -> Result<(), Status> {
        self.shared.follow_advertise_addr(self.shared.place.node, address).await
    }

    /// Where this manager listens.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// How far this manager's Raft is, and, if it leads, how the others stand with it.
    pub fn progress(&self) -> (Progress, Option<Vec<Standing>>) {
        (self.shared.raft.progress(), self.shared.raft.standings())
    }

    /// Whether this manager votes, as far as it knows. One that has just joined learns first.
    pub fn votes(&self) -> bool {
        let own = self.shared.place.node;
        self.shared.raft.managers().iter().any(|manager| manager.node == own && manager.voter)
    }

    /// Why this manager does not work any more; none while it does.
    pub fn failure(&self) -> Option<String> {
        self.shared.raft.failure()
    }

    /// Why this manager cannot follow the others, which are of a newer version; none while it can.
    pub fn outdated(&self) -> Option<String> {
        self.shared.raft.outdated()
    }

    /// Whether `managers`, as the cluster has them now, have taken this one out: its Raft may be stopped then without
    /// anybody waiting for it. One that is out is told nothing any more, so the others are asked.
    pub async fn is_out(&self, managers: &[(NodeId, IpAddr)]) -> bool {
        let own = self.shared.place.node;
        for &(node, address) in managers.iter().filter(|(node, _)| *node != own) {
            let addr = SocketAddr::new(address, MANAGER_PORT);
            match self.shared.raft.members_by(node, addr, ASK).await {
                Ok(members) => return !members.iter().any(|m| m.node == own),
                // Only members may ask.
                Err(ProposeError::Leader { source, .. }) if refused(&source) => return true,
                Err(error) => debug!(%node, %error, "ask whether this manager is out"),
            }
        }
        false
    }

    /// What was decided until now, by any manager; an error says why this one cannot tell.
    pub async fn decided(&self) -> Result<Arc<State>, ManagerError> {
        self.shared.raft.linearizable_within(ASK).await.map_err(ManagerError::Members)
    }

    /// How the managers stand, as the one that leads sees it, and who that is.
    pub async fn standings(&self) -> Result<(Vec<Standing>, Option<NodeId>), ManagerError> {
        let members = self.shared.raft.members(ASK).await.map_err(ManagerError::Members)?;
        Ok((members, self.shared.raft.leader().map(|(node, _)| node)))
    }

    /// Ends sessions and servers, then closes the state. One that leads hands that over first.
    pub async fn shutdown(self) {
        self.shared.raft.hand_over().await;
        self.stop.disarm().cancel();
        let mut server = self.server;
        if timeout(DRAIN, &mut server).await.is_err() {
            server.abort();
            let _ = server.await;
        }
        self.shared.raft.shutdown().await;
        info!("manager stopped");
    }
}

async fn bind(options: &ManagerOptions) -> Result<Bound, ManagerError> {
    let error = |source| ManagerError::Listen { addr: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(error)?;
    let listen = listener.local_addr().map_err(error)?;
    let mut advertise = options.advertise;
    if advertise.port() == 0 {
        advertise.set_port(listen.port());
    }
    Ok(Bound { listener, listen, advertise })
}

/// This node's part of the replicated state.
pub(crate) async fn open_raft(
    options: &ManagerOptions,
    bound: &Bound,
    identity: &Arc<IdentityCell>,
) -> Result<RaftNode, ManagerError> {
    open_raft_in(options, options.raft_dir(), bound, identity).await
}

/// The same in another folder.
pub(crate) async fn open_raft_in(
    options: &ManagerOptions,
    dir: PathBuf,
    bound: &Bound,
    identity: &Arc<IdentityCell>,
) -> Result<RaftNode, ManagerError> {
    let transport =
        Arc::new(GrpcTransport::new(server_name(Role::Manager), client_config(identity.clone())?));
    let node = identity.current().own().node;
    let cipher = Some(keys::cipher(&options.keyring));
    let newest_format = versions::newest_format();
    let options = RaftOptions { dir, node, advertise: bound.advertise, transport, cipher, newest_format };
    RaftNode::open(options).await.map_err(ManagerError::Open)
}

/// Whether a manager said that it may not be asked.
fn refused(error: &TransportError) -> bool {
    let TransportError::Failed { source, .. } = error else { return false };
    source.downcast_ref::<Status>().is_some_and(|status| status.code() == Code::PermissionDenied)
}

/// Refuses a state that is not this node's. One that is still to come, from the other managers, is no reason.
async fn check_state(
    options: &ManagerOptions,
    raft: &RaftNode,
    identity: &IdentityCell,
) -> Result<(), ManagerError> {
    let path = options.raft_dir();
    let own = identity.current().own();
    let mut states = raft.watch();
    // A manager on its own has applied all that it has.
    let alone = raft.managers().iter().all(|manager| manager.node == own.node) && raft.leader().is_some();
    if alone && timeout(START, states.wait_for(|state| state.cluster().is_some())).await.is_err() {
        return Err(ManagerError::Empty(path));
    }
    let state = raft.state();
    match state.cluster() {
        None => Ok(()),
        Some(cluster) if cluster != own.cluster => {
            Err(ManagerError::OtherCluster { path, state: cluster, certificate: own.cluster })
        }
        // What others decided since is not known yet.
        Some(_) if alone && state.node(own.node).is_none() => Err(ManagerError::Removed(own.node)),
        _ => Ok(()),
    }
}

async fn serve(
    options: ManagerOptions,
    bound: Bound,
    raft: RaftNode,
    identity: Arc<IdentityCell>,
) -> Result<Manager, ManagerError> {
    let tls = match server_config(identity.clone()) {
        Ok(tls) => tls,
        Err(error) => {
            raft.shutdown().await;
            return Err(error.into());
        }
    };
    let own = identity.current().own();
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared {
        state: raft.watch(),
        raft,
        endpoints: options.endpoints,
        place: Place { cluster: own.cluster, node: own.node, advertise: bound.advertise },
        reports: Arc::default(),
        tests: Arc::default(),
        orders: Arc::default(),
        watching: Arc::default(),
        identity: identity.clone(),
        touch: Touch::new(),
        events: Arc::new(Events::new(stop.clone())),
    });
    tokio::spawn(shared.events.clone().follow(shared.state.clone()));
    let health = shared.events.clone().follow_health(shared.endpoints.clone(), shared.state.clone());
    tokio::spawn(health);
    let join = Join { shared: shared.clone(), failed: Mutex::new(FailedJoins::default()) };
    let peers = RaftServer::new(Peers(shared.clone()));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS)
        .timeout(CALL)
        .layer(traces::layer())
        .layer(AccessLayer(shared.clone()))
        .layer(ArrivingLayer::default())
        .add_service(JoinServer::new(join).max_decoding_message_size(SMALL_MESSAGE))
        .add_service(DispatcherServer::new(Dispatcher { shared: shared.clone() }))
        .add_service(ControlServer::new(Control(shared.clone())))
        .add_service(ClusterServer::new(Cluster(shared.clone())))
        .add_service(
            IdentityServer::new(Identity { shared: shared.clone() }).max_decoding_message_size(SMALL_MESSAGE),
        )
        .add_service(peers.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));
    tokio::spawn(membership::run(shared.raft.clone(), stop.clone()));
    tokio::spawn(versions::run(shared.raft.clone(), stop.clone()));
    tokio::spawn(silence::run(shared.raft.clone(), stop.clone()));
    tokio::spawn(connectivity::sweep(shared.clone(), stop.clone()));
    tokio::spawn(gossip_keys::run(shared.clone(), stop.clone()));
    let touch = shared.clone();
    let touch_stop = stop.clone();
    tokio::spawn(async move { touch.touch.follow(touch.raft.clone(), touch_stop).await });
    let ended = stop.clone().cancelled_owned();
    let server = tokio::spawn(async move {
        let incoming = tls_incoming(bound.listener, tls);
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, ended).await {
            warn!(%error, "manager API ended");
        }
    });
    info!(listen = %bound.listen, advertise = %bound.advertise, "manager serves");
    Ok(Manager { shared, identity, listen: bound.listen, server, stop: stop.drop_guard() })
}
