//! Packets that another node sent to a task which is gone: they come back, and are given another task or an answer.

use mesh_abi::{
    BackendValue, Counter, DropReason, GATEWAY_MAC, LocalEndpoint, NetworkKey, NetworkValue, RETURN_VNI,
    ServiceKey, Steering, Turn,
};

use crate::{
    frames::{Look, Talk, look, unwrapped, wrap},
    packets::array,
    world::{
        A, Action, B, BOTH, C, Family, HOST_MAC, Node, PORT_2, TARGET, Task, VNI, client, host_service,
        mapped, node_address, vip, vip_key,
    },
};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];

/// On node 2, and gone as well.
const D: Task = Task { node: 2, id: 14, address: [10, 10, 3, 14], mac: [2, 0, 0, 0, 3, 14] };

fn outside(family: Family) -> Talk {
    Talk { from_mac: ROUTER, to_mac: NIC, from: client(family), to: node_address(1, family) }
}

/// Both nodes. The second one has no task any more, of which the first has not heard: its services have these tasks.
fn nodes(family: Family, tasks: &[Task]) -> (Node, Node) {
    let (mut one, mut two) = Node::pair();
    one.backend(D, 0);
    one.table(tasks);
    let any = if family == Family::V4 { mesh_abi::ANY_V4 } else { mesh_abi::ANY_V6 };
    let len = tasks.len() as u32;
    for protocol in [6, 17] {
        let key = ServiceKey { address: any, ..crate::world::port_key(PORT_2, protocol) };
        one.service_with(key, |service| service.table_len = len);
    }
    let vip_key = ServiceKey { address: mapped(vip(family)), ..vip_key([0; 4]) };
    one.service_with(vip_key, |service| service.table_len = len);
    two.remove::<u32, LocalEndpoint>("LOCAL_BY_ID", C.id);
    two.remove::<NetworkKey, NetworkValue>("NETWORKS", NetworkKey { vni: VNI });
    (one, two)
}

/// The packet as the second node sends it back.
#[track_caller]
fn refused(two: &Node, outer: &[u8], turn: Turn) -> Vec<u8> {
    let (sent, inner) = (unwrapped(outer, Family::V4, (1, 2)).1, two.uplink(outer));
    assert_eq!(inner.0, Action::Redirect);
    let (vni, back) = unwrapped(&inner.1, Family::V4, (2, 1));
    assert_eq!(vni, u32::from_be_bytes(RETURN_VNI));
    assert_eq!(back[12..], sent[12..], "untouched");
    let steering = |frame: &[u8]| Steering::decode(&array(&frame[..12])).unwrap();
    assert_eq!(steering(&back), Steering { turn, ..steering(&sent) });
    inner.1
}

/// What becomes of a packet that the first node has sent to a task of the second.
#[track_caller]
fn there_and_back((one, two): (&Node, &Node), outer: &[u8]) -> Look {
    let (action, frame) = one.uplink(&refused(two, outer, Turn::Refused));
    assert_eq!(action, Action::Redirect);
    look(&frame)
}

/// A client's port with which the first node chooses a task of the second.
fn far_port(send: impl Fn(u16) -> Vec<u8>) -> (u16, Vec<u8>) {
    (5000..6000).map(|port| (port, send(port))).find(|(_, frame)| frame.len() > 90).unwrap()
}

#[track_caller]
fn is_reset(seen: &Look, of: Talk, ports: (u16, u16)) {
    assert_eq!((seen.talk.from, seen.talk.to, seen.ports), (of.to, of.from, (ports.1, ports.0)));
    assert_eq!((seen.payload.len(), seen.payload[13] & RST), (20, RST));
}

