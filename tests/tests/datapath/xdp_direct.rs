//! Published ports whose replies leave by the task's own node, where XDP takes the client's packets: the node that was
//! spoken to forwards and hears nothing back.

use mesh_abi::{BackendValue, Counter, GATEWAY_MAC, INGRESS_VNI, Steering, SteeringKind, service_flags};

use crate::{
    frames::{Talk, look, unwrapped},
    packets::array,
    world::{A, Action, BOTH, C, Family, Node, PORT_2, TARGET, client, node_address},
    xdp::{PASS, TX, nodes, outside, port_key},
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Both nodes, and the port that leads to the second one's task, with replies by any node or by that one.
fn pair(underlay: Family, flags: u8) -> (Node, Node) {
    let (mut one, mut two) = nodes(underlay);
    for node in [&mut one, &mut two] {
        let keys = BOTH.map(|family| [6, 17].map(|protocol| port_key(family, protocol)));
        keys.concat().into_iter().for_each(|key| node.service_with(key, |service| service.flags = flags));
    }
    (one, two)
}

/// How an encapsulated packet says that its replies are to leave.
#[track_caller]
fn steered(outer: &[u8], underlay: Family) -> SteeringKind {
    let (vni, inner) = unwrapped(outer, underlay, (1, 2));
    assert_eq!(vni, u32::from_be_bytes(INGRESS_VNI));
    Steering::decode(&array(&inner[..12])).unwrap().kind
}

/// The task of the second node speaks to the client.
fn out(family: Family) -> Talk {
    Talk { from_mac: C.mac, to_mac: GATEWAY_MAC, from: C.at(family), to: client(family) }
}

/// A packet of the client's by XDP to the second node's task.
#[track_caller]
fn reaches(one: &Node, two: &Node, packet: &[u8]) {
    let underlay = one.underlay();
    let (action, outer) = one.uplink_xdp(packet);
    assert_eq!((action, steered(&outer, underlay)), (TX, SteeringKind::Direct));
    let (action, arrived) = two.uplink(&outer);
    let (sent, arrived) = (look(packet), look(&arrived));
    assert_eq!(action, Action::Redirect);
    assert_eq!((arrived.talk.from, arrived.talk.to), (sent.talk.from, C.at(sent.talk.family())));
    assert_eq!(arrived.ports, (sent.ports.0, TARGET));
}

/// A packet of the task's to the client, by its own node and in the name of the one that was spoken to.
#[track_caller]
fn leaves(two: &Node, packet: &[u8], client_port: u16) -> Vec<u8> {
    let (action, frame) = two.task_sends(C, packet);
    assert_eq!(action, Action::Redirect);
    let seen = look(&frame);
    let family = seen.talk.family();
    assert_eq!((seen.talk.from, seen.talk.to), (node_address(1, family), client(family)), "not in VXLAN");
    assert_eq!(seen.ports, (PORT_2, client_port));
    frame
}

#[test]
fn a_connection_goes_in_by_one_node_and_out_by_the_other() {
    for underlay in BOTH {
        let (one, two) = pair(underlay, service_flags::DIRECT);
        for family in BOTH {
            let asks = |flags, payload: &[u8]| {
                reaches(&one, &two, &outside(family).segment((5000, PORT_2), flags, payload));
            };
            let answers = |flags, payload: &[u8]| {
                leaves(&two, &out(family).segment((TARGET, 5000), flags, payload), 5000);
            };
            asks(SYN, b"");
            answers(SYN | ACK, b"");
            asks(ACK, b"");
            asks(ACK, b"request");
            answers(ACK, &[7; 1200]);
            asks(FIN | ACK, b"");
            answers(FIN | ACK, b"");
            asks(ACK, b"");
        }
        let at = |node: &Node| {
            [Counter::Xdp, Counter::FastSent, Counter::FastReceived, Counter::Reply].map(|c| node.counted(c))
        };
        assert_eq!((at(&one), at(&two)), ([10, 10, 0, 0], [0, 0, 10, 6]), "nothing came back");
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

#[test]
fn datagrams_go_in_by_one_node_and_out_by_the_other() {
    for underlay in BOTH {
        let (one, two) = pair(underlay, service_flags::DIRECT);
        for family in BOTH {
            for payload in [&b"request"[..], &[7; 1300], b""] {
                reaches(&one, &two, &outside(family).udp(5000, PORT_2, payload));
                leaves(&two, &out(family).udp(TARGET, 5000, payload), 5000);
            }
        }
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

/// What the world says about such a reply comes to the node whose address it bore: XDP leaves it to tc, which sends it on.
#[test]
fn errors_about_replies_find_the_task() {
    for underlay in BOTH {
        let (one, two) = pair(underlay, service_flags::DIRECT);
        for family in BOTH {
            reaches(&one, &two, &outside(family).segment((5000, PORT_2), SYN, b""));
            let reply = out(family).segment((TARGET, 5000), SYN | ACK, b"");
            let frame = leaves(&two, &reply, 5000);
            let (kind, code) = if family == Family::V4 { (3, 1) } else { (1, 3) };
            let error = outside(family).icmp(kind, code, [0; 4], &frame);
            assert_eq!(one.uplink_xdp(&error), (PASS, error.clone()));
            let (action, outer) = one.uplink(&error);
            assert_eq!((action, steered(&outer, underlay)), (Action::Redirect, SteeringKind::Direct));
            let (action, told) = two.uplink(&outer);
            assert_eq!(action, Action::Redirect);
            let told = look(&told);
            assert_eq!(told.talk.to, C.at(family));
            let quoted = &told.payload[8..];
            assert_eq!(quoted, &reply[14..14 + quoted.len()], "as the task sent it");
        }
    }
}

/// When the task is gone, XDP leaves the connection to tc, which resets it from here.
#[test]
fn a_connection_whose_task_is_gone_is_reset_by_the_first_node() {
    for family in BOTH {
        let (mut one, two) = pair(Family::V4, service_flags::DIRECT);
        let talk = outside(family);
        for flags in [SYN, ACK, ACK] {
            reaches(&one, &two, &talk.segment((5000, PORT_2), flags, b""));
        }
        one.remove::<u32, BackendValue>("BACKENDS", C.id);
        one.table(&[A, A]);
        // Each CPU believes for 50 ms what it knows of a backend.
        std::thread::sleep(std::time::Duration::from_millis(80));
        let data = talk.segment((5000, PORT_2), ACK, b"data");
        assert_eq!(one.uplink_xdp(&data), (PASS, data.clone()));
        let (action, frame) = one.uplink(&data);
        assert_eq!(action, Action::Redirect);
        let seen = look(&frame);
        assert_eq!((seen.talk.from, seen.talk.to), (talk.to, talk.from));
        assert_eq!((seen.ports, seen.payload[13]), ((PORT_2, 5000), RST));
    }
}

/// A port whose replies may leave either way: flows that begin after a change follow it, on both nodes.
#[test]
fn the_way_back_is_what_the_port_says_when_a_flow_begins() {
    let underlay = Family::V4;
    let (mut one, two) = pair(underlay, 0);
    for family in BOTH {
        let opening = |port: u16| outside(family).segment((port, PORT_2), SYN, b"");
        let way = |one: &Node, port| {
            let (action, outer) = one.uplink_xdp(&opening(port));
            assert_eq!((action, two.uplink(&outer).0), (TX, Action::Redirect));
            steered(&outer, underlay)
        };
        assert_eq!(way(&one, 5000), SteeringKind::Published);
        let (_, back) = two.task_sends(C, &out(family).segment((TARGET, 5000), SYN | ACK, b""));
        assert_eq!(one.uplink_xdp(&back).0, TX, "by the node that was spoken to");
        one.service_with(port_key(family, 6), |service| service.flags = service_flags::DIRECT);
        assert_eq!(way(&one, 5001), SteeringKind::Direct);
        leaves(&two, &out(family).segment((TARGET, 5001), SYN | ACK, b""), 5001);
        one.service_with(port_key(family, 6), |service| service.flags = 0);
    }
    assert!(one.drops().is_empty() && two.drops().is_empty());
}
