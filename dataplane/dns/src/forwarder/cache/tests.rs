use proptest::prelude::*;

use super::{
    super::wire::tests::{asked, response},
    *,
};

fn entry(name: &str, ttl: u32) -> (Key, Arc<Answer>) {
    let asked = asked(name, 1);
    let answer = Answer::read(&asked, response(&asked, &[(1, ttl, &[192, 0, 2, 1])], &[], 0)).unwrap();
    (asked.key(), Arc::new(answer))
}

fn later(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_answer_is_kept_as_long_as_it_is_right() {
    let (mut cache, now) = (Cache::new(100_000), Instant::now());
    let (key, answer) = entry("a.example", 60);
    cache.keep(key.clone(), &answer, now);
    assert_eq!(cache.get(&key, now), Some((answer.clone(), 0)));
    assert_eq!(cache.get(&key, now + later(59)), Some((answer.clone(), 59)));
    assert_eq!(cache.get(&key, now + later(60)), None);
    assert_eq!(cache.bytes(), 0);
    let (other, _) = entry("b.example", 60);
    assert_eq!(cache.get(&other, now), None);
    // What is never right is not kept, what is right for a week is asked for again in an hour.
    let (key, answer) = entry("zero.example", 0);
    cache.keep(key.clone(), &answer, now);
    assert_eq!(cache.get(&key, now), None);
    let (key, answer) = entry("week.example", 604_800);
    cache.keep(key.clone(), &answer, now);
    assert!(cache.get(&key, now + later(3599)).is_some());
    assert_eq!(cache.get(&key, now + later(3600)), None);
}

#[test]
fn a_newer_answer_takes_the_place_of_the_older() {
    let (mut cache, now) = (Cache::new(100_000), Instant::now());
    let ((key, first), (_, second)) = (entry("a.example", 60), entry("a.example", 5));
    cache.keep(key.clone(), &first, now);
    let size = cache.bytes();
    cache.keep(key.clone(), &second, now);
    assert_eq!((cache.get(&key, now), cache.bytes()), (Some((second, 0)), size));
    cache.clear();
    assert_eq!((cache.get(&key, now), cache.bytes()), (None, 0));
}

#[test]
fn what_is_asked_for_stays_when_others_come() {
    let (mut cache, now) = (Cache::new(20_000), Instant::now());
    let (wanted, answer) = entry("wanted.example", 600);
    cache.keep(wanted.clone(), &answer, now);
    for n in 0..1000 {
        let (key, answer) = entry(&format!("n{n}.example"), 600);
        cache.keep(key, &answer, now);
        assert!(cache.get(&wanted, now).is_some(), "after {n} others");
    }
    let (first, _) = entry("n0.example", 600);
    assert_eq!(cache.get(&first, now), None, "nobody wanted it");
}

proptest! {
    #[test]
    fn never_more_than_the_limit_and_never_wrong(
        steps in prop::collection::vec((0u8..40, 0u32..100, 0u64..20, any::<bool>()), 1..200), limit in 500usize..20_000,
    ) {
        let (mut cache, mut now) = (Cache::new(limit), Instant::now());
        let mut truth: HashMap<u8, (Instant, u32)> = HashMap::new();
        for (name, ttl, pause, put) in steps {
            now += later(pause);
            let (key, answer) = entry(&format!("n{name}.example"), ttl);
            if put {
                cache.keep(key, &answer, now);
                if ttl > 0 {
                    truth.insert(name, (now, ttl));
                }
            } else if let Some((answer, age)) = cache.get(&key, now) {
                let (came, ttl) = truth[&name];
                prop_assert_eq!(answer.lifetime(), Some(ttl));
                prop_assert_eq!(u64::from(age), (now - came).as_secs());
                prop_assert!(age < ttl);
            }
            prop_assert!(cache.bytes() <= limit);
        }
    }
}
