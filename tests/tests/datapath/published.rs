//! Published ports: clients from outside and sockets of the node, to tasks here and elsewhere, and back.

use mesh_abi::{
    Counter, DropReason, FlowKey, GATEWAY_MAC, HOST_SERVICE_ADDRESS, HostAddressKey, INGRESS_VNI, RETURN_VNI,
    ReverseValue, Steering, SteeringKind, flow_state, v4_mapped,
};

use crate::{
    packets::{Ip, Path, array, inside, seen},
    world::{
        A, Action, B, C, CLIENT, GENERATION, HOST_MAC, Node, PORT_1, PORT_2, TARGET, Task, VNI, egress, vtep,
    },
};

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];

fn from_client(to: Ip) -> Path {
    Path { from_mac: ROUTER, to_mac: NIC, from: CLIENT, to }
}

fn from_socket() -> Path {
    Path { from_mac: HOST_MAC, to_mac: NIC, from: vtep(1), to: HOST_SERVICE_ADDRESS }
}

fn answer(task: Task, to: Ip) -> Path {
    Path { from_mac: task.mac, to_mac: GATEWAY_MAC, from: task.address, to }
}

#[test]
fn a_client_reaches_a_task_of_the_node_and_is_answered() {
    let (node, _) = Node::pair();
    let (action, arrived) = node.uplink(&from_client(vtep(1)).tcp(5000, PORT_1, b"request"));
    assert_eq!(action, Action::Redirect);
    let expected = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: CLIENT, to: A.address };
    assert_eq!((seen(&arrived).path, seen(&arrived).ports), (expected, (5000, TARGET)));

    let (action, back) = node.task_sends(A, &answer(A, CLIENT).tcp(TARGET, 5000, b"response"));
    assert_eq!(action, Action::Redirect);
    let back = seen(&back);
    assert_eq!((back.path.from, back.path.to, back.ports), (vtep(1), CLIENT, (PORT_1, 5000)));
    assert_eq!((node.counted(Counter::Published), node.counted(Counter::Reply)), (1, 1));
}

#[test]
fn a_client_reaches_a_task_of_another_node_and_is_answered_by_the_first() {
    let (one, two) = Node::pair();
    let sent = from_client(vtep(1)).udp(5000, PORT_2, b"request");
    let (action, outer) = one.uplink(&sent);
    assert_eq!(action, Action::Redirect);
    let (vni, inner) = inside(&outer, vtep(1), vtep(2));
    assert_eq!(vni, u32::from_be_bytes(INGRESS_VNI));
    let steering = Steering::to(C.id, GENERATION, SteeringKind::Published);
    assert_eq!(Steering::decode(&array(&inner[..12])), Some(steering));
    assert_eq!(inner[12..], sent[12..], "the packet itself is untouched");

    let (action, arrived) = two.uplink(&outer);
    assert_eq!(action, Action::Redirect);
    let expected = Path { from_mac: GATEWAY_MAC, to_mac: C.mac, from: CLIENT, to: C.address };
    assert_eq!((seen(&arrived).path, seen(&arrived).ports), (expected, (5000, TARGET)));

    let (action, outer) = two.task_sends(C, &answer(C, CLIENT).udp(TARGET, 5000, b"response"));
    assert_eq!(action, Action::Redirect);
    let (vni, inner) = inside(&outer, vtep(2), vtep(1));
    assert_eq!(vni, u32::from_be_bytes(RETURN_VNI));
    assert_eq!(Steering::decode(&array(&inner[..12])), Some(steering));

    let (action, back) = one.uplink(&outer);
    assert_eq!(action, Action::Redirect);
    let back = seen(&back);
    assert_eq!((back.path.from, back.path.to, back.ports), (vtep(1), CLIENT, (PORT_2, 5000)));
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn a_socket_of_the_node_reaches_tasks_here_and_elsewhere() {
    let (one, two) = Node::pair();
    let (action, arrived) = one.socket_sends(&from_socket().tcp(6000, PORT_1, b"request"));
    assert_eq!(action, Action::Redirect);
    let expected = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: vtep(1), to: A.address };
    assert_eq!((seen(&arrived).path, seen(&arrived).ports), (expected, (6000, TARGET)));
    let to_socket = Path { from_mac: GATEWAY_MAC, to_mac: HOST_MAC, from: HOST_SERVICE_ADDRESS, to: vtep(1) };
    let (action, back) = one.task_sends(A, &answer(A, vtep(1)).tcp(TARGET, 6000, b"response"));
    assert_eq!(action, Action::Redirect);
    assert_eq!((seen(&back).path, seen(&back).ports), (to_socket, (PORT_1, 6000)));

    let (action, outer) = one.socket_sends(&from_socket().tcp(6000, PORT_2, b"request"));
    assert_eq!(action, Action::Redirect);
    let (_, inner) = inside(&outer, vtep(1), vtep(2));
    let steering = Steering::to(C.id, GENERATION, SteeringKind::Host);
    assert_eq!(Steering::decode(&array(&inner[..12])), Some(steering));
    let (_, arrived) = two.uplink(&outer);
    assert_eq!((seen(&arrived).path.from, seen(&arrived).ports), (vtep(1), (6000, TARGET)));
    let (_, outer) = two.task_sends(C, &answer(C, vtep(1)).tcp(TARGET, 6000, b"response"));
    let (action, back) = one.uplink(&outer);
    assert_eq!(action, Action::Redirect);
    assert_eq!((seen(&back).path, seen(&back).ports), (to_socket, (PORT_2, 6000)));
}

