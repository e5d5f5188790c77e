//! The main stories once more, for both families inside and both as the underlay.

use mesh_abi::{Counter, DropReason, GATEWAY_MAC, INGRESS_VNI, RETURN_VNI};

use crate::{
    frames::{Talk, look, unwrapped, wrap},
    world::{
        A, Action, B, BOTH, C, Family, HOST_MAC, Node, PORT_1, PORT_2, TARGET, Task, VNI, VNI_NUMBER, client,
        egress_of, gateway, host_service, node_address, vip,
    },
};

pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
pub const NIC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];

fn between(from: Task, to: Task, family: Family) -> Talk {
    Talk { from_mac: from.mac, to_mac: to.mac, from: from.at(family), to: to.at(family) }
}

/// What a task sends to an address that the gateway's Ethernet address stands for.
pub fn out_of(task: Task, to: std::net::IpAddr, family: Family) -> Talk {
    Talk { from_mac: task.mac, to_mac: GATEWAY_MAC, from: task.at(family), to }
}

pub fn from_client(node: u8, family: Family) -> Talk {
    Talk { from_mac: ROUTER, to_mac: NIC, from: client(family), to: node_address(node, family) }
}

/// Every family inside, over every underlay.
pub fn everywhere(story: impl Fn(&Node, &Node, Family)) {
    for underlay in BOTH {
        let (one, two) = Node::pair_over(underlay);
        for family in BOTH {
            story(&one, &two, family);
        }
        assert!(one.drops().is_empty() && two.drops().is_empty(), "{:?} {:?}", one.drops(), two.drops());
    }
}

/// The frame as it arrives, from node one's task to node two.
#[track_caller]
pub fn across(one: &Node, two: &Node, (action, frame): (Action, Vec<u8>), vni: u32) -> Vec<u8> {
    assert_eq!(action, Action::Redirect);
    let (seen, _) = unwrapped(&frame, one.underlay(), (one.number, two.number));
    assert_eq!(seen, vni);
    let (action, arrived) = two.uplink(&frame);
    assert_eq!(action, Action::Redirect, "{:?}", two.drops());
    arrived
}

#[test]
fn tasks_reach_each_other_with_every_byte_untouched() {
    everywhere(|one, two, family| {
        let talk = between(A, C, family);
        for sent in
            [talk.tcp(4000, 80, b"hello"), talk.udp(4000, 53, b"hi"), talk.echo(false, 5), talk.ip(99, b"x")]
        {
            assert_eq!(across(one, two, one.task_sends(A, &sent), VNI_NUMBER), sent);
        }
        let sent = between(A, B, family).udp(4000, 53, b"to the neighbour");
        assert_eq!(one.task_sends(A, &sent), (Action::Redirect, sent));
    });
}

#[test]
fn a_vip_leads_to_a_task_and_its_answer_comes_from_the_vip() {
    everywhere(|one, two, family| {
        let asked = out_of(A, vip(family), family);
        let ingress = u32::from_be_bytes(INGRESS_VNI);
        for (sent, reply) in [
            (asked.tcp(4000, 80, b"request"), between(C, A, family).tcp(80, 4000, b"response")),
            (asked.udp(4000, 53, b"ask"), between(C, A, family).udp(53, 4000, b"told")),
            (asked.sctp(4000, 99), between(C, A, family).sctp(99, 4000)),
        ] {
            let arrived = look(&across(one, two, one.task_sends(A, &sent), ingress));
            let expected =
                Talk { from_mac: GATEWAY_MAC, to_mac: C.mac, from: A.at(family), to: C.at(family) };
            assert_eq!((arrived.talk, arrived.ports), (expected, look(&sent).ports));
            let back = look(&across(two, one, two.task_sends(C, &reply), VNI_NUMBER));
            let expected = Talk { from_mac: GATEWAY_MAC, to_mac: A.mac, from: vip(family), to: A.at(family) };
            assert_eq!((back.talk, back.ports), (expected, look(&reply).ports));
        }
    });
}

