use std::net::Ipv4Addr;

use super::*;

fn id(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn managers(numbers: &[u8]) -> BTreeMap<NodeId, IpAddr> {
    numbers.iter().map(|&number| (id(number), address(number))).collect()
}

/// A voter that has everything.
fn voter(number: u8) -> Standing {
    let addr = SocketAddr::new(address(number), MANAGER_PORT);
    Standing { node: id(number), addr, voter: true, reachable: true, behind: 0 }
}

fn learner(number: u8, behind: u64) -> Standing {
    Standing { voter: false, behind, ..voter(number) }
}

fn silent(number: u8) -> Standing {
    Standing { reachable: false, ..voter(number) }
}

#[test]
fn nothing_is_done_when_members_are_managers() {
    assert_eq!(next(id(1), &managers(&[1, 2, 3]), &[voter(1), voter(2), silent(3)]), None);
}

#[test]
fn a_new_manager_learns_first_and_votes_when_it_has_caught_up() {
    let wanted = managers(&[1, 2]);
    let added = next(id(1), &wanted, &[voter(1)]);
    assert_eq!(added, Some(Step::Add(id(2), SocketAddr::new(address(2), MANAGER_PORT))));
    assert_eq!(next(id(1), &wanted, &[voter(1), learner(2, 10_000)]), None);
    let away = Standing { reachable: false, ..learner(2, 0) };
    assert_eq!(next(id(1), &wanted, &[voter(1), away]), None, "it would cost the majority");
    assert_eq!(next(id(1), &wanted, &[voter(1), learner(2, 3)]), Some(Step::Promote(id(2))));
}

#[test]
fn a_learner_that_never_comes_keeps_nobody_else_waiting() {
    let away = Standing { reachable: false, ..learner(2, 10_000) };
    let step = next(id(1), &managers(&[1, 2, 3]), &[voter(1), away, learner(3, 0)]);
    assert_eq!(step, Some(Step::Promote(id(3))));
}

#[test]
fn who_is_no_manager_goes_before_others_come() {
    let step = next(id(1), &managers(&[1, 3]), &[voter(1), silent(2), learner(3, 0)]);
    assert_eq!(step, Some(Step::Remove(id(2))));
    let step = next(id(1), &managers(&[1]), &[voter(1), learner(2, 0)]);
    assert_eq!(step, Some(Step::Remove(id(2))));
}

#[test]
fn a_leader_that_is_to_go_hands_over_to_one_that_stays() {
    let members = [voter(1), voter(2), voter(3)];
    assert_eq!(next(id(1), &managers(&[2, 3]), &members), Some(Step::HandOver));
    assert_eq!(next(id(2), &managers(&[2, 3]), &members), Some(Step::Remove(id(1))));
    // Nobody can take over yet.
    assert_eq!(next(id(1), &managers(&[2]), &[voter(1), learner(2, 9)]), Some(Step::Promote(id(2))));
    assert_eq!(next(id(1), &managers(&[2]), &[voter(1), silent(2)]), None);
}

#[test]
fn a_manager_that_moved_is_followed_and_keeps_its_port() {
    let moved = Standing { addr: "10.9.9.9:4000".parse().unwrap(), ..voter(2) };
    let step = next(id(1), &managers(&[1, 2]), &[voter(1), moved]);
    assert_eq!(step, Some(Step::Readdress(id(2), SocketAddr::new(address(2), 4000))));
}

#[test]
fn losing_the_majority_is_foreseen() {
    assert_eq!(lost_without(id(3), &[voter(1), voter(2), voter(3)]), None);
    assert_eq!(lost_without(id(3), &[voter(1), silent(2), voter(3)]), Some((1, 2)));
    assert_eq!(lost_without(id(2), &[voter(1), silent(2), voter(3)]), None, "the silent one is no loss");
    assert_eq!(lost_without(id(2), &[voter(1), voter(2)]), None);
    assert_eq!(lost_without(id(1), &[voter(1), learner(2, 0)]), Some((0, 0)), "nobody is left");
    assert_eq!(lost_without(id(2), &[voter(1), learner(2, 0)]), None, "a learner decides nothing");
}

/// From any members to any managers, the steps end, and end there.
#[test]
fn the_steps_lead_to_the_managers() {
    for wanted in 1u8..32 {
        for had in 1u8..32 {
            let numbers = |bits: u8| (1..=5).filter(move |n| bits & (1 << (n - 1)) != 0);
            let managers = managers(&numbers(wanted).collect::<Vec<_>>());
            let mut members: Vec<_> = numbers(had).map(voter).collect();
            let mut leader = members[0].node;
            let mut steps = 0;
            while let Some(step) = next(leader, &managers, &members) {
                steps += 1;
                assert!(steps < 20, "{wanted:b} {had:b}: {step:?}");
                match step {
                    Step::Add(node, addr) => {
                        members.push(Standing { node, addr, voter: false, reachable: true, behind: 0 });
                    }
                    Step::Promote(node) => {
                        members.iter_mut().filter(|m| m.node == node).for_each(|m| m.voter = true);
                    }
                    Step::Remove(node) => {
                        assert_ne!(node, leader, "the leader hands over first");
                        members.retain(|m| m.node != node);
                    }
                    Step::Readdress(..) => panic!("nobody moved"),
                    Step::Finish => panic!("these changes are whole"),
                    Step::HandOver => {
                        let heir = members.iter().find(|m| m.node != leader && m.voter).unwrap();
                        leader = heir.node;
                    }
                }
            }
            let end: Vec<_> = members.iter().filter(|m| m.voter).map(|m| m.node).collect();
            let mut end = end;
            end.sort();
            assert_eq!(end, managers.keys().copied().collect::<Vec<_>>(), "{wanted:b} {had:b}");
        }
    }
}
