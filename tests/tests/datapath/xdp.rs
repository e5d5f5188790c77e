//! The uplink's XDP program beside the tc program `uplink`: the same packets, the same maps, the same bytes.

use std::{process::Command, time::Duration};

use mesh_abi::{
    ANY_V4, ANY_V6, ChoiceValue, Counter, DropReason, FlowKey, GATEWAY_MAC, INGRESS_VNI, NodeConfig,
    PUBLISHED, RETURN_VNI, ServiceKey, Steering, SteeringKind, service_flags,
};

use crate::{
    frames::{Talk, look, unwrapped, wrap},
    packets::array,
    world::{
        A, Action, BOTH, C, Family, GENERATION, INNER_MTU, Node, PORT_1, PORT_2, PORT_NONE, SCTP, TARGET,
        VNI, client, mapped, node_address,
    },
};

pub const PASS: u32 = 2;
const DROP: u32 = 1;
pub const TX: u32 = 3;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];
/// Next hops.
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0xfe, 2];
pub const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0xfe, 0xfe];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Both nodes; the first one's uplink has routes and neighbours.
pub fn nodes(underlay: Family) -> (Node, Node) {
    let (one, two) = Node::pair_over(underlay);
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    // A port with a carrier gives the uplink one.
    let mut commands = vec![
        "link add port type veth peer name wire".to_owned(),
        "link set port master up1 up".to_owned(),
        "link set wire up".to_owned(),
        "link set up1 up".to_owned(),
    ];
    for (family, len) in [(Family::V4, 24), (Family::V6, 64)] {
        let (own, peer, router) =
            (node_address(1, family), node_address(2, family), node_address(254, family));
        commands.extend([
            format!("addr add {own}/{len} dev up1 nodad"),
            format!("neigh replace {peer} lladdr {} dev up1", mac(PEER)),
            format!("neigh replace {router} lladdr {} dev up1", mac(GATEWAY)),
            format!("route add default via {router} dev up1"),
        ]);
    }
    for command in commands {
        // `nodad` is for IPv6 alone, and `default` is IPv4's unless the family is named.
        let v6 = command.contains("::");
        let command = if v6 { format!("-6 {command}") } else { command.replace(" nodad", "") };
        let done = Command::new("ip").args(command.split(' ')).status().unwrap();
        assert!(done.success(), "ip {command}");
    }
    // Of the namespace of the thread that opens them.
    for family in ["ipv4", "ipv6"] {
        std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").unwrap();
    }
    (one, two)
}

pub fn outside(family: Family) -> Talk {
    Talk { from_mac: ROUTER, to_mac: NIC, from: client(family), to: node_address(1, family) }
}

/// What the task of node 2 sends to the client, as it comes back to node 1.
fn reply(two: &Node, family: Family, flags: u8) -> Vec<u8> {
    let talk = Talk { from_mac: C.mac, to_mac: GATEWAY_MAC, from: C.at(family), to: client(family) };
    let (action, outer) = two.task_sends(C, &talk.segment((TARGET, 5000), flags, b""));
    assert_eq!(action, Action::Redirect);
    outer
}

pub fn port_key(family: Family, protocol: u8) -> ServiceKey {
    let address = if family == Family::V4 { ANY_V4 } else { ANY_V6 };
    ServiceKey { vni: PUBLISHED, address, port: PORT_2.to_be_bytes(), protocol, reserved: 0 }
}

/// The choice for the client's connection from port 5000.
fn kept(node: &Node, family: Family) -> Option<ChoiceValue> {
    let key = FlowKey {
        source: mapped(client(family)),
        destination: mapped(node_address(1, family)),
        scope: PUBLISHED,
        source_port: 5000u16.to_be_bytes(),
        destination_port: PORT_2.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    };
    node.get("CHOICES_KEPT", key)
}