#[test]
fn a_published_port_leads_to_tasks_here_and_elsewhere_and_back() {
    everywhere(|one, two, family| {
        let asked = from_client(1, family);
        let (action, arrived) = one.uplink(&asked.tcp(5000, PORT_1, b"request"));
        assert_eq!(action, Action::Redirect);
        let arrived = look(&arrived);
        let at_a = Talk { from_mac: GATEWAY_MAC, to_mac: A.mac, from: client(family), to: A.at(family) };
        assert_eq!((arrived.talk, arrived.ports), (at_a, (5000, TARGET)));
        let (action, back) =
            one.task_sends(A, &out_of(A, client(family), family).tcp(TARGET, 5000, b"response"));
        assert_eq!(action, Action::Redirect);
        let back = look(&back);
        assert_eq!((back.talk.from, back.talk.to, back.ports), (asked.to, asked.from, (PORT_1, 5000)));

        let ingress = u32::from_be_bytes(INGRESS_VNI);
        let arrived = look(&across(one, two, one.uplink(&asked.udp(5000, PORT_2, b"request")), ingress));
        let at_c = Talk { to_mac: C.mac, to: C.at(family), ..at_a };
        assert_eq!((arrived.talk, arrived.ports), (at_c, (5000, TARGET)));
        let reply = out_of(C, client(family), family).udp(TARGET, 5000, b"response");
        let back = look(&across(two, one, two.task_sends(C, &reply), u32::from_be_bytes(RETURN_VNI)));
        assert_eq!((back.talk.from, back.talk.to, back.ports), (asked.to, asked.from, (PORT_2, 5000)));

        let arrived = look(&across(one, two, one.uplink(&asked.sctp(5000, PORT_2)), ingress));
        assert_eq!((arrived.talk, arrived.ports), (at_c, (5000, PORT_2)), "SCTP keeps its ports");
    });
}

#[test]
fn a_socket_and_a_task_of_the_node_reach_its_published_ports() {
    everywhere(|one, two, family| {
        let ingress = u32::from_be_bytes(INGRESS_VNI);
        let own = node_address(1, family);
        let asked = Talk { from_mac: HOST_MAC, to_mac: NIC, from: own, to: host_service(family) };
        let arrived =
            look(&across(one, two, one.socket_sends(&asked.tcp(6000, PORT_2, b"request")), ingress));
        assert_eq!((arrived.talk.from, arrived.ports), (own, (6000, TARGET)));
        let reply = out_of(C, own, family).tcp(TARGET, 6000, b"response");
        let back = look(&across(two, one, two.task_sends(C, &reply), u32::from_be_bytes(RETURN_VNI)));
        let expected = Talk { from_mac: GATEWAY_MAC, to_mac: HOST_MAC, from: host_service(family), to: own };
        assert_eq!((back.talk, back.ports), (expected, (PORT_2, 6000)));

        let asked = out_of(B, own, family);
        let arrived =
            look(&across(one, two, one.task_sends(B, &asked.tcp(7000, PORT_2, b"request")), ingress));
        assert_eq!((arrived.talk.from, arrived.ports), (egress_of(B, family), (7000, TARGET)));
        let reply = out_of(C, egress_of(B, family), family).tcp(TARGET, 7000, b"response");
        let back = look(&across(two, one, two.task_sends(C, &reply), u32::from_be_bytes(RETURN_VNI)));
        let expected = Talk { from_mac: GATEWAY_MAC, to_mac: B.mac, from: own, to: B.at(family) };
        assert_eq!((back.talk, back.ports), (expected, (PORT_2, 7000)));
    });
}

#[test]
fn the_gateway_and_vips_answer_pings() {
    everywhere(|one, _, family| {
        for address in [gateway(family), vip(family)] {
            let asked = out_of(A, address, family);
            let (action, answered) = one.task_sends(A, &asked.echo(false, 9));
            assert_eq!(action, Action::Redirect);
            assert_eq!(look(&answered), look(&asked.back().echo(true, 9)));
        }
    });
}

