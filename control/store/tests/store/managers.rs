//! Who is a manager: how many, who was one, and what is left when all but one are lost.

use mesh_store::{Command, MAX_MANAGERS, NodeChange, Rejection, State};
use mesh_types::{Node, NodeId, Role};

use crate::common::*;

fn id(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

fn set_role(state: &mut State, number: u8, role: Role) -> Result<(), Rejection> {
    let change = NodeChange { role: Some(role), ..NodeChange::default() };
    state.apply(Command::UpdateNode { node: id(number), change }).map(drop)
}

fn managers(state: &State) -> Vec<NodeId> {
    state.managers().map(|node| node.id).collect()
}

#[test]
fn there_are_at_most_seven() {
    let mut state = cluster(9);
    for number in 2..=7 {
        set_role(&mut state, number, Role::Manager).unwrap();
    }
    assert_eq!(state.managers().count(), MAX_MANAGERS);
    let before = state.encode();
    assert!(matches!(set_role(&mut state, 8, Role::Manager), Err(Rejection::TooManyManagers)));
    let joining = Node { role: Role::Manager, ..node(10) };
    assert!(matches!(state.apply(Command::AddNode(joining)), Err(Rejection::TooManyManagers)));
    assert_eq!(state.encode(), before);
    // Again is no further one, and one that goes makes room.
    set_role(&mut state, 7, Role::Manager).unwrap();
    set_role(&mut state, 7, Role::Worker).unwrap();
    set_role(&mut state, 8, Role::Manager).unwrap();
}

#[test]
fn whoever_was_one_is_remembered_until_it_is_one_again() {
    let mut state = cluster(3);
    assert!(!state.was_manager(id(2)));
    set_role(&mut state, 2, Role::Manager).unwrap();
    assert!(!state.was_manager(id(2)));
    set_role(&mut state, 2, Role::Worker).unwrap();
    assert!(state.was_manager(id(2)) && !state.was_manager(id(3)));
    set_role(&mut state, 2, Role::Manager).unwrap();
    assert!(!state.was_manager(id(2)));
    state.apply(Command::RemoveNode(id(2))).unwrap();
    state.apply(Command::RemoveNode(id(3))).unwrap();
    assert!(state.was_manager(id(2)) && !state.was_manager(id(3)), "its certificate still says so");
    assert!(State::decode(&state.encode()).unwrap().was_manager(id(2)));
}

#[test]
fn the_last_one_stays() {
    let mut state = cluster(2);
    assert!(matches!(set_role(&mut state, 1, Role::Worker), Err(Rejection::LastManager(_))));
    assert!(matches!(state.apply(Command::RemoveNode(id(1))), Err(Rejection::LastManager(_))));
}

#[test]
fn what_is_left_goes_on_with_one() {
    let mut state = cluster(4);
    set_role(&mut state, 2, Role::Manager).unwrap();
    set_role(&mut state, 3, Role::Manager).unwrap();
    let before = state.clone();
    let third = state.node(id(3)).unwrap().clone();
    let left = state.with_only_manager(third);
    assert_eq!(managers(&left), [id(3)]);
    assert!(left.was_manager(id(1)) && left.was_manager(id(2)) && !left.was_manager(id(3)));
    assert!(left.version() > before.version() + u64::from(u32::MAX) && left.view_version() == left.version());
    assert_eq!(left.nodes().count(), 4);
    assert!(left.networks().eq(before.networks()) && left.secrets() == before.secrets());

    // A node that is not in it yet.
    let fresh = before.with_only_manager(node(9));
    assert_eq!(managers(&fresh), [id(9)]);
    assert_eq!(fresh.nodes().count(), 5);
    assert!(fresh.was_manager(id(3)));
}

#[test]
fn a_state_is_restored_into_nothing_only() {
    let mut state = cluster(2);
    let restored = Command::Restore(Box::new(cluster(3).with_only_manager(node(1))));
    let before = state.encode();
    assert!(matches!(state.apply(restored.clone()), Err(Rejection::AlreadyInitialized)));
    assert_eq!(state.encode(), before);
    let mut empty = State::default();
    empty.apply(restored.clone()).unwrap();
    let Command::Restore(wanted) = restored else { unreachable!() };
    assert_eq!(empty, *wanted);
    // And it goes on from there.
    let version = empty.version();
    empty.apply(Command::RemoveNode(id(3))).unwrap();
    assert_eq!(empty.version(), version + 1);
}

#[test]
fn a_node_is_found_by_its_name_as_dns_does() {
    let state = cluster(2);
    assert_eq!(state.node_named(&name("N2")).map(|node| node.id), Some(id(2)));
    assert_eq!(state.node_named(&name("n9")), None);
}
