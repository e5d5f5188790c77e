use std::sync::Arc;

use mesh_types::TaskId;

use super::*;
use crate::simulation::{endpoint, net, node};

const NONE: Duration = Duration::ZERO;
const TABLE: fn() -> Table = || Table::Endpoints(net(1));

fn live(task: u128, epoch: u64, counter: u64) -> Item {
    let version = Version { epoch, counter };
    Item::Endpoint { scope: net(1), version, endpoint: Arc::new(endpoint(1, task, 1)) }
}

fn gone(task: u128, epoch: u64, counter: u64) -> Item {
    let version = Version { epoch, counter };
    Item::Gone { scope: net(1), version, owner: node(1), task: TaskId::from_u128(task), network: net(1) }
}

fn tasks(records: &Records) -> Vec<u128> {
    records.endpoints().map(|(_, endpoint)| endpoint.task.as_u128()).collect()
}

#[test]
fn the_newest_statement_wins_in_any_order() {
    let mut r = Records::default();
    assert_eq!(r.apply(live(1, 1, 2), NONE, Teller::Other), Applied::New);
    assert_eq!(r.apply(live(1, 1, 2), NONE, Teller::Other), Applied::Same);
    assert_eq!(r.apply(gone(1, 1, 1), NONE, Teller::Other), Applied::Stale);
    assert_eq!(r.apply(gone(1, 1, 3), NONE, Teller::Other), Applied::New);
    assert_eq!(r.apply(live(1, 1, 2), NONE, Teller::Owner), Applied::Stale);
    assert!(tasks(&r).is_empty());
}

#[test]
fn a_reaped_tombstone_still_holds_against_relays() {
    let mut r = Records::default();
    r.apply(gone(1, 1, 3), NONE, Teller::Other);
    r.reap(Duration::from_secs(60), Duration::from_secs(60));
    assert!(r.of(TABLE(), node(1)).is_empty());
    assert_eq!(r.apply(live(1, 1, 2), NONE, Teller::Other), Applied::Doubtful);
    assert_eq!(r.apply(live(1, 1, 2), NONE, Teller::Owner), Applied::New);
}

#[test]
fn a_newer_life_drops_the_older_one() {
    let mut r = Records::default();
    r.apply(live(1, 1, 9), NONE, Teller::Other);
    r.apply(live(2, 2, 1), NONE, Teller::Other);
    assert_eq!(tasks(&r), [2]);
    assert_eq!(r.apply(live(3, 1, 99), NONE, Teller::Owner), Applied::Stale);
}

#[test]
fn what_the_owner_does_not_list_is_deleted_up_to_its_version() {
    let mut r = Records::default();
    for item in [live(1, 1, 1), live(2, 1, 2), live(3, 1, 7)] {
        r.apply(item, NONE, Teller::Other);
    }
    r.complete(TABLE(), node(1), Version { epoch: 1, counter: 5 }, &[live(2, 1, 2)]);
    assert_eq!(tasks(&r), [2, 3]);
    r.complete(TABLE(), node(1), Version { epoch: 0, counter: 9 }, &[]);
    assert_eq!(tasks(&r), [2, 3]);
}

#[test]
fn who_was_told_all_tells_others_what_is_deleted() {
    let mut informed = Records::default();
    for item in [live(1, 1, 1), live(2, 1, 2), live(4, 1, 9)] {
        informed.apply(item, NONE, Teller::Owner);
    }
    informed.complete(TABLE(), node(1), Version { epoch: 1, counter: 5 }, &[live(2, 1, 2)]);
    let group = informed.group(TABLE(), node(1), None);
    assert_eq!(group.complete, Some(Version { epoch: 1, counter: 5 }));
    assert_eq!(group.items, [live(2, 1, 2), live(4, 1, 9)]);
    // One is told so who was away, and had forgotten a younger entry's tombstone.
    let mut away = Records::default();
    for item in [live(1, 1, 1), live(5, 1, 7), gone(6, 1, 8)] {
        away.apply(item, NONE, Teller::Owner);
    }
    away.reap(Duration::from_secs(60), Duration::from_secs(60));
    for item in group.items {
        let teller = if item.version().counter <= 5 { Teller::Informed } else { Teller::Other };
        let applied = away.apply(item.clone(), NONE, teller);
        assert_eq!(applied, Applied::New, "{item:?}");
    }
    away.complete(TABLE(), node(1), Version { epoch: 1, counter: 5 }, &[live(2, 1, 2), live(4, 1, 9)]);
    assert_eq!(tasks(&away), [2, 4, 5], "the younger one is not told of");
    for teller in [Teller::Other, Teller::Informed] {
        assert_eq!(away.apply(live(1, 1, 1), NONE, teller), Applied::Stale);
    }
    assert_eq!(away.apply(live(1, 1, 1), NONE, Teller::Owner), Applied::New, "the owner knows best");
    // Of an older life it says nothing.
    let mut younger = Records::default();
    younger.apply(live(1, 2, 1), NONE, Teller::Owner);
    younger.complete(TABLE(), node(1), Version { epoch: 1, counter: 5 }, &[]);
    assert_eq!(tasks(&younger), [1]);
}

