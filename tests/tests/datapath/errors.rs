//! ICMP errors follow the flow that they are about, and quote to each side the packet that it sent.

use std::net::IpAddr;

use mesh_abi::{Counter, INGRESS_VNI, RETURN_VNI};

use crate::{
    dual::{NIC, ROUTER, across, everywhere, from_client, out_of},
    frames::{Talk, look},
    packets::sum,
    world::{
        A, Action, B, C, Family, HOST_MAC, Node, PORT_1, PORT_2, TARGET, VNI_NUMBER, client, egress_of,
        host_service, node_address, vip,
    },
};

/// A router somewhere on the way.
fn router(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 51, 100, 1].into(),
        Family::V6 => [0x20, 1, 0xd, 0xb8, 0, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into(),
    }
}

/// "Port unreachable", and "too big" with an MTU of 1280, about a packet.
fn complaints(talk: Talk, about: &[u8]) -> [Vec<u8>; 2] {
    match talk.family() {
        Family::V4 => [talk.icmp(3, 3, [0; 4], about), talk.icmp(3, 4, [0, 0, 5, 0], about)],
        Family::V6 => [talk.icmp(1, 4, [0; 4], about), talk.icmp(2, 0, [0, 0, 5, 0], about)],
    }
}

/// The error arrived between these, says what `sent` said, and quotes `about`.
#[track_caller]
fn quotes(arrived: &[u8], sent: &[u8], (from, to): (IpAddr, IpAddr), about: &[u8]) {
    let (arrived, sent) = (look(arrived), look(sent));
    assert_eq!((arrived.talk.from, arrived.talk.to), (from, to));
    assert_eq!(arrived.payload[..2], sent.payload[..2], "type and code");
    assert_eq!(arrived.payload[4..8], sent.payload[4..8], "the word after the checksum");
    let quoted = &arrived.payload[8..];
    assert_eq!(quoted, &about[14..14 + quoted.len()], "the quoted packet as it was sent");
    if from.is_ipv4() {
        assert_eq!(sum(&[&quoted[..20]]), 0xffff);
    }
}

#[test]
fn from_a_task_to_the_client_of_a_vip() {
    everywhere(|one, two, family| {
        let asked = out_of(A, vip(family), family);
        for sent in [asked.udp(4000, 53, b"ask"), asked.tcp(4001, 80, b"request")] {
            let arrived = across(one, two, one.task_sends(A, &sent), u32::from_be_bytes(INGRESS_VNI));
            let back = Talk { from_mac: C.mac, to_mac: A.mac, from: C.at(family), to: A.at(family) };
            for error in complaints(back, &arrived) {
                let told = across(two, one, two.task_sends(C, &error), VNI_NUMBER);
                quotes(&told, &error, (vip(family), A.at(family)), &sent);
            }
        }
        assert!(two.counted(Counter::FlowError) >= 4);
    });
}

#[test]
fn from_the_client_of_a_vip_to_the_task() {
    everywhere(|one, two, family| {
        let asked = out_of(A, vip(family), family);
        across(one, two, one.task_sends(A, &asked.udp(4000, 53, b"ask")), u32::from_be_bytes(INGRESS_VNI));
        let reply = out_of(C, A.at(family), family).udp(53, 4000, b"told");
        let arrived = across(two, one, two.task_sends(C, &reply), VNI_NUMBER);
        for error in complaints(asked, &arrived) {
            let told = across(one, two, one.task_sends(A, &error), u32::from_be_bytes(INGRESS_VNI));
            quotes(&told, &error, (A.at(family), C.at(family)), &reply);
        }
    });
}

#[test]
fn from_a_task_to_the_client_of_a_published_port() {
    everywhere(|one, two, family| {
        let asked = from_client(1, family);
        let sent = asked.udp(5000, PORT_2, b"request");
        let arrived = across(one, two, one.uplink(&sent), u32::from_be_bytes(INGRESS_VNI));
        for error in complaints(out_of(C, client(family), family), &arrived) {
            let told = across(two, one, two.task_sends(C, &error), u32::from_be_bytes(RETURN_VNI));
            quotes(&told, &error, (asked.to, asked.from), &sent);
        }
        let sent = asked.tcp(5000, PORT_1, b"request");
        let arrived = one.uplink(&sent).1;
        for error in complaints(out_of(A, client(family), family), &arrived) {
            let (action, told) = one.task_sends(A, &error);
            assert_eq!(action, Action::Redirect);
            quotes(&told, &error, (asked.to, asked.from), &sent);
        }
    });
}

#[test]
fn from_the_world_to_the_task_behind_a_published_port() {
    everywhere(|one, two, family| {
        let asked = from_client(1, family);
        across(one, two, one.uplink(&asked.udp(5000, PORT_2, b"request")), u32::from_be_bytes(INGRESS_VNI));
        let reply = out_of(C, client(family), family).udp(TARGET, 5000, b"response");
        let back = across(two, one, two.task_sends(C, &reply), u32::from_be_bytes(RETURN_VNI));
        let from_router = Talk { from_mac: ROUTER, to_mac: NIC, from: router(family), to: asked.to };
        for error in complaints(from_router, &back) {
            let told = across(one, two, one.uplink(&error), u32::from_be_bytes(INGRESS_VNI));
            quotes(&told, &error, (router(family), C.at(family)), &reply);
        }
        one.uplink(&asked.tcp(5000, PORT_1, b"request"));
        let reply = out_of(A, client(family), family).tcp(TARGET, 5000, b"response");
        let back = one.task_sends(A, &reply).1;
        for error in complaints(from_router, &back) {
            let (action, told) = one.uplink(&error);
            assert_eq!(action, Action::Redirect);
            quotes(&told, &error, (router(family), A.at(family)), &reply);
        }
        // About something of the node's own they are the node's.
        let own = asked.back().tcp(22, 22, b"ssh");
        for error in complaints(from_router, &own) {
            assert_eq!(one.uplink(&error), (Action::Pass, error));
        }
    });
}

