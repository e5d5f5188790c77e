//! What holds for every packet: translation there and back is the identity, and no network is ever given a packet of
//! another. Few worlds, many packets; whatever the ones before left in the maps is there for the next.

use std::{cell::Cell, net::IpAddr, process::Command};

use mesh_abi::{
    Counter, EndpointKey, EndpointValue, GATEWAY_MAC, INGRESS_VNI, LocalEndpoint, NetworkKey, NetworkValue,
    RETURN_VNI, Steering, SteeringKind, Turn, network_flags, v4_mapped,
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    dual::{NIC, ROUTER},
    frames::{Look, Talk, look, unwrapped, wrap},
    packets::Mac,
    world::{
        A, Action, B, BOTH, C, Family, GENERATION, HOST_MAC, Node, PORT_1, PORT_2, TARGET, Task, VNI,
        VNI_NUMBER, client, egress_of, gateway, host_service, mapped, node_address, vip,
    },
};

/// A runner with the same packets each time, so that what they must show is no matter of luck.
fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// The ways by which flows are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A task of node 1 to a VIP, whose task is on node 2.
    Vip,
    /// An outside client to a port of node 1, whose task is there, or on node 2.
    Here,
    Elsewhere,
    /// A socket of node 1 to a port.
    Socket,
    /// A task of node 1 to a port of node 1.
    Hairpin,
    /// A task of node 1 to the world.
    World,
}

#[derive(Clone, Debug)]
struct Flow {
    way: Way,
    family: Family,
    protocol: u8,
    /// The client's last byte and port.
    host: u8,
    port: u16,
    asked: Vec<u8>,
    answered: Vec<u8>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ECHO: u8 = 1;
/// Those that are read, and others: IP in IP, GRE, IPsec, OSPF, nobody's.
const PROTOCOLS: [u8; 12] = [TCP, TCP, UDP, UDP, UDP, ECHO, ECHO, 4, 41, 47, 50, 253];

fn flow() -> impl Strategy<Value = Flow> {
    let way = prop_oneof![
        Just(Way::Vip),
        Just(Way::Here),
        Just(Way::Elsewhere),
        Just(Way::Socket),
        Just(Way::Hairpin),
        Just(Way::World)
    ];
    let data = || proptest::collection::vec(any::<u8>(), 0..300);
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(ECHO)];
    (way, family(), protocol, any::<u8>(), 1u16.., data(), data()).prop_map(
        |(way, family, protocol, host, port, asked, answered)| {
            // Pings of VIPs are answered at once, and ports have none.
            let protocol = if protocol == ECHO && way != Way::World { UDP } else { protocol };
            Flow { way, family, protocol, host, port, asked, answered }
        },
    )
}

impl Flow {
    fn packet(&self, talk: Talk, ports: (u16, u16), answer: bool) -> Vec<u8> {
        let data = if answer { &self.answered } else { &self.asked };
        match self.protocol {
            TCP => talk.tcp(ports.0, ports.1, data),
            UDP => talk.udp(ports.0, ports.1, data),
            _ => talk.echo(answer, self.port),
        }
    }

    /// What the client sends, and to which port.
    fn asks(&self) -> (Talk, u16) {
        let Self { way, family, .. } = *self;
        let own = node_address(1, family);
        let of_task = |to| Talk { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.at(family), to };
        let outside = Talk { from_mac: ROUTER, to_mac: NIC, from: self.client(), to: own };
        match way {
            Way::Vip => (of_task(vip(family)), 53),
            Way::Here => (outside, PORT_1),
            Way::Elsewhere => (outside, PORT_2),
            Way::Socket => {
                let to = host_service(family);
                (Talk { from_mac: HOST_MAC, to_mac: NIC, from: own, to }, PORT_2)
            }
            Way::Hairpin => (of_task(own), PORT_2),
            Way::World => (of_task(self.client()), 443),
        }
    }

    fn client(&self) -> IpAddr {
        match client(self.family) {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                [a, b, c, self.host].into()
            }
            IpAddr::V6(v6) => {
                let mut octets = v6.octets();
                octets[15] = self.host;
                octets.into()
            }
        }
    }
}

