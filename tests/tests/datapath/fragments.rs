//! Fragmented packets follow their flow, there and back.

use std::net::IpAddr;

use mesh_abi::{DropReason, GATEWAY_MAC, INGRESS_VNI, RETURN_VNI};

use crate::{
    dual::{across, from_client, out_of},
    frames::{Talk, fragments, look, reassembled},
    world::{
        A, Action, B, BOTH, C, Family, HOST_MAC, Node, PORT_2, TARGET, VNI_NUMBER, client, host_service,
        node_address, vip,
    },
};

const LONG: [u8; 4000] = [0x5a; 4000];

fn ingress() -> u32 {
    u32::from_be_bytes(INGRESS_VNI)
}

/// All fragments of a packet, each sent by `send` and put together where they arrive.
fn each(packet: &[u8], id: u16, send: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let arrived: Vec<_> = fragments(packet, id, 1400).iter().map(|fragment| send(fragment)).collect();
    assert_eq!(arrived.len(), 3);
    reassembled(&arrived)
}

#[test]
fn of_a_datagram_to_a_vip_and_of_its_answer() {
    for family in BOTH {
        let (one, two) = Node::pair();
        let sent = out_of(A, vip(family), family).udp(4000, 53, &LONG);
        let arrived = each(&sent, 7, |f| across(&one, &two, one.task_sends(A, f), ingress()));
        let at_task = Talk { from_mac: GATEWAY_MAC, to_mac: C.mac, from: A.at(family), to: C.at(family) };
        assert_eq!(arrived, at_task.udp(4000, 53, &LONG), "checksum and all");
        let reply = out_of(C, A.at(family), family).udp(53, 4000, &LONG);
        let back = each(&reply, 8, |f| across(&two, &one, two.task_sends(C, f), VNI_NUMBER));
        assert_eq!(back, out_of(A, vip(family), family).back().udp(53, 4000, &LONG));
    }
}

#[test]
fn of_a_datagram_to_a_published_port_and_of_its_answer() {
    for family in BOTH {
        let (one, two) = Node::pair();
        let asked = from_client(1, family);
        let socket = Talk {
            from_mac: HOST_MAC,
            to_mac: [2; 6],
            from: node_address(1, family),
            to: host_service(family),
        };
        for (talk, from_socket) in [(asked, false), (socket, true)] {
            let sent = talk.udp(5000, PORT_2, &LONG);
            let arrived = each(&sent, 7, |f| {
                let step = if from_socket { one.socket_sends(f) } else { one.uplink(f) };
                across(&one, &two, step, ingress())
            });
            let at_task = Talk { from_mac: GATEWAY_MAC, to_mac: C.mac, from: talk.from, to: C.at(family) };
            assert_eq!(arrived, at_task.udp(5000, TARGET, &LONG));
            let reply = out_of(C, talk.from, family).udp(TARGET, 5000, &LONG);
            let back =
                each(&reply, 8, |f| across(&two, &one, two.task_sends(C, f), u32::from_be_bytes(RETURN_VNI)));
            let back = look(&back);
            assert_eq!((back.talk.from, back.talk.to, back.ports), (talk.to, talk.from, (PORT_2, 5000)));
        }
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

#[test]
fn between_tasks_and_to_the_outside_without_any_memory() {
    for family in BOTH {
        let (node, _) = Node::pair();
        let cases: [(IpAddr, Action); 2] = [(B.at(family), Action::Redirect), (client(family), Action::Pass)];
        for (to, action) in cases {
            let packet = out_of(A, to, family).udp(1, 2, &LONG);
            // Task A serves nobody, so that no fragment of its own can be a reply's.
            let (mut node_without, _) = Node::pair();
            node_without.serves_nobody(A);
            for fragment in fragments(&packet, 9, 1400).iter().rev() {
                assert_eq!(node_without.task_sends(A, fragment).0, action);
            }
            for fragment in fragments(&packet, 9, 1400) {
                assert_eq!(node.task_sends(A, &fragment).0, action);
            }
        }
        assert!(node.drops().is_empty());
    }
}

#[test]
fn that_came_before_the_first_are_dropped_and_counted() {
    for family in BOTH {
        let (one, two) = Node::pair();
        let to_vip = fragments(&out_of(A, vip(family), family).udp(1, 2, &LONG), 9, 1400);
        assert_eq!(one.task_sends(A, &to_vip[1]).0, Action::Drop);
        let to_port = fragments(&from_client(1, family).udp(1, PORT_2, &LONG), 9, 1400);
        assert_eq!(one.uplink(&to_port[1]).0, Action::Pass, "it may be the node's own");
        assert_eq!(one.drops(), [(DropReason::Fragment, 1)].into());
        assert_eq!(one.uplink(&to_port[0]).0, Action::Redirect);
        let second = one.uplink(&to_port[1]).1;
        assert_eq!(two.uplink(&second).0, Action::Drop, "the first one was lost on its way");
        assert_eq!(two.drops(), [(DropReason::Fragment, 1)].into());
    }
}

#[test]
fn of_two_packets_are_not_mixed_up() {
    let (one, two) = Node::pair();
    let talk = from_client(1, Family::V4);
    let first = fragments(&talk.udp(5000, PORT_2, &LONG), 1, 1400);
    let second = fragments(&talk.udp(5001, PORT_2, &LONG), 2, 1400);
    let mut arrived = (vec![], vec![]);
    for (a, b) in first.iter().zip(&second) {
        arrived.0.push(across(&one, &two, one.uplink(a), ingress()));
        arrived.1.push(across(&one, &two, one.uplink(b), ingress()));
    }
    assert_eq!(look(&reassembled(&arrived.0)).ports, (5000, TARGET));
    assert_eq!(look(&reassembled(&arrived.1)).ports, (5001, TARGET));
}
