use mesh_types::TaskId;

use super::*;
use crate::{
    Table,
    simulation::{net, node},
};

const RESEND: Duration = Duration::from_millis(40);

fn gone(owner: u8, task: u128) -> Item {
    let version = Version { epoch: 1, counter: 1 };
    Item::Gone { scope: net(1), version, owner: node(owner), task: TaskId::from_u128(task), network: net(1) }
}

fn relay(outbox: &mut Outbox, owner: u8, task: u128, times: u8) {
    let item = gone(owner, task);
    outbox.relay(item.key(), item.version(), times, node(1));
}

fn owners(taken: &[(Key, Version)]) -> Vec<NodeId> {
    taken.iter().map(|(key, _)| key.owner).collect()
}

#[test]
fn the_backlog_of_a_member_is_bounded() {
    let mut outbox = Outbox::default();
    for n in 0..BACKLOG as u128 {
        assert!(outbox.direct(node(2), vec![gone(1, n)], Duration::ZERO, RESEND).is_some());
    }
    assert!(outbox.direct(node(2), vec![gone(1, 0)], Duration::ZERO, RESEND).is_none());
    assert!(outbox.direct(node(3), vec![gone(1, 0)], Duration::ZERO, RESEND).is_some(), "others go on");
    outbox.acknowledged(1, node(3));
    assert!(
        outbox.direct(node(2), vec![gone(1, 0)], Duration::ZERO, RESEND).is_none(),
        "by the receiver only"
    );
    outbox.acknowledged(1, node(2));
    assert!(outbox.direct(node(2), vec![gone(1, 0)], Duration::ZERO, RESEND).is_some());
    outbox.forget(node(2));
    assert_eq!(outbox.unacknowledged(), 1);
    outbox.forget(node(3));
    assert_eq!((outbox.unacknowledged(), outbox.deadline()), (0, None));
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_then_given_up() {
    let mut outbox = Outbox::default();
    outbox.direct(node(2), vec![gone(1, 7)], Duration::ZERO, RESEND).unwrap();
    let mut sent = 1;
    let given_up = loop {
        let due = outbox.due(outbox.deadline().unwrap(), RESEND, |_| true);
        sent += due.parcels.len();
        if !due.given_up.is_empty() {
            break due.given_up;
        }
    };
    assert_eq!((sent, given_up), (usize::from(TRIES), [node(2)].into()));
    outbox.direct(node(2), vec![gone(1, 7)], Duration::ZERO, RESEND).unwrap();
    let due = outbox.due(RESEND, RESEND, |_| false);
    assert!(due.parcels.is_empty() && due.given_up.is_empty() && outbox.deadline().is_none(), "overtaken");
}

#[test]
fn local_news_goes_before_relayed_news() {
    let mut outbox = Outbox::default();
    for n in 0..2 * BATCH as u128 {
        relay(&mut outbox, 2, n, 3);
    }
    relay(&mut outbox, 1, 7, 3);
    let taken = owners(&outbox.take_relay(None, node(1)));
    assert_eq!((taken.len(), taken[0]), (BATCH, node(1)));
    // Of the others, those that have not been told yet.
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        told.extend(outbox.take_relay(None, node(1)).into_iter().map(|(key, _)| key));
    }
    assert!(told.len() > BATCH, "{}", told.len());
}

#[test]
fn relayed_news_is_bounded_and_makes_room_for_local_news() {
    let mut outbox = Outbox::default();
    for n in 0..RELAYED as u128 + 10 {
        relay(&mut outbox, 2, n, 3);
    }
    assert_eq!(outbox.relay.len(), RELAYED);
    relay(&mut outbox, 1, 7, 3);
    let own =
        Key { table: Table::Endpoints(net(1)), owner: node(1), slot: Some((TaskId::from_u128(7), net(1))) };
    assert!(outbox.relay.contains_key(&own) && outbox.relay.len() == RELAYED);
    assert_eq!(owners(&outbox.take_relay(Some(&[own].into()), node(1))), [node(1)]);
}