#[test]
fn a_packet_goes_out_with_the_egress_address_and_its_answer_comes_back() {
    everywhere(|one, _, family| {
        let out = out_of(A, client(family), family);
        for packet in [out.tcp(4000, 443, b"get"), out.udp(4000, 53, b"ask"), out.echo(false, 3)] {
            let (action, sent) = one.task_sends(A, &packet);
            assert_eq!(action, Action::Pass, "on to the node's stack");
            assert_eq!(look(&sent).talk, Talk { from: egress_of(A, family), ..out });
        }
        let back = Talk { from_mac: ROUTER, to_mac: A.mac, from: client(family), to: egress_of(A, family) };
        for packet in [back.tcp(443, 4000, b"got"), back.udp(53, 4000, b"told"), back.echo(true, 3)] {
            let (action, arrived) = one.to_task(A, &packet);
            assert_eq!(action, Action::Pass);
            assert_eq!(look(&arrived).talk, Talk { from_mac: GATEWAY_MAC, to: A.at(family), ..back });
        }
    });
}

#[test]
fn what_stands_for_tasks_outside_is_no_way_into_another_network() {
    for family in BOTH {
        for hidden in [egress_of(B, family), host_service(family)] {
            let (node, _) = Node::pair();
            assert_eq!(node.task_sends(A, &out_of(A, hidden, family).udp(1, 2, b"x")).0, Action::Drop);
            assert_eq!(node.drops(), [(DropReason::NoEndpoint, 1)].into());
        }
    }
}

#[test]
fn the_same_checks_hold_over_both_underlays() {
    for underlay in BOTH {
        for family in BOTH {
            let frame = between(C, A, family).udp(1, 2, b"x");
            let forged = Talk { from: client(family), ..between(C, A, family) }.udp(1, 2, b"x");
            for (packet, reason) in [
                (wrap(VNI, &frame, underlay, (9, 1)), DropReason::UnknownSender),
                (wrap(VNI, &frame, underlay, (3, 1)), DropReason::ForgedSource),
                (wrap(VNI, &forged, underlay, (2, 1)), DropReason::ForgedSource),
                (wrap([0, 0, 99, 0], &frame, underlay, (2, 1)), DropReason::UnknownVni),
            ] {
                let (node, _) = Node::pair_over(underlay);
                assert_eq!(node.uplink(&packet).0, Action::Drop);
                assert_eq!(node.drops(), [(reason, 1)].into());
            }
            // A VXLAN packet over the other underlay is not for this data path.
            let (node, _) = Node::pair_over(underlay);
            let other = if underlay == Family::V4 { Family::V6 } else { Family::V4 };
            assert_eq!(node.uplink(&wrap(VNI, &frame, other, (2, 1))).0, Action::Pass);
        }
    }
}

#[test]
fn extension_headers_are_stepped_over() {
    let options = |next: u8, rest: &[u8]| [&[next, 0, 1, 4, 0, 0, 0, 0][..], rest].concat();
    let (one, two) = Node::pair();
    let talk = from_client(1, Family::V6);
    let udp = talk.udp(5000, PORT_2, b"request")[54..].to_vec();
    let ingress = u32::from_be_bytes(INGRESS_VNI);
    for packet in [talk.ip(0, &options(17, &udp)), talk.ip(0, &options(43, &options(60, &options(17, &udp))))]
    {
        let arrived = look(&across(&one, &two, one.uplink(&packet), ingress));
        assert_eq!((arrived.talk.to, arrived.ports), (C.at(Family::V6), (5000, TARGET)));
    }
    // Five are more than the data path walks.
    let five = options(60, &options(60, &options(60, &options(60, &options(17, &udp)))));
    assert_eq!(one.uplink(&talk.ip(60, &five)).0, Action::Pass, "left to the node's stack");
    let from_task = out_of(A, vip(Family::V6), Family::V6).ip(60, &five);
    assert_eq!(one.task_sends(A, &from_task).0, Action::Drop);
    assert_eq!(one.drops(), [(DropReason::Unsupported, 1)].into());
    assert_eq!(one.counted(Counter::Published), 2);
}
