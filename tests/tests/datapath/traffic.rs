//! What is counted of each endpoint and service: packets and bytes each way, new flows, drops.

use mesh_abi::{ChoiceValue, FlowKey, GATEWAY_MAC, TrafficValue};

use crate::{
    packets::Path,
    world::{
        A, Action, B, C, CLIENT, EMPTY_VIP, Family, HOST_MAC, Node, PORT_1, PORT_2, PORT_NONE, TARGET, Task,
        VIP, egress, port_key, vip_key, vtep,
    },
    xdp,
};

/// Somebody outside who speaks to node 1.
fn client() -> Path {
    Path { from_mac: [2, 0, 0, 0, 0xff, 1], to_mac: [2, 0, 0, 0, 0xff, 2], from: CLIENT, to: vtep(1) }
}

fn from(task: Task, to: [u8; 4]) -> Path {
    Path { from_mac: task.mac, to_mac: GATEWAY_MAC, from: task.address, to }
}

/// Packets and their bytes.
fn both(frames: &[&[u8]]) -> (u64, u64) {
    (frames.len() as u64, frames.iter().map(|frame| frame.len() as u64).sum())
}

fn inwards(t: &TrafficValue) -> (u64, u64) {
    (t.packets_in, t.bytes_in)
}

fn outwards(t: &TrafficValue) -> (u64, u64) {
    (t.packets_out, t.bytes_out)
}

const NONE: (u64, u64) = (0, 0);

#[test]
fn a_vip_of_two_nodes_counts_at_both_tasks_and_where_the_client_is() {
    let (one, two) = Node::pair();
    let ask = from(A, VIP).syn(4000, 80);
    let (_, outer) = one.task_sends(A, &ask);
    let (_, arrived) = two.uplink(&outer);
    let reply = Path { to_mac: A.mac, ..from(C, A.address) }.tcp(80, 4000, b"a longer response");
    let (_, back) = two.task_sends(C, &reply);
    let (action, home) = one.uplink(&back);
    assert_eq!(action, Action::Redirect);

    let a = one.traffic_of(A);
    assert_eq!((outwards(&a), inwards(&a)), (both(&[&ask]), both(&[&home])));
    assert_eq!((a.new_flows, a.drops_in, a.drops_out), (0, 0, 0));
    let c = two.traffic_of(C);
    assert_eq!((inwards(&c), outwards(&c)), (both(&[&arrived]), both(&[&reply])));
    assert_eq!((c.new_flows, c.drops_in, c.drops_out), (1, 0, 0));
    let vip = one.traffic_to(&vip_key(VIP));
    assert_eq!((inwards(&vip), outwards(&vip), vip.new_flows), (both(&[&ask]), both(&[&home]), 1));
    assert_eq!(two.traffic_to(&vip_key(VIP)), TrafficValue::default(), "counted where the client is");
}

#[test]
fn a_vip_of_one_node_counts_once() {
    let (mut node, _) = Node::pair();
    node.service(vip_key(VIP), 2, 1, 0);
    let ask = from(A, VIP).udp(4000, 53, b"ask");
    let (_, arrived) = node.task_sends(A, &ask);
    let reply = Path { to_mac: A.mac, ..from(B, A.address) }.udp(53, 4000, b"told");
    let (_, home) = node.task_sends(B, &reply);
    let (a, b, vip) = (node.traffic_of(A), node.traffic_of(B), node.traffic_to(&vip_key(VIP)));
    assert_eq!((outwards(&a), inwards(&a), a.new_flows), (both(&[&ask]), both(&[&home]), 0));
    assert_eq!((inwards(&b), outwards(&b), b.new_flows), (both(&[&arrived]), both(&[&reply]), 1));
    assert_eq!((inwards(&vip), outwards(&vip), vip.new_flows), (both(&[&ask]), both(&[&reply]), 1));
}

#[test]
fn tasks_that_speak_to_each_other_count_without_a_service() {
    let (one, two) = Node::pair();
    let ask = Path { to_mac: C.mac, ..from(A, C.address) }.tcp(4000, 80, b"request");
    let (_, outer) = one.task_sends(A, &ask);
    let (_, arrived) = two.uplink(&outer);
    assert_eq!(outwards(&one.traffic_of(A)), both(&[&ask]));
    assert_eq!(inwards(&two.traffic_of(C)), both(&[&arrived]));
    assert_eq!(two.traffic_of(C).new_flows, 0);
    assert_eq!(inwards(&one.traffic_of(A)), NONE);
}

