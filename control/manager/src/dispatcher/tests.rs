use mesh_api::node_listeners;
use mesh_store::{NewNetwork, Sensitive};
use mesh_types::{ClusterId, Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    reports::Listeners,
    shared::Place,
    testing::{NODE, state as cluster},
};

fn network(number: u32) -> Command {
    Command::CreateNetwork(NewNetwork {
        id: NetworkId::from_u128(100 + u128::from(number)),
        name: format!("n{number}").parse().unwrap(),
        subnets: vec![],
        ipv6: false,
        ip_ranges: vec![],
        attachable: false,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        now: 0,
        aux_addresses: BTreeMap::new(),
    })
}

struct Running {
    state: State,
    changes: watch::Sender<Arc<State>>,
    told: watch::Sender<Arc<Listeners>>,
    stream: mpsc::Receiver<Result<v1::NodeState, Status>>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        Self::with(false)
    }

    /// With a node that follows changes, or one that wants the whole state each time.
    fn with(follows: bool) -> Self {
        let state = cluster();
        let (changes, watched) = watch::channel(Arc::new(state.clone()));
        let (states, stream) = mpsc::channel(1);
        let (told, listeners) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let place =
            Place { cluster: ClusterId::from_u128(1), node: NODE, advertise: ([127, 0, 0, 1], 2377).into() };
        let follower = Follower {
            place,
            node: NODE,
            changes: follows,
            tests: watch::channel(Arc::default()).1,
            orders: watch::channel(Arc::default()).1,
            traffic: watch::channel(0).1,
        };
        let ended = tokio::spawn(follower.serve(watched, listeners, states, stop.clone()));
        Self { state, changes, told, stream, stop, ended }
    }

    fn apply(&mut self, command: Command) {
        self.state.apply(command).unwrap();
        self.changes.send_replace(Arc::new(self.state.clone()));
    }

    async fn networks(&mut self) -> usize {
        self.stream.recv().await.unwrap().unwrap().view.unwrap().networks.len()
    }
}

#[tokio::test]
async fn a_slow_node_gets_the_newest_state() {
    let mut session = Running::start();
    assert_eq!(session.networks().await, 1);
    for number in 0..50 {
        session.apply(network(number));
        // Lets the session fill its only slot while nobody reads.
        tokio::task::yield_now().await;
    }
    let first = session.networks().await;
    assert!(first <= 51);
    if first < 51 {
        assert_eq!(session.networks().await, 51, "all but the one that waited in the slot are one message");
    }
    assert!(session.stream.try_recv().is_err());
}

#[tokio::test]
async fn leases_of_others_and_secrets_wake_nobody() {
    let mut session = Running::start();
    assert_eq!(session.networks().await, 1);
    let secret = Sensitive([9; 16]);
    session.apply(Command::RotateJoinToken { role: Role::Worker, secret });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(session.stream.try_recv().is_err());
    session.apply(Command::Lease { node: NODE, network: NetworkId::from_u128(1), count: 2, family: None });
    let state = session.stream.recv().await.unwrap().unwrap();
    assert_eq!(state.leases[0].addresses, ["10.0.0.2", "10.0.0.3"]);
}

#[tokio::test]
async fn listeners_of_all_nodes_are_sent() {
    let mut session = Running::start();
    assert_eq!(session.networks().await, 1);
    let address = IpAddr::from([0, 0, 0, 0]);
    let listener = Listener { port: 80, protocol: mesh_types::Protocol::Tcp, address, process: None };
    session.told.send_replace(Arc::new([(NodeId::from_u128(2), vec![listener.clone()])].into()));
    let state = session.stream.recv().await.unwrap().unwrap();
    assert_eq!(state.listeners, [node_listeners(NodeId::from_u128(2), &[listener])]);
}

#[tokio::test]
async fn who_can_follow_is_sent_what_changed() {
    let mut session = Running::with(true);
    let first = session.stream.recv().await.unwrap().unwrap();
    let mut view = mesh_types::ClusterView::try_from(first.view.unwrap()).unwrap();
    let mut leases = first.leases;
    let ingress = NetworkId::from_u128(1);
    let changes = [
        network(1),
        Command::Lease { node: NODE, network: ingress, count: 2, family: None },
        network(2),
        Command::RemoveNetwork(NetworkId::from_u128(101)),
        Command::TakeBackLeases { node: NODE, after: 0 },
    ];
    for (number, command) in changes.into_iter().enumerate() {
        // In between comes what concerns nobody, so that versions are left out.
        session.apply(Command::RotateJoinToken { role: Role::Worker, secret: Sensitive([number as u8; 16]) });
        session.apply(command);
        let told = session.stream.recv().await.unwrap().unwrap();
        assert!(told.view.is_none());
        let change = mesh_types::ViewChange::try_from(told.change.unwrap()).unwrap();
        assert!(change.now.networks.len() <= 1 && change.now.nodes.is_empty(), "{change:?}");
        assert!(view.change(change));
        assert_eq!(Some(&view), session.state.view().as_ref());
        assert!(told.same_listeners && told.listeners.is_empty());
        assert_eq!(told.same_leases, !matches!(number, 1 | 4), "change {number}");
        if !told.same_leases {
            leases = told.leases;
        }
        let held: usize = leases.iter().map(|lease| lease.addresses.len()).sum();
        assert_eq!(held, session.state.leases_of(NODE).values().map(Vec::len).sum::<usize>());
    }
}

#[tokio::test]
async fn a_session_ends_when_either_side_does() {
    let mut session = Running::start();
    session.stop.cancel();
    assert!(session.stream.recv().await.unwrap().is_ok());
    let status = session.stream.recv().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    session.ended.await.unwrap();

    let session = Running::start();
    drop(session.stream);
    session.ended.await.unwrap();
}
