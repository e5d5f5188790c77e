//! After a restart.

use std::{net::SocketAddr, time::Duration};

use mesh_gossip::{MemberState, MemberStatus};

use super::*;
use crate::heard::Told;

/// As it was kept: `N2` runs task 1, `N3` task 2.
fn restarted() -> (World, Planner) {
    let mut world = World::new();
    let third = node(N3, "192.168.7.3", Role::Worker);
    world.view().nodes.insert(N3, third);
    let mut kept: BTreeMap<NetworkId, Vec<Arc<Endpoint>>> = BTreeMap::new();
    for (from, task) in [
        (N1, task(9, Some(WEB), PROD, &["10.10.3.9"])),
        (N2, task(1, Some(WEB), PROD, &["10.10.3.5"])),
        (N3, task(2, Some(WEB), PROD, &["10.10.3.6"])),
    ] {
        for told in announcements(from, &world.view, &[task]) {
            kept.entry(told.scope).or_default().push(told.endpoint.into());
        }
    }
    let mut planner = Planner::new(N1);
    planner.remember(kept);
    (world, planner)
}

fn published(world: &World, planner: &mut Planner) -> Vec<u32> {
    behind(planner.plan(&world.inputs()).published(PublishedOn::AnyV4, 8080)).0
}

fn member(world: &mut World, node: NodeId, state: MemberState) {
    let addr = SocketAddr::from(([192, 168, 7, 9], 7946));
    let status = MemberStatus::new(addr, state, Duration::ZERO);
    let tables = Arc::make_mut(&mut world.gossip);
    tables.members.insert(node, status);
}

#[test]
fn what_ran_is_believed_until_told_otherwise() {
    let (mut world, mut planner) = restarted();
    assert_eq!(published(&world, &mut planner), [1, 2], "of others, not of oneself");
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    assert_eq!(published(&world, &mut planner), [1, 2]);
    // It ended, and is not believed again.
    world.hears(N2, &[]);
    assert_eq!(published(&world, &mut planner), [2]);
    planner.forget_remembered();
    assert_eq!(published(&world, &mut planner), [] as [u32; 0]);
}

#[test]
fn an_address_has_one_holder() {
    let (mut world, mut planner) = restarted();
    assert_eq!(published(&world, &mut planner), [1, 2]);
    world.hears(N3, &[task(4, Some(WEB), PROD, &["10.10.3.5"])]);
    assert_eq!(published(&world, &mut planner), [2, 4]);
}

#[test]
fn what_ran_on_a_node_that_is_gone_is_not_believed() {
    let (mut world, mut planner) = restarted();
    member(&mut world, N2, MemberState::Suspect);
    assert_eq!(published(&world, &mut planner), [1, 2]);
    member(&mut world, N2, MemberState::Down);
    assert_eq!(published(&world, &mut planner), [2]);
}

#[test]
fn what_ran_on_a_node_that_nobody_attends_to_is_believed_until_it_could_tell() {
    let (mut world, mut planner) = restarted();
    member(&mut world, N2, MemberState::Unattended);
    member(&mut world, N3, MemberState::Alive);
    assert_eq!(published(&world, &mut planner), [1, 2]);
    for _ in 0..3 {
        planner.forget_remembered();
        assert_eq!(published(&world, &mut planner), [1]);
    }
    assert!(planner.remembered().all(|(_, endpoint)| endpoint.node == N2));
    assert_eq!(planner.remembered().count(), 2, "in its network's table and in that of published ports");
    // Its daemon is back, and has not told yet; then it had its time.
    member(&mut world, N2, MemberState::Alive);
    assert_eq!(published(&world, &mut planner), [1]);
    planner.forget_remembered();
    assert_eq!(published(&world, &mut planner), [1]);
    planner.forget_remembered();
    assert_eq!(published(&world, &mut planner), [] as [u32; 0]);
    assert_eq!(planner.remembered().count(), 0);
}

#[test]
fn once_forgotten_the_plan_is_as_if_nothing_had_been_remembered() {
    let (mut world, mut planner) = restarted();
    world.runs([task(7, None, PROD, &["10.10.3.7"])]);
    planner.plan(&world.inputs());
    world.hears(N3, &[task(2, Some(WEB), PROD, &["10.10.3.6"])]);
    planner.plan(&world.inputs());
    planner.forget_remembered();
    let planned = planner.plan(&world.inputs()).clone();
    assert_eq!(planned.desired, world.plan().desired);
    assert_eq!(planned.names, world.plan().names);
}

/// What the log of what was heard tells stays what the planner holds.
#[test]
fn what_is_heard_is_told_change_by_change() {
    let (mut world, mut planner) = restarted();
    let mut kept: BTreeMap<Told, Arc<Endpoint>> = BTreeMap::new();
    let mut told = 0;
    let mut follow = |planner: &mut Planner| {
        if told == 0 {
            kept.extend(planner.heard().into_iter().filter_map(|(told, endpoint)| Some((told, endpoint?))));
        }
        told += 1;
        for (told, endpoint) in planner.take_heard() {
            match endpoint {
                Some(endpoint) => kept.insert(told, endpoint),
                None => kept.remove(&told),
            };
        }
        let all = planner.heard().into_iter().filter_map(|(told, endpoint)| Some((told, endpoint?)));
        assert_eq!(kept, all.collect(), "after step {told}");
        kept.len()
    };
    planner.plan(&world.inputs());
    assert_eq!(
        follow(&mut planner),
        4,
        "two tasks, each in its network's table and in that of published ports"
    );
    // Another task takes an address of one that is remembered.
    world.hears(N3, &[task(4, Some(WEB), PROD, &["10.10.3.5"])]);
    planner.plan(&world.inputs());
    assert_eq!(follow(&mut planner), 4);
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.7"]), task(5, None, PROD, &["10.10.3.8"])]);
    planner.plan(&world.inputs());
    assert_eq!(follow(&mut planner), 7);
    world.hears(N2, &[]);
    planner.plan(&world.inputs());
    assert_eq!(follow(&mut planner), 4);
    member(&mut world, N3, MemberState::Down);
    planner.plan(&world.inputs());
    follow(&mut planner);
    planner.forget_remembered();
    planner.plan(&world.inputs());
    assert_eq!(follow(&mut planner), 2, "the one task that gossip tells of");
}
