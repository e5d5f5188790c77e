//! The ring of gossip keys: its steps, who has it, and what the removal of a node means for it.

use std::collections::BTreeSet;

use mesh_store::{
    Command, DEFAULT_GOSSIP_ROTATION, GossipKeys, GossipPhase, MAX_GOSSIP_ROTATION, MIN_GOSSIP_ROTATION,
    Rejection, Response, Sensitive, State,
};
use mesh_types::NodeId;
use proptest::prelude::*;

use crate::common::*;

fn keys(state: &State) -> &GossipKeys {
    state.gossip_keys().unwrap()
}

/// The first bytes of the keys: tests give keys of one repeated byte.
fn ring(state: &State) -> Vec<u8> {
    assert_eq!(state.view().unwrap().gossip_keys, keys(state).ring);
    keys(state).ring.iter().map(|key| key[0]).collect()
}

fn rotate(state: &mut State, fresh: u8) -> Result<Response, Rejection> {
    let after = keys(state).version;
    state.apply(Command::RotateGossipKeys { fresh: Sensitive([fresh; 32]), after })
}

fn step(state: &mut State, now: u64) -> Result<Response, Rejection> {
    let after = keys(state).version;
    state.apply(Command::StepGossipKeys { after, now })
}

fn in_use(state: &mut State, version: u64, nodes: &[u8]) -> BTreeSet<NodeId> {
    let nodes = nodes.iter().map(|number| NodeId::from_u128((*number).into())).collect();
    state.apply(Command::GossipKeysInUse { version, nodes }).unwrap();
    keys(state).holders.clone()
}

#[test]
fn a_key_passes_through_the_ring() {
    let mut state = cluster(2);
    assert_eq!((ring(&state), keys(&state).phase, keys(&state).since), (vec![3], GossipPhase::Settled, 5));
    assert_eq!(step(&mut state, 9), Err(Rejection::GossipKeysChange), "there is nothing to go on with");
    rotate(&mut state, 4).unwrap();
    assert_eq!(
        (ring(&state), keys(&state).phase, keys(&state).since),
        (vec![3, 4], GossipPhase::Spreading, 5)
    );
    assert_eq!(rotate(&mut state, 6), Err(Rejection::GossipKeysChange), "one at a time");
    step(&mut state, 100).unwrap();
    assert_eq!(
        (ring(&state), keys(&state).phase, keys(&state).since),
        (vec![4, 3], GossipPhase::Retiring, 100)
    );
    assert_eq!(rotate(&mut state, 6), Err(Rejection::GossipKeysChange));
    step(&mut state, 200).unwrap();
    assert_eq!((ring(&state), keys(&state).phase, keys(&state).since), (vec![4], GossipPhase::Settled, 100));
    assert_eq!(rotate(&mut state, 4), Err(Rejection::GossipKeysChange), "that is no fresh key");
    assert!(!format!("{:?}", keys(&state)).contains("4, 4"));
}

#[test]
fn steps_are_for_the_ring_that_was_seen() {
    let mut state = cluster(1);
    let seen = keys(&state).version;
    rotate(&mut state, 4).unwrap();
    let say = |state: &mut State, command| refused(state, command);
    let again = say(&mut state, Command::RotateGossipKeys { fresh: Sensitive([5; 32]), after: seen });
    assert_says(&again, &["being replaced already", "meshctl cluster inspect"]);
    say(&mut state, Command::StepGossipKeys { after: seen, now: 7 });
    assert_eq!(ring(&state), [3, 4]);
}

#[test]
fn nodes_that_have_the_ring_are_noted_until_it_changes() {
    let mut state = cluster(3);
    rotate(&mut state, 4).unwrap();
    let (version, view_version) = (keys(&state).version, state.view_version());
    assert_eq!(version, state.version());
    assert_eq!(in_use(&mut state, version, &[1, 2, 9]).len(), 2, "the last one is no member");
    assert_eq!(state.view_version(), view_version, "nobody is to be told");
    let before = state.version();
    in_use(&mut state, version, &[1]);
    in_use(&mut state, version - 1, &[3]);
    assert_eq!((state.version(), keys(&state).holders.len()), (before, 2), "nothing new");
    state.apply(Command::RemoveNode(NodeId::from_u128(2))).unwrap();
    assert_eq!(keys(&state).holders.len(), 1);
    step(&mut state, 7).unwrap();
    assert!(keys(&state).holders.is_empty());
}

