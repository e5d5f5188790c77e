use proptest::prelude::*;

use super::*;

const NET: NetworkId = NetworkId::from_u128(1);
const GRACE: Duration = Duration::from_secs(3600);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 10, 3, last])
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn held(last: impl IntoIterator<Item = u8>, scarce: bool) -> BTreeMap<NetworkId, Held> {
    BTreeMap::from([(NET, Held { addresses: last.into_iter().map(ip).collect(), scarce })])
}

fn answer(renewal: u64, last: impl IntoIterator<Item = u8>) -> Answer {
    Answer { renewal, done: true, grace: GRACE, version: renewal, held: held(last, false), lost: Vec::new() }
}

/// A node that has begun its first term with these addresses.
fn granted(last: impl IntoIterator<Item = u8>) -> Leases {
    let mut leases = Leases::default();
    assert!(leases.begin(at(0)).unwrap().full);
    leases.end(at(0), Some(answer(1, last)), at(0));
    leases
}

fn take(leases: &mut Leases, now: u64) -> Option<IpAddr> {
    leases.take(NET, Family::V4, at(now))
}

#[test]
fn a_freed_address_rests() {
    let mut leases = granted([2, 3, 4]);
    assert_eq!(take(&mut leases, 1), Some(ip(2)));
    leases.put_back(NET, ip(2), at(1));
    for last in [3, 4, 2] {
        assert_eq!(take(&mut leases, 1), Some(ip(last)));
    }
    assert_eq!(take(&mut leases, 1), None);
}

#[test]
fn nothing_is_given_before_the_first_term_and_after_the_last() {
    let mut leases = Leases::default();
    leases.replace(1, &held([2, 3], false), at(0));
    assert_eq!(take(&mut leases, 0), None);
    let mut leases = granted([2, 3]);
    assert_eq!(take(&mut leases, 1799), Some(ip(2)));
    assert_eq!(take(&mut leases, 1800), None);
    assert!(!leases.take_address(NET, ip(3), at(1800)));
    assert_eq!(leases.expired(at(1799)), []);
    assert_eq!(leases.expired(at(1800)), [(NET, ip(2))]);
}

#[test]
fn what_the_managers_know_to_be_used_stays() {
    let mut leases = granted([2, 3]);
    assert_eq!(take(&mut leases, 1), Some(ip(2)));
    assert_eq!(leases.unsure(), [(NET, ip(2))]);
    let renewal = leases.begin(at(2)).unwrap();
    assert_eq!((renewal.after, renewal.full, &renewal.changes[&NET].used), (1, false, &vec![ip(2)]));
    leases.end(at(2), Some(answer(2, [])), at(2));
    assert!(leases.begin(at(3)).is_none(), "all is said");
    assert!(leases.expired(at(9_999)).is_empty());
    // It may even be used again, by another task and after a reboot.
    leases.put_back(NET, ip(2), at(9_999));
    let mut again = Leases::restore(leases.kept(), false);
    assert_eq!(take(&mut again, 0), Some(ip(2)));
    assert_eq!(take(&mut again, 0), None);
    assert_eq!(take(&mut leases, 9_999), Some(ip(2)));
    assert_eq!(take(&mut leases, 9_999), None);
}

#[test]
fn it_is_not_sure_from_the_moment_on_in_which_it_is_said_to_be_unused() {
    let mut leases = granted([2, 3]);
    take(&mut leases, 1);
    leases.begin(at(2)).unwrap();
    leases.end(at(2), Some(answer(2, [])), at(2));
    leases.put_back(NET, ip(2), at(3));
    assert_eq!(leases.begin(at(3)).unwrap().changes[&NET].unused, [ip(2)]);
    // Whether they heard it is not known.
    leases.end(at(3), None, at(9));
    assert!(!leases.is_sure(NET, ip(2)));
    assert_eq!(take(&mut Leases::restore(leases.kept(), false), 0), None);
    assert_eq!(leases.begin(at(10)).unwrap().after, 2, "the same number until there is an answer");
}

#[test]
fn what_is_given_back_is_not_taken_until_it_is_leased_anew() {
    let mut leases = granted([2, 3, 4]);
    leases.give_back(NET, &[ip(3)]);
    let renewal = leases.begin(at(1)).unwrap();
    assert_eq!(renewal.changes[&NET].returned, [ip(3)]);
    // The managers have not heard of it yet; a lease of the same address would end when they do.
    leases.replace(1, &held([2, 3, 4], false), at(1));
    leases.add(leases.term(), NET, &[ip(3)], at(1));
    assert!(!leases.take_address(NET, ip(3), at(1)));
    // Another daemon on this node does not take it either.
    assert!(!Leases::restore(leases.kept(), true).take_address(NET, ip(3), at(1)));
    leases.end(at(1), Some(answer(2, [])), at(1));
    leases.replace(1, &held([2, 3, 4], false), at(1));
    assert!(!leases.take_address(NET, ip(3), at(1)), "an older word");
    leases.add(leases.term(), NET, &[ip(3)], at(1));
    assert!(leases.take_address(NET, ip(3), at(1)));
}