/// From one node to the other, if the packet goes there.
fn carried(from: &Node, to: &Node, frame: Vec<u8>) -> Vec<u8> {
    let (vni, _) = unwrapped(&frame, from.underlay(), (from.number, to.number));
    assert!([VNI_NUMBER, u32::from_be_bytes(INGRESS_VNI), u32::from_be_bytes(RETURN_VNI)].contains(&vni));
    let (action, arrived) = to.uplink(&frame);
    assert_eq!(action, Action::Redirect, "{:?}", to.drops());
    arrived
}

/// There and back once.
fn round_trip(one: &Node, two: &Node, flow: &Flow) {
    let Flow { way, family, .. } = *flow;
    let (talk, port) = flow.asks();
    let sent = flow.packet(talk, (flow.port, port), false);
    let (action, out) = match way {
        Way::Vip | Way::Hairpin | Way::World => one.task_sends(A, &sent),
        Way::Here | Way::Elsewhere => one.uplink(&sent),
        Way::Socket => one.socket_sends(&sent),
    };
    if way == Way::World {
        assert_eq!(action, Action::Pass);
        let seen = look(&out);
        assert_eq!((seen.talk.from, seen.talk.to), (egress_of(A, family), talk.to));
        same_data(&seen, &sent);
        let back = Talk { from_mac: ROUTER, to_mac: A.mac, from: talk.to, to: seen.talk.from };
        let (action, arrived) = one.to_task(A, &flow.packet(back, (port, flow.port), true));
        assert_eq!(action, Action::Pass);
        let back = Talk { from_mac: GATEWAY_MAC, ..talk.back() };
        return assert_eq!(
            look(&arrived),
            look(&flow.packet(Talk { to_mac: A.mac, ..back }, (port, flow.port), true))
        );
    }
    assert_eq!(action, Action::Redirect, "{:?}", one.drops());
    let (task, node) = if way == Way::Here { (A, one) } else { (C, two) };
    let seen = look(&if way == Way::Here { out } else { carried(one, two, out) });
    assert_eq!((seen.talk.to_mac, seen.talk.to), (task.mac, task.at(family)));
    assert_eq!(seen.ports.1, if way == Way::Vip { port } else { TARGET });
    same_data(&seen, &sent);
    // The task answers whom it sees, over the gateway or not.
    let to_mac = if way == Way::Vip { A.mac } else { GATEWAY_MAC };
    let answer = Talk { from_mac: task.mac, to_mac, from: seen.talk.to, to: seen.talk.from };
    let (action, out) = node.task_sends(task, &flow.packet(answer, (seen.ports.1, seen.ports.0), true));
    assert_eq!(action, Action::Redirect, "{:?}", node.drops());
    let back = look(&if way == Way::Here { out } else { carried(two, one, out) });
    // The kernel finds the client's Ethernet address.
    let expected = Talk { from_mac: back.talk.from_mac, to_mac: back.talk.to_mac, ..talk.back() };
    assert_eq!(back, look(&flow.packet(expected, (port, flow.port), true)));
}

/// Behind the ports and the checksum nothing has changed.
fn same_data(seen: &Look, sent: &[u8]) {
    let sent = look(sent);
    let start = if seen.protocol == TCP { 18 } else { 8 };
    assert_eq!((seen.protocol, &seen.payload[start..]), (sent.protocol, &sent.payload[start..]));
}

