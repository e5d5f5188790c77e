//! Flows are read with all that is known of them.

use std::{net::Ipv4Addr, ops::ControlFlow, time::Duration};

use aya::maps::HashMap;
use mesh_abi::{ChoiceValue, FlowKey, PUBLISHED, ReturnPath, ReverseValue, flow_state, v4_mapped};
use mesh_lb::{DropReason, Fate, FlowEntry, FlowId, FlowReader, FlowState, Outer};
use mesh_types::Vni;
use nix::time::{ClockId, clock_gettime};

use crate::sandbox::{Sandbox, desired};

const OPEN: u8 = flow_state::ANSWERED | flow_state::CONFIRMED;
const OTHER_NODE: [u8; 4] = [192, 0, 2, 77];

/// Nanoseconds of the programs' clock, so many seconds ago.
fn ago(secs: u64) -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    (now - Duration::from_secs(secs)).as_nanos() as u64
}

fn key(scope: [u8; 4], from: ([u8; 4], u16), to: ([u8; 4], u16)) -> FlowKey {
    FlowKey {
        source: v4_mapped(from.0),
        destination: v4_mapped(to.0),
        scope,
        source_port: from.1.to_be_bytes(),
        destination_port: to.1.to_be_bytes(),
        protocol: 6,
        ..FlowKey::default()
    }
}

fn all(reader: &FlowReader) -> Vec<FlowEntry> {
    let mut all = Vec::new();
    let seen = reader.walk(|entry| {
        all.push(entry);
        ControlFlow::Continue(())
    });
    assert_eq!(seen.unwrap(), all.len() as u64);
    all.sort_by_key(|entry| entry.client.port());
    all
}

#[test]
fn each_flow_is_told_once_with_its_ends() {
    let sandbox = Sandbox::enter();
    let mut path = sandbox.open();
    path.apply(&desired(&[11])).unwrap();
    let (id, _) = sandbox.backends().into_iter().next().unwrap();
    let network = Vni::FIRST.get().to_be_bytes();
    let choice = |backend, state| ChoiceValue { last_seen: ago(7), backend, state, ..Default::default() };
    let mut choices: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let mut replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE").try_into().unwrap();
    let (client, node, vip, task) = ([203, 0, 113, 9], [192, 0, 2, 1], [10, 0, 0, 2], [10, 0, 0, 11]);
    choices.insert(key(PUBLISHED, (client, 1), (node, 80)), choice(id, OPEN), 0).unwrap();
    choices.insert(key(network, (client, 2), (vip, 80)), choice(id + 50, flow_state::RESET), 0).unwrap();
    let back = |vtep, path: ReturnPath, port: u16| ReverseValue {
        last_seen: ago(0),
        source: v4_mapped(node),
        destination: v4_mapped(client),
        vtep,
        source_port: 80u16.to_be_bytes(),
        destination_port: port.to_be_bytes(),
        path: path as u8,
        ..Default::default()
    };
    // See `desired`: the tasks are on other nodes.
    let own = v4_mapped([192, 0, 2, 1]);
    // The same flow as the first one, as its replies go back; and one that another node sent here.
    replies.insert(key(network, (task, 8080), (client, 1)), back(own, ReturnPath::Uplink, 1), 0).unwrap();
    let other = back(v4_mapped(OTHER_NODE), ReturnPath::Tunnel, 3);
    // Its port at the task is not its client's own.
    replies.insert(key(network, (task, 8080), (client, 40_000)), other, 0).unwrap();

    let told = all(&path.flow_reader().unwrap());
    assert_eq!(told.iter().map(|entry| entry.client.port()).collect::<Vec<_>>(), [1, 2, 3]);
    let [by_port, by_vip, landed] = &told[..] else { panic!("{told:?}") };
    assert_eq!((by_port.vni, by_port.state, by_port.entrance), (None, FlowState::Established, None));
    assert!((7..60).contains(&by_port.idle.as_secs()), "{by_port:?}");
    let end = by_port.task.unwrap();
    assert_eq!((end.vni, end.address, end.port), (Vni::FIRST, "10.0.0.11".parse().unwrap(), None));
    // Whoever it was given to is gone.
    assert_eq!((by_vip.vni, by_vip.task, by_vip.state), (Some(Vni::FIRST), None, FlowState::Reset));
    assert_eq!(landed.front, "192.0.2.1:80".parse().unwrap());
    assert_eq!((landed.task.unwrap().port, landed.entrance), (Some(8080), Some(OTHER_NODE.into())));
    // Whoever has seen enough ends it.
    let seen = path.flow_reader().unwrap().walk(|_| ControlFlow::Break(())).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn what_a_run_by_hand_notes_is_forgotten_and_no_more() {
    let sandbox = Sandbox::enter();
    let mut path = sandbox.open();
    path.apply(&desired(&[11])).unwrap();
    let network = Vni::FIRST.get().to_be_bytes();
    let (client, task) = ([203, 0, 113, 9], [10, 0, 0, 11]);
    let id = |port: u16| FlowId {
        vni: None,
        protocol: 6,
        client: (client, port).into(),
        front: ([192, 0, 2, 1], 80).into(),
    };
    let mut choices: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let known = key(PUBLISHED, (client, 1), ([192, 0, 2, 1], 80));
    choices.insert(known, ChoiceValue { state: OPEN, ..Default::default() }, 0).unwrap();
    let noted = path.notes(&id(1), &[7]).unwrap();
    assert!(noted.is_known() && !path.notes(&id(2), &[7]).unwrap().is_known());
    path.take_back(&id(1), noted).unwrap();
    assert!(choices.get(&known, 0).is_ok(), "a flow that was there before stays");

    let mut replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE").try_into().unwrap();
    for (port, state) in [(1, 0), (2, flow_state::ANSWERED), (3, OPEN)] {
        let reply = key(network, (task, 80), (client, port));
        replies.insert(reply, ReverseValue { state, ..Default::default() }, 0).unwrap();
        path.forget_reply(Vni::FIRST, 6, (task, 80).into(), (client, port).into()).unwrap();
        assert_eq!(replies.get(&reply, 0).is_ok(), state == OPEN, "one that is established is another's");
    }
}

#[test]
fn what_the_vxlan_device_has_opened_is_run_by_hand() {
    let sandbox = Sandbox::enter();
    let mut path = sandbox.open();
    path.apply(&desired(&[11])).unwrap();
    let own = Ipv4Addr::new(192, 0, 2, 1).into();
    // Ethernet and IPv4, UDP without data, from 10.0.0.11 to 10.0.0.12.
    let mut packet = [[2; 12].as_slice(), &[8, 0, 0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
    packet.extend([10, 0, 0, 11, 10, 0, 0, 12, 0, 9, 0, 9, 0, 8, 0, 0]);
    let loopback = 1;
    let mut run = |from: Ipv4Addr, vni: u32| {
        let trial = path.run_opened(loopback, &Outer { from: from.into(), to: own, vni }, &packet).unwrap();
        assert_eq!(trial.packet.len(), packet.len());
        trial.fate
    };
    // The sender is looked at first, then its network, then who sends there.
    let known = Ipv4Addr::new(192, 0, 2, 2);
    let dropped = |reason| Fate::Ended(Some(reason));
    assert_eq!(run(Ipv4Addr::new(192, 0, 2, 3), Vni::FIRST.get()), dropped(DropReason::UnknownSender));
    assert_eq!(run(known, Vni::FIRST.get() + 1), dropped(DropReason::UnknownVni));
    assert_eq!(run(known, Vni::FIRST.get()), dropped(DropReason::ForgedSource));
}
