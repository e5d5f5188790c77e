//! Packets that the underlay does not carry whole: the sender is told how large they may be.

use std::net::IpAddr;

use mesh_abi::{Counter, DropReason};

use crate::{
    dual::{across, from_client, out_of},
    frames::{Talk, fragments, look},
    world::{
        A, Action, B, BOTH, C, Family, HOST_MAC, INNER_MTU, Node, PORT_1, PORT_2, Task, VNI_NUMBER, gateway,
        host_service, node_address, vip,
    },
};

fn between(from: Task, to: Task, family: Family) -> Talk {
    Talk { from_mac: from.mac, to_mac: to.mac, from: from.at(family), to: to.at(family) }
}

/// So much UDP payload that the packet is larger than the underlay carries by `by` bytes.
fn payload(family: Family, by: usize) -> Vec<u8> {
    let headers = if family == Family::V4 { 28 } else { 48 };
    vec![7; INNER_MTU as usize - headers + by]
}

/// The message tells the right thing about `sent`.
#[track_caller]
fn tells(message: &[u8], (from, to): (IpAddr, IpAddr), sent: &[u8]) {
    let message = look(message);
    assert_eq!((message.talk.from, message.talk.to), (from, to));
    let expected: &[u8] = if from.is_ipv4() { &[3, 4] } else { &[2, 0] };
    assert_eq!(&message.payload[..2], expected);
    assert_eq!(u32::from_be_bytes(message.payload[4..8].try_into().unwrap()), INNER_MTU);
    let quoted = &message.payload[8..];
    assert_eq!(quoted.len(), if from.is_ipv4() { 48 } else { 68 });
    assert_eq!(quoted, &sent[14..14 + quoted.len()]);
}

#[test]
fn for_tasks_that_send_to_tasks_and_vips() {
    for underlay in BOTH {
        for family in BOTH {
            let (one, two) = Node::pair_over(underlay);
            let fits = between(A, C, family).udp(1, 2, &payload(family, 0));
            assert_eq!(across(&one, &two, one.task_sends(A, &fits), VNI_NUMBER), fits);
            for talk in [between(A, C, family), out_of(A, vip(family), family)] {
                let sent = talk.udp(1, 2, &payload(family, 1));
                let (action, told) = one.task_sends(A, &sent);
                assert_eq!(action, Action::Redirect);
                tells(&told, (gateway(family), A.at(family)), &sent);
            }
            // Here nothing is too big.
            let local = between(A, B, family).udp(1, 2, &payload(family, 1));
            assert_eq!(one.task_sends(A, &local), (Action::Redirect, local));
            assert_eq!(one.counted(Counter::TooBigAnswered), 2);
            assert!(one.drops().is_empty());
        }
    }
}

#[test]
fn for_tasks_that_answer_they_quote_the_answer_as_it_was_sent() {
    for family in BOTH {
        let (one, two) = Node::pair();
        let asked = out_of(A, vip(family), family).udp(4000, 53, b"ask");
        across(&one, &two, one.task_sends(A, &asked), 1);
        let reply = between(C, A, family).udp(53, 4000, &payload(family, 1));
        tells(&two.task_sends(C, &reply).1, (gateway(family), C.at(family)), &reply);

        let asked = from_client(1, family);
        across(&one, &two, one.uplink(&asked.udp(5000, PORT_2, b"ask")), 1);
        let reply = out_of(C, asked.from, family).udp(80, 5000, &payload(family, 1));
        tells(&two.task_sends(C, &reply).1, (gateway(family), C.at(family)), &reply);

        // A published port of the own node, from behind the egress address.
        let sent = out_of(B, node_address(1, family), family).udp(7000, PORT_2, &payload(family, 1));
        tells(&one.task_sends(B, &sent).1, (gateway(family), B.at(family)), &sent);
    }
}

#[test]
fn for_clients_and_sockets_the_address_that_they_spoke_to_speaks() {
    for family in BOTH {
        let (one, _) = Node::pair();
        let asked = from_client(1, family);
        let sent = asked.udp(5000, PORT_2, &payload(family, 1));
        tells(&one.uplink(&sent).1, (asked.to, asked.from), &sent);
        let to_own_task = asked.udp(5000, PORT_1, &payload(family, 1));
        assert_eq!(look(&one.uplink(&to_own_task).1).talk.to, A.at(family), "fits into this node");
        let own = node_address(1, family);
        let socket = Talk { from_mac: HOST_MAC, to_mac: [2; 6], from: own, to: host_service(family) };
        let sent = socket.tcp(5000, PORT_2, &payload(family, 1));
        let (_, told) = one.socket_sends(&sent);
        tells(&told, (host_service(family), own), &sent);
        assert_eq!(look(&told).talk.to_mac, HOST_MAC);
        assert_eq!(one.counted(Counter::TooBigAnswered), 2);
    }
}

#[test]
fn a_packet_that_is_still_to_be_segmented_counts_by_its_segments() {
    for family in BOTH {
        let (node, _) = Node::pair();
        let sent = between(A, C, family).tcp(1, 2, &vec![7; 3000]);
        let headers = if family == Family::V4 { 40 } else { 60 };
        let (action, told) = node.run("from_task", node.interface_of(A), &sent, INNER_MTU - headers + 1);
        assert_eq!(action, Action::Redirect);
        tells(&told, (gateway(family), A.at(family)), &sent);
    }
}

#[test]
fn a_packet_that_may_be_cut_is_left_to_the_vxlan_device() {
    let (node, _) = Node::pair();
    let mut sent = between(A, C, Family::V4).udp(1, 2, &payload(Family::V4, 1));
    sent[20] &= !0x40;
    crate::frames::checksum4(&mut sent);
    assert_eq!(node.task_sends(A, &sent), (Action::Redirect, sent));
    assert_eq!(node.counted(Counter::GeneralSent), 1);
}

#[test]
fn about_errors_and_later_fragments_there_is_no_error() {
    for family in BOTH {
        let (node, _) = Node::pair();
        let about = between(C, A, family).udp(1, 2, &[7; 2000]);
        let mut error = between(A, C, family).icmp(3, 3, [0; 4], &about);
        if family == Family::V6 {
            error = between(A, C, family).icmp(1, 4, [0; 4], &about);
        }
        // Larger than any that a host sends.
        let message = [look(&error).payload, vec![0; 1000]].concat();
        let packet = between(A, C, family).ip(if family == Family::V4 { 1 } else { 58 }, &message);
        assert_eq!(node.task_sends(A, &packet).0, Action::Drop);
        let later = &fragments(&between(A, C, Family::V6).udp(1, 2, &[7; 4000]), 1, 1480)[1];
        assert_eq!(node.task_sends(A, later).0, Action::Drop);
        assert_eq!(node.drops()[&DropReason::TooBig], 1);
    }
}
