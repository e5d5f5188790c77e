//! Another node asks whether the data path works: the question comes back, to those who may ask.

use mesh_abi::{DropReason, NodeConfig, QUESTION, node_flags};

use crate::{
    frames::{Look, Talk, look},
    world::{Action, BOTH, Family, Node, client, node_address},
};

const PORT: u16 = 40_000;
const VXLAN: u16 = 4789;

/// To the first node.
fn question(from: std::net::IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
    let (from_mac, to_mac) = ([2, 9, 9, 9, 9, 1], [2, 9, 9, 9, 9, 2]);
    Talk { from_mac, to_mac, from, to: node_address(1, family) }.udp(port, VXLAN, payload)
}

fn whole() -> Vec<u8> {
    [&QUESTION[..], b"12345678"].concat()
}

/// The node's packet is the question, sent back.
#[track_caller]
fn comes_back(one: &Node, asked: &[u8]) {
    let (action, answer) = one.uplink(asked);
    assert_eq!(action, Action::Redirect);
    let (before, after) = (look(asked), look(&answer));
    let (source, destination) = before.ports;
    let mut payload = before.payload.clone();
    payload[..2].copy_from_slice(&destination.to_be_bytes());
    payload[2..4].copy_from_slice(&source.to_be_bytes());
    let talk = Talk { from: before.talk.to, to: before.talk.from, ..after.talk };
    assert_eq!(after, Look { talk, ports: (destination, source), payload, ..before });
    assert_eq!(answer.len(), asked.len());
}

#[test]
fn a_peer_is_answered_by_every_path() {
    for underlay in BOTH {
        let (mut one, two) = Node::pair_over(underlay);
        let asked = question(node_address(2, underlay), PORT, &whole());
        comes_back(&one, &asked);
        // XDP leaves it to the program behind.
        assert_eq!(one.uplink_xdp(&asked), (2, asked.clone()));
        // Without a checksum, as IPv4 allows; and padded, as NICs do.
        if underlay == Family::V4 {
            let mut unsummed = asked.clone();
            unsummed[40..42].fill(0);
            comes_back(&one, &unsummed);
            let padded = [&asked[..], &[0; 2]].concat();
            assert_eq!(one.uplink(&padded).0, Action::Redirect);
        }
        let long = question(node_address(2, underlay), PORT, &[&whole()[..], &[7; 1400]].concat());
        comes_back(&one, &long);
        one.configure(|config: &mut NodeConfig| config.flags &= !node_flags::FAST_PATH);
        comes_back(&one, &asked);
        assert!(one.drops().is_empty());
        // The asking node's programs let the answer through to its socket.
        let (_, answer) = one.uplink(&asked);
        assert_eq!(two.uplink(&answer), (Action::Pass, answer));
    }
}

#[test]
fn nobody_else_is_answered_and_nothing_else_is_sent_back() {
    for underlay in BOTH {
        let (one, _) = Node::pair_over(underlay);
        let drops = || one.drops();
        let stranger = question(client(underlay), PORT, &whole());
        assert_eq!(one.uplink(&stranger).0, Action::Drop);
        assert_eq!(drops(), [(DropReason::UnknownSender, 1)].into());
        let peer = node_address(2, underlay);
        let mut other = whole();
        other[1] ^= 1;
        let refused = [
            // Two such nodes would answer each other for ever.
            question(peer, VXLAN, &whole()),
            question(peer, PORT, &whole()[..15]),
            question(peer, PORT, &whole()[..8]),
            question(peer, PORT, &whole()[..3]),
            question(peer, PORT, &other),
        ];
        for packet in &refused {
            assert_eq!(one.uplink(packet).0, Action::Drop, "{packet:02x?}");
        }
        assert_eq!(drops(), [(DropReason::Malformed, 5), (DropReason::UnknownSender, 1)].into());
    }
}

#[test]
fn what_is_not_for_this_node_passes() {
    for underlay in BOTH {
        let (one, _) = Node::pair_over(underlay);
        let mut talk = look(&question(node_address(2, underlay), PORT, &whole())).talk;
        talk.to = node_address(3, underlay);
        let elsewhere = talk.udp(PORT, VXLAN, &whole());
        assert_eq!(one.uplink(&elsewhere), (Action::Pass, elsewhere));
    }
}
