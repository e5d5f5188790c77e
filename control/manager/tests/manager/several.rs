//! Several managers: how they become it, what is left when one goes, and a cluster made anew.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use mesh_api::v1::{
    self, BackupRequest, CreateNetworkRequest, Role, SetRoleRequest, UpdateNodeRequest,
    control_server::Control,
};
use mesh_ca::Identity;
use mesh_manager::{Backup, Manager, ManagerOptions, NewCluster, RestoredCluster};
use mesh_types::MANAGER_PORT;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request};

use crate::support::*;

/// Bounds a test that hangs; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(50);

/// A loopback address that nobody else has: managers of one cluster have one port.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let pid = std::process::id() as u16;
    let [high, low] = pid.to_be_bytes();
    // Each test is a process of its own, with few managers.
    Ipv4Addr::new(127, 64 | (high & 0x3f), low, NEXT.fetch_add(1, Ordering::Relaxed) as u8)
}

fn options(home: &Home, address: Ipv4Addr) -> ManagerOptions {
    let at = (address, MANAGER_PORT).into();
    ManagerOptions { listen: at, advertise: at, ..home.options() }
}

struct Node {
    home: Home,
    address: Ipv4Addr,
    manager: Manager,
}

impl Node {
    async fn first() -> Self {
        let (home, address) = (Home::new(), address());
        let new = NewCluster { data_path_addr: address.into(), ..new_cluster() };
        let manager = Manager::init(options(&home, address), new).await.unwrap();
        Self { home, address, manager }
    }

    /// Joins as a manager and waits until it votes.
    async fn further(first: &Manager, name: &str) -> Self {
        let (home, address) = (Home::new(), address());
        let pinned = token(first, Role::Manager, false).await.parse().unwrap();
        let asked = ask_to_join(first, &pinned, |request| {
            request.name = name.into();
            request.advertise_addr = address.to_string();
        });
        let (response, key) = asked.await.unwrap();
        assert_eq!(response.node.unwrap().role(), Role::Manager);
        let chain = response.certificates.into_iter().map(Into::into).collect();
        let identity = Identity::new(key, chain).unwrap();
        identity.save(home.dir.path()).unwrap();
        let cell = mesh_ca::IdentityCell::new(identity).unwrap();
        let manager = Manager::join(options(&home, address), cell).await.unwrap();
        let node = Self { home, address, manager };
        until("it votes", async || node.manager.votes()).await;
        node
    }

    async fn restart(self) -> Self {
        let Self { home, address, manager } = self;
        manager.shutdown().await;
        let identity = Identity::load(home.dir.path()).unwrap();
        let cell = mesh_ca::IdentityCell::new(identity).unwrap();
        let manager = Manager::open(options(&home, address), cell).await.unwrap();
        Self { home, address, manager }
    }

    fn id(&self) -> mesh_types::NodeId {
        self.manager.identity().current().own().node
    }

    async fn create(&self, name: &str) -> Result<(), tonic::Status> {
        let request = CreateNetworkRequest { name: name.into(), ..Default::default() };
        self.manager.control().create_network(Request::new(request)).await.map(drop)
    }

    async fn networks(&self) -> usize {
        self.manager.decided().await.unwrap().networks().count()
    }