#[test]
fn connections_to_tasks_elsewhere_are_carried_both_ways() {
    for underlay in BOTH {
        let (one, two) = nodes(underlay);
        for family in BOTH {
            let talk = outside(family);
            let asks = |flags| one.uplink_xdp(&talk.segment((5000, PORT_2), flags, b""));
            let (action, outer) = asks(SYN);
            assert_eq!(action, TX);
            let hop = look(&outer).talk;
            assert_eq!(hop.to_mac, PEER);
            let (vni, inner) = unwrapped(&outer, underlay, (1, 2));
            assert_eq!(vni, u32::from_be_bytes(INGRESS_VNI));
            let steering = Steering::to(C.id, GENERATION, SteeringKind::Published);
            assert_eq!(Steering::decode(&array(&inner[..12])), Some(steering));
            let opening = talk.segment((5000, PORT_2), SYN, b"");
            assert_eq!(inner[12..], opening[12..], "the packet itself is untouched");
            let (action, arrived) = two.uplink(&outer);
            assert_eq!((action, look(&arrived).talk.to), (Action::Redirect, C.at(family)));

            let (action, back) = one.uplink_xdp(&reply(&two, family, SYN | ACK));
            assert_eq!(action, TX);
            let answered = Talk { from_mac: hop.from_mac, to_mac: GATEWAY, from: talk.to, to: talk.from };
            assert_eq!((look(&back).talk, look(&back).ports), (answered, (PORT_2, 5000)));

            for flags in [ACK, ACK, FIN | ACK] {
                one.flows_rest();
                let (action, outer) = asks(flags);
                assert_eq!((action, two.uplink(&outer).0), (TX, Action::Redirect));
            }
            assert_eq!(one.uplink_xdp(&reply(&two, family, FIN | ACK)).0, TX);
            assert_eq!(
                kept(&one, family).unwrap().state,
                0b1111,
                "answered, confirmed, finished on both sides"
            );
        }
        let counted =
            [Counter::NewFlow, Counter::Published, Counter::FastSent, Counter::FastReceived, Counter::Xdp];
        assert_eq!(counted.map(|counter| one.counted(counter)), [2, 8, 8, 4, 12]);
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

/// What both programs make of a packet, if XDP does not leave it to the other.
#[track_caller]
fn alike(node: &Node, packet: &[u8]) -> bool {
    let (action, by_xdp) = node.uplink_xdp(packet);
    if action == PASS {
        assert_eq!(by_xdp, packet, "left as it was");
        return false;
    }
    let (by_tc_action, by_tc) = node.uplink(packet);
    if action == DROP {
        assert_eq!(by_tc_action, Action::Drop);
        return true;
    }
    assert_eq!((action, by_tc_action), (TX, Action::Redirect));
    // The kernel writes the outermost addresses of what tc redirects.
    assert_eq!(by_xdp[12..], by_tc[12..]);
    true
}

#[test]
fn what_both_programs_can_do_they_do_alike() {
    for underlay in BOTH {
        let (mut one, two) = nodes(underlay);
        for family in BOTH {
            let talk = outside(family);
            // Other ports for each: a flow that XDP knows keeps the way back that its port had when it began.
            for (first, flags) in [(4000, 0), (4100, service_flags::DIRECT), (4200, service_flags::AFFINITY)]
            {
                for protocol in [6, 17] {
                    one.service_with(port_key(family, protocol), |service| service.flags = flags);
                }
                for port in first..first + 10 {
                    for size in [0, 1, 63, 1300] {
                        assert!(alike(&one, &talk.tcp(port, PORT_2, &vec![7; size])));
                        assert!(alike(&one, &talk.udp(port, PORT_2, &vec![7; size])));
                    }
                    assert!(alike(&one, &talk.segment((port, PORT_2), SYN, b"")));
                }
                assert!(alike(&one, &talk.sctp(first, PORT_2)));
            }
            for protocol in [6, 17, SCTP] {
                one.service_with(port_key(family, protocol), |service| service.flags = 0);
            }
            two.uplink(&one.uplink(&talk.segment((5000, PORT_2), SYN, b"")).1);
            for flags in [SYN | ACK, ACK, FIN | ACK] {
                assert!(alike(&one, &reply(&two, family, flags)));
            }
        }
        // Padded to the least length of an Ethernet frame.
        let mut short = outside(Family::V4).udp(6000, PORT_2, b"");
        short.resize(60, 0);
        assert!(alike(&one, &short));
    }
}

/// Any change of any bytes: whatever XDP takes, tc does the same to, and neither crashes.
#[test]
fn damaged_packets_are_treated_alike() {
    // The same numbers in each run (Marsaglia's xorshift64).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % limit
    };
    for underlay in BOTH {
        let (one, two) = nodes(underlay);
        let mut whole = Vec::new();
        for family in BOTH {
            let talk = outside(family);
            two.uplink(&one.uplink(&talk.segment((5000, PORT_2), SYN, b"")).1);
            whole.extend([talk.tcp(5000, PORT_2, b"hello"), talk.udp(5000, PORT_2, b"hello")]);
            whole.extend([reply(&two, family, ACK), reply(&two, family, SYN | ACK)]);
        }
        let mut taken = 0;
        for _ in 0..4000 {
            let mut packet = whole[below(whole.len())].clone();
            for _ in 0..1 + below(3) {
                // Ethernet addresses say nothing here.
                let at = 12 + below(packet.len() - 12);
                packet[at] = below(256) as u8;
            }
            if below(4) == 0 {
                packet.truncate(14 + below(packet.len() - 14));
            }
            taken += usize::from(alike(&one, &packet));
        }
        assert!(taken > 100, "only {taken} were taken");
    }
}

#[test]
fn everything_else_is_left_to_the_tc_program_unseen() {
    let (mut one, two) = nodes(Family::V4);
    let talk = outside(Family::V4);
    let whole = talk.tcp(5000, PORT_2, b"hello");
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = whole.clone();
        edit(&mut packet);
        packet
    };
    let overlay = Talk { from_mac: C.mac, to_mac: A.mac, from: C.at(Family::V4), to: A.at(Family::V4) };
    let overlay = wrap(VNI, &overlay.tcp(1, 2, b"x"), Family::V4, (2, 1));
    let mut no_vni = overlay.clone();
    no_vni[42] = 0;
    let mut unasked = Talk { from: talk.to, to: talk.from, ..talk }.tcp(PORT_2, 9, b"x");
    unasked[..12].copy_from_slice(&Steering::to(C.id, GENERATION, SteeringKind::Published).encode());
    let unasked = wrap(RETURN_VNI, &unasked, Family::V4, (2, 1));
    let outside6 = outside(Family::V6);
    let mut extended = outside6.udp(5000, PORT_2, b"hello");
    extended[20] = 60;
    let cases = [
        ("a task here", talk.tcp(5000, PORT_1, b"x")),
        ("a task here, IPv6", outside6.tcp(5000, PORT_1, b"x")),
        ("no task", talk.tcp(5000, PORT_NONE, b"x")),
        ("no published port", talk.tcp(5000, 22, b"x")),
        ("another's address", Talk { to: client(Family::V4), ..talk }.tcp(5000, PORT_2, b"x")),
        ("ping", talk.echo(false, 5)),
        ("too big", talk.tcp(5000, PORT_2, &vec![7; INNER_MTU as usize])),
        ("too big, IPv6", outside6.tcp(5000, PORT_2, &vec![7; INNER_MTU as usize])),
        ("a first fragment", edited(&|p| p[20] |= 0x20)),
        ("a later fragment", edited(&|p| p[21] = 9)),
        ("options", edited(&|p| p[14] = 0x46)),
        ("an extension header", extended),
        ("IPv5", edited(&|p| p[14] = 0x55)),
        ("a VLAN tag", edited(&|p| p[12..14].copy_from_slice(&[0x81, 0]))),
        ("a cut header", whole[..50].to_vec()),
        ("an overlay packet", overlay),
        ("no VNI", no_vni),
        ("a reply to nothing", unasked.clone()),
        ("VXLAN cut short", unasked[..70].to_vec()),
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
    assert_eq!(one.choices(), 0);
    assert!(Counter::ALL.iter().all(|counter| one.counted(*counter) == 0));
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn strangers_are_refused() {
    for underlay in BOTH {
        let (one, _) = nodes(underlay);
        let inner = Talk { from_mac: C.mac, to_mac: A.mac, from: C.at(underlay), to: A.at(underlay) };
        let packet = wrap(VNI, &inner.tcp(1, 2, b"x"), underlay, (77, 1));
        assert_eq!(one.uplink_xdp(&packet).0, DROP);
        assert_eq!(one.drops(), [(DropReason::UnknownSender, 1)].into());
    }
}

#[test]
fn a_connection_whose_task_is_gone_is_left_to_the_tc_program() {
    let (mut one, two) = nodes(Family::V4);
    let family = Family::V4;
    let data = outside(family).segment((5000, PORT_2), ACK, b"");
    for packet in [outside(family).segment((5000, PORT_2), SYN, b""), data.clone()] {
        two.uplink(&one.uplink_xdp(&packet).1);
    }
    one.uplink_xdp(&reply(&two, family, SYN | ACK));
    assert_eq!(one.uplink_xdp(&data).0, TX);
    one.flows_rest();
    assert_eq!(one.uplink_xdp(&data).0, TX);
    assert!(kept(&one, family).is_some());
    one.remove::<u32, mesh_abi::BackendValue>("BACKENDS", C.id);
    one.service(port_key(family, 6), 1, 1, TARGET);
    // Each CPU believes for 50 ms what it knows of a backend.
    std::thread::sleep(Duration::from_millis(80));
    assert_eq!(one.uplink_xdp(&data), (PASS, data));
}
