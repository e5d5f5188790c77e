//! New choices: added, found, forgotten, and read while others write.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use mesh_abi::{ChoiceValue, FlowKey, flow_state};
use mesh_lb::Choices;

use crate::sandbox::Sandbox;

fn flow(n: u32) -> FlowKey {
    let mut key = FlowKey { protocol: 6, ..FlowKey::default() };
    key.source[12..].copy_from_slice(&n.to_be_bytes());
    key
}

/// All that it says follows from the flow.
fn value(n: u32, state: u8) -> ChoiceValue {
    ChoiceValue {
        last_seen: u64::from(n) << 20,
        backend: n,
        client: !n,
        ifindex: n ^ 7,
        state,
        reserved: 0,
        service: n as u16,
    }
}

fn number(key: &FlowKey) -> u32 {
    key.source.last_chunk().map_or(0, |last| u32::from_be_bytes(*last))
}

#[test]
fn the_oldest_make_room_but_not_for_those_that_nobody_answers() {
    let sandbox = Sandbox::enter();
    let _path = sandbox.open();
    let choices = Choices::pinned(&sandbox.version()).unwrap();
    let room = choices.capacity();
    for n in 0..20 {
        assert!(choices.add(&flow(n), &value(n, flow_state::ANSWERED)));
    }
    assert!(!choices.add(&flow(3), &value(4, 0)), "there already");
    for n in 20..20 + 4 * room {
        choices.add(&flow(n), &value(n, 0));
    }
    let mut all = BTreeSet::new();
    choices.for_each(|key, found| {
        assert_eq!(found, value(number(&key), found.state));
        assert!(all.insert(number(&key)), "twice");
    });
    assert!(all.len() <= room as usize / 2 + 20, "{} in room for {room}", all.len());
    assert!((0..20).all(|n| all.contains(&n)), "answered ones stay");
    let last = 20 + 4 * room - 1;
    assert_eq!(choices.get(&flow(last)), Some(value(last, 0)));
    assert_eq!(choices.get(&flow(20)), None, "long gone");
    choices.remove(&flow(5));
    assert_eq!(choices.get(&flow(5)), None);
    assert_eq!(choices.get(&flow(6)), Some(value(6, flow_state::ANSWERED)));
}

#[test]
fn nobody_reads_another_flows_choice() {
    const FLOWS: u32 = 5000;
    const ROUNDS: u32 = 40;
    let sandbox = Sandbox::enter();
    let _path = sandbox.open();
    let choices = Choices::pinned(&sandbox.version()).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let choices = &choices;
                scope.spawn(move || {
                    for n in 0..FLOWS * ROUNDS {
                        let n = (n * 2 + writer) % FLOWS;
                        choices.add(&flow(n), &value(n, 0));
                        if n.is_multiple_of(3) {
                            choices.remove(&flow(n));
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut found = 0u64;
            while !done.load(Ordering::Relaxed) {
                for n in 0..FLOWS {
                    if let Some(choice) = choices.get(&flow(n)) {
                        assert_eq!(choice, value(n, 0));
                        found += 1;
                    }
                }
                choices.for_each(|key, choice| assert_eq!(choice, value(number(&key), 0)));
            }
            found
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