#[test]
fn a_renewal_that_had_its_effect_unheard_is_not_done_again() {
    let mut leases = granted([2]);
    take(&mut leases, 1);
    leases.begin(at(1)).unwrap();
    leases.end(at(1), None, at(11));
    let again = leases.begin(at(11)).unwrap();
    let missed = Answer { renewal: 2, done: false, grace: GRACE, version: 5, ..Answer::default() };
    assert!(leases.end(at(11), Some(missed), at(11)).is_empty());
    assert!(!leases.is_sure(NET, ip(2)));
    assert_eq!((again.after, leases.begin(at(12)).unwrap().after), (1, 2));
    leases.end(at(12), Some(answer(3, [])), at(12));
    assert!(leases.is_sure(NET, ip(2)));
}

#[test]
fn a_lease_asked_for_in_another_term_is_void() {
    let mut leases = granted([2]);
    let term = leases.term();
    assert!(leases.begin(at(5000)).unwrap().full);
    leases.end(at(5000), Some(answer(7, [2])), at(5000));
    leases.add(term, NET, &[ip(9)], at(5000));
    assert!(!leases.take_address(NET, ip(9), at(5000)));
    assert!(leases.take_address(NET, ip(2), at(5000)));
}

#[test]
fn others_addresses_are_told() {
    let mut leases = granted([2]);
    take(&mut leases, 1);
    leases.begin(at(1)).unwrap();
    let lost = Answer { lost: vec![(NET, ip(2))], ..answer(2, []) };
    assert_eq!(leases.end(at(1), Some(lost), at(1)), [(NET, ip(2))]);
    assert!(!leases.is_sure(NET, ip(2)));
}

#[test]
fn a_state_out_of_a_backup_is_told_all_anew() {
    let mut leases = granted([2]);
    take(&mut leases, 1);
    leases.begin(at(1)).unwrap();
    leases.end(at(1), Some(Answer { version: 90, ..answer(9, []) }), at(1));
    leases.put_back(NET, ip(9), at(1));
    leases.begin(at(3600)).unwrap();
    leases.end(at(3600), Some(Answer { renewal: 1, version: 3, ..Answer::default() }), at(3600));
    let anew = leases.begin(at(3601)).unwrap();
    assert_eq!((anew.after, anew.full, &anew.changes[&NET].used), (1, true, &vec![ip(2)]));
}

#[test]
fn batches_follow_use() {
    let mut leases = granted(2..=30);
    assert_eq!(leases.batch(NET, Family::V4), 4);
    let many = leases.begin(at(1)).unwrap();
    assert_eq!(many.changes[&NET].returned.len(), 25, "all but the four that are kept");
    leases.end(at(1), Some(answer(2, [])), at(1));
    leases.add(leases.term(), NET, &(40..=60).map(ip).collect::<Vec<_>>(), at(1));
    for _ in 0..20 {
        take(&mut leases, 2).unwrap();
    }
    assert_eq!(leases.batch(NET, Family::V4), 20);
    assert!(leases.begin(at(2)).unwrap().changes[&NET].returned.is_empty());
}

#[test]
fn what_nobody_uses_is_given_back() {
    let mut leases = granted([2, 3, 4]);
    assert_eq!(take(&mut leases, 1), Some(ip(2)));
    leases.put_back(NET, ip(2), at(100));
    assert!(leases.begin(at(699)).unwrap().changes.is_empty(), "it is only time for another term");
    assert_eq!(leases.begin(at(700)).unwrap().changes[&NET].returned.len(), 3);

    let mut leases = granted([2, 3, 4]);
    take(&mut leases, 1).unwrap();
    leases.replace(2, &held([2, 3, 4], true), at(1));
    assert!(leases.begin(at(5)).unwrap().changes[&NET].returned.is_empty());
    assert_eq!(leases.begin(at(6)).unwrap().changes[&NET].returned, [ip(3), ip(4)], "others want it");
}

#[test]
fn families_are_taken_apart() {
    let mut leases = granted([2]);
    let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    leases.add(leases.term(), NET, &[six(2)], at(1));
    assert_eq!(leases.take(NET, Family::V6, at(1)), Some(six(2)));
    assert_eq!(leases.take(NET, Family::V6, at(1)), None);
    assert_eq!(leases.take(NET, Family::V4, at(1)), Some(ip(2)));
}

#[test]
fn tasks_of_before_there_were_terms_stay() {
    let mut leases = Leases::default();
    leases.adopt(NET, ip(2), at(0));
    assert!(leases.expired(at(9999)).is_empty());
    assert_eq!(leases.begin(at(1)).unwrap().changes[&NET].used, [ip(2)]);
}

proptest! {
    #[test]
    fn no_address_is_taken_twice(steps in proptest::collection::vec((0u8..7, 2u8..12), 0..80)) {
        let mut leases = granted([]);
        let mut taken = BTreeSet::new();
        for (step, last) in steps {
            match step {
                6 => { let _ = leases.begin(at(2)); }
                5 => leases.give_back(NET, &[ip(last)]),
                0 => leases.add(leases.term(), NET, &[ip(last)], at(2)),
                1 => if let Some(a) = take(&mut leases, 2) { prop_assert!(taken.insert(a)); },
                2 => if leases.take_address(NET, ip(last), at(2)) { prop_assert!(taken.insert(ip(last))); },
                3 => if taken.remove(&ip(last)) { leases.put_back(NET, ip(last), at(2)); },
                _ => leases.replace(9, &held([last, last + 1], false), at(2)),
            }
            for &a in &taken { prop_assert!(leases.is_used(NET, a)); }
        }
    }
}
