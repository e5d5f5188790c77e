//! Task to task, here and on another node; ARP; the gateway; the way out and back.

use mesh_abi::{Counter, GATEWAY_MAC};

use crate::{
    frames::{Talk, wrap},
    packets::{Path, arp, inside, seen},
    world::{
        A, Action, B, BOTH, C, CLIENT, EMPTY_VIP, Family, GATEWAY, Node, Task, VIP, VNI, VNI_NUMBER, egress,
        vtep,
    },
};

fn path(from: Task, to: Task) -> Path {
    Path { from_mac: from.mac, to_mac: to.mac, from: from.address, to: to.address }
}

#[test]
fn a_packet_reaches_a_task_of_the_same_node_unchanged() {
    let (node, _) = Node::pair();
    let sent = path(A, B).tcp(4000, 80, b"hello");
    let (action, arrived) = node.task_sends(A, &sent);
    assert_eq!(action, Action::Redirect);
    assert_eq!(arrived, sent);
    assert_eq!(node.counted(Counter::Local), 1);
}

#[test]
fn a_packet_reaches_a_task_of_another_node_unchanged() {
    let (one, two) = Node::pair();
    for sent in [path(A, C).tcp(4000, 80, b"hello"), path(A, C).udp(4000, 53, b"hi"), path(A, C).ping(5)] {
        let (action, outer) = one.task_sends(A, &sent);
        assert_eq!(action, Action::Redirect);
        let (vni, inner) = inside(&outer, vtep(1), vtep(2));
        assert_eq!(vni, VNI_NUMBER);
        assert_eq!(inner, sent);
        let (action, arrived) = two.uplink(&outer);
        assert_eq!(action, Action::Redirect);
        assert_eq!(arrived, sent);
    }
    assert_eq!((one.counted(Counter::FastSent), two.counted(Counter::FastReceived)), (3, 3));
}

#[test]
fn flows_spread_over_outer_source_ports_and_keep_theirs() {
    let (node, _) = Node::pair();
    let outer_port = |from: u16| seen(&node.task_sends(A, &path(A, C).udp(from, 53, b"x")).1).ports.0;
    let ports: std::collections::BTreeSet<u16> = (4000..4064).map(outer_port).collect();
    assert!(ports.len() > 32, "{ports:?}");
    assert_eq!(outer_port(4000), outer_port(4000));
}

#[test]
fn without_the_fast_path_the_packet_goes_to_the_vxlan_device_as_it_is() {
    let (mut node, _) = Node::pair();
    node.configure(|config| config.flags = 0);
    let sent = path(A, C).tcp(4000, 80, b"hello");
    assert_eq!(node.task_sends(A, &sent), (Action::Redirect, sent));
    assert_eq!((node.counted(Counter::FastSent), node.counted(Counter::GeneralSent)), (0, 1));
}

#[test]
fn a_node_without_configuration_touches_nothing() {
    let (mut node, _) = Node::pair();
    node.configure(|config| *config = mesh_abi::NodeConfig::default());
    let packet = path(A, C).tcp(4000, 80, b"hello");
    assert_eq!(node.task_sends(A, &packet), (Action::Pass, packet.clone()));
    assert_eq!(node.to_task(A, &packet), (Action::Pass, packet.clone()));
    assert_eq!(node.uplink(&packet), (Action::Pass, packet));
}

#[test]
fn arp_is_answered_for_endpoints_vips_and_the_gateway() {
    let (node, _) = Node::pair();
    let owners = [(B.address, B.mac), (C.address, C.mac), (VIP, GATEWAY_MAC), (EMPTY_VIP, GATEWAY_MAC)];
    for (address, mac) in owners.into_iter().chain([(GATEWAY, GATEWAY_MAC)]) {
        let question = arp(1, (A.mac, A.address), ([0; 6], address), [0xff; 6]);
        let answer = arp(2, (mac, address), (A.mac, A.address), A.mac);
        assert_eq!(node.task_sends(A, &question), (Action::Redirect, answer), "{address:?}");
    }
    assert_eq!(node.counted(Counter::ArpAnswered), 5);
    assert!(node.drops().is_empty());
}

#[test]
fn arp_probes_announcements_and_answers_are_swallowed() {
    let (node, _) = Node::pair();
    let probe = arp(1, (A.mac, [0; 4]), ([0; 6], A.address), [0xff; 6]);
    let announcement = arp(1, (A.mac, A.address), ([0; 6], A.address), [0xff; 6]);
    let answer = arp(2, (A.mac, A.address), (B.mac, B.address), B.mac);
    for packet in [probe, announcement, answer] {
        assert_eq!(node.task_sends(A, &packet).0, Action::Drop);
    }
    assert!(node.drops().is_empty(), "swallowing is no error");
}

