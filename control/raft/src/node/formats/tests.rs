use std::sync::Arc;

use mesh_store::{NEWEST_FORMAT, OLDEST_FORMAT, Removable};
use tempfile::tempdir;

use super::*;
use crate::{
    OpenError, RaftOptions, Standing,
    testing::{Hub, LONG, alone, frozen, id, init, label, number, quick, start, start_older},
};

/// A command that the version before does not know. It is refused by the state: no node has this version.
fn newer() -> Command {
    Command::RemoveUnchanged { object: Removable::Node(id(1)), version: 1 << 40 }
}

#[tokio::test]
async fn one_alone_agrees_with_itself() {
    let (dir, hub, node) = alone(frozen()).await;
    assert!(matches!(node.propose(newer()).await, Err(ProposeError::NotAgreed)));
    assert!(node.raise_format().await.unwrap());
    assert!(!node.raise_format().await.unwrap(), "there is nothing newer");
    assert!(matches!(node.propose(newer()).await, Err(ProposeError::Rejected(_))));
    node.shutdown().await;
    let again = start(&hub, 1, dir.path(), frozen()).await;
    assert_eq!(again.state().format(), NEWEST_FORMAT);
    again.shutdown().await;
}

#[tokio::test]
async fn an_older_meshd_does_not_go_on_with_what_a_newer_one_wrote() {
    let (dir, hub, node) = alone(frozen()).await;
    node.raise_format().await.unwrap();
    node.shutdown().await;
    let transport = node.inner.transport.clone();
    let options = RaftOptions {
        dir: dir.path().to_owned(),
        node: id(1),
        advertise: node.inner.advertise,
        transport,
        cipher: None,
        newest_format: OLDEST_FORMAT,
    };
    let Err(refused) = RaftNode::open(options).await else { panic!("it starts") };
    assert!(matches!(refused, OpenError::Format { .. }), "{refused:?}");
    let text = refused.to_string();
    for part in ["raft.redb", "format 5", "reads 4 to 4", "newer meshd"] {
        assert!(text.contains(part), "{text}");
    }
    start(&hub, 1, dir.path(), frozen()).await.shutdown().await;
}

/// Managers one after the other: two of the version before, the last of this one.
#[tokio::test]
async fn a_newer_format_waits_for_the_last_manager() {
    let hub: Arc<Hub> = Arc::default();
    let dirs = [tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap()];
    let first = start(&hub, 1, dirs[0].path(), quick()).await;
    first.initialize().await.unwrap();
    first.propose(init()).await.unwrap();
    let second = start_older(&hub, 2, dirs[1].path(), quick()).await;
    let third = start(&hub, 3, dirs[2].path(), quick()).await;
    for node in [&second, &third] {
        first.add_learner(node.node(), node.inner.advertise).await.unwrap();
        wait_until_caught_up(&first, node.node()).await;
        first.promote(node.node()).await.unwrap();
    }
    assert!(!first.raise_format().await.unwrap(), "the second reads no more than is agreed");
    for node in [&first, &second, &third] {
        assert!(matches!(node.propose(newer()).await, Err(ProposeError::NotAgreed)));
        node.propose(label(1)).await.unwrap();
    }
    hub.cut(id(2));
    assert!(!first.raise_format().await.unwrap(), "one that does not answer may be an older one");
    hub.heal();
    second.shutdown().await;
    let second = start(&hub, 2, dirs[1].path(), quick()).await;
    let leader = || [&first, &second, &third].into_iter().find(|node| node.is_leader());
    let agreed = async {
        loop {
            if let Some(leader) = leader()
                && matches!(leader.raise_format().await, Ok(true))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, agreed).await.expect("in time");
    for node in [&first, &second, &third] {
        let mut states = node.watch();
        let raised = states.wait_for(|state| state.format() == NEWEST_FORMAT);
        drop(timeout(LONG, raised).await.expect("in time").unwrap());
        assert!(matches!(node.propose(newer()).await, Err(ProposeError::Rejected(_))));
    }

    // One that comes after that with the version before says what is wrong, and harms nobody.
    let dir = tempdir().unwrap();
    let late = start_older(&hub, 4, dir.path(), quick()).await;
    let leader = leader().expect("a leader");
    leader.add_learner(id(4), late.inner.advertise).await.unwrap();
    leader.propose(label(7)).await.unwrap();
    let told = async {
        while late.outdated().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        late.outdated().unwrap_or_default()
    };
    let why = timeout(LONG, told).await.expect("in time");
    assert!(why.contains("format 5") && why.contains("newer meshd"), "{why}");
    assert_ne!(number(&late.state()), Some(7));
    late.shutdown().await;
    let late = start(&hub, 4, dir.path(), quick()).await;
    let mut states = late.watch();
    let follows = states.wait_for(|state| number(state) == Some(7));
    drop(timeout(LONG, follows).await.expect("in time").unwrap());
    assert_eq!(late.outdated(), None);
    for node in [first, second, third, late] {
        node.shutdown().await;
    }
}

async fn wait_until_caught_up(leader: &RaftNode, node: mesh_types::NodeId) {
    let caught_up = async {
        loop {
            let standings = leader.standings().unwrap_or_default();
            if standings.iter().any(|standing| standing.node == node && Standing::caught_up(standing)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, caught_up).await.expect("in time");
}
