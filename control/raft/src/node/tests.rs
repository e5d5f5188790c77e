use std::{fs, sync::Arc};

use tempfile::TempDir;

use super::*;
use crate::testing::{Hub, LONG, addr, alone, frozen, id, init, label, number, quick, start};

/// Waits until the node's state has this number.
async fn reaches(node: &RaftNode, wanted: usize) {
    let mut states = node.watch();
    let reached = states.wait_for(|state| number(state) == Some(wanted));
    drop(timeout(LONG, reached).await.expect("in time").unwrap());
}

/// Waits until the node knows a leader that `wanted` accepts.
async fn knows_leader(node: &RaftNode, wanted: impl Fn(NodeId) -> bool) -> NodeId {
    let mut leaders = node.watch_leader();
    let known = leaders.wait_for(|leader| leader.is_some_and(|(node, _)| wanted(node)));
    let leader = *timeout(LONG, known).await.expect("in time").unwrap();
    leader.unwrap().0
}

#[tokio::test]
async fn a_sole_manager_needs_no_clock() {
    let (dir, hub, node) = alone(frozen()).await;
    for number in 0..100 {
        node.propose(label(number)).await.unwrap();
    }
    assert!(node.is_leader());
    assert_eq!(node.leader(), Some((id(1), addr(1))));
    assert_eq!(number(&node.linearizable().await.unwrap()), Some(99));
    node.shutdown().await;
    let again = start(&hub, 1, dir.path(), frozen()).await;
    assert!(again.is_leader(), "leads when open returns");
    assert_eq!(again.state().encode(), node.state().encode());
    again.shutdown().await;
}

#[tokio::test]
async fn a_rejection_is_an_answer() {
    let (_dir, _, node) = alone(frozen()).await;
    let before = node.state().encode();
    let again = node.propose(init()).await.unwrap_err();
    assert!(matches!(again, ProposeError::Rejected(Rejection::AlreadyInitialized)), "{again:?}");
    let unknown = node.propose(Command::RemoveNode(id(9))).await.unwrap_err();
    assert!(matches!(unknown, ProposeError::Rejected(Rejection::UnknownNode(_))), "{unknown:?}");
    assert_eq!(node.state().encode(), before);
    node.propose(label(1)).await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn initializing_twice_is_refused() {
    let (_dir, _, node) = alone(frozen()).await;
    assert!(matches!(node.initialize().await, Err(MembershipError::Refused { .. })));
    node.shutdown().await;
    let stopped = node.propose(label(1)).await;
    assert!(matches!(stopped, Err(ProposeError::Stopped { .. })), "{stopped:?}");
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let (dir, hub, node) = alone(frozen()).await;
    for number in 0..30 {
        node.propose(label(number)).await.unwrap();
        if number % 10 != 0 {
            continue;
        }
        // What is on disk at this moment is what a killed process leaves.
        let crashed = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join("raft.redb"), crashed.path().join("raft.redb")).unwrap();
        let again = start(&Arc::default(), 1, crashed.path(), frozen()).await;
        assert_eq!(again.state().encode(), node.state().encode());
        again.propose(label(1000)).await.unwrap();
        again.shutdown().await;
    }
    node.shutdown().await;
    drop(hub);
}

#[tokio::test]
async fn snapshots_shorten_the_log_and_are_read_again() {
    let config = openraft::Config { ..quick() };
    let (dir, hub, node) = alone(config.clone()).await;
    for number in 0..300 {
        node.propose(label(number)).await.unwrap();
    }
    let waiting = node.raft().wait(Some(LONG));
    waiting.metrics(|m| m.purged.is_some_and(|id| id.index > 200), "a purge").await.unwrap();
    node.propose(label(300)).await.unwrap();
    node.shutdown().await;

    let (_, loaded) = disk::open(dir.path(), id(1), &Default::default()).unwrap();
    assert!(loaded.log.len() < 100, "{}", loaded.log.len());
    assert!(loaded.snapshot.is_some());
    let again = start(&hub, 1, dir.path(), config).await;
    assert_eq!(again.state().encode(), node.state().encode());
    again.propose(label(301)).await.unwrap();
    assert_eq!(number(&again.state()), Some(301));
    again.shutdown().await;
}

/// Three managers that all vote.
async fn three() -> (Vec<TempDir>, Arc<Hub>, Vec<RaftNode>) {
    let hub: Arc<Hub> = Arc::default();
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = Vec::new();
    for (number, dir) in (1..).zip(&dirs) {
        nodes.push(start(&hub, number, dir.path(), quick()).await);
    }
    nodes[0].initialize().await.unwrap();
    nodes[0].propose(init()).await.unwrap();
    for number in 2..=3 {
        nodes[0].add_learner(id(number), addr(number)).await.unwrap();
        nodes[0].promote(id(number)).await.unwrap();
    }
    (dirs, hub, nodes)
}