#[test]
fn the_gateway_answers_a_ping() {
    let (node, _) = Node::pair();
    let asked = Path { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.address, to: GATEWAY };
    let answered = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: GATEWAY, to: A.address };
    let (action, arrived) = node.task_sends(A, &asked.ping(9));
    assert_eq!(action, Action::Redirect);
    let (arrived, pong) = (seen(&arrived), seen(&answered.pong(9)));
    assert_eq!(arrived, pong);
}

#[test]
fn a_packet_goes_out_with_the_egress_address_and_its_answer_comes_back() {
    let (node, _) = Node::pair();
    let out = Path { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.address, to: CLIENT };
    for packet in [out.tcp(4000, 443, b"get"), out.udp(4000, 53, b"ask"), out.ping(3)] {
        let (action, sent) = node.task_sends(A, &packet);
        assert_eq!(action, Action::Pass, "on to the node's stack");
        assert_eq!(seen(&sent).path, Path { from: egress(A), ..out });
        assert_eq!(seen(&sent).ports, seen(&packet).ports);
    }
    assert_eq!(node.counted(Counter::Egress), 3);

    // From the node's stack: its own Ethernet address as the source.
    let back = Path { from_mac: [2, 0, 0, 0, 0xee, 1], to_mac: A.mac, from: CLIENT, to: egress(A) };
    for packet in [back.tcp(443, 4000, b"got"), back.udp(53, 4000, b"told"), back.pong(3)] {
        let (action, arrived) = node.to_task(A, &packet);
        assert_eq!(action, Action::Pass);
        let expected = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: CLIENT, to: A.address };
        assert_eq!(seen(&arrived).path, expected);
        assert_eq!(seen(&arrived).ports, seen(&packet).ports);
    }
}

#[test]
fn the_stack_reaches_tasks_by_their_egress_address_only() {
    let (node, _) = Node::pair();
    let direct = Path { from_mac: [2, 0, 0, 0, 0xee, 1], to_mac: A.mac, from: CLIENT, to: A.address };
    assert_eq!(node.to_task(A, &direct.tcp(1, 2, b"x")).0, Action::Drop);
    assert_eq!(node.to_task(A, &arp(1, (C.mac, C.address), ([0; 6], A.address), [0xff; 6])).0, Action::Drop);
    let translated = Path { from_mac: GATEWAY_MAC, ..direct };
    assert_eq!(node.to_task(A, &translated.tcp(1, 2, b"x")).0, Action::Pass);
    assert!(node.drops().is_empty());
}

#[test]
fn what_is_not_for_the_data_path_passes_the_uplink_untouched() {
    let (node, _) = Node::pair();
    let other = Path { from_mac: [2, 1, 1, 1, 1, 1], to_mac: [2, 1, 1, 1, 1, 2], from: CLIENT, to: vtep(1) };
    let elsewhere = Path { to: [198, 51, 100, 7], ..other };
    let packets = [
        other.tcp(4000, 22, b"ssh"),
        other.udp(4000, 7946, b"gossip"),
        other.ping(1),
        elsewhere.tcp(4000, 8081, b"a published port, but not ours"),
        elsewhere.udp(4000, 4789, b"VXLAN, but not for us"),
        arp(1, (other.from_mac, CLIENT), ([0; 6], vtep(1)), [0xff; 6]),
    ];
    for packet in packets {
        assert_eq!(node.uplink(&packet), (Action::Pass, packet));
    }
    assert!(node.drops().is_empty());
}

#[test]
fn a_packet_with_outer_fragments_or_options_is_left_to_the_kernel() {
    let (_, two) = Node::pair();
    let frame = path(A, C).udp(1, 2, b"x");
    let mut outer = crate::packets::wrapped(crate::world::VNI, &frame, vtep(1), vtep(2));
    outer[20] |= 0x20;
    assert_eq!(two.uplink(&outer), (Action::Pass, outer));
}

/// What no helper gives outer headers to, or takes them off.
#[test]
fn several_packets_of_sctp_in_one_go_by_the_vxlan_device() {
    /// `GSO_BY_FRAGS` of linux/skbuff.h.
    const BY_FRAGMENTS: u32 = 0xffff;
    let (one, two) = Node::pair();
    for family in BOTH {
        let talk = Talk { from_mac: A.mac, to_mac: C.mac, from: A.at(family), to: C.at(family) };
        let packet = talk.sctp(5000, 5001);
        let (action, sent) = one.run("from_task", one.interface_of(A), &packet, BY_FRAGMENTS);
        assert_eq!((action, sent), (Action::Redirect, packet.clone()), "the device writes the headers");
        let outer = wrap(VNI, &packet, Family::V4, (1, 2));
        assert_eq!(two.run("uplink", two.uplink, &outer, BY_FRAGMENTS), (Action::Pass, outer.clone()));
        assert_eq!(two.uplink(&outer).0, Action::Redirect, "one alone is taken");
    }
    assert_eq!(one.counted(Counter::GeneralSent), 2);
    assert!(one.drops().is_empty() && two.drops().is_empty());
}