#[test]
fn published_ports_count_where_the_client_speaks_to_them() {
    let (one, two) = Node::pair();
    let ask = client().syn(5000, PORT_2);
    let (_, outer) = one.uplink(&ask);
    let (_, arrived) = two.uplink(&outer);
    let reply = from(C, CLIENT).tcp(TARGET, 5000, b"response");
    let (_, back) = two.task_sends(C, &reply);
    let (action, home) = one.uplink(&back);
    assert_eq!(action, Action::Redirect);
    let port = one.traffic_to(&port_key(PORT_2, 6));
    assert_eq!((inwards(&port), outwards(&port), port.new_flows), (both(&[&ask]), both(&[&home]), 1));
    assert_eq!(two.traffic_to(&port_key(PORT_2, 6)), TrafficValue::default());
    let c = two.traffic_of(C);
    assert_eq!((inwards(&c), outwards(&c), c.new_flows), (both(&[&arrived]), both(&[&reply]), 1));
    // Further packets of the flow are no new flow.
    let (_, outer) = one.uplink(&client().tcp(5000, PORT_2, b"more"));
    two.uplink(&outer);
    assert_eq!((one.traffic_to(&port_key(PORT_2, 6)).new_flows, two.traffic_of(C).new_flows), (1, 1));

    // A task of the node that the client speaks to.
    let ask = client().syn(5001, PORT_1);
    let (_, arrived) = one.uplink(&ask);
    let reply = from(A, CLIENT).tcp(TARGET, 5001, b"response");
    let (_, home) = one.task_sends(A, &reply);
    let port = one.traffic_to(&port_key(PORT_1, 6));
    assert_eq!((inwards(&port), outwards(&port), port.new_flows), (both(&[&ask]), both(&[&home]), 1));
    assert_eq!(inwards(&one.traffic_of(A)), both(&[&arrived]));
}

#[test]
fn xdp_counts_as_tc_does() {
    let (one, two) = xdp::nodes(Family::V4);
    let ask = client().syn(5000, PORT_2);
    let (action, outer) = one.uplink_xdp(&ask);
    assert_eq!(action, xdp::TX);
    two.uplink(&outer);
    let (_, back) = two.task_sends(C, &from(C, CLIENT).tcp(TARGET, 5000, b"response"));
    let (action, home) = one.uplink_xdp(&back);
    assert_eq!(action, xdp::TX);
    let more = client().tcp(5000, PORT_2, b"more");
    assert_eq!(one.uplink_xdp(&more).0, xdp::TX);
    // What is established is not looked up among the services.
    one.flows_rest();
    let (third, fourth) = (client().tcp(5000, PORT_2, b"and more"), client().tcp(5000, PORT_2, b"!"));
    assert_eq!((one.uplink_xdp(&third).0, one.uplink_xdp(&fourth).0), (xdp::TX, xdp::TX));
    assert_eq!(one.count::<FlowKey, ChoiceValue>("CHOICES_KEPT"), 1);
    let port = one.traffic_to(&port_key(PORT_2, 6));
    assert_eq!((inwards(&port), outwards(&port)), (both(&[&ask, &more, &third, &fourth]), both(&[&home])));
    assert_eq!(port.new_flows, 1);
}

#[test]
fn what_the_world_answers_counts_into_the_task() {
    let (node, _) = Node::pair();
    let ask = from(A, [198, 51, 100, 7]).udp(4000, 53, b"ask");
    let (action, _) = node.task_sends(A, &ask);
    assert_eq!(action, Action::Pass);
    let reply = Path { from_mac: HOST_MAC, to_mac: A.mac, from: [198, 51, 100, 7], to: egress(A) };
    let (action, home) = node.to_task(A, &reply.udp(53, 4000, b"told"));
    assert_eq!(action, Action::Pass);
    let a = node.traffic_of(A);
    assert_eq!((outwards(&a), inwards(&a)), (both(&[&ask]), both(&[&home])));
}

#[test]
fn a_segmented_packet_counts_as_its_segments() {
    let (one, _) = Node::pair();
    let large = Path { to_mac: C.mac, ..from(A, C.address) }.tcp(4000, 80, &[7; 2800]);
    one.run("from_task", one.interface_of(A), &large, 1400);
    assert_eq!(outwards(&one.traffic_of(A)), (2, large.len() as u64));
}

#[test]
fn drops_are_laid_to_whom_they_concern() {
    let (node, _) = Node::pair();
    // Spoofed by A.
    let forged = Path { from: B.address, ..from(A, C.address) }.udp(1, 2, b"");
    assert_eq!(node.task_sends(A, &forged).0, Action::Drop);
    assert_eq!((node.traffic_of(A).drops_out, node.traffic_of(B)), (1, TrafficValue::default()));
    // To nobody.
    assert_eq!(node.task_sends(A, &from(A, EMPTY_VIP).syn(4000, 80)).0, Action::Drop);
    assert_eq!(node.traffic_of(A).drops_out, 2);
    let vip = node.traffic_to(&vip_key(EMPTY_VIP));
    assert_eq!((vip.packets_in, vip.drops_in, vip.new_flows), (1, 1, 0));
    assert_eq!(node.uplink(&client().syn(5000, PORT_NONE)).0, Action::Drop);
    assert_eq!(node.traffic_to(&port_key(PORT_NONE, 6)).drops_in, 1);
}
