//! Published ports that are open in one place only, and those whose replies leave by the task's own node.

use mesh_abi::{
    Counter, DropReason, INGRESS_VNI, PUBLISHED, ServiceKey, ServiceValue, Steering, SteeringKind,
    node_flags, service_flags,
};

use crate::{
    dual::{across, from_client, out_of},
    frames::{look, unwrapped},
    packets::array,
    world::{A, Action, BOTH, C, Family, Node, TARGET, client, mapped, node_address, port_key},
};

/// Published at the first node's address of a family, and known to that node alone.
const ADDRESSED: u16 = 8090;
const DIRECT: u16 = 8091;

fn addressed(node: &mut Node, family: Family, protocol: u8) {
    let address = mapped(node_address(1, family));
    let key = ServiceKey { vni: PUBLISHED, address, port: ADDRESSED.to_be_bytes(), protocol, reserved: 0 };
    node.service(key, 0, 1, TARGET);
    node.configure(|config| config.flags |= node_flags::ADDRESSED_PORTS);
}

#[test]
fn a_port_at_one_address_leads_to_a_node_that_does_not_know_it() {
    for family in BOTH {
        let (mut one, two) = Node::pair();
        addressed(&mut one, family, 17);
        let asked = from_client(1, family);
        let sent = asked.udp(5000, ADDRESSED, b"request");
        let step = one.uplink(&sent);
        let (_, inner) = unwrapped(&step.1, Family::V4, (1, 2));
        let steering = Steering::decode(&array(&inner[..12])).unwrap();
        assert_eq!((steering.endpoint, steering.target_port), (C.id, TARGET.to_be_bytes()));
        let arrived = across(&one, &two, step, u32::from_be_bytes(INGRESS_VNI));
        assert_eq!((look(&arrived).talk.to, look(&arrived).ports), (C.at(family), (5000, TARGET)));

        let reply = out_of(C, client(family), family).udp(TARGET, 5000, b"response");
        let back = across(&two, &one, two.task_sends(C, &reply), 2);
        assert_eq!((look(&back).talk.from, look(&back).ports), (asked.to, (ADDRESSED, 5000)));
        // What the world says about the reply finds the task, too.
        let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
        let error = asked.icmp(kind, code, [0; 4], &back);
        let told = look(&across(&one, &two, one.uplink(&error), u32::from_be_bytes(INGRESS_VNI)));
        let quoted = &told.payload[8..];
        assert_eq!(quoted, &reply[14..14 + quoted.len()]);
        assert!(one.drops().is_empty() && two.drops().is_empty());
    }
}

#[test]
fn a_port_at_one_address_is_closed_at_the_others() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        addressed(&mut node, family, 17);
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        let sent = from_client(1, other).udp(5000, ADDRESSED, b"request");
        assert_eq!(node.uplink(&sent), (Action::Pass, sent));
    }
}

#[test]
fn one_address_goes_before_all() {
    let (mut node, _) = Node::pair();
    node.service(port_key(ADDRESSED, 17), 1, 1, TARGET);
    addressed(&mut node, Family::V4, 17);
    let asked = from_client(1, Family::V4);
    assert_eq!(node.uplink(&asked.udp(5000, ADDRESSED, b"request")).0, Action::Redirect);
    assert_eq!(node.counted(Counter::FastSent), 1, "to C, not to A");
}

fn direct(node: &mut Node) {
    for protocol in [6, 17] {
        let value = ServiceValue {
            table_base: 0,
            table_len: 1,
            target_port: TARGET.to_be_bytes(),
            flags: service_flags::DIRECT,
            ..ServiceValue::default()
        };
        for address in [mesh_abi::ANY_V4, mesh_abi::ANY_V6] {
            node.put("SERVICES", ServiceKey { address, ..port_key(DIRECT, protocol) }, value);
        }
    }
}

#[test]
fn a_direct_reply_leaves_by_the_tasks_own_node_with_the_address_that_was_spoken_to() {
    for family in BOTH {
        let (mut one, mut two) = Node::pair();
        direct(&mut one);
        direct(&mut two);
        let asked = from_client(1, family);
        let step = one.uplink(&asked.tcp(5000, DIRECT, b"request"));
        let (_, inner) = unwrapped(&step.1, Family::V4, (1, 2));
        assert_eq!(Steering::decode(&array(&inner[..12])).unwrap().kind, SteeringKind::Direct);
        across(&one, &two, step, u32::from_be_bytes(INGRESS_VNI));
        let reply = out_of(C, client(family), family).tcp(TARGET, 5000, b"response");
        let (action, back) = two.task_sends(C, &reply);
        assert_eq!(action, Action::Redirect);
        assert_eq!((look(&back).talk.from, look(&back).ports), (asked.to, (DIRECT, 5000)));
        // Errors about it come to the node that has the address.
        let (kind, code) = if family == Family::V4 { (3, 1) } else { (1, 3) };
        let error = asked.icmp(kind, code, [0; 4], &back);
        let told = look(&across(&one, &two, one.uplink(&error), u32::from_be_bytes(INGRESS_VNI)));
        let quoted = &told.payload[8..];
        assert_eq!(quoted, &reply[14..14 + quoted.len()]);
    }
}

#[test]
fn sctp_goes_without_another_port() {
    let (one, two) = Node::pair();
    let port = crate::world::PORT_2;
    let sent = from_client(1, Family::V4).sctp(5000, port);
    across(&one, &two, one.uplink(&sent), u32::from_be_bytes(INGRESS_VNI));
    // The same ports through the other node look the same to the task, and an SCTP port cannot be changed.
    let same = from_client(2, Family::V4).sctp(5000, port);
    assert_eq!(two.uplink(&same).0, Action::Drop);
    assert_eq!(two.drops(), [(DropReason::NoFreePort, 1)].into());
    assert_eq!(
        look(&one.task_sends(A, &out_of(A, client(Family::V4), Family::V4).sctp(1, 2)).1).ports,
        (1, 2)
    );
}
