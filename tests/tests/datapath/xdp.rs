//! The uplink's XDP program beside the tc program `uplink`: the same packets, the same maps, the same bytes.

use std::process::Command;

use mesh_abi::{
    ChoiceValue, Counter, DropReason, FlowKey, GATEWAY_MAC, INGRESS_VNI, NodeConfig, RETURN_VNI, Steering,
    SteeringKind, service_flags, v4_mapped,
};

use crate::{
    packets::{Path, array, inside, seen, wrapped},
    world::{
        A, Action, C, CLIENT, GENERATION, INNER_MTU, Node, PORT_1, PORT_2, PORT_NONE, TARGET, VNI, port_key,
        vtep,
    },
};

const PASS: u32 = 2;
const DROP: u32 = 1;
const TX: u32 = 3;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];
/// Next hops.
const PEER: [u8; 6] = [2, 0, 0, 0, 0xfe, 2];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0xfe, 0xfe];

const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
const ACK: u8 = 0x10;

/// Both nodes; the first one's uplink has routes and neighbours.
fn nodes() -> (Node, Node) {
    let (one, two) = Node::pair();
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let commands = [
        "link set up1 up".to_owned(),
        "addr add 192.0.2.1/24 dev up1".to_owned(),
        format!("neigh add 192.0.2.2 lladdr {} dev up1", mac(PEER)),
        format!("neigh add 192.0.2.254 lladdr {} dev up1", mac(GATEWAY)),
        "route add default via 192.0.2.254 dev up1".to_owned(),
    ];
    for command in commands {
        let done = Command::new("ip").args(command.split(' ')).status().unwrap();
        assert!(done.success(), "ip {command}");
    }
    // Of the namespace of the thread that opens it.
    std::fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1").unwrap();
    (one, two)
}

fn outside() -> Path {
    Path { from_mac: ROUTER, to_mac: NIC, from: CLIENT, to: vtep(1) }
}

/// What the task of node 2 sends to the client, as it comes back to node 1.
fn reply(two: &Node, flags: u8) -> Vec<u8> {
    let path = Path { from_mac: C.mac, to_mac: GATEWAY_MAC, from: C.address, to: CLIENT };
    let (action, outer) = two.task_sends(C, &path.segment(TARGET, 5000, flags));
    assert_eq!(action, Action::Redirect);
    outer
}

fn flow(port: u16) -> FlowKey {
    FlowKey {
        source: v4_mapped(CLIENT),
        destination: v4_mapped(vtep(1)),
        scope: [0; 4],
        source_port: port.to_be_bytes(),
        destination_port: PORT_2.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    }
}

