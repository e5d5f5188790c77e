//! Flows: when they count as established, what a flood does to them, and how they end.

use mesh_abi::{
    BackendValue, ChoiceValue, Counter, FlowKey, GATEWAY_MAC, PUBLISHED, ReverseValue,
    flow_state::{ANSWERED, CLIENT_FIN, CONFIRMED, RESET, SERVER_FIN},
    service_flags, v4_mapped,
};

use crate::{
    packets::{Path, inside, seen},
    world::{A, Action, B, C, CLIENT, Node, PORT_1, PORT_2, TARGET, Task, VIP, VNI, port_key, vip_key, vtep},
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];

fn outside(from: [u8; 4]) -> Path {
    Path { from_mac: ROUTER, to_mac: NIC, from, to: vtep(1) }
}

fn answer(task: Task, to: [u8; 4]) -> Path {
    Path { from_mac: task.mac, to_mac: GATEWAY_MAC, from: task.address, to }
}

fn asked(source: ([u8; 4], u16), destination: ([u8; 4], u16), scope: [u8; 4], protocol: u8) -> FlowKey {
    FlowKey {
        source: v4_mapped(source.0),
        destination: v4_mapped(destination.0),
        scope,
        source_port: source.1.to_be_bytes(),
        destination_port: destination.1.to_be_bytes(),
        protocol,
        reserved: [0; 3],
    }
}

fn choice(node: &Node, map: &str, key: FlowKey) -> Option<u8> {
    let choice =
        if map == "CHOICES" { node.choice(&key) } else { node.get::<FlowKey, ChoiceValue>(map, key) };
    choice.map(|value| value.state)
}

fn back(node: &Node, map: &str, key: FlowKey) -> Option<u8> {
    node.get::<FlowKey, ReverseValue>(map, key).map(|value| value.state)
}

/// A connection through node 1 to the task of node 2.
struct Connection {
    client: [u8; 4],
    port: u16,
}

impl Connection {
    /// The client's packet at the task's node, and there.
    fn asks(&self, nodes: (&Node, &Node), flags: u8) -> Action {
        let (action, outer) = nodes.0.uplink(&outside(self.client).segment(self.port, PORT_2, flags));
        if action != Action::Redirect || outer.len() < 100 {
            return action;
        }
        nodes.1.uplink(&outer).0
    }

    /// The task's answer, back at the first node.
    fn told(&self, nodes: (&Node, &Node), flags: u8) -> Action {
        let reply = answer(C, self.client).segment(TARGET, self.port, flags);
        let (action, outer) = nodes.1.task_sends(C, &reply);
        assert_eq!(action, Action::Redirect);
        nodes.0.uplink(&outer).0
    }

    fn opened(self, nodes: (&Node, &Node)) -> Self {
        assert_eq!(self.asks(nodes, SYN), Action::Redirect);
        assert_eq!(self.told(nodes, SYN | ACK), Action::Redirect);
        assert_eq!(self.asks(nodes, ACK), Action::Redirect);
        nodes.0.flows_rest();
        nodes.1.flows_rest();
        assert_eq!(self.asks(nodes, ACK), Action::Redirect);
        self
    }

    fn key(&self) -> FlowKey {
        asked((self.client, self.port), (vtep(1), PORT_2), PUBLISHED, 6)
    }

    fn reply_key(&self) -> FlowKey {
        asked((C.address, TARGET), (self.client, self.port), VNI, 6)
    }
}

