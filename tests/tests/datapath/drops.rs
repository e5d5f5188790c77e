//! Every reason for a drop that a packet can give, each counted once and the packet never delivered.

use mesh_abi::{
    DropReason, GATEWAY_MAC, HOST_SERVICE_ADDRESS, INGRESS_VNI, RETURN_VNI, Steering, SteeringKind, Turn,
};

use crate::{
    frames::Talk,
    packets::{Path, arp, wrapped},
    world::{
        A, Action, B, BOTH, C, CLIENT, EMPTY_VIP, GATEWAY, GENERATION, HOST_MAC, Node, PORT_2, PORT_NONE,
        VNI, client, vtep,
    },
};

fn a_to(to: [u8; 4]) -> Path {
    Path { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.address, to }
}

fn a_to_c() -> Path {
    Path { to_mac: C.mac, ..a_to(C.address) }
}

/// The frame of a steered packet.
fn steered(kind: SteeringKind, endpoint: u32, generation: u16, path: Path, port: u16) -> Vec<u8> {
    let mut frame = path.tcp(4000, port, b"x");
    frame[..12].copy_from_slice(&Steering { vni: VNI, ..Steering::to(endpoint, generation, kind) }.encode());
    frame
}

#[track_caller]
fn dropped(node: &Node, action: Action, reason: DropReason) {
    assert_eq!(action, Action::Drop);
    assert_eq!(node.drops(), [(reason, 1)].into());
}

#[test]
fn of_a_task_with_another_source() {
    let cases = [
        Path { from: B.address, ..a_to_c() }.tcp(1, 2, b"x"),
        Path { from_mac: B.mac, ..a_to_c() }.tcp(1, 2, b"x"),
        arp(1, (A.mac, B.address), ([0; 6], C.address), [0xff; 6]),
        arp(1, (B.mac, A.address), ([0; 6], C.address), [0xff; 6]),
    ];
    for packet in cases {
        let (node, _) = Node::pair();
        dropped(&node, node.task_sends(A, &packet).0, DropReason::SpoofedSource);
    }
}

#[test]
fn of_an_interface_that_has_no_endpoint() {
    let (node, _) = Node::pair();
    let action = node.run("from_task", node.host, &a_to_c().tcp(1, 2, b"x"), 0).0;
    dropped(&node, action, DropReason::SpoofedSource);
}

#[test]
fn to_nobody() {
    let cases = [
        a_to([10, 10, 3, 99]).tcp(1, 2, b"x"),
        a_to(GATEWAY).tcp(1, 2, b"x"),
        arp(1, (A.mac, A.address), ([0; 6], [10, 10, 3, 99]), [0xff; 6]),
    ];
    for packet in cases {
        let (node, _) = Node::pair();
        dropped(&node, node.task_sends(A, &packet).0, DropReason::NoEndpoint);
    }
}

#[test]
fn from_another_node_to_nobody_here() {
    let (node, _) = Node::pair();
    let frame = Path { from_mac: C.mac, to_mac: A.mac, from: C.address, to: C.address }.tcp(1, 2, b"x");
    dropped(&node, node.uplink(&wrapped(VNI, &frame, vtep(2), vtep(1))).0, DropReason::NoEndpoint);
}

#[test]
fn of_protocols_that_are_not_carried() {
    let mut lldp = a_to_c().tcp(1, 2, b"x");
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    for packet in [lldp, a_to([224, 0, 0, 1]).udp(1, 2, b"x"), a_to([255; 4]).udp(68, 67, b"x")] {
        let (node, _) = Node::pair();
        dropped(&node, node.task_sends(A, &packet).0, DropReason::Unsupported);
    }
}

#[test]
fn of_packets_that_contradict_themselves() {
    let whole = a_to_c().tcp(1, 2, b"hello");
    let mut version = whole.clone();
    version[14] = 0x65;
    let mut header = whole.clone();
    header[14] = 0x44;
    let mut total = whole.clone();
    total[16..18].copy_from_slice(&[0, 19]);
    for packet in [version, header, total, whole[..40].to_vec()] {
        let (node, _) = Node::pair();
        dropped(&node, node.task_sends(A, &packet).0, DropReason::Malformed);
    }
}

#[test]
fn of_vxlan_packets_that_contradict_themselves() {
    let frame = Path { from_mac: C.mac, to_mac: A.mac, from: C.address, to: A.address }.tcp(1, 2, b"x");
    let whole = wrapped(VNI, &frame, vtep(2), vtep(1));
    let mut no_vni = whole.clone();
    no_vni[42] = 0;
    let no_steering = wrapped(INGRESS_VNI, &frame, vtep(2), vtep(1));
    let short = |len: usize| wrapped(VNI, &frame[..len], vtep(2), vtep(1));
    for packet in [no_vni, no_steering, short(10), short(30), short(frame.len() - 1)] {
        let (node, _) = Node::pair();
        dropped(&node, node.uplink(&packet).0, DropReason::Malformed);
    }
    // When the outer headers are wrong already, it is the node's stack that refuses.
    for len in [60, 80] {
        let (node, _) = Node::pair();
        assert_eq!(node.uplink(&whole[..len]).0, Action::Pass);
    }
}

#[test]
fn from_an_unknown_sender() {
    let (node, _) = Node::pair();
    let frame = Path { from_mac: C.mac, to_mac: A.mac, from: C.address, to: A.address }.tcp(1, 2, b"x");
    dropped(&node, node.uplink(&wrapped(VNI, &frame, CLIENT, vtep(1))).0, DropReason::UnknownSender);
}

