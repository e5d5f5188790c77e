//! Start and end of a manager.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_api::{
    transport::tls_incoming,
    v1::{
        control_server::ControlServer, dispatcher_server::DispatcherServer, join_server::JoinServer,
        raft_server::RaftServer,
    },
};
use mesh_ca::{IdentityCell, client_config, server_config, server_name};
use mesh_raft::{GrpcTransport, RaftNode, RaftOptions};
use mesh_store::State;
use mesh_types::Role;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tracing::{info, warn};

use crate::{
    Control, EndpointView, ManagerError, NewCluster,
    access::AccessLayer,
    control::join_token,
    dispatcher::Dispatcher,
    init,
    join::Join,
    peers::{MAX_MESSAGE, Peers},
    rate::FailedJoins,
    reports::Listeners,
    shared::{Place, Shared},
};

/// Longest wait at start for a state that is there.
const START: Duration = Duration::from_secs(10);
/// Longest wait at the end for calls under way.
const DRAIN: Duration = Duration::from_secs(3);
/// After this silence a connection is probed, so that sessions of dead nodes end.
const KEEPALIVE: Duration = Duration::from_secs(10);

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
}

impl ManagerOptions {
    pub(crate) fn raft_dir(&self) -> PathBuf {
        self.state_dir.join("raft")
    }
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

    /// Goes on with the cluster in the state folder. `identity` is this node's, from the same folder.
    pub async fn open(options: ManagerOptions, identity: Arc<IdentityCell>) -> Result<Self, ManagerError> {
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

    /// The Control service for the daemon's own socket; it checks no caller.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
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

    /// Where managers listen, this one first.
    pub fn managers(&self) -> Vec<SocketAddr> {
        self.shared.place.managers(&self.shared.state())
    }

    /// Where this manager listens.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Ends sessions and servers, then closes the state.
    pub async fn shutdown(self) {
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
    let transport =
        Arc::new(GrpcTransport::new(server_name(Role::Manager), client_config(identity.clone())?));
    let node = identity.current().own().node;
    let options = RaftOptions { dir: options.raft_dir(), node, advertise: bound.advertise, transport };
    RaftNode::open(options).await.map_err(ManagerError::Open)
}

/// Refuses a state that is not this node's.
async fn check_state(
    options: &ManagerOptions,
    raft: &RaftNode,
    identity: &IdentityCell,
) -> Result<(), ManagerError> {
    let path = options.raft_dir();
    let own = identity.current().own();
    let mut states = raft.watch();
    let there = timeout(START, states.wait_for(|state| state.cluster().is_some())).await;
    let state = match there {
        Ok(Ok(state)) => state.clone(),
        _ => return Err(ManagerError::Empty(path)),
    };
    match state.cluster() {
        Some(cluster) if cluster != own.cluster => {
            Err(ManagerError::OtherCluster { path, state: cluster, certificate: own.cluster })
        }
        _ if state.node(own.node).is_none() => Err(ManagerError::Removed(own.node)),
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
    let shared = Arc::new(Shared {
        state: raft.watch(),
        raft,
        endpoints: options.endpoints,
        place: Place { node: identity.current().own().node, advertise: bound.advertise },
        reports: Arc::default(),
    });
    let stop = CancellationToken::new();
    let join = Join { shared: shared.clone(), failed: Mutex::new(FailedJoins::default()) };
    let peers = RaftServer::new(Peers(shared.clone()));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(AccessLayer(shared.clone()))
        .add_service(JoinServer::new(join))
        .add_service(DispatcherServer::new(Dispatcher { shared: shared.clone(), stop: stop.clone() }))
        .add_service(ControlServer::new(Control(shared.clone())))
        .add_service(peers.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));
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
