//! Established flows end, and are counted.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use aya::maps::HashMap;
use mesh_abi::{ChoiceValue, FlowKey, HOST_SERVICE_ADDRESS, PUBLISHED, ReverseValue, flow_state, v4_mapped};
use mesh_lb::{
    Aged, Choices, DataPath, Desired, Event, FlowCount, FlowState, FlowTimeouts, Forgotten, Frontend,
    LocalEntry, PublishedOn, What,
};
use mesh_types::{Generation, LocalEndpointId, Mac, Protocol, Vni};
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
    path.tell_ended(true);
    let aged = age(&mut path, 500);
    let each = usize::from(OF_EACH);
    // Of those that entered here, but the closed ones, of which the programs have told; each once.
    let (ended, lost) = path.ended();
    let why = |what: What| move |event: &&Event| event.what == what;
    let count = |what| ended.iter().filter(why(what)).count();
    let open = FlowState::Established;
    assert_eq!(count(What::Forgotten(open, Forgotten::Silent)), each, "{:?}", ended.first());
    assert_eq!(count(What::Forgotten(open, Forgotten::TaskGone)), each);
    assert_eq!((ended.len(), lost), (2 * each, 0));
    let silent = ended.iter().find(why(What::Forgotten(open, Forgotten::Silent))).unwrap();
    assert_eq!(
        (silent.protocol, silent.vni, silent.task.map(|task| task.address)),
        (UDP, Some(Vni::FIRST), Some("10.0.0.11".parse().unwrap()))
    );
    assert!(path.ended().0.is_empty());
    path.tell_ended(false);
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
    assert!(path.ended().0.is_empty(), "nobody wants to know any more");
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
    // Those of the first moments are in another table.
    let mut young: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE").try_into().unwrap();
    for (flow, state) in [(500, OPEN), (501, flow_state::ANSWERED)] {
        let value = ReverseValue { last_seen: ago(0), state, ..Default::default() };
        young.insert(reply(11, TCP, flow), value, 0).unwrap();
    }
    for (flow, (n, protocol, state, secs)) in (0..).zip(flows) {
        let last_seen = ago(0).saturating_sub(secs * 1_000_000_000);
        let value = ReverseValue { last_seen, state, ..Default::default() };
        replies.insert(reply(n, protocol, flow), value, 0).unwrap();
    }
    let asked = [3, 4].map(LocalEndpointId);
    let flows = path.flows_of(&asked.into()).unwrap();
    assert_eq!(flows, [(asked[0], 3), (asked[1], 0)].into());
}

#[test]
fn silent_connections_do_not_give_way_to_new_flows() {
    let sandbox = Sandbox::enter();
    let mut path = open(&sandbox);
    path.apply(&with_task(3, 11)).unwrap();
    let backend = *sandbox.backends().keys().next().unwrap();
    let choices = Choices::pinned(&sandbox.version()).unwrap();
    let mut replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE").try_into().unwrap();
    let kinds = [
        (TCP, OPEN, 4),
        (TCP, OPEN | flow_state::CLIENT_FIN, 4),
        (TCP, flow_state::ANSWERED, 4),
        (UDP, OPEN, 4),
        // The programs do that.
        (TCP, OPEN, 0),
    ];
    const OF_EACH: u16 = 500;
    for (kind, (protocol, state, secs)) in (0..).zip(kinds) {
        for flow in 0..OF_EACH {
            let key = reply(11, protocol, kind * OF_EACH + flow);
            let choice = ChoiceValue { last_seen: ago(secs), backend, state, ..Default::default() };
            assert!(choices.add(&key, &choice));
            let reply = ReverseValue { last_seen: ago(secs), state, ..Default::default() };
            replies.insert(key, reply, 0).unwrap();
        }
    }
    // One that is kept already stays as it is.
    let mut kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let known =
        ChoiceValue { last_seen: ago(0), backend, state: OPEN | flow_state::DIRECT, ..Default::default() };
    kept.insert(reply(11, TCP, 0), known, 0).unwrap();
    let moved: usize = (0..8).map(|_| path.age_flows(100_000).unwrap().moved).sum();
    // The walks take buckets as a whole, and so may be through earlier and meet what has become silent meanwhile.
    let (silent, fresh) = (2 * usize::from(OF_EACH) - 1, 2 * usize::from(OF_EACH));
    assert!((silent..=silent + fresh).contains(&moved), "{moved}");
    for flow in 0..OF_EACH {
        assert!(kept.get(&reply(11, TCP, flow), 0).is_ok());
    }
    assert_eq!(kept.get(&reply(11, TCP, 0), 0).unwrap().state, OPEN | flow_state::DIRECT);
    for flow in OF_EACH..4 * OF_EACH {
        let protocol = if flow < 3 * OF_EACH { TCP } else { UDP };
        assert!(kept.get(&reply(11, protocol, flow), 0).is_err());
        assert!(choices.get(&reply(11, protocol, flow)).is_some());
    }
}

#[test]
fn flows_of_withdrawn_ports_are_forgotten() {
    let sandbox = Sandbox::enter();
    let mut path = open(&sandbox);
    let published = |on, port| Frontend::Published { on, port, protocol: Protocol::Tcp };
    let node = Ipv4Addr::new(192, 0, 2, 1);
    let with = |ports: &[Frontend]| {
        let mut desired = with_task(3, 11);
        let service = desired.services.values_mut().next().unwrap();
        let frontends = &mut Arc::make_mut(service).frontends;
        let entry = frontends.values().next().unwrap().clone();
        frontends.retain(|frontend, _| matches!(frontend, Frontend::Vip { .. }));
        frontends.extend(ports.iter().map(|port| (*port, entry.clone())));
        desired
    };
    let (any, one) = (PublishedOn::AnyV4, PublishedOn::Address(node.into()));
    path.apply(&with(&[
        published(any, 8080),
        published(one, 8080),
        published(any, 8081),
        published(one, 8082),
    ]))
    .unwrap();
    let key = |destination: Ipv4Addr, port: u16, scope| FlowKey {
        source: v4_mapped([198, 51, 100, 7]),
        destination: v4_mapped(destination.octets()),
        scope,
        source_port: [9, 9],
        destination_port: port.to_be_bytes(),
        protocol: TCP,
        ..FlowKey::default()
    };
    let (other, host) = (Ipv4Addr::new(192, 0, 2, 9), HOST_SERVICE_ADDRESS.into());
    let flows = [
        key(node, 8080, PUBLISHED),
        key(other, 8080, PUBLISHED),
        key(host, 8080, PUBLISHED),
        key(node, 8081, PUBLISHED),
        key(host, 8082, PUBLISHED),
        // To a VIP.
        key(node, 8081, Vni::FIRST.get().to_be_bytes()),
    ];
    let new = Choices::pinned(&sandbox.version()).unwrap();
    let mut kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    for flow in flows {
        let choice = ChoiceValue { state: OPEN, ..Default::default() };
        assert!(new.add(&flow, &choice));
        kept.insert(flow, choice, 0).unwrap();
    }
    let left = || [flows.map(|flow| new.get(&flow).is_some()), flows.map(|flow| kept.get(&flow, 0).is_ok())];
    path.apply(&with(&[published(one, 8080), published(any, 8081), published(one, 8082)])).unwrap();
    assert_eq!(left(), [[true, false, true, true, true, true]; 2], "open at one address still");
    path.apply(&with(&[])).unwrap();
    assert_eq!(left(), [[false, false, false, false, false, true]; 2]);
}