#[test]
fn of_an_unknown_network() {
    let (node, _) = Node::pair();
    let frame = Path { from_mac: C.mac, to_mac: A.mac, from: C.address, to: A.address }.tcp(1, 2, b"x");
    let packet = wrapped([0, 0, 0x10, 1], &frame, vtep(2), vtep(1));
    dropped(&node, node.uplink(&packet).0, DropReason::UnknownVni);
}

#[test]
fn with_a_source_that_is_not_the_senders() {
    let from = |from| Path { from_mac: C.mac, to_mac: A.mac, from, to: A.address };
    let cases = [
        // An endpoint, but of this node.
        wrapped(VNI, &from(B.address).tcp(1, 2, b"x"), vtep(2), vtep(1)),
        // An endpoint of node 2, sent by node 3.
        wrapped(VNI, &from(C.address).tcp(1, 2, b"x"), vtep(3), vtep(1)),
        wrapped(VNI, &from(CLIENT).tcp(1, 2, b"x"), vtep(2), vtep(1)),
        // Steered to a VIP's task by a node that the source is not on.
        wrapped(
            INGRESS_VNI,
            &steered(SteeringKind::Vip, A.id, GENERATION, from(C.address), 80),
            vtep(3),
            vtep(1),
        ),
    ];
    for packet in cases {
        let (node, _) = Node::pair();
        dropped(&node, node.uplink(&packet).0, DropReason::ForgedSource);
    }
}

/// What is no answer itself is sent back: see the stories of `refused`.
#[test]
fn for_a_task_that_is_gone() {
    let path = Path { from_mac: [0; 6], to_mac: [0; 6], from: CLIENT, to: vtep(2) };
    for (endpoint, generation) in [(A.id, GENERATION + 1), (99, GENERATION)] {
        let (node, _) = Node::pair();
        let mut frame = path.tcp(4000, PORT_2, b"x");
        let answer =
            Steering { turn: Turn::Refused, ..Steering::to(endpoint, generation, SteeringKind::Published) };
        frame[..12].copy_from_slice(&answer.encode());
        let packet = wrapped(INGRESS_VNI, &frame, vtep(2), vtep(1));
        dropped(&node, node.uplink(&packet).0, DropReason::StaleEndpoint);
        // Still to be segmented.
        let (node, _) = Node::pair();
        let first = steered(SteeringKind::Published, endpoint, generation, path, PORT_2);
        let packet = wrapped(INGRESS_VNI, &first, vtep(2), vtep(1));
        let (action, _) = node.run("uplink", node.uplink, &packet, 1200);
        dropped(&node, action, DropReason::StaleEndpoint);
    }
}

#[test]
fn to_services_without_tasks() {
    let (node, _) = Node::pair();
    dropped(&node, node.task_sends(A, &a_to(EMPTY_VIP).tcp(1, 80, b"x")).0, DropReason::NoBackend);
    let outside = Path { from_mac: [2; 6], to_mac: [2; 6], from: CLIENT, to: vtep(1) };
    let (node, _) = Node::pair();
    dropped(&node, node.uplink(&outside.tcp(1, PORT_NONE, b"x")).0, DropReason::NoBackend);
    let inside = Path { from_mac: HOST_MAC, to_mac: [2; 6], from: vtep(1), to: HOST_SERVICE_ADDRESS };
    for port in [PORT_NONE, 9999] {
        let (node, _) = Node::pair();
        dropped(&node, node.socket_sends(&inside.tcp(1, port, b"x")).0, DropReason::NoBackend);
    }
}

#[test]
fn to_the_outside_of_an_internal_network() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        node.make_internal();
        let out = Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to: client(family) };
        dropped(&node, node.task_sends(A, &out.tcp(1, 2, b"x")).0, DropReason::Internal);
    }
}

#[test]
fn when_the_kernel_refuses() {
    // A test run's packet claims to be segmented without saying how, which no room can be made in.
    let (node, _) = Node::pair();
    let index = nix::net::if_::if_nametoindex("task11").unwrap();
    let action = node.run("from_task", index, &a_to_c().tcp(1, 2, &vec![7; 1000]), 500).0;
    dropped(&node, action, DropReason::HelperFailed);
}

#[test]
fn of_returns_that_answer_nothing() {
    let to_client = Path { from_mac: [0; 6], to_mac: [0; 6], from: vtep(1), to: CLIENT };
    let other_address = Path { from: CLIENT, ..to_client };
    let to_socket = Path { from: HOST_SERVICE_ADDRESS, to: vtep(1), ..to_client };
    let cases = [
        (SteeringKind::Published, to_client),
        (SteeringKind::Published, other_address),
        (SteeringKind::Host, to_socket),
        (SteeringKind::Vip, to_client),
    ];
    for (kind, path) in cases {
        let (node, _) = Node::pair();
        let frame = steered(kind, C.id, GENERATION, path, 5000);
        let packet = wrapped(RETURN_VNI, &frame, vtep(2), vtep(1));
        dropped(&node, node.uplink(&packet).0, DropReason::UnexpectedReturn);
    }
}

#[test]
fn on_the_vxlan_device_without_tunnel_metadata() {
    let (node, _) = Node::pair();
    let action = node.run("vxlan", node.uplink, &a_to_c().tcp(1, 2, b"x"), 0).0;
    dropped(&node, action, DropReason::Malformed);
}