#[test]
fn a_connection_to_a_task_elsewhere_is_carried_both_ways() {
    let (one, two) = nodes();
    let opening = outside().segment(5000, PORT_2, SYN);
    let (action, outer) = one.uplink_xdp(&opening);
    assert_eq!(action, TX);
    assert_eq!((seen(&outer).path.to_mac, outer.len()), (PEER, opening.len() + 50));
    let (vni, inner) = inside(&outer, vtep(1), vtep(2));
    assert_eq!(vni, u32::from_be_bytes(INGRESS_VNI));
    let steering = Steering {
        endpoint: C.id,
        generation: GENERATION,
        kind: SteeringKind::Published,
        target_port: [0; 2],
    };
    assert_eq!(Steering::decode(&array(&inner[..12])), Some(steering));
    assert_eq!(inner[12..], opening[12..], "the packet itself is untouched");
    let (action, arrived) = two.uplink(&outer);
    assert_eq!((action, seen(&arrived).path.to), (Action::Redirect, C.address));

    let (action, back) = one.uplink_xdp(&reply(&two, SYN | ACK));
    assert_eq!(action, TX);
    let answered = Path { from_mac: seen(&outer).path.from_mac, to_mac: GATEWAY, from: vtep(1), to: CLIENT };
    assert_eq!((seen(&back).path, seen(&back).ports), (answered, (PORT_2, 5000)));

    for flags in [ACK, ACK, FIN | ACK] {
        let (action, outer) = one.uplink_xdp(&outside().segment(5000, PORT_2, flags));
        assert_eq!((action, two.uplink(&outer).0), (TX, Action::Redirect));
    }
    assert_eq!(one.uplink_xdp(&reply(&two, FIN | ACK)).0, TX);
    let kept = one.get::<FlowKey, ChoiceValue>("CHOICES_KEPT", flow(5000)).unwrap();
    assert_eq!(kept.state, 0b1111, "answered, confirmed, both have finished");
    let counted =
        [Counter::NewFlow, Counter::Published, Counter::FastSent, Counter::FastReceived, Counter::Xdp];
    assert_eq!(counted.map(|counter| one.counted(counter)), [1, 4, 4, 2, 6]);
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

/// What both programs make of a packet, if XDP does not leave it to the other.
#[track_caller]
fn alike(node: &Node, packet: &[u8]) -> bool {
    let (action, by_xdp) = node.uplink_xdp(packet);
    if action == PASS {
        assert_eq!(by_xdp, packet, "left as it was");
        return false;
    }
    assert_eq!(action, TX);
    let (action, by_tc) = node.uplink(packet);
    assert_eq!(action, Action::Redirect);
    // The kernel writes the outermost addresses of what tc redirects.
    assert_eq!(by_xdp[12..], by_tc[12..]);
    true
}

#[test]
fn what_both_programs_can_do_they_do_alike() {
    let (mut one, two) = nodes();
    for flags in [0, service_flags::AFFINITY] {
        for protocol in [6, 17] {
            one.service_with(port_key(PORT_2, protocol), |service| service.flags = flags);
        }
        for port in 4000..4020 {
            for size in [0, 1, 63, 1400] {
                assert!(alike(&one, &outside().tcp(port, PORT_2, &vec![7; size])));
                assert!(alike(&one, &outside().udp(port, PORT_2, &vec![7; size])));
            }
            assert!(alike(&one, &outside().segment(port, PORT_2, SYN)));
        }
    }
    for flags in [SYN | ACK, ACK, FIN | ACK] {
        two.uplink(&one.uplink(&outside().segment(5000, PORT_2, ACK)).1);
        assert!(alike(&one, &reply(&two, flags)));
    }
    // Padded to the least length of an Ethernet frame.
    let mut short = outside().udp(6000, PORT_2, b"");
    short.resize(60, 0);
    assert!(alike(&one, &short));
}

#[test]
fn everything_else_is_left_to_the_tc_program_unseen() {
    let (mut one, two) = nodes();
    let whole = outside().tcp(5000, PORT_2, b"hello");
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = whole.clone();
        edit(&mut packet);
        packet
    };
    let frame = Path { from_mac: C.mac, to_mac: A.mac, from: C.address, to: A.address }.tcp(1, 2, b"x");
    let no_vni = {
        let mut packet = wrapped(VNI, &frame, vtep(2), vtep(1));
        packet[42] = 0;
        packet
    };
    let mut unasked = Path { from: vtep(1), to: CLIENT, ..outside() }.tcp(PORT_2, 9, b"x");
    unasked[..12].copy_from_slice(
        &Steering {
            endpoint: C.id,
            generation: GENERATION,
            kind: SteeringKind::Published,
            target_port: [0; 2],
        }
        .encode(),
    );
    let cases = [
        ("a task here", outside().tcp(5000, PORT_1, b"x")),
        ("no task", outside().tcp(5000, PORT_NONE, b"x")),
        ("no published port", outside().tcp(5000, 22, b"x")),
        ("another's address", Path { to: CLIENT, ..outside() }.tcp(5000, PORT_2, b"x")),
        ("ping", outside().ping(5)),
        ("too big", outside().tcp(5000, PORT_2, &vec![7; INNER_MTU as usize])),
        ("a first fragment", edited(&|p| p[20] |= 0x20)),
        ("a later fragment", edited(&|p| p[21] = 9)),
        ("options", edited(&|p| p[14] = 0x46)),
        ("IPv5", edited(&|p| p[14] = 0x55)),
        ("a VLAN tag", edited(&|p| p[12..14].copy_from_slice(&[0x81, 0]))),
        ("a cut header", whole[..45].to_vec()),
        ("an overlay packet", wrapped(VNI, &frame, vtep(2), vtep(1))),
        ("no VNI", no_vni),
        ("a reply to nothing", wrapped(RETURN_VNI, &unasked, vtep(2), vtep(1))),
        ("VXLAN cut short", wrapped(RETURN_VNI, &unasked, vtep(2), vtep(1))[..70].to_vec()),
    ];
    let left = |node: &Node, what: &str, packet: &[u8]| {
        assert_eq!(node.uplink_xdp(packet), (PASS, packet.to_vec()), "{what}");
    };
    for (what, packet) in cases {
        left(&one, what, &packet);
    }
    // A next hop that the kernel does not know.
    one.configure(|config| config.uplink_ifindex = config.host_ifindex);
    left(&one, "no next hop", &whole);
    one.configure(|config| config.flags = 0);
    left(&one, "the general path", &whole);
    one.configure(|config| *config = NodeConfig::default());
    left(&one, "no configuration", &whole);
    assert_eq!(one.count::<FlowKey, ChoiceValue>("CHOICES"), 0);
    assert!(Counter::ALL.iter().all(|counter| one.counted(*counter) == 0));
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn strangers_are_refused() {
    let (one, _) = nodes();
    let frame = Path { from_mac: C.mac, to_mac: A.mac, from: C.address, to: A.address }.tcp(1, 2, b"x");
    assert_eq!(one.uplink_xdp(&wrapped(VNI, &frame, CLIENT, vtep(1))).0, DROP);
    assert_eq!(one.drops(), [(DropReason::UnknownSender, 1)].into());
}

#[test]
fn a_connection_whose_task_is_gone_is_left_to_the_tc_program() {
    let (mut one, two) = nodes();
    let data = outside().segment(5000, PORT_2, ACK);
    for packet in [outside().segment(5000, PORT_2, SYN), data.clone()] {
        two.uplink(&one.uplink_xdp(&packet).1);
    }
    one.uplink_xdp(&reply(&two, SYN | ACK));
    assert_eq!(one.uplink_xdp(&data).0, TX);
    one.remove::<u32, mesh_abi::BackendValue>("BACKENDS", C.id);
    one.service(port_key(PORT_2, 6), 1, 1, TARGET);
    assert_eq!(one.uplink_xdp(&data), (PASS, data));
}