    async fn set_role(&self, node: &str, role: Role) -> Result<v1::Node, tonic::Status> {
        let request =
            SetRoleRequest { node: node.into(), role: role.into(), force: false, expected_version: None };
        self.manager.control().set_role(Request::new(request)).await.map(tonic::Response::into_inner)
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let held = async {
        while !holds().await {
            sleep(STEP).await;
        }
    };
    timeout(LONG, held).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

#[tokio::test]
async fn three_managers_decide_as_one_and_outlive_the_leader() {
    let first = Node::first().await;
    let second = Node::further(&first.manager, "second").await;
    let third = Node::further(&second.manager, "third").await;
    for (number, node) in [&first, &second, &third].into_iter().enumerate() {
        node.create(&format!("net{number}")).await.unwrap();
        for other in [&first, &second, &third] {
            assert_eq!(other.networks().await, number + 2, "what one was told all know");
        }
    }
    // The first leads, having been alone; it hands over.
    first.manager.shutdown().await;
    second.create("later").await.unwrap();
    assert_eq!(third.networks().await, 5);
    // A member goes on with any of them.
    Member::join(&third.manager, "worker").await.session().await.next().await.unwrap();
    second.manager.shutdown().await;
    third.manager.shutdown().await;
}

#[tokio::test]
async fn a_demoted_manager_is_taken_out_and_comes_back_anew() {
    let first = Node::first().await;
    let second = Node::further(&first.manager, "second").await;
    // The one that leads, told by the other.
    second.set_role("first", Role::Worker).await.unwrap();
    let managers = [(second.id(), second.address.into())];
    until("it is out", async || first.manager.is_out(&managers).await).await;
    assert!(!second.manager.is_out(&managers).await);
    second.create("alone").await.unwrap();
    let refused = second.set_role("second", Role::Worker).await.unwrap_err();
    assert_says(&refused, Code::FailedPrecondition, &["second", "last manager"]);

    let Node { home, address, manager } = first;
    manager.shutdown().await;
    Manager::forget(home.dir.path()).unwrap();
    second.set_role("first", Role::Manager).await.unwrap();
    let identity = mesh_ca::IdentityCell::new(Identity::load(home.dir.path()).unwrap()).unwrap();
    let manager = Manager::join(options(&home, address), identity).await.unwrap();
    until("it votes again", async || manager.votes()).await;
    assert_eq!(manager.decided().await.unwrap().networks().count(), 2);
    manager.shutdown().await;
    second.manager.shutdown().await;
}

#[tokio::test]
async fn the_majority_is_not_given_away() {
    let first = Node::first().await;
    let second = Node::further(&first.manager, "second").await;
    let third = Node::further(&first.manager, "third").await;
    let (gone, name) = (third.id(), "third");
    let Node { manager, .. } = third;
    manager.shutdown().await;
    until("its silence is noticed", async || {
        let (members, _) = first.manager.standings().await.unwrap();
        members.iter().any(|m| m.node == gone && !m.reachable)
    })
    .await;
    let refused = first.set_role("second", Role::Worker).await.unwrap_err();
    assert_says(&refused, Code::FailedPrecondition, &["second", "1 can be reached", "--force"]);
    // The silent one is no loss.
    first.set_role(name, Role::Worker).await.unwrap();
    until("it is forgotten", async || first.manager.standings().await.unwrap().0.len() == 2).await;
    first.set_role("second", Role::Worker).await.unwrap();
    first.manager.shutdown().await;
    second.manager.shutdown().await;
}

#[tokio::test]
async fn no_more_than_seven() {
    let first = Node::first().await;
    let pinned = token(&first.manager, Role::Manager, false).await.parse().unwrap();
    for number in 2..=7 {
        // They never come up, and cost nothing: they do not vote.
        let named = |request: &mut v1::JoinRequest| request.name = format!("m{number}");
        ask_to_join(&first.manager, &pinned, named).await.unwrap();
    }
    let refused = ask_to_join(&first.manager, &pinned, |request| request.name = "m8".into()).await;
    let refused = refused.err().unwrap();
    assert_says(&refused, Code::FailedPrecondition, &["7 managers"]);
    first.create("still").await.unwrap();
    first.manager.shutdown().await;
}

#[tokio::test]
async fn what_is_left_of_three_goes_on_alone_when_told_to() {
    let first = Node::first().await;
    let second = Node::further(&first.manager, "second").await;
    let third = Node::further(&first.manager, "third").await;
    second.create("kept").await.unwrap();
    let seen = third.networks().await;
    let id = third.id();
    first.manager.shutdown().await;
    second.manager.shutdown().await;
    let Node { home, address, manager } = third;
    let version = manager.state().borrow().version();
    manager.decided().await.unwrap_err();
    manager.shutdown().await;

    let identity = mesh_ca::IdentityCell::new(Identity::load(home.dir.path()).unwrap()).unwrap();
    let manager = Manager::force_new_cluster(options(&home, address), identity).await.unwrap();
    let third = Node { home, address, manager };
    assert_eq!(third.networks().await, seen);
    let state = third.manager.decided().await.unwrap();
    assert_eq!(state.managers().map(|node| node.id).collect::<Vec<_>>(), [id]);
    assert_eq!(state.nodes().count(), 3);
    assert!(
        state.version() > version + 1_000_000,
        "nodes take it for newer than what the lost ones may have said"
    );
    third.create("new").await.unwrap();
    let third = third.restart().await;
    assert_eq!(third.networks().await, seen + 1);
    assert!(!third.home.dir.path().join("raft.lost").exists());
    third.manager.shutdown().await;
}

#[tokio::test]
async fn a_backup_makes_the_cluster_anew() {
    let first = Node::first().await;
    first.create("kept").await.unwrap();
    let worker = Member::join(&first.manager, "worker").await;
    let backup = first.manager.control().backup(Request::new(BackupRequest {})).await.unwrap();
    let backup = Backup::decode(&backup.into_inner().backup).unwrap();
    first.create("lost").await.unwrap();
    let (id, address) = (first.id(), first.address);
    first.manager.shutdown().await;

    let home = Home::new();
    let restored =
        |state| RestoredCluster { state, name: "first".parse().unwrap(), data_path_addr: address.into() };
    let manager = Manager::restore(options(&home, address), restored(backup.state.clone())).await.unwrap();
    let own = manager.identity().current().own();
    assert_eq!((own.node, own.role), (id, mesh_types::Role::Manager), "the node of that name");
    let state = manager.decided().await.unwrap();
    assert_eq!(state.networks().count(), 2);
    assert!(state.secrets() == backup.state.secrets());
    // Its nodes know it again.
    let channel = dial(&manager, worker.identity.clone()).await;
    let mut session = Member { identity: worker.identity, channel }.session().await;
    assert_eq!(view(&session.next().await.unwrap()).nodes.len(), 2);
    let again = Manager::restore(options(&home, self::address()), restored(backup.state)).await;
    assert!(again.err().unwrap().to_string().contains("holds the state of a cluster"));
    manager.shutdown().await;
}

#[tokio::test]
async fn a_manager_with_another_address_is_followed() {
    let first = Node::first().await;
    let (second, third) =
        (Node::further(&first.manager, "second").await, Node::further(&first.manager, "third").await);
    let own = second.manager.identity().current().own().node;
    let Node { home, address: old, manager } = second;
    manager.shutdown().await;
    let now = address();
    let cell = mesh_ca::IdentityCell::new(Identity::load(home.dir.path()).unwrap()).unwrap();
    let manager = Manager::open(options(&home, now), cell).await.unwrap();
    // It can ask the others, who look for it where it was.
    until("the others know", async || manager.follow_address(now.into()).await.is_ok()).await;
    until("it votes there", async || {
        let Ok((members, _)) = first.manager.standings().await else { return false };
        members.iter().any(|m| m.node == own && m.addr.ip() == now && m.voter && m.reachable)
    })
    .await;
    assert!(first.manager.managers().iter().all(|manager| manager.ip() != old));
    assert_eq!(manager.managers()[0].ip(), now, "itself first, where it is");
    // Its vote counts: without the third the two still decide.
    third.manager.shutdown().await;
    until("a change without the third", async || {
        let request =
            UpdateNodeRequest { node: "third".into(), remove_labels: vec!["x".into()], ..Default::default() };
        manager.control().update_node(Request::new(request)).await.is_ok()
    })
    .await;
    // Nobody else can have it.
    let taken = first.manager.follow_address(now.into()).await.unwrap_err();
    assert_says(&taken, Code::AlreadyExists, &[&now.to_string(), "node second", "meshctl node rm"]);
    manager.shutdown().await;
    first.manager.shutdown().await;
}