#[test]
fn a_connection_that_opens_is_given_another_task() {
    for family in BOTH {
        let (one, two) = nodes(family, &[C, B]);
        let talk = outside(family);
        let send = |port, flags| one.uplink(&talk.segment((port, PORT_2), flags, b"")).1;
        let (port, outer) = far_port(|port| send(port, SYN));
        let seen = there_and_back((&one, &two), &outer);
        assert_eq!((seen.talk.to, seen.ports), (B.at(family), (port, TARGET)));
        let answer = Talk { from_mac: B.mac, to_mac: GATEWAY_MAC, from: B.at(family), to: talk.from };
        let (_, answer) = one.task_sends(B, &answer.segment((TARGET, port), SYN | ACK, b""));
        assert_eq!((look(&answer).talk.from, look(&answer).ports), (talk.to, (PORT_2, port)));
        assert_eq!(look(&send(port, ACK)).talk.to, B.at(family), "it stays there");
        assert_eq!((two.counted(Counter::Refused), one.counted(Counter::ChosenAgain)), (1, 1));
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

#[test]
fn datagrams_go_to_another_task_from_the_first_on() {
    for family in BOTH {
        let (one, two) = nodes(family, &[C, B]);
        let send = |port| one.uplink(&outside(family).udp(port, PORT_2, b"ask")).1;
        let (port, outer) = far_port(send);
        // Two are on their way before the first comes back.
        let second = send(port);
        for outer in [outer, second] {
            assert_eq!(there_and_back((&one, &two), &outer).talk.to, B.at(family));
        }
        assert_eq!(look(&send(port)).talk.to, B.at(family));
    }
}

#[test]
fn where_there_is_no_other_task_the_client_is_told() {
    for family in BOTH {
        let (one, two) = nodes(family, &[C]);
        let talk = outside(family);
        for flags in [SYN, ACK] {
            // What goes on has been opened before the task went.
            let packet = talk.segment((5000, PORT_2), flags, b"");
            let (_, outer) = one.uplink(&packet);
            is_reset(&there_and_back((&one, &two), &outer), talk, (5000, PORT_2));
        }
        assert_eq!(one.counted(Counter::Reset), 2);
        let (_, outer) = one.uplink(&talk.udp(5000, PORT_2, b"ask"));
        assert_eq!(one.uplink(&refused(&two, &outer, Turn::Refused)).0, Action::Drop);
        assert_eq!(one.drops(), [(DropReason::NoBackend, 1)].into());
    }
}

#[test]
fn a_connection_that_goes_on_is_reset_though_there_are_others() {
    for family in BOTH {
        let (one, two) = nodes(family, &[C, B]);
        let talk = outside(family);
        let (port, _) = far_port(|port| one.uplink(&talk.segment((port, PORT_2), SYN, b"")).1);
        let (_, outer) = one.uplink(&talk.segment((port, PORT_2), ACK, b"data"));
        is_reset(&there_and_back((&one, &two), &outer), talk, (port, PORT_2));
    }
}

#[test]
fn a_second_refusal_is_the_last() {
    for family in BOTH {
        let (one, two) = nodes(family, &[C, D]);
        let talk = outside(family);
        let (_, outer) = one.uplink(&talk.segment((5000, PORT_2), SYN, b""));
        let (action, outer) = one.uplink(&refused(&two, &outer, Turn::Refused));
        assert_eq!(action, Action::Redirect);
        let (action, frame) = one.uplink(&refused(&two, &outer, Turn::RefusedAgain));
        assert_eq!(action, Action::Redirect);
        is_reset(&look(&frame), talk, (5000, PORT_2));
    }
}

#[test]
fn tasks_that_speak_to_a_vip_are_given_another_or_told() {
    for family in BOTH {
        let talk = Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to: vip(family) };
        let (one, two) = nodes(family, &[C, B]);
        let send = |one: &Node, port, flags| one.task_sends(A, &talk.segment((port, 80), flags, b"")).1;
        let (port, outer) = far_port(|port| send(&one, port, SYN));
        let seen = there_and_back((&one, &two), &outer);
        assert_eq!((seen.talk.to, seen.ports), (B.at(family), (port, 80)));
        assert_eq!(look(&send(&one, port, ACK)).talk.to, B.at(family));

        let (one, two) = nodes(family, &[C]);
        let seen = there_and_back((&one, &two), &send(&one, 5000, SYN));
        is_reset(&seen, talk, (5000, 80));
        assert_eq!((seen.talk.to_mac, seen.talk.from_mac), (A.mac, GATEWAY_MAC));
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

#[test]
fn sockets_and_tasks_that_speak_to_their_node_are_told() {
    for family in BOTH {
        let (one, two) = nodes(family, &[C]);
        let socket =
            Talk { from_mac: HOST_MAC, to_mac: NIC, from: node_address(1, family), to: host_service(family) };
        let (_, outer) = one.socket_sends(&socket.segment((5000, PORT_2), SYN, b""));
        let seen = there_and_back((&one, &two), &outer);
        is_reset(&seen, socket, (5000, PORT_2));
        assert_eq!(seen.talk.to_mac, HOST_MAC);

        let task =
            Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to: node_address(1, family) };
        let (_, outer) = one.task_sends(A, &task.segment((5001, PORT_2), SYN, b""));
        let seen = there_and_back((&one, &two), &outer);
        is_reset(&seen, task, (5001, PORT_2));
        assert_eq!(seen.talk.to_mac, A.mac);
    }
}

#[test]
fn nobody_else_can_refuse() {
    let family = Family::V4;
    let (one, two) = nodes(family, &[C, B]);
    let talk = outside(family);
    let (port, outer) = far_port(|port| one.uplink(&talk.segment((port, PORT_2), SYN, b"")).1);
    let back = refused(&two, &outer, Turn::Refused);
    let inner = unwrapped(&back, family, (2, 1)).1;
    // From a node that was not asked: it goes where it went before.
    let (action, again) = one.uplink(&wrap(RETURN_VNI, &inner, family, (3, 1)));
    assert_eq!(action, Action::Redirect);
    unwrapped(&again, family, (1, 2));
    // Of a flow that is not known here.
    one.clear_flows();
    assert_eq!(one.uplink(&back).0, Action::Drop);
    assert_eq!(one.drops(), [(DropReason::UnexpectedReturn, 1)].into());
    // An answer to an answer.
    assert_eq!(two.uplink(&wrap(mesh_abi::INGRESS_VNI, &inner, family, (1, 2))).0, Action::Drop);
    assert_eq!(two.drops(), [(DropReason::StaleEndpoint, 1)].into());
    assert_ne!(port, 0);
}

/// The backend is gone at the first node, too, by the time its packet comes back.
#[test]
fn what_was_heard_meanwhile_counts() {
    for family in BOTH {
        let (mut one, two) = nodes(family, &[C, B]);
        let (port, outer) = far_port(|port| one.uplink(&outside(family).udp(port, PORT_2, b"ask")).1);
        one.remove::<u32, BackendValue>("BACKENDS", C.id);
        let seen = there_and_back((&one, &two), &outer);
        assert_eq!((seen.talk.to, seen.ports.0), (B.at(family), port));
    }
}