#[test]
fn a_task_reaches_the_published_ports_of_its_own_node() {
    let (one, two) = Node::pair();
    let asked = Path { from_mac: B.mac, to_mac: GATEWAY_MAC, from: B.address, to: vtep(1) };
    let answered = Path { from_mac: GATEWAY_MAC, to_mac: B.mac, from: vtep(1), to: B.address };

    // By a task of the node: it sees the address that stands for the client outside.
    let (action, arrived) = one.task_sends(B, &asked.tcp(7000, PORT_1, b"request"));
    assert_eq!(action, Action::Redirect);
    let expected = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: egress(B), to: A.address };
    assert_eq!((seen(&arrived).path, seen(&arrived).ports), (expected, (7000, TARGET)));
    let (action, back) = one.task_sends(A, &answer(A, egress(B)).tcp(TARGET, 7000, b"response"));
    assert_eq!(action, Action::Redirect);
    assert_eq!((seen(&back).path, seen(&back).ports), (answered, (PORT_1, 7000)));

    // By a task of another node.
    let (_, outer) = one.task_sends(B, &asked.tcp(7000, PORT_2, b"request"));
    let (_, arrived) = two.uplink(&outer);
    assert_eq!((seen(&arrived).path.from, seen(&arrived).ports), (egress(B), (7000, TARGET)));
    let (_, outer) = two.task_sends(C, &answer(C, egress(B)).tcp(TARGET, 7000, b"response"));
    let (action, back) = one.uplink(&outer);
    assert_eq!(action, Action::Redirect);
    assert_eq!((seen(&back).path, seen(&back).ports), (answered, (PORT_2, 7000)));
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn one_client_port_through_two_nodes_to_one_task_stays_two_flows() {
    let (one, two) = Node::pair();
    let through_one = one.uplink(&from_client(vtep(1)).tcp(5000, PORT_2, b"one")).1;
    let at_task = |frame: &[u8]| seen(&two.uplink(frame).1).ports.0;
    let first = at_task(&through_one);
    let second = at_task(&from_client(vtep(2)).tcp(5000, PORT_2, b"two"));
    assert_eq!(first, 5000);
    assert_ne!(second, 5000, "another source port");
    assert_eq!(at_task(&through_one), first, "each keeps its own");
    assert_eq!(at_task(&from_client(vtep(2)).tcp(5000, PORT_2, b"two")), second);

    let reply = |to: u16| two.task_sends(C, &answer(C, CLIENT).tcp(TARGET, to, b"response")).1;
    let (_, inner) = inside(&reply(first), vtep(2), vtep(1));
    assert_eq!((seen(&inner).path.from, seen(&inner).ports), (vtep(1), (PORT_2, 5000)));
    let back = seen(&reply(second));
    assert_eq!((back.path.from, back.ports), (vtep(2), (PORT_2, 5000)));
}

#[test]
fn a_flow_that_moves_to_another_node_keeps_its_port_and_is_answered_there() {
    let (mut one, mut two) = Node::pair();
    // An address that both nodes answer for, as behind a router with two ways.
    let shared = [198, 51, 100, 80];
    for node in [&mut one, &mut two] {
        node.put("HOST_ADDRESSES", HostAddressKey { address: v4_mapped(shared) }, 1u32);
    }
    let packet = from_client(shared).tcp(5000, PORT_2, b"request");
    let arrived = two.uplink(&one.uplink(&packet).1).1;
    assert_eq!(seen(&arrived).ports, (5000, TARGET));
    let arrived = two.uplink(&packet).1;
    assert_eq!(seen(&arrived).ports, (5000, TARGET), "still the same flow");
    let back = seen(&two.task_sends(C, &answer(C, CLIENT).tcp(TARGET, 5000, b"response")).1);
    assert_eq!((back.path.from, back.ports), (shared, (PORT_2, 5000)), "out of this node's own uplink");
}

/// Every port that a client's flow could have at task `A` is another flow's, of that state, whose last packet was at that
/// time.
fn take_every_port(node: &mut Node, last_seen: u64, state: u8) {
    let source = v4_mapped([198, 51, 100, 1]);
    let taken = ReverseValue { last_seen, source, state, ..ReverseValue::default() };
    let replies = (0..=u16::MAX).map(|port| FlowKey {
        source: v4_mapped(A.address),
        destination: v4_mapped(CLIENT),
        scope: VNI,
        source_port: TARGET.to_be_bytes(),
        destination_port: port.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    });
    node.put_all("REVERSE", replies.map(|reply| (reply, taken)));
}

#[test]
fn a_flow_for_which_every_port_is_taken_is_refused() {
    let mut node = Node::with_flows(1 << 18);
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    take_every_port(&mut node, now.tv_sec() as u64 * 1_000_000_000, 0);
    assert_eq!(node.uplink(&from_client(vtep(1)).tcp(5000, PORT_1, b"x")).0, Action::Drop);
    assert_eq!(node.drops(), [(DropReason::NoFreePort, 1)].into());
}

#[test]
fn a_flow_takes_the_port_of_one_that_is_over_or_has_been_silent_for_long() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let just_now = (now.tv_sec() as u64 - 3) * 1_000_000_000;
    const CLOSED: u8 = flow_state::CONFIRMED | flow_state::CLIENT_FIN | flow_state::SERVER_FIN;
    for (last_seen, state) in [(0, 0), (just_now, CLOSED), (just_now, flow_state::RESET)] {
        let mut node = Node::with_flows(1 << 18);
        take_every_port(&mut node, last_seen, state);
        let (action, arrived) = node.uplink(&from_client(vtep(1)).syn(5000, PORT_1));
        assert_eq!(action, Action::Redirect);
        let port = seen(&arrived).ports.0;
        let back = seen(&node.task_sends(A, &answer(A, CLIENT).tcp(TARGET, port, b"response")).1);
        assert_eq!((back.path.from, back.ports), (vtep(1), (PORT_1, 5000)));
    }
}
