//! TCP data in one piece that the kernel is still to segment (GSO), for a task that is gone: the reset that it becomes is one
//! plain packet, and acknowledges all of the piece where it has to.

use std::net::IpAddr;

use mesh_abi::{BackendValue, Counter, GATEWAY_MAC};

use crate::{
    frames::{Talk, look},
    world::{A, Action, BOTH, C, Family, HOST_MAC, Node, PORT_2, client, host_service, node_address, vip},
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];
/// Sequence number of the segments, and what they acknowledge.
const SEQUENCE: u32 = 1000;
const ACKNOWLEDGED: u32 = 7;
/// Bytes of a segment, and of pieces: just over one of them, several, and nearly all that a test run takes.
const SEGMENT: u32 = 700;
const PIECES: [usize; 3] = [701, 2000, 3500];

/// Where a client is: the program that its packets meet, on which interface, and how they look.
struct Place {
    program: &'static str,
    interface: u32,
    talk: Talk,
    port: u16,
}

fn places(node: &Node, family: Family) -> [Place; 4] {
    let outside = Talk { from_mac: ROUTER, to_mac: NIC, from: client(family), to: node_address(1, family) };
    let to = |to: IpAddr| Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to };
    let socket =
        Talk { from_mac: HOST_MAC, to_mac: NIC, from: node_address(1, family), to: host_service(family) };
    let task = node.interface_of(A);
    [
        Place { program: "uplink", interface: node.uplink, talk: outside, port: PORT_2 },
        Place { program: "from_task", interface: task, talk: to(vip(family)), port: 80 },
        Place { program: "from_task", interface: task, talk: to(node_address(1, family)), port: PORT_2 },
        Place { program: "from_host", interface: node.host, talk: socket, port: PORT_2 },
    ]
}

#[test]
fn pieces_are_answered_with_one_reset() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        let mut resets = 0;
        for (place, Place { program, interface, talk, port }) in places(&node, family).into_iter().enumerate()
        {
            for (turn, len) in PIECES.into_iter().enumerate() {
                // With an acknowledgement the reset is at its place; without, it acknowledges all that came.
                for (flags, expected) in [
                    (ACK, (ACKNOWLEDGED, 0, RST)),
                    (FIN | ACK, (ACKNOWLEDGED, 0, RST)),
                    (0, (0, SEQUENCE + len as u32, RST | ACK)),
                    (FIN, (0, SEQUENCE + len as u32 + 1, RST | ACK)),
                ] {
                    let client_port = (5000 + 10 * place + turn) as u16;
                    let segment = |flags, payload: &[u8]| talk.segment((client_port, port), flags, payload);
                    node.backend(C, 0);
                    // Both the VIP and the port may have chosen another task than C.
                    node.table(&[C, C, C]);
                    let (action, _) = node.run(program, interface, &segment(SYN, b""), 0);
                    assert_eq!(action, Action::Redirect);
                    node.remove::<u32, BackendValue>("BACKENDS", C.id);
                    let piece = segment(flags, &vec![9; len]);
                    let (action, frame) = node.run(program, interface, &piece, SEGMENT);
                    assert_eq!(action, Action::Redirect, "{program}, {len} bytes");
                    let seen = look(&frame);
                    let tcp = &seen.payload;
                    assert_eq!(tcp.len(), 20, "a header alone");
                    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
                    assert_eq!((number(4), number(8), tcp[13]), expected, "{program}, {len} bytes, {flags}");
                    assert_eq!((seen.talk.from, seen.talk.to), (talk.to, talk.from));
                    assert_eq!(seen.ports, (port, client_port));
                    resets += 1;
                }
            }
        }
        assert_eq!(node.counted(Counter::Reset), resets);
        assert!(node.drops().is_empty());
    }
}