#[test]
fn digests_tell_live_entries_apart() {
    let (mut a, mut b) = (Records::default(), Records::default());
    for records in [&mut a, &mut b] {
        records.set_standing(node(1), true, true);
    }
    for item in [live(1, 1, 1), live(2, 1, 2)] {
        a.apply(item, NONE, Teller::Other);
    }
    for item in [live(2, 1, 2), gone(3, 1, 3), live(1, 1, 1)] {
        b.apply(item, NONE, Teller::Other);
    }
    assert_ne!(a.digest(TABLE()), 0);
    assert_eq!(a.digest(TABLE()), b.digest(TABLE()), "neither order nor tombstones count");
    b.apply(live(1, 1, 4), NONE, Teller::Other);
    assert_ne!(a.digest(TABLE()), b.digest(TABLE()));
    a.set_standing(node(1), false, false);
    assert_eq!(a.digest(TABLE()), 0);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn history() -> impl Strategy<Value = Vec<Item>> {
        proptest::collection::vec((0u128..4, 1u64..3, any::<bool>()), 1..20).prop_map(|changes| {
            let numbered = changes.into_iter().enumerate();
            numbered
                .map(|(n, (task, epoch, dead))| {
                    let counter = n as u64 + 1;
                    if dead { gone(task, epoch, counter) } else { live(task, epoch, counter) }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(items in history(), seed: u64) {
            use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
            let mut shuffled = [items.clone(), items.clone()].concat();
            shuffled.shuffle(&mut StdRng::seed_from_u64(seed));
            let (mut a, mut b) = (Records::default(), Records::default());
            for item in items {
                a.apply(item, NONE, Teller::Other);
            }
            for item in shuffled {
                b.apply(item, NONE, Teller::Other);
            }
            prop_assert_eq!(a.all_of(node(1)), b.all_of(node(1)));
        }

        #[test]
        fn fingerprints_and_audiences_are_kept_up_to_date(
            steps in proptest::collection::vec((0u8..10, 1u8..5, 0u64..40, 0u128..4), 0..80),
        ) {
            let mut r = Records::default();
            for (what, owner, counter, task) in steps {
                let owner_id = node(owner);
                let version = Version { epoch: 1 + counter / 30, counter };
                let networks = || (0..task).map(|n| net(n + 1)).collect();
                match what {
                    0..3 => {
                        let endpoint = Arc::new(endpoint(owner, task, 1));
                        r.apply(Item::Endpoint { scope: net(1), version, endpoint }, NONE, Teller::Other);
                    }
                    3 => {
                        let (task, network) = (TaskId::from_u128(task), net(1));
                        let item = Item::Gone { scope: net(1), version, owner: owner_id, task, network };
                        r.apply(item, NONE, Teller::Other);
                    }
                    4 | 5 => {
                        let interest =
                            if task == 3 { Interest::All } else { Interest::Networks(networks()) };
                        let item = Item::Interest { owner: owner_id, version, interest };
                        r.apply(item, NONE, Teller::Owner);
                    }
                    6 => r.set_standing(owner_id, task == 0, task < 2),
                    7 => r.complete(TABLE(), owner_id, version, &[]),
                    8 if task == 0 => r.forget(owner_id),
                    8 => r.drop_entries(owner_id),
                    _ if task == 0 => r.retain_tables(|table| table == Table::Interests),
                    _ => r.reap(Duration::from_secs(counter), Duration::from_secs(20)),
                }
                r.check();
            }
        }
    }
}