async fn stop(nodes: &[RaftNode]) {
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn three_managers_replicate_and_any_of_them_takes_commands() {
    let (_dirs, _hub, nodes) = three().await;
    let managers = nodes[0].managers();
    assert_eq!(managers.len(), 3);
    assert!(managers.iter().all(|manager| manager.voter && manager.addr == addr(manager.node.as_u128())));
    for (number, node) in nodes.iter().enumerate() {
        node.propose(label(number)).await.unwrap();
        assert_eq!(super::tests::number(&node.state()), Some(number), "seen where it was asked for");
        for other in &nodes {
            assert_eq!(super::tests::number(&other.linearizable().await.unwrap()), Some(number));
        }
    }
    let rejected = nodes[2].propose(init()).await.unwrap_err();
    assert!(matches!(rejected, ProposeError::Rejected(_)), "{rejected:?}");
    stop(&nodes).await;
}

#[tokio::test]
async fn the_others_go_on_without_the_leader_and_it_catches_up() {
    let (_dirs, hub, nodes) = three().await;
    let old = knows_leader(&nodes[1], |_| true).await;
    hub.cut(old);
    let others: Vec<&RaftNode> = nodes.iter().filter(|node| node.node() != old).collect();
    for node in &others {
        knows_leader(node, |leader| leader != old).await;
    }
    // Far enough for the old leader to need a snapshot.
    for number in 0..200 {
        others[number % 2].propose(label(number)).await.unwrap();
    }
    hub.heal();
    for node in &nodes {
        reaches(node, 199).await;
    }
    let states: Vec<_> = nodes.iter().map(|node| node.state().encode()).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
    nodes[0].propose(label(200)).await.unwrap();
    stop(&nodes).await;
}

#[tokio::test]
async fn without_a_majority_changes_are_refused_and_reading_goes_on() {
    let (_dirs, hub, nodes) = three().await;
    nodes[0].propose(label(1)).await.unwrap();
    for node in &nodes {
        reaches(node, 1).await;
    }
    for node in &nodes {
        hub.cut(node.node());
    }
    let (first, second) = tokio::join!(nodes[0].propose(label(2)), nodes[1].propose(label(3)));
    for refused in [first, second] {
        let error = refused.unwrap_err();
        let kind =
            matches!(error, ProposeError::NoLeader | ProposeError::NoMajority | ProposeError::Leader { .. });
        assert!(kind, "{error:?}");
    }
    assert_eq!(number(&nodes[2].state()), Some(1));
    hub.heal();
    // What was refused for want of a majority may still have happened; what is said now holds.
    while nodes[2].propose(label(4)).await.is_err() {}
    for node in &nodes {
        assert_eq!(number(&node.linearizable().await.unwrap()), Some(4));
    }
    stop(&nodes).await;
}

#[tokio::test]
async fn all_managers_come_back_after_a_stop() {
    let (dirs, hub, nodes) = three().await;
    nodes[0].propose(label(7)).await.unwrap();
    stop(&nodes).await;
    let mut again = Vec::new();
    for (number, dir) in (1..).zip(&dirs) {
        again.push(start(&hub, number, dir.path(), quick()).await);
    }
    for node in &again {
        assert_eq!(number(&node.linearizable().await.unwrap()), Some(7));
    }
    stop(&again).await;
}

#[tokio::test]
async fn managers_leave_and_leadership_is_handed_over() {
    let (_dirs, _hub, nodes) = three().await;
    let leader = knows_leader(&nodes[0], |_| true).await;
    let leading = nodes.iter().find(|node| node.node() == leader).unwrap();
    let follower = nodes.iter().find(|node| node.node() != leader).unwrap();
    let refused = follower.remove(leader).await.unwrap_err();
    assert!(matches!(refused, MembershipError::NotLeader { leader: Some(l) } if l == leader), "{refused:?}");

    leading.transfer_leader(follower.node()).await.unwrap();
    knows_leader(follower, |leader| leader == follower.node()).await;
    follower.remove(leader).await.unwrap();
    assert_eq!(follower.managers().len(), 2);
    follower.remove(leader).await.unwrap();
    follower.propose(label(1)).await.unwrap();
    stop(&nodes).await;
}

#[tokio::test]
async fn a_leader_hands_over_before_it_goes() {
    let (_dirs, _hub, nodes) = three().await;
    let old = knows_leader(&nodes[1], |_| true).await;
    let leading = nodes.iter().find(|node| node.node() == old).unwrap();
    let standings = leading.standings().unwrap();
    assert_eq!(standings.len(), 3);
    assert!(standings.iter().all(|m| m.voter && m.addr == addr(m.node.as_u128())));
    for node in nodes.iter().filter(|node| node.node() != old) {
        assert_eq!(node.standings(), None, "only the leader can tell");
        let told = node.members(LONG).await.unwrap();
        assert_eq!(told.iter().map(|m| m.node).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    }
    assert!(leading.hand_over().await);
    leading.shutdown().await;
    for node in nodes.iter().filter(|node| node.node() != old) {
        assert_ne!(knows_leader(node, |leader| leader != old).await, old);
        node.propose(label(1)).await.unwrap();
    }
    stop(&nodes).await;
}

#[tokio::test]
async fn a_sole_manager_has_nobody_to_hand_over_to() {
    let (_dir, _, node) = alone(frozen()).await;
    assert!(!node.hand_over().await);
    node.propose(label(1)).await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn a_silent_manager_is_seen_and_its_log_falls_behind() {
    let (_dirs, hub, nodes) = three().await;
    let leader = knows_leader(&nodes[1], |_| true).await;
    let leading = nodes.iter().find(|node| node.node() == leader).unwrap();
    let cut = nodes.iter().find(|node| node.node() != leader).unwrap().node();
    hub.cut(cut);
    for number in 0..10 {
        leading.propose(label(number)).await.unwrap();
    }
    let standing = |node| leading.standings().and_then(|all| all.into_iter().find(|m| m.node == node));
    let noticed = async {
        while standing(cut).is_none_or(|m| m.reachable) {
            sleep(LEADER_PAUSE).await;
        }
    };
    timeout(LONG, noticed).await.unwrap();
    let silent = standing(cut).unwrap();
    assert!(!silent.caught_up() && silent.behind >= 10, "{silent:?}");
    hub.heal();
    let back = async {
        while standing(cut).is_none_or(|m| !m.caught_up()) {
            sleep(LEADER_PAUSE).await;
        }
    };
    timeout(LONG, back).await.unwrap();
    stop(&nodes).await;
}

/// Snapshots are made and sent while changes go on; who was away gets one and then the log.
#[tokio::test]
async fn snapshots_are_made_and_sent_under_load() {
    let (_dirs, hub, nodes) = three().await;
    let leader = knows_leader(&nodes[1], |_| true).await;
    let late = nodes.iter().find(|node| node.node() != leader).unwrap();
    hub.cut(late.node());
    let others: Vec<RaftNode> = nodes.iter().filter(|node| node.node() != late.node()).cloned().collect();
    let clients = others.iter().cycle().take(4).cloned().enumerate().map(|(client, node)| {
        tokio::spawn(async move {
            let mut acknowledged = 0;
            for number in 0..150 {
                // Leadership may change under load; what is not acknowledged is not counted.
                acknowledged += usize::from(node.propose(label(1_000 * client + number)).await.is_ok());
            }
            acknowledged
        })
    });
    let clients: Vec<_> = clients.collect();
    sleep(Duration::from_millis(200)).await;
    hub.heal();
    let mut acknowledged = 0;
    for client in clients {
        acknowledged += client.await.unwrap();
    }
    assert!(acknowledged > 0);
    while nodes[0].propose(label(9_999)).await.is_err() {}
    for node in &nodes {
        reaches(node, 9_999).await;
        let waiting = node.raft().wait(Some(LONG));
        waiting.metrics(|m| m.snapshot.is_some() && m.purged.is_some(), "a snapshot").await.unwrap();
    }
    let version = nodes[0].state().version();
    assert!(version as usize >= acknowledged, "{version} of {acknowledged}");
    assert!(nodes.iter().all(|node| node.state().encode() == nodes[0].state().encode()));
    stop(&nodes).await;
}

#[tokio::test]
async fn everything_in_the_log_is_read_from_the_file() {
    let (dir, _, node) = alone(quick()).await;
    for number in 0..130 {
        node.propose(label(number)).await.unwrap();
    }
    let state = node.state();
    node.shutdown().await;
    let read = RaftNode::read(dir.path(), id(1), None).await.unwrap();
    assert_eq!(read.encode(), state.encode());
    assert!(RaftNode::read(dir.path(), id(2), None).await.is_err());
}

#[tokio::test]
async fn noise_is_refused() {
    let (_dir, _, node) = alone(frozen()).await;
    for kind in
        ["append", "vote", "pre-vote", "snapshot", "transfer-leader", "propose", "read-index", "members"]
    {
        let kind: RpcKind = kind.parse().unwrap();
        assert_eq!(kind.as_str().parse(), Ok(kind));
        for noise in [&b""[..], b"\x01", b"\x07\x00", &[1; 40], &[0xff; 100], b"\x01\xff\xff\xff\xff\xff"] {
            drop(node.handle(kind, noise).await);
        }
    }
    assert!("APPEND".parse::<RpcKind>().is_err());
    node.propose(label(1)).await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn a_sole_manager_may_move() {
    let (dir, _, node) = alone(frozen()).await;
    node.shutdown().await;
    struct Nowhere;
    #[async_trait::async_trait]
    impl Transport for Nowhere {
        async fn call(
            &self,
            node: NodeId,
            addr: SocketAddr,
            _: RpcKind,
            _: Vec<u8>,
        ) -> Result<Vec<u8>, crate::TransportError> {
            Err(crate::TransportError::Unreachable { node, addr, source: "nowhere".into() })
        }
    }
    let options = RaftOptions {
        dir: dir.path().to_owned(),
        node: id(1),
        advertise: addr(9),
        transport: Arc::new(Nowhere),
        cipher: None,
        newest_format: mesh_store::NEWEST_FORMAT,
    };
    let moved = RaftNode::open_with(options, frozen()).await.unwrap();
    assert_eq!(moved.leader(), Some((id(1), addr(9))));
    assert_eq!(moved.managers(), [Manager { node: id(1), addr: addr(9), voter: true }]);
    moved.shutdown().await;
}
