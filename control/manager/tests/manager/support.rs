//! A manager in a folder of its own, and nodes that talk to it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_api::{
    transport::connect,
    v1::{
        JoinRequest, JoinResponse, JoinTokenRequest, NodeState, Role, SessionRequest,
        control_server::Control, dispatcher_client::DispatcherClient, join_client::JoinClient,
    },
};
use mesh_ca::{
    FoundKeyring, Identity, IdentityCell, JoinToken, Keyring, NodeKey, client_config, join_client_config,
    server_name,
};
use mesh_manager::{EndpointView, Manager, ManagerError, ManagerOptions, NewCluster};
use mesh_types::{ClusterView, Endpoint};
use tonic::{Request, Status, Streaming, transport::Channel};

/// What gossip would tell.
#[derive(Default)]
pub struct Running(pub Mutex<Vec<Endpoint>>);

impl EndpointView for Running {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.0.lock().unwrap().clone()
    }
}

/// A manager's state folder, removed at the end.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub running: Arc<Running>,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), running: Arc::default() }
    }

    pub fn options(&self) -> ManagerOptions {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        ManagerOptions {
            state_dir: self.dir.path().to_owned(),
            listen: any,
            advertise: any,
            endpoints: self.running.clone(),
            keyring: keyring(self.dir.path()),
        }
    }

    pub async fn init(&self) -> Manager {
        Manager::init(self.options(), new_cluster()).await.unwrap()
    }

    pub async fn open(&self) -> Result<Manager, ManagerError> {
        let identity = Identity::load(self.dir.path()).unwrap();
        Manager::open(self.options(), IdentityCell::new(identity).unwrap()).await
    }
}

/// The manager's keys, lying open.
fn keyring(dir: &std::path::Path) -> Arc<Keyring> {
    match Keyring::find(dir).unwrap() {
        Some(FoundKeyring::Open(keyring)) => keyring,
        Some(FoundKeyring::Locked(_)) => panic!("it is locked"),
        None => Keyring::create(dir).unwrap(),
    }
}

pub fn new_cluster() -> NewCluster {
    NewCluster {
        name: "first".parse().unwrap(),
        data_path_addr: "127.0.0.1".parse().unwrap(),
        pools: vec![],
        ingress_ipv6: false,
        cert_validity_secs: None,
    }
}

pub async fn token(manager: &Manager, role: Role, rotate: bool) -> String {
    let request = Request::new(JoinTokenRequest { role: role.into(), rotate });
    manager.control().get_join_token(request).await.unwrap().into_inner().token
}

/// Sends a join request to whoever shows the CA of `pinned`.
pub async fn ask_to_join(
    manager: &Manager,
    pinned: &JoinToken,
    change: impl FnOnce(&mut JoinRequest),
) -> Result<(JoinResponse, NodeKey), Status> {
    let config = join_client_config(*pinned.digest()).unwrap();
    let channel =
        connect(manager.listen_addr(), server_name(mesh_types::Role::Manager), config).await.unwrap();
    let (key, csr) = Identity::request().unwrap();
    let mut request = JoinRequest {
        token: pinned.to_string(),
        csr,
        name: "second".into(),
        advertise_addr: "127.0.0.2".into(),
        oldest_format: (*mesh_manager::formats().start()).into(),
        newest_format: (*mesh_manager::formats().end()).into(),
        ..Default::default()
    };
    change(&mut request);
    let response = JoinClient::new(channel).join(request).await?.into_inner();
    Ok((response, key))
}

/// A node that has joined.
pub struct Member {
    pub identity: Arc<IdentityCell>,
    pub channel: Channel,
}

impl Member {
    pub async fn join(manager: &Manager, name: &str) -> Self {
        let pinned: JoinToken = token(manager, Role::Worker, false).await.parse().unwrap();
        let (response, key) =
            ask_to_join(manager, &pinned, |request| request.name = name.into()).await.unwrap();
        let chain = response.certificates.into_iter().map(Into::into).collect();
        let identity = IdentityCell::new(Identity::new(key, chain).unwrap()).unwrap();
        Self { channel: dial(manager, identity.clone()).await, identity }
    }

    pub fn dispatcher(&self) -> DispatcherClient<Channel> {
        DispatcherClient::new(self.channel.clone())
    }

    pub async fn session(&self) -> Session {
        Session(self.dispatcher().session(SessionRequest::default()).await.unwrap().into_inner())
    }
}

pub async fn dial(manager: &Manager, identity: Arc<IdentityCell>) -> Channel {
    let config = client_config(identity).unwrap();
    connect(manager.listen_addr(), server_name(mesh_types::Role::Manager), config).await.unwrap()
}

/// A stream of states; waits are bounded so that a missing message fails the test instead of hanging it.
pub struct Session(Streaming<NodeState>);

impl Session {
    pub async fn next(&mut self) -> Result<NodeState, Status> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.message()).await;
        next.unwrap_or_else(|_| panic!("no state within 20 s"))
            .transpose()
            .unwrap_or_else(|| Err(Status::cancelled("the stream ended")))
    }

    /// The first state that fits; those before may be any.
    pub async fn until(&mut self, fits: impl Fn(&ClusterView, &NodeState) -> bool) -> NodeState {
        loop {
            let state = self.next().await.unwrap();
            if fits(&view(&state), &state) {
                return state;
            }
        }
    }
}

pub fn view(state: &NodeState) -> ClusterView {
    state.view.clone().unwrap().try_into().unwrap()
}

#[track_caller]
pub fn assert_says(status: &Status, code: tonic::Code, parts: &[&str]) {
    assert_eq!(status.code(), code, "{status:?}");
    for part in parts {
        assert!(status.message().contains(part), "{:?} lacks {part:?}", status.message());
    }
}
