//! VIPs: the choice, the steering, the translation at the task's node, and the way back.

use mesh_abi::{Counter, DropReason, GATEWAY_MAC, INGRESS_VNI, Steering, SteeringKind, backend_flags};

use crate::{
    packets::{Path, array, inside, seen},
    world::{
        A, Action, B, C, EMPTY_VIP, GATEWAY, GENERATION, Node, Task, VIP, VNI, VNI_NUMBER, vip_key, vtep,
    },
};

fn to_vip(from: Task) -> Path {
    Path { from_mac: from.mac, to_mac: GATEWAY_MAC, from: from.address, to: VIP }
}

/// What arrives in a task from a VIP's client, and what the task answers.
fn into(task: Task, from: [u8; 4]) -> Path {
    Path { from_mac: GATEWAY_MAC, to_mac: task.mac, from, to: task.address }
}

fn answer(task: Task, to: Task) -> Path {
    Path { from_mac: task.mac, to_mac: to.mac, from: task.address, to: to.address }
}

#[test]
fn a_flow_to_a_task_of_another_node_and_back() {
    let (one, two) = Node::pair();
    let sent = to_vip(A).tcp(4000, 80, b"request");
    let (action, outer) = one.task_sends(A, &sent);
    assert_eq!(action, Action::Redirect);
    let (vni, inner) = inside(&outer, vtep(1), vtep(2));
    assert_eq!(vni, u32::from_be_bytes(INGRESS_VNI));
    let steering = Steering::decode(&array(&inner[..12])).unwrap();
    assert_eq!(steering, Steering { vni: VNI, ..Steering::to(C.id, GENERATION, SteeringKind::Vip) });
    assert_eq!(inner[12..], sent[12..], "the packet itself is untouched");

    let (action, arrived) = two.uplink(&outer);
    assert_eq!(action, Action::Redirect);
    assert_eq!(seen(&arrived).path, into(C, A.address));
    assert_eq!(seen(&arrived).ports, (4000, 80));

    let (action, outer) = two.task_sends(C, &answer(C, A).tcp(80, 4000, b"response"));
    assert_eq!(action, Action::Redirect);
    let (vni, inner) = inside(&outer, vtep(2), vtep(1));
    assert_eq!(vni, VNI_NUMBER);
    let from_vip = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: VIP, to: A.address };
    assert_eq!(seen(&inner).path, from_vip);

    let (action, arrived) = one.uplink(&outer);
    assert_eq!(action, Action::Redirect);
    assert_eq!((seen(&arrived).path, seen(&arrived).ports), (from_vip, (80, 4000)));
    assert_eq!((one.counted(Counter::Vip), two.counted(Counter::Reply)), (1, 1));
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn a_flow_to_a_task_of_the_same_node_and_back() {
    let (mut node, _) = Node::pair();
    node.service(vip_key(VIP), 2, 1, 0);
    let (action, arrived) = node.task_sends(A, &to_vip(A).udp(4000, 53, b"ask"));
    assert_eq!(action, Action::Redirect);
    assert_eq!(seen(&arrived).path, into(B, A.address));
    let (action, arrived) = node.task_sends(B, &answer(B, A).udp(53, 4000, b"told"));
    assert_eq!(action, Action::Redirect);
    let from_vip = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: VIP, to: A.address };
    assert_eq!((seen(&arrived).path, seen(&arrived).ports), (from_vip, (53, 4000)));
}

#[test]
fn a_vip_answers_a_ping_itself_also_without_tasks() {
    let (node, _) = Node::pair();
    for vip in [VIP, EMPTY_VIP] {
        let (action, arrived) = node.task_sends(A, &Path { to: vip, ..to_vip(A) }.ping(77));
        assert_eq!(action, Action::Redirect);
        let from_vip = Path { from_mac: GATEWAY_MAC, to_mac: A.mac, from: vip, to: A.address };
        assert_eq!(seen(&arrived), seen(&from_vip.pong(77)));
    }
    assert!(node.drops().is_empty());
}

#[test]
fn a_task_that_is_given_itself_sees_the_gateway() {
    let (mut node, _) = Node::pair();
    node.service(vip_key(VIP), 1, 1, 0);
    let (action, arrived) = node.task_sends(A, &to_vip(A).tcp(4000, 80, b"request"));
    assert_eq!(action, Action::Redirect);
    assert_eq!(seen(&arrived).path, into(A, GATEWAY));
    let reply = Path { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.address, to: GATEWAY };
    let (action, arrived) = node.task_sends(A, &reply.tcp(80, 4000, b"response"));
    assert_eq!(action, Action::Redirect);
    assert_eq!(seen(&arrived).path, into(A, VIP));
    assert_eq!(seen(&arrived).ports, (80, 4000));
}

#[test]
fn a_choice_outlives_the_table_and_a_draining_task_gets_no_new_connection() {
    let (mut node, _) = Node::pair();
    let chosen = |node: &Node, packet: &[u8]| {
        let (_, frame) = node.task_sends(A, packet);
        if frame.len() > packet.len() { C.id } else { B.id }
    };
    assert_eq!(chosen(&node, &to_vip(A).syn(4000, 80)), C.id);
    node.service(vip_key(VIP), 2, 1, 0);
    assert_eq!(chosen(&node, &to_vip(A).tcp(4000, 80, b"goes on")), C.id);
    assert_eq!(chosen(&node, &to_vip(A).tcp(4001, 80, b"another flow")), B.id);

    node.backend(C, backend_flags::DRAINING);
    assert_eq!(chosen(&node, &to_vip(A).tcp(4000, 80, b"goes on still")), C.id);
    assert_eq!(chosen(&node, &to_vip(A).syn(4000, 80)), B.id);

    assert_eq!(chosen(&node, &to_vip(A).udp(4001, 80, b"its task goes away")), B.id);
    node.remove::<u32, mesh_abi::BackendValue>("BACKENDS", B.id);
    node.service(vip_key(VIP), 0, 1, 0);
    assert_eq!(chosen(&node, &to_vip(A).udp(4001, 80, b"chosen anew")), C.id);
}

#[test]
fn a_new_connection_on_old_ports_asks_the_table() {
    let (mut node, _) = Node::pair();
    let remote = |node: &Node, packet: &[u8]| node.task_sends(A, packet).1.len() > packet.len();
    assert!(remote(&node, &to_vip(A).syn(4000, 80)));
    node.service(vip_key(VIP), 2, 1, 0);
    assert!(remote(&node, &to_vip(A).tcp(4000, 80, b"goes on")));
    assert!(!remote(&node, &to_vip(A).syn(4000, 80)), "the earlier connection's choice was kept");
    assert!(!remote(&node, &to_vip(A).tcp(4000, 80, b"stays where it began")));
}

#[test]
fn the_last_draining_task_is_better_than_none() {
    let (mut node, _) = Node::pair();
    assert_eq!(node.task_sends(A, &to_vip(A).syn(4000, 80)).0, Action::Redirect);
    node.backend(C, backend_flags::DRAINING);
    node.service(vip_key(VIP), 0, 0, 0);
    assert_eq!(node.task_sends(A, &to_vip(A).syn(4000, 80)).0, Action::Redirect);
    assert_eq!(node.task_sends(A, &to_vip(A).syn(4001, 80)).0, Action::Drop);
    assert_eq!(node.drops(), [(DropReason::NoBackend, 1)].into());
}