#[test]
fn there_and_back_is_the_identity() {
    for underlay in BOTH {
        let (one, two) = Node::pair_over(underlay);
        let story = |flow| {
            round_trip(&one, &two, &flow);
            Ok(())
        };
        runner(250).run(&flow(), story).unwrap();
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

/// Another network with the same addresses: `OTHER` is B's double on node 1.
const OTHER_VNI: [u8; 4] = [0, 0, 0x10, 7];
const OTHER: Task = Task { node: 1, id: 21, address: B.address, mac: [2, 0, 0, 0, 7, 12] };
/// C's double on node 2.
const FAR: Task = Task { node: 2, id: 22, address: C.address, mac: [2, 0, 0, 0, 7, 13] };

/// Node 1 with both networks.
fn two_networks(underlay: Family) -> Node {
    let (mut node, _) = Node::pair_over(underlay);
    let made = Command::new("ip").args(["link", "add", "name", "task21", "type", "bridge"]).status().unwrap();
    assert!(made.success());
    let ifindex = nix::net::if_::if_nametoindex("task21").unwrap();
    let network = node.get::<_, NetworkValue>("NETWORKS", NetworkKey { vni: VNI }).unwrap();
    let flags = network.flags | network_flags::IPV4 | network_flags::IPV6;
    node.put("NETWORKS", NetworkKey { vni: OTHER_VNI }, NetworkValue { flags, ..network });
    for (task, ifindex) in [(OTHER, ifindex), (FAR, 0)] {
        let vtep = mapped(node_address(task.node, underlay));
        let value = EndpointValue { vtep, ifindex, mac: task.mac, local: 0 };
        for family in BOTH {
            let address = mapped(task.at(family));
            node.put("ENDPOINTS", EndpointKey { vni: OTHER_VNI, address }, value);
        }
    }
    let local = LocalEndpoint {
        address6: mapped(OTHER.at(Family::V6)),
        egress6: mapped(egress_of(OTHER, Family::V6)),
        address4: OTHER.address,
        egress4: [169, 254, 64, 21],
        vni: OTHER_VNI,
        ifindex,
        id: OTHER.id,
        flags: mesh_abi::local_flags::SERVED,
        mac: OTHER.mac,
        generation: GENERATION,
    };
    node.put("LOCAL_BY_IFINDEX", ifindex, local);
    node.put("LOCAL_BY_ID", OTHER.id, local);
    node
}

/// An address of any sort: of tasks, their networks, nodes, the world, and what stands for tasks outside.
fn address(family: Family) -> impl Strategy<Value = IpAddr> {
    let known = vec![
        A.at(family),
        B.at(family),
        C.at(family),
        vip(family),
        gateway(family),
        node_address(1, family),
        node_address(2, family),
        client(family),
        host_service(family),
        egress_of(A, family),
        egress_of(B, family),
        egress_of(OTHER, family),
    ];
    let any = match family {
        Family::V4 => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        Family::V6 => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
    };
    // Tasks' more often, so that not all is refused at once.
    let tasks = vec![A.at(family), B.at(family), C.at(family), C.at(family)];
    prop_oneof![12 => proptest::sample::select(tasks), 12 => proptest::sample::select(known), 1 => any]
}

/// Ethernet addresses that say something, and others.
fn macs() -> impl Strategy<Value = [u8; 12]> {
    let kind = prop_oneof![
        Just(SteeringKind::Published),
        Just(SteeringKind::Vip),
        Just(SteeringKind::Host),
        Just(SteeringKind::Direct)
    ];
    let endpoint =
        prop_oneof![8 => proptest::sample::select(vec![A.id, B.id, C.id, OTHER.id]), 1 => any::<u32>()];
    let generation = prop_oneof![6 => Just(GENERATION), 1 => any::<u16>()];
    let target_port = prop_oneof![2 => Just([0; 2]), 1 => any::<[u8; 2]>()];
    let turn = prop_oneof![
        4 => Just(Turn::First),
        1 => Just(Turn::Second),
        1 => Just(Turn::Refused),
        1 => Just(Turn::RefusedAgain)
    ];
    let steering = (endpoint, generation, kind, target_port, turn).prop_map(
        |(endpoint, generation, kind, target_port, turn)| {
            Steering { turn, target_port, vni: VNI, ..Steering::to(endpoint, generation, kind) }.encode()
        },
    );
    let known: Vec<Mac> = vec![A.mac, B.mac, C.mac, OTHER.mac, FAR.mac, GATEWAY_MAC, [0xff; 6]];
    let pair = (proptest::sample::select(known.clone()), proptest::sample::select(known))
        .prop_map(|(to, from)| [to, from].concat().try_into().unwrap());
    prop_oneof![6 => steering, 3 => pair, 1 => any::<[u8; 12]>()]
}

/// A frame, and who speaks to whom in it.
type Sent = (Talk, Vec<u8>);

/// A frame between any two addresses.
fn frame() -> impl Strategy<Value = Sent> {
    let talk = family().prop_flat_map(|family| (address(family), address(family)));
    let port = || prop_oneof![proptest::sample::select(vec![80, PORT_1, PORT_2, 4789]), any::<u16>()];
    let protocol = proptest::sample::select(PROTOCOLS.to_vec());
    (talk, macs(), protocol, port(), port(), any::<bool>()).prop_map(
        |((from, to), macs, protocol, source, destination, answer)| {
            let (to_mac, from_mac) = (macs[..6].try_into().unwrap(), macs[6..].try_into().unwrap());
            let talk = Talk { from_mac, to_mac, from, to };
            let packet = match protocol {
                TCP => talk.tcp(source, destination, b"data"),
                UDP => talk.udp(source, destination, b"data"),
                ECHO => talk.echo(answer, source),
                other => talk.ip(other, b"something of any kind at all, and of some length"),
            };
            (talk, packet)
        },
    )
}

fn vni() -> impl Strategy<Value = [u8; 4]> {
    let known = proptest::sample::select(vec![VNI, OTHER_VNI, INGRESS_VNI, RETURN_VNI]);
    prop_oneof![12 => known, 1 => any::<[u8; 3]>().prop_map(|[a, b, c]| [0, a, b, c])]
}

/// Which network a task's Ethernet address belongs to.
fn network_of(mac: &[u8]) -> Option<[u8; 4]> {
    if mac == A.mac || mac == B.mac { Some(VNI) } else { (mac == OTHER.mac).then_some(OTHER_VNI) }
}

/// What another node's packet, which says that it is of `vni`, came to.
/// The network of the task that was given it, if one was.
fn judge_arrival(node: &Node, talk: Talk, packet: &[u8], vni: [u8; 4], sender: u8) -> Option<[u8; 4]> {
    let (action, out) = node.uplink(&wrap(vni, packet, node.underlay(), (sender, 1)));
    assert_ne!(action, Action::Pass, "the kernel has no use for it");
    if action != Action::Redirect {
        return None;
    }
    assert!([2, 3].contains(&sender), "of a stranger");
    assert_ne!(vni, RETURN_VNI, "nobody asked");
    if out.len() > packet.len() {
        // Refused: it goes back to the node that it came from, as it was.
        let (to, at) = if node.underlay() == Family::V4 { (33, 50) } else { (53, 70) };
        assert_eq!((vni, out[to]), (INGRESS_VNI, sender));
        assert_eq!((&out[at - 4..at - 1], &out[at + 12..]), (&RETURN_VNI[1..], &packet[12..]));
        let steering = Steering::decode(packet[..12].try_into().unwrap()).expect("steering");
        let is_here = |t: &Task| t.id == steering.endpoint && GENERATION == steering.generation;
        assert!(![A, B, OTHER].iter().any(is_here), "its task is here");
        assert!(matches!(steering.turn, Turn::First | Turn::Second), "an answer to an answer");
        return None;
    }
    let network = network_of(&out[..6]).expect("a task's Ethernet address");
    let seen = look(&out);
    assert!(
        [A, B, OTHER]
            .iter()
            .any(|t| t.mac == seen.talk.to_mac && BOTH.iter().any(|f| t.at(*f) == seen.talk.to))
    );
    if vni != INGRESS_VNI {
        assert_eq!(network, vni, "across networks");
        // Of an endpoint of that network on that node, or one of its VIPs.
        let of_sender = talk.from == C.at(talk.family()) && sender == 2;
        let of_vip = vni == VNI && talk.from == vip(talk.family());
        assert!(of_sender || of_vip, "a forged source");
        return Some(network);
    }
    let steering = Steering::decode(packet[..12].try_into().unwrap()).expect("steering");
    let [task] = [A, B, OTHER].into_iter().filter(|t| t.id == steering.endpoint).collect::<Vec<_>>()[..]
    else {
        panic!("steered to nobody");
    };
    assert_eq!((seen.talk.to_mac, steering.generation), (task.mac, GENERATION));
    if matches!(steering.kind, SteeringKind::Vip) {
        // Both networks' tasks of node 2 have the same address.
        assert!(sender == 2 && talk.from == C.at(talk.family()), "a forged source");
    }
    Some(network)
}

#[test]
fn no_network_is_given_what_is_not_its_own_by_other_nodes() {
    for underlay in BOTH {
        let node = two_networks(underlay);
        let given = (Cell::new(0), Cell::new(0));
        let story = |((talk, packet), vni, sender): (Sent, [u8; 4], u8)| {
            match judge_arrival(&node, talk, &packet, vni, sender) {
                Some(VNI) => given.0.set(given.0.get() + 1),
                Some(_) => given.1.set(given.1.get() + 1),
                None => {}
            }
            Ok(())
        };
        let sender = proptest::sample::select(vec![1u8, 2, 2, 2, 2, 2, 2, 2, 3, 9]);
        runner(1000).run(&(frame(), vni(), sender), story).unwrap();
        // Without these the test would say little.
        let (ours, others) = (given.0.get(), given.1.get());
        assert!(node.drops().len() >= 5 && ours >= 5 && others >= 4, "{:?}, {ours}, {others}", node.drops());
    }
}

/// What became of a packet that a task sent.
fn judge_sent(node: &Node, (task, own): (Task, [u8; 4]), talk: Talk, packet: &[u8]) {
    let (action, out) = node.task_sends(task, packet);
    let honest = talk.from == task.at(talk.family()) && talk.from_mac == task.mac;
    match action {
        Action::Drop => {}
        Action::Pass => {
            let seen = look(&out);
            assert!(honest && seen.talk.from == egress_of(task, talk.family()));
            let inside = [A, B, C].iter().any(|t| t.at(talk.family()) == talk.to);
            assert!(!inside && talk.to != vip(talk.family()), "its own network's by way of the world");
        }
        Action::Redirect if out.len() == packet.len() => {
            assert!(honest);
            assert_eq!(network_of(&out[..6]), Some(own), "across networks: {out:02x?}");
        }
        Action::Redirect => {
            assert!(honest);
            let to = if node.underlay() == Family::V4 { out[33] } else { out[53] };
            let (vni, inner) = unwrapped(&out, node.underlay(), (1, to));
            let vni = vni.to_be_bytes();
            if vni == own {
                assert_eq!(inner[..6], if own == VNI { C.mac } else { FAR.mac });
            } else if vni == RETURN_VNI {
                assert!(own == VNI || own == OTHER_VNI);
            } else {
                assert_eq!(vni, INGRESS_VNI, "across networks");
                let steering = Steering::decode(inner[..12].try_into().unwrap()).unwrap();
                assert_eq!(steering.endpoint, C.id, "no backend");
                // A VIP is of one network; published ports are everybody's.
                assert!(own == VNI || matches!(steering.kind, SteeringKind::Host));
            }
        }
    }
}

#[test]
fn no_network_is_given_what_is_not_its_own_by_tasks() {
    for underlay in BOTH {
        let node = two_networks(underlay);
        let who = proptest::sample::select(vec![(A, VNI), (B, VNI), (OTHER, OTHER_VNI)]);
        let story = |((mut talk, mut packet), (task, own), honest): (Sent, (Task, [u8; 4]), u8)| {
            if honest > 0 {
                talk.from_mac = task.mac;
                packet[6..12].copy_from_slice(&task.mac);
            }
            if honest > 1 {
                talk.from = task.at(talk.family());
                packet = talk.udp(4000, PORT_2, b"data");
            }
            judge_sent(&node, (task, own), talk, &packet);
            Ok(())
        };
        runner(600).run(&(frame(), who, 0u8..5), story).unwrap();
        let sent = [Counter::Local, Counter::FastSent, Counter::Vip, Counter::Published, Counter::Egress];
        let counts = sent.map(|counter| node.counted(counter));
        assert!(node.drops().len() >= 2 && counts.iter().all(|n| *n > 0), "{:?}, {counts:?}", node.drops());
    }
}

#[test]
fn a_port_of_the_node_is_everybodys_and_a_vip_is_not() {
    let node = two_networks(Family::V4);
    for family in BOTH {
        let to = |to| Talk { from_mac: OTHER.mac, to_mac: GATEWAY_MAC, from: OTHER.at(family), to };
        assert_eq!(node.task_sends(OTHER, &to(vip(family)).udp(1, 80, b"x")).0, Action::Drop);
        let (action, out) = node.task_sends(OTHER, &to(node_address(1, family)).udp(1, PORT_2, b"x"));
        assert_eq!(action, Action::Redirect);
        assert_eq!(unwrapped(&out, Family::V4, (1, 2)).0, u32::from_be_bytes(INGRESS_VNI));
    }
    assert_eq!(v4_mapped(OTHER.address), mapped(OTHER.at(Family::V4)));
}