#[test]
fn a_connection_is_established_once_the_client_has_answered_the_answer() {
    let (one, two) = Node::pair();
    let nodes = (&one, &two);
    let flow = Connection { client: CLIENT, port: 5000 };
    let states = || {
        let key = (flow.key(), flow.reply_key());
        let choices = [choice(&one, "CHOICES", key.0), choice(&one, "CHOICES_KEPT", key.0)];
        let replies = [back(&two, "REVERSE", key.1), back(&two, "REVERSE_KEPT", key.1)];
        (choices, replies)
    };
    flow.asks(nodes, SYN);
    assert_eq!(states(), ([Some(0), None], [Some(0), None]));
    flow.asks(nodes, SYN);
    assert_eq!(states(), ([Some(0), None], [Some(0), None]), "asking twice is no answer");
    flow.told(nodes, SYN | ACK);
    assert_eq!(states(), ([Some(ANSWERED), None], [Some(ANSWERED), None]));
    flow.asks(nodes, ACK);
    const OPEN: u8 = ANSWERED | CONFIRMED;
    assert_eq!(states(), ([Some(OPEN), None], [Some(OPEN), None]), "it may end soon");
    one.flows_rest();
    two.flows_rest();
    flow.asks(nodes, ACK);
    assert_eq!(states(), ([None, Some(OPEN)], [None, Some(OPEN)]));

    flow.told(nodes, FIN | ACK);
    assert_eq!(states().0, [None, Some(OPEN | SERVER_FIN)]);
    flow.asks(nodes, FIN | ACK);
    const CLOSED: u8 = OPEN | SERVER_FIN | CLIENT_FIN;
    assert_eq!(states(), ([None, Some(CLOSED)], [None, Some(CLOSED)]));

    flow.asks(nodes, SYN);
    assert_eq!(states(), ([Some(0), None], [Some(0), None]), "a new connection on the same ports");
    assert_eq!(one.counted(Counter::NewFlow), 3);
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn a_client_that_resets_what_it_never_asked_for_establishes_nothing() {
    let (one, two) = Node::pair();
    let flow = Connection { client: CLIENT, port: 5000 };
    flow.asks((&one, &two), SYN);
    flow.told((&one, &two), SYN | ACK);
    flow.asks((&one, &two), RST | ACK);
    flow.asks((&one, &two), ACK);
    assert_eq!(choice(&one, "CHOICES", flow.key()), Some(ANSWERED | RESET));
    assert_eq!(back(&two, "REVERSE", flow.reply_key()), Some(ANSWERED | RESET));
}

#[test]
fn opening_an_established_connection_again_does_not_end_it() {
    let (mut one, two) = Node::pair();
    let flow = Connection { client: CLIENT, port: 5000 }.opened((&one, &two));
    flow.asks((&one, &two), SYN);
    assert_eq!(choice(&one, "CHOICES_KEPT", flow.key()), Some(ANSWERED | CONFIRMED));
    // Unless the table says otherwise by now.
    one.service(port_key(PORT_2, 6), 1, 1, TARGET);
    flow.asks((&one, &two), SYN);
    assert_eq!(choice(&one, "CHOICES_KEPT", flow.key()), None);
    assert_eq!(choice(&one, "CHOICES", flow.key()), Some(0));
}

#[test]
fn a_connection_that_ends_soon_is_never_kept() {
    let nodes = Node::pair();
    let nodes = (&nodes.0, &nodes.1);
    let flow = Connection { client: CLIENT, port: 5000 };
    flow.asks(nodes, SYN);
    flow.told(nodes, SYN | ACK);
    flow.asks(nodes, ACK);
    flow.asks(nodes, FIN | ACK);
    // Its last words come late.
    nodes.0.flows_rest();
    nodes.1.flows_rest();
    flow.told(nodes, FIN | ACK);
    flow.asks(nodes, ACK);
    const CLOSED: u8 = ANSWERED | CONFIRMED | SERVER_FIN | CLIENT_FIN;
    assert_eq!(choice(nodes.0, "CHOICES", flow.key()), Some(CLOSED));
    assert_eq!(back(nodes.1, "REVERSE", flow.reply_key()), Some(CLOSED));
    assert_eq!(choice(nodes.0, "CHOICES_KEPT", flow.key()), None);
    assert_eq!(back(nodes.1, "REVERSE_KEPT", flow.reply_key()), None);
}

#[test]
fn an_answer_keeps_what_was_silent_too() {
    let nodes = Node::pair();
    let nodes = (&nodes.0, &nodes.1);
    let flow = Connection { client: CLIENT, port: 5000 };
    flow.asks(nodes, SYN);
    flow.told(nodes, SYN | ACK);
    flow.asks(nodes, ACK);
    nodes.0.flows_rest();
    nodes.1.flows_rest();
    flow.told(nodes, ACK);
    assert_eq!(choice(nodes.0, "CHOICES_KEPT", flow.key()), Some(ANSWERED | CONFIRMED));
    assert_eq!(back(nodes.1, "REVERSE_KEPT", flow.reply_key()), Some(ANSWERED | CONFIRMED));
    assert_eq!(choice(nodes.0, "CHOICES", flow.key()), None);
    assert_eq!(back(nodes.1, "REVERSE", flow.reply_key()), None);
}

#[test]
fn a_flood_does_not_touch_what_is_confirmed_a_moment_ago() {
    let (one, two) = Node::pair();
    let flow = Connection { client: CLIENT, port: 5000 };
    flow.asks((&one, &two), SYN);
    flow.told((&one, &two), SYN | ACK);
    flow.asks((&one, &two), ACK);
    // Half of what there is room for, several times within the second.
    for n in 0..3000u16 {
        let [a, b] = n.to_be_bytes();
        one.uplink(&outside([198, 18, a, b]).syn(7, PORT_2));
        if n % 500 == 0 {
            assert_eq!(flow.asks((&one, &two), ACK), Action::Redirect);
        }
    }
    // On a machine that took more than a second for that, it has been kept meanwhile.
    let known = choice(&one, "CHOICES", flow.key()).or_else(|| choice(&one, "CHOICES_KEPT", flow.key()));
    assert_eq!(known, Some(ANSWERED | CONFIRMED));
}

#[test]
fn a_flood_does_not_touch_what_is_established() {
    let (mut one, two) = Node::pair();
    let flow = Connection { client: CLIENT, port: 5000 }.opened((&one, &two));
    // Whoever is chosen anew is given a task of the first node.
    for protocol in [6, 17] {
        one.service(port_key(PORT_2, protocol), 1, 1, TARGET);
    }
    for n in 0..4000u16 {
        let [a, b] = n.to_be_bytes();
        let forged = outside([198, 18, a, b]);
        one.uplink(&forged.syn(7, PORT_2));
        one.uplink(&forged.udp(7, PORT_2, b"x"));
        two.uplink(&Path { to: vtep(2), ..forged }.syn(7, PORT_2));
    }
    assert!(one.choices() <= 1024);
    assert_eq!(choice(&one, "CHOICES_KEPT", flow.key()), Some(ANSWERED | CONFIRMED));
    assert_eq!(back(&two, "REVERSE_KEPT", flow.reply_key()), Some(ANSWERED | CONFIRMED));
    let (_, outer) = one.uplink(&outside(CLIENT).segment(5000, PORT_2, ACK));
    inside(&outer, vtep(1), vtep(2));
    assert_eq!(flow.told((&one, &two), ACK), Action::Redirect);
}

#[test]
fn where_no_more_can_be_kept_flows_go_on_as_new_ones() {
    let (one, two) = Node::pair_with_kept(4);
    let flows: Vec<Connection> = (0..8).map(|n| Connection { client: CLIENT, port: 5000 + n }).collect();
    let flows: Vec<Connection> = flows.into_iter().map(|flow| flow.opened((&one, &two))).collect();
    assert_eq!(one.count::<FlowKey, ChoiceValue>("CHOICES_KEPT"), 4);
    assert_eq!(one.choices(), 4);
    for flow in &flows {
        assert_eq!(flow.asks((&one, &two), ACK), Action::Redirect);
        assert_eq!(flow.told((&one, &two), ACK), Action::Redirect);
    }
    assert!(one.drops().is_empty() && two.drops().is_empty());
}

#[test]
fn datagrams_are_established_when_answered_and_asked_again() {
    let (one, two) = Node::pair();
    let ask = || {
        let (_, outer) = one.uplink(&outside(CLIENT).udp(5000, PORT_2, b"ask"));
        two.uplink(&outer);
    };
    let key = asked((CLIENT, 5000), (vtep(1), PORT_2), PUBLISHED, 17);
    ask();
    ask();
    assert_eq!(choice(&one, "CHOICES", key), Some(0));
    let (_, outer) = two.task_sends(C, &answer(C, CLIENT).udp(TARGET, 5000, b"told"));
    assert_eq!(one.uplink(&outer).0, Action::Redirect);
    assert_eq!(choice(&one, "CHOICES", key), Some(ANSWERED));
    ask();
    assert_eq!(choice(&one, "CHOICES", key), Some(ANSWERED | CONFIRMED));
    one.flows_rest();
    ask();
    assert_eq!(choice(&one, "CHOICES_KEPT", key), Some(ANSWERED | CONFIRMED));
}

#[test]
fn flows_to_tasks_of_the_node_are_established_too() {
    let (node, _) = Node::pair();
    let ask = |flags| node.uplink(&outside(CLIENT).segment(5000, PORT_1, flags)).0;
    let key = asked((CLIENT, 5000), (vtep(1), PORT_1), PUBLISHED, 6);
    ask(SYN);
    node.task_sends(A, &answer(A, CLIENT).segment(TARGET, 5000, SYN | ACK));
    assert_eq!(choice(&node, "CHOICES", key), Some(ANSWERED));
    ask(ACK);
    assert_eq!(choice(&node, "CHOICES", key), Some(ANSWERED | CONFIRMED));
    node.flows_rest();
    ask(ACK);
    assert_eq!(choice(&node, "CHOICES_KEPT", key), Some(ANSWERED | CONFIRMED));
    node.task_sends(A, &answer(A, CLIENT).segment(TARGET, 5000, FIN | ACK));
    ask(FIN | ACK);
    let closed = ANSWERED | CONFIRMED | SERVER_FIN | CLIENT_FIN;
    assert_eq!(choice(&node, "CHOICES_KEPT", key), Some(closed));
}

#[test]
fn datagrams_of_a_flow_whose_task_is_gone_go_to_another_at_once() {
    let (mut one, two) = Node::pair();
    let ask = |one: &Node| one.uplink(&outside(CLIENT).udp(5000, PORT_2, b"ask")).1;
    two.uplink(&ask(&one));
    let (_, outer) = two.task_sends(C, &answer(C, CLIENT).udp(TARGET, 5000, b"told"));
    one.uplink(&outer);
    inside(&ask(&one), vtep(1), vtep(2));
    one.flows_rest();
    inside(&ask(&one), vtep(1), vtep(2));
    let key = asked((CLIENT, 5000), (vtep(1), PORT_2), PUBLISHED, 17);
    assert!(choice(&one, "CHOICES_KEPT", key).is_some());
    one.remove::<u32, BackendValue>("BACKENDS", C.id);
    one.service(port_key(PORT_2, 17), 1, 1, TARGET);
    assert_eq!(seen(&ask(&one)).path.to, A.address);
    assert_eq!(choice(&one, "CHOICES_KEPT", key), None);
    assert_eq!(choice(&one, "CHOICES", key), Some(0));
}

fn to_vip(from_port: u16) -> Vec<u8> {
    Path { from_mac: A.mac, to_mac: GATEWAY_MAC, from: A.address, to: VIP }.syn(from_port, 80)
}

/// The VIP's service, whose table has these tasks in these shares.
fn with_affinity(node: &mut Node, tasks: &[Task], secs: u32) {
    node.table(tasks);
    node.service_with(vip_key(VIP), |service| {
        service.table_len = tasks.len() as u32;
        service.flags = service_flags::AFFINITY;
        *service = service.with(secs, service.counter());
        service.number = 7;
    });
}

#[test]
fn a_client_keeps_its_task_for_all_its_connections() {
    let (mut node, _) = Node::pair();
    with_affinity(&mut node, &[B, C, B, C, B, C, B], 0);
    let remote = |node: &Node, port| node.task_sends(A, &to_vip(port)).1.len() > 60;
    let first = remote(&node, 4000);
    for port in 4001..4100 {
        assert_eq!(remote(&node, port), first);
    }
}

#[test]
fn a_remembered_client_keeps_its_task_when_the_table_changes() {
    let (mut node, _) = Node::pair();
    let remote = |node: &Node, port| node.task_sends(A, &to_vip(port)).1.len() > 60;
    with_affinity(&mut node, &[C], 600);
    assert!(remote(&node, 4000));
    with_affinity(&mut node, &[B], 600);
    assert!(remote(&node, 4001), "remembered");
    with_affinity(&mut node, &[B], 0);
    assert!(!remote(&node, 4002), "without memory the table decides");

    with_affinity(&mut node, &[B], 600);
    node.backend(C, mesh_abi::backend_flags::DRAINING);
    assert!(!remote(&node, 4003), "a draining task takes nobody");
    node.backend(C, 0);
    assert!(!remote(&node, 4004), "the new one is remembered");
    node.remove::<u32, BackendValue>("BACKENDS", B.id);
    with_affinity(&mut node, &[C], 600);
    assert!(remote(&node, 4005), "one that is gone is not");
}
