//! Established flows end, and are counted.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use aya::maps::HashMap;
use mesh_abi::{ChoiceValue, FlowKey, ReverseValue, flow_state, v4_mapped};
use mesh_lb::{Aged, DataPath, Desired, FlowCount, FlowTimeouts, LocalEntry};
use mesh_types::{Generation, LocalEndpointId, Mac, Vni};
use nix::time::{ClockId, clock_gettime};

use crate::sandbox::{Sandbox, desired};

const OPEN: u8 = flow_state::ANSWERED | flow_state::CONFIRMED;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Nanoseconds of the programs' clock, so many seconds ago.
fn ago(secs: u64) -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    (now - Duration::from_secs(secs)).as_nanos() as u64
}

fn open(sandbox: &Sandbox) -> DataPath {
    let mut options = sandbox.options();
    options.sizes.flows = 20_000;
    // Short ones: this machine may have started a moment ago.
    options.timeouts = FlowTimeouts {
        tcp_closing: Duration::from_secs(5),
        udp: Duration::from_secs(10),
        ..FlowTimeouts::default()
    };
    DataPath::open(options).unwrap()
}

/// What a task at 10.0.0.`n` sends in answer to the `flow`th client.
fn reply(n: u8, protocol: u8, flow: u16) -> FlowKey {
    FlowKey {
        source: v4_mapped([10, 0, 0, n]),
        destination: v4_mapped([198, 51, 100, 7]),
        scope: Vni::FIRST.get().to_be_bytes(),
        source_port: [0, 80],
        destination_port: flow.to_be_bytes(),
        protocol,
        ..FlowKey::default()
    }
}

fn with_task(id: u32, n: u8) -> Desired {
    let mut desired = desired(&[n]);
    let local = LocalEntry {
        vni: Vni::FIRST,
        v4: Some(Ipv4Addr::new(10, 0, 0, n)),
        v6: None,
        mac: Mac([2, 0, 0, 0, 0, n]),
        ifindex: 9,
        generation: Generation(1),
        egress4: None,
        egress6: None,
        served: true,
    };
    desired.local.insert(LocalEndpointId(id), local);
    desired
}

/// Calls until all flows were looked at, none of them for much longer than it may; the sums.
fn age(path: &mut DataPath, budget: usize) -> Aged {
    let mut all = Aged::default();
    while !all.finished {
        let one = path.age_flows(budget).unwrap();
        assert!(one.seen <= budget + 256, "{one:?}");
        all.seen += one.seen;
        all.expired += one.expired;
        all.orphaned += one.orphaned;
        all.finished = one.finished;
    }
    all
}

#[test]
fn flows_that_are_over_go_and_others_stay() {
    let sandbox = Sandbox::enter();
    let mut path = open(&sandbox);
    path.apply(&with_task(3, 11)).unwrap();
    let backend = *sandbox.backends().keys().next().unwrap();
    let mut choices: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let mut replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE_KEPT").try_into().unwrap();
    let fins = flow_state::CLIENT_FIN | flow_state::SERVER_FIN;
    let kinds = [
        // Protocol, state, seconds of silence, whether the task is there.
        (TCP, OPEN, 8, true),
        (TCP, OPEN | fins, 8, true),
        (TCP, OPEN | fins, 2, true),
        (UDP, OPEN, 12, true),
        (UDP, OPEN, 2, true),
        (TCP, OPEN, 8, false),
        (TCP, OPEN, 2, false),
    ];
    const OF_EACH: u16 = 1000;
    for (kind, (protocol, state, secs, there)) in (0..).zip(kinds) {
        for flow in 0..OF_EACH {
            let key = reply(if there { 11 } else { 99 }, protocol, kind * OF_EACH + flow);
            let backend = if there { backend } else { backend + 77 };
            let choice = ChoiceValue { last_seen: ago(secs), backend, state, ..Default::default() };
            choices.insert(key, choice, 0).unwrap();
            replies
                .insert(key, ReverseValue { last_seen: ago(secs), state, ..Default::default() }, 0)
                .unwrap();
        }
    }
    let aged = age(&mut path, 500);
    let each = usize::from(OF_EACH);
    assert_eq!((aged.seen, aged.expired, aged.orphaned), (14 * each, 4 * each, 2 * each));
    let left: BTreeSet<(u8, u8)> =
        choices.iter().map(|e| e.unwrap()).map(|(k, v)| (k.protocol, v.state)).collect();
    assert_eq!(left, BTreeSet::from([(TCP, OPEN), (TCP, OPEN | fins), (UDP, OPEN)]));
    let flows = path.flows().unwrap();
    let stay = FlowCount { new: 0, established: 4 * u64::from(OF_EACH) };
    assert_eq!((flows.choices, flows.reverse), (stay, stay));
    let maps = path.stats().unwrap().maps;
    assert_eq!((maps["CHOICES_KEPT"].used, maps["REVERSE_KEPT"].used), (4000, 4000));
    assert!((maps["CHOICES_KEPT"].pressure() - 0.2).abs() < 0.001);

    let again = age(&mut path, 500);
    assert_eq!((again.expired, again.orphaned), (0, 0));
    path.set_timeouts(FlowTimeouts { udp: Duration::from_secs(1), ..FlowTimeouts::default() });
    assert_eq!(age(&mut path, 100_000).expired, 2 * each);
}

#[test]
fn a_task_that_drains_is_asked_for_what_it_still_serves() {
    let sandbox = Sandbox::enter();
    let mut path = open(&sandbox);
    path.apply(&with_task(3, 11)).unwrap();
    let mut replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE_KEPT").try_into().unwrap();
    let flows = [
        (11, TCP, OPEN, 1000),
        (11, TCP, OPEN | flow_state::RESET, 0),
        (11, UDP, OPEN, 1),
        (11, UDP, OPEN, 60),
        (12, TCP, OPEN, 0),
    ];
    for (flow, (n, protocol, state, secs)) in (0..).zip(flows) {
        let last_seen = ago(0).saturating_sub(secs * 1_000_000_000);
        let value = ReverseValue { last_seen, state, ..Default::default() };
        replies.insert(reply(n, protocol, flow), value, 0).unwrap();
    }
    let asked = [3, 4].map(LocalEndpointId);
    let flows = path.flows_of(&asked.into()).unwrap();
    assert_eq!(flows, [(asked[0], 2), (asked[1], 0)].into());
}