#[test]
fn whoever_is_removed_knows_the_keys_of_before() {
    // While nothing changes: a fresh key comes.
    let mut state = cluster(9);
    let remove = |state: &mut State, number: u8| {
        state.apply(Command::RemoveNode(NodeId::from_u128(number.into()))).unwrap();
        assert!(keys(state).leaked);
    };
    remove(&mut state, 9);
    rotate(&mut state, 4).unwrap();
    assert!(!keys(&state).leaked);
    // While a next key spreads: another one takes its place.
    remove(&mut state, 8);
    rotate(&mut state, 5).unwrap();
    assert_eq!((ring(&state), keys(&state).phase), (vec![3, 5], GossipPhase::Spreading));
    // While the last one retires: it stays for those that still send with it.
    step(&mut state, 7).unwrap();
    remove(&mut state, 7);
    rotate(&mut state, 6).unwrap();
    assert_eq!((ring(&state), keys(&state).phase), (vec![5, 6, 3], GossipPhase::Spreading));
    remove(&mut state, 6);
    rotate(&mut state, 7).unwrap();
    assert_eq!(ring(&state), [5, 7, 3]);
    step(&mut state, 8).unwrap();
    assert_eq!((ring(&state), keys(&state).urgent), (vec![7, 5], true));
    step(&mut state, 9).unwrap();
    assert_eq!(
        (ring(&state), keys(&state).phase, keys(&state).leaked || keys(&state).urgent),
        (vec![7], GossipPhase::Settled, false)
    );
}

#[test]
fn a_restored_ring_is_to_be_replaced() {
    let mut state = cluster(2);
    rotate(&mut state, 4).unwrap();
    let version = keys(&state).version;
    in_use(&mut state, version, &[1, 2]);
    let restored = state.with_only_manager(node(1));
    let now = keys(&restored);
    assert!(now.leaked && now.holders.is_empty() && now.version == restored.version());
    assert_eq!(ring(&restored), [3, 4]);
}

#[test]
fn the_schedule_has_bounds() {
    let mut state = cluster(1);
    assert_eq!(keys(&state).rotation_secs, DEFAULT_GOSSIP_ROTATION);
    for secs in [1, MIN_GOSSIP_ROTATION - 1, MAX_GOSSIP_ROTATION + 1, u64::MAX] {
        assert_says(
            &refused(&mut state, Command::SetGossipRotation { secs }),
            &[&secs.to_string(), "720 h", "0 for"],
        );
    }
    for secs in [0, MIN_GOSSIP_ROTATION, MAX_GOSSIP_ROTATION] {
        state.apply(Command::SetGossipRotation { secs }).unwrap();
        assert_eq!(keys(&state).rotation_secs, secs);
    }
}

proptest! {
    /// Whatever is asked for in whatever order: each ring and the one before it read what the other sends with, and a ring
    /// has three keys at most.
    #[test]
    fn neighbouring_rings_read_each_other(asked in prop::collection::vec(0u8..4, 0..60)) {
        let mut state = cluster(60);
        let mut members = 60u8;
        for (number, what) in asked.into_iter().enumerate() {
            let before = keys(&state).ring.clone();
            let number = u8::try_from(number).unwrap();
            let _ = match what {
                0 => rotate(&mut state, 100 + number),
                1 | 2 => step(&mut state, number.into()),
                _ => {
                    members -= 1;
                    state.apply(Command::RemoveNode(NodeId::from_u128(u128::from(members) + 1)))
                }
            };
            let now = &keys(&state).ring;
            prop_assert!((1..=3).contains(&now.len()));
            prop_assert!(now.contains(&before[0]) && before.contains(&now[0]), "{before:?} {now:?}");
        }
    }
}
