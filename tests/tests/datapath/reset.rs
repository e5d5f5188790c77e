//! TCP connections whose task is gone: their next packet is answered with a reset, wherever it came from.

use std::net::IpAddr;

use mesh_abi::{BackendValue, Counter, GATEWAY_MAC};

use crate::{
    frames::{Look, Talk, look},
    world::{
        A, Action, BOTH, C, Family, HOST_MAC, Node, PORT_2, client, egress_of, host_service, node_address,
        vip,
    },
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];

/// What a reset says: from whom, to whom, sequence number, acknowledgement, flags.
#[derive(Debug, PartialEq, Eq)]
struct Reset {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

#[track_caller]
fn reset(frame: &[u8]) -> (Reset, Look) {
    let seen = look(frame);
    let tcp = &seen.payload;
    assert_eq!((tcp.len(), tcp[12]), (20, 0x50), "a header without options or payload");
    let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let said = Reset {
        from: (seen.talk.from, seen.ports.0),
        to: (seen.talk.to, seen.ports.1),
        sequence: number(4),
        acknowledgement: number(8),
        flags: tcp[13],
    };
    (said, seen)
}

fn outside(family: Family) -> Talk {
    Talk { from_mac: ROUTER, to_mac: NIC, from: client(family), to: node_address(1, family) }
}

/// The task of the flow that begins with that packet is gone.
fn gone(node: &mut Node, begin: impl FnOnce(&Node) -> Action) {
    assert_eq!(begin(node), Action::Redirect);
    node.remove::<u32, BackendValue>("BACKENDS", C.id);
}

#[test]
fn clients_outside_are_told() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        let talk = outside(family);
        let ports = (5000, PORT_2);
        let send = |node: &Node, flags, payload: &[u8]| node.uplink(&talk.segment(ports, flags, payload));
        let (from, to) = ((talk.to, PORT_2), (talk.from, 5000));
        let answers = [
            (ACK, 0, Reset { from, to, sequence: 7, acknowledgement: 0, flags: RST }),
            (ACK, 1200, Reset { from, to, sequence: 7, acknowledgement: 0, flags: RST }),
            (FIN | ACK, 3, Reset { from, to, sequence: 7, acknowledgement: 0, flags: RST }),
            (FIN, 100, Reset { from, to, sequence: 0, acknowledgement: 1101, flags: RST | ACK }),
            (0, 9, Reset { from, to, sequence: 0, acknowledgement: 1009, flags: RST | ACK }),
        ];
        for (count, (flags, len, expected)) in answers.into_iter().enumerate() {
            node.backend(C, 0);
            gone(&mut node, |node| send(node, SYN, &[]).0);
            let (action, frame) = send(&node, flags, &vec![9; len]);
            assert_eq!(action, Action::Redirect);
            assert_eq!(reset(&frame).0, expected);
            assert_eq!(node.counted(Counter::Reset), count as u64 + 1);
        }
        // A reset is not answered.
        node.backend(C, 0);
        gone(&mut node, |node| send(node, SYN, &[]).0);
        assert_eq!(send(&node, RST | ACK, &[]).0, Action::Drop);
        assert!(node.drops().is_empty());
    }
}

#[test]
fn tasks_are_told_by_vips() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        let talk = Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to: vip(family) };
        let send = |node: &Node, flags| node.task_sends(A, &talk.segment((5000, 80), flags, b"data"));
        gone(&mut node, |node| send(node, SYN).0);
        let (action, frame) = send(&node, ACK);
        assert_eq!(action, Action::Redirect);
        let (said, seen) = reset(&frame);
        assert_eq!(seen.talk, talk.back());
        assert_eq!((said.from.1, said.to.1, said.sequence, said.flags), (80, 5000, 7, RST));
        assert!(node.drops().is_empty());
    }
}

#[test]
fn sockets_of_the_node_are_told() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        let talk =
            Talk { from_mac: HOST_MAC, to_mac: NIC, from: node_address(1, family), to: host_service(family) };
        let send = |node: &Node, flags| node.socket_sends(&talk.segment((5000, PORT_2), flags, b"data"));
        gone(&mut node, |node| send(node, SYN).0);
        let (action, frame) = send(&node, ACK);
        assert_eq!(action, Action::Redirect);
        let (said, seen) = reset(&frame);
        assert_eq!(seen.talk, Talk { from_mac: GATEWAY_MAC, ..talk.back() });
        assert_eq!((seen.talk.to_mac, said.sequence, said.flags), (HOST_MAC, 7, RST));
    }
}

#[test]
fn tasks_are_told_by_published_ports_of_their_own_node() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        let talk =
            Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to: node_address(1, family) };
        let send = |node: &Node, flags| node.task_sends(A, &talk.segment((5000, PORT_2), flags, b"data"));
        gone(&mut node, |node| send(node, SYN).0);
        let (action, frame) = send(&node, ACK);
        assert_eq!(action, Action::Redirect);
        let (said, seen) = reset(&frame);
        assert_eq!(seen.talk, talk.back(), "to its own address, not {}", egress_of(A, family));
        assert_eq!((said.sequence, said.flags), (7, RST));
    }
}
