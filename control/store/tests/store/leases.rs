//! Terms: what a node says of its leases, and what is taken from one that is silent.

use std::{collections::BTreeMap, net::IpAddr};

use crate::common::*;
use mesh_store::{Command, LeaseChange, MIN_LEASE_GRACE, Response, State};
use mesh_types::{NetworkId, NodeId};

const SECOND: NodeId = NodeId::from_u128(2);

struct Renewed {
    renewal: u64,
    done: bool,
    lost: Vec<(NetworkId, IpAddr)>,
    held: Option<BTreeMap<NetworkId, Vec<IpAddr>>>,
    version: u64,
}

fn renew(state: &mut State, after: u64, network: NetworkId, change: LeaseChange, full: bool) -> Renewed {
    let changes = [(network, change)].into();
    match state.apply(Command::RenewLeases { node: SECOND, after, changes, full }).unwrap() {
        Response::Renewed { renewal, done, lost, held, version, .. } => {
            Renewed { renewal, done, lost, held, version }
        }
        other => panic!("{other:?}"),
    }
}

fn used(addresses: &[IpAddr]) -> LeaseChange {
    LeaseChange { used: addresses.to_vec(), ..LeaseChange::default() }
}

fn take_back(state: &mut State, after: u64) -> Vec<IpAddr> {
    match state.apply(Command::TakeBackLeases { node: SECOND, after }).unwrap() {
        Response::Returned(addresses) => addresses,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_tasks_use_stays_with_a_silent_node() {
    let mut state = cluster(3);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap().id;
    let got = lease(&mut state, 2, a, 3).unwrap();
    let answer = renew(&mut state, 0, a, used(&got[..1]), true);
    assert_eq!((answer.renewal, answer.done, answer.version), (1, true, state.version()));
    assert_eq!(answer.held, Some([(a, got.clone())].into()));
    assert_eq!(state.task_addresses_of(SECOND), [(a, vec![got[0]])].into());
    assert_eq!(state.nodes_with_spare_leases(), [SECOND].into());

    assert!(take_back(&mut state, 0).is_empty(), "it has renewed since");
    assert_eq!(take_back(&mut state, 1), got[1..]);
    assert_eq!(state.leases_of(SECOND), [(a, vec![got[0]])].into());
    assert!(state.nodes_with_spare_leases().is_empty());
    // What it had sent before it fell silent comes too late.
    let late = renew(&mut state, 1, a, used(&got[1..2]), false);
    assert_eq!((late.renewal, late.done), (2, false));
    assert_eq!(state.leases_of(SECOND), [(a, vec![got[0]])].into());
    state.apply(Command::RemoveNode(SECOND)).unwrap();
    assert!(state.leases_of(SECOND).is_empty() && state.task_addresses_of(SECOND).is_empty());
}

#[test]
fn a_renewal_that_is_said_twice_changes_nothing() {
    let mut state = cluster(3);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap().id;
    let got = lease(&mut state, 2, a, 2).unwrap();
    let back = LeaseChange { returned: got.clone(), ..LeaseChange::default() };
    assert!(renew(&mut state, 0, a, back.clone(), false).done);
    assert!(state.leases_of(SECOND).is_empty());
    lease_address(&mut state, 2, a, &got[0].to_string()).unwrap();
    let version = state.version();
    assert!(!renew(&mut state, 0, a, back, false).done, "the same once more");
    assert_eq!((state.version(), state.leases_of(SECOND)), (version, [(a, vec![got[0]])].into()));
    // Used, and not any more, and given back although it was in use.
    assert!(renew(&mut state, 1, a, used(&got[..1]), false).done);
    let unused = LeaseChange { unused: got[..1].to_vec(), ..LeaseChange::default() };
    assert!(renew(&mut state, 2, a, unused, false).done);
    assert!(state.task_addresses_of(SECOND).is_empty());
    assert!(renew(&mut state, 3, a, used(&got[..1]), false).done);
    let back = LeaseChange { returned: got[..1].to_vec(), ..LeaseChange::default() };
    assert!(renew(&mut state, 4, a, back, false).done);
    assert!(state.leases_of(SECOND).is_empty());
}

#[test]
fn a_used_address_is_leased_anew_or_lost() {
    let mut state = cluster(3);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap().id;
    lease_address(&mut state, 3, a, "10.9.0.9").unwrap();
    let change = used(&[ip("10.9.0.8"), ip("10.9.0.9"), ip("10.9.0.1"), ip("10.8.0.1")]);
    let answer = renew(&mut state, 0, a, change, false);
    assert_eq!(answer.lost, ["10.9.0.9", "10.9.0.1", "10.8.0.1"].map(|lost| (a, ip(lost))));
    assert_eq!(state.leases_of(SECOND), [(a, vec![ip("10.9.0.8")])].into());
    assert!(renew(&mut state, 1, NetworkId::from_u128(99), used(&[ip("10.9.0.7")]), false).lost.is_empty());
}

#[test]
fn the_grace_is_granted_with_a_renewal() {
    let mut state = cluster(2);
    assert!(refused(&mut state, Command::SetLeaseGrace { secs: 3 }).contains("at least 10 s"));
    state
        .apply(Command::RenewLeases { node: SECOND, after: 0, changes: BTreeMap::new(), full: false })
        .unwrap();
    let before = state.renewal_of(SECOND);
    state.apply(Command::SetLeaseGrace { secs: MIN_LEASE_GRACE }).unwrap();
    assert_eq!(state.renewal_of(SECOND), before, "it counts on what it was granted");
    renew(&mut state, 1, INGRESS, used(&[]), false);
    assert_eq!(state.renewal_of(SECOND).grace_secs, MIN_LEASE_GRACE);
}

#[test]
fn a_network_with_little_left_is_scarce() {
    let mut state = cluster(3);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/29"])).unwrap().id;
    assert!(!state.is_scarce(a));
    for node in [1, 2, 3] {
        lease(&mut state, node, a, 1).unwrap();
    }
    assert!(state.is_scarce(a) && !state.is_scarce(INGRESS));
}