#[test]
fn between_a_socket_of_the_node_and_a_task() {
    everywhere(|one, two, family| {
        let own = node_address(1, family);
        let asked = Talk { from_mac: HOST_MAC, to_mac: NIC, from: own, to: host_service(family) };
        let sent = asked.udp(6000, PORT_2, b"request");
        let arrived = across(one, two, one.socket_sends(&sent), u32::from_be_bytes(INGRESS_VNI));
        for error in complaints(out_of(C, own, family), &arrived) {
            let told = across(two, one, two.task_sends(C, &error), u32::from_be_bytes(RETURN_VNI));
            quotes(&told, &error, (host_service(family), own), &sent);
        }
        let reply = out_of(C, own, family).udp(TARGET, 6000, b"response");
        let back = across(two, one, two.task_sends(C, &reply), u32::from_be_bytes(RETURN_VNI));
        for error in complaints(asked, &back) {
            let told = across(one, two, one.socket_sends(&error), u32::from_be_bytes(INGRESS_VNI));
            quotes(&told, &error, (own, C.at(family)), &reply);
        }
    });
}

#[test]
fn between_a_task_and_a_published_port_of_its_own_node() {
    everywhere(|one, two, family| {
        let own = node_address(1, family);
        let asked = out_of(B, own, family);
        let sent = asked.udp(7000, PORT_2, b"request");
        let arrived = across(one, two, one.task_sends(B, &sent), u32::from_be_bytes(INGRESS_VNI));
        for error in complaints(out_of(C, egress_of(B, family), family), &arrived) {
            let told = across(two, one, two.task_sends(C, &error), u32::from_be_bytes(RETURN_VNI));
            quotes(&told, &error, (own, B.at(family)), &sent);
        }
        let reply = out_of(C, egress_of(B, family), family).udp(TARGET, 7000, b"response");
        let back = across(two, one, two.task_sends(C, &reply), u32::from_be_bytes(RETURN_VNI));
        for error in complaints(asked, &back) {
            let told = across(one, two, one.task_sends(B, &error), u32::from_be_bytes(INGRESS_VNI));
            quotes(&told, &error, (egress_of(B, family), C.at(family)), &reply);
        }
    });
}

#[test]
fn about_packets_that_left_by_the_egress_address() {
    everywhere(|one, _, family| {
        let out = out_of(A, client(family), family);
        for packet in [out.tcp(4000, 443, b"get"), out.udp(4000, 53, b"ask"), out.echo(false, 3)] {
            let sent = one.task_sends(A, &packet).1;
            let back =
                Talk { from_mac: ROUTER, to_mac: A.mac, from: router(family), to: egress_of(A, family) };
            for error in complaints(back, &sent) {
                let (action, told) = one.to_task(A, &error);
                assert_eq!(action, Action::Pass);
                quotes(&told, &error, (router(family), A.at(family)), &packet);
            }
        }
        // And the other way.
        let answer = Talk { from_mac: ROUTER, to_mac: A.mac, from: client(family), to: egress_of(A, family) };
        let answer = answer.udp(53, 4000, b"told");
        let arrived = one.to_task(A, &answer).1;
        for error in complaints(out, &arrived) {
            let (action, told) = one.task_sends(A, &error);
            assert_eq!(action, Action::Pass);
            quotes(&told, &error, (egress_of(A, family), client(family)), &answer);
        }
    });
}

#[test]
fn between_tasks_untouched() {
    everywhere(|one, two, family| {
        let sent = Talk { from_mac: A.mac, to_mac: C.mac, from: A.at(family), to: C.at(family) };
        let arrived = across(one, two, one.task_sends(A, &sent.udp(1, 2, b"x")), VNI_NUMBER);
        for error in complaints(sent.back(), &arrived) {
            assert_eq!(across(two, one, two.task_sends(C, &error), VNI_NUMBER), error);
        }
    });
}

#[test]
fn from_the_second_of_two_flows_that_look_the_same() {
    let family = Family::V4;
    let (one, two) = Node::pair();
    // One client port, through both nodes, to one task.
    let through_one = from_client(1, family).udp(5000, PORT_2, b"one");
    across(&one, &two, one.uplink(&through_one), u32::from_be_bytes(INGRESS_VNI));
    let through_two = from_client(2, family).udp(5000, PORT_2, b"two");
    let arrived = two.uplink(&through_two).1;
    assert_ne!(look(&arrived).ports.0, 5000);
    for error in complaints(out_of(C, client(family), family), &arrived) {
        let told = two.task_sends(C, &error).1;
        quotes(&told, &error, (node_address(2, family), client(family)), &through_two);
    }
    let reply = out_of(C, client(family), family).udp(TARGET, look(&arrived).ports.0, b"told");
    let back = two.task_sends(C, &reply).1;
    assert_eq!(look(&back).talk.from, node_address(2, family));
    let from_router =
        Talk { from_mac: ROUTER, to_mac: NIC, from: router(family), to: node_address(2, family) };
    for error in complaints(from_router, &back) {
        let told = two.uplink(&error).1;
        quotes(&told, &error, (router(family), C.at(family)), &reply);
    }
}
