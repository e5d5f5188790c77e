//! Next hops of packets that tc programs send out: remembered for a moment, and followed when they change.

use std::{process::Command, thread::sleep, time::Duration};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    frames::{Talk, look},
    packets::Mac,
    world::{A, Action, BOTH, C, Family, Node, PORT_1, TARGET, client, node_address},
    xdp::{self, GATEWAY, PEER, outside},
};

/// Longer than the kernel's answer is believed.
const STALE: Duration = Duration::from_millis(60);
const OTHER: Mac = [2, 0, 0, 0, 0xfd, 9];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Both nodes, as for XDP. What is remembered is each processor's own, so the test stays on one.
fn nodes(underlay: Family) -> (Node, Node) {
    let mut one = CpuSet::new();
    one.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    xdp::nodes(underlay)
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

fn to_mac((action, packet): (Action, Vec<u8>)) -> Mac {
    assert_eq!(action, Action::Redirect);
    look(&packet).talk.to_mac
}

/// The next packet that is addressed to `mac`. On a busy machine the kernel may have to be asked anew for some.
fn addressed_to(send: impl Fn() -> (Action, Vec<u8>), mac: Mac) -> Vec<u8> {
    let mut sent = (0..100).map(|_| send().1);
    sent.find(|packet| look(packet).talk.to_mac == mac).expect("a packet with the next hop's address")
}

/// What `send` addresses its packets to, when the neighbour at `address` is `at` first and [`OTHER`] then.
fn followed(send: impl Fn() -> (Action, Vec<u8>), address: &str, at: Mac) {
    let (action, first) = send();
    assert_eq!(action, Action::Redirect);
    assert_ne!(
        look(&first).talk.to_mac,
        at,
        "the packet for which the kernel is asked goes by its neighbour"
    );
    let second = addressed_to(&send, at);
    assert_eq!(first[12..], second[12..], "but for the Ethernet addresses they are alike");

    let mac = OTHER.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!("neigh replace {address} lladdr {mac} dev up1"));
    sleep(STALE);
    assert_ne!(to_mac(send()), at);
    addressed_to(&send, OTHER);

    ip(&format!("neigh del {address} dev up1"));
    sleep(STALE);
    for _ in 0..3 {
        assert_ne!(to_mac(send()), OTHER, "one that is not known is left to the kernel");
    }
}

#[test]
fn the_next_hop_to_another_node_is_remembered_and_followed() {
    for underlay in BOTH {
        for family in BOTH {
            let (one, _two) = nodes(underlay);
            let talk = Talk { from_mac: A.mac, to_mac: C.mac, from: A.at(family), to: C.at(family) };
            let packet = talk.udp(4000, 53, b"x");
            followed(|| one.task_sends(A, &packet), &node_address(2, underlay).to_string(), PEER);
        }
    }
}

#[test]
fn the_next_hop_to_a_client_is_remembered_and_followed() {
    for family in BOTH {
        let (one, _two) = nodes(Family::V4);
        let asks = outside(family);
        assert_eq!(one.uplink(&asks.segment((5000, PORT_1), SYN, b"")).0, Action::Redirect);
        let reply = Talk { from_mac: A.mac, to_mac: asks.from_mac, from: A.at(family), to: client(family) };
        let packet = reply.segment((TARGET, 5000), SYN | ACK, b"");
        followed(|| one.task_sends(A, &packet), &node_address(254, family).to_string(), GATEWAY);
    }
}

/// Where the kernel does not forward it does not say the next hop either.
#[test]
fn without_forwarding_the_kernel_addresses_every_packet() {
    let (one, _two) = nodes(Family::V4);
    std::fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "0").unwrap();
    let talk = Talk { from_mac: A.mac, to_mac: C.mac, from: A.at(Family::V4), to: C.at(Family::V4) };
    for _ in 0..3 {
        assert_ne!(to_mac(one.task_sends(A, &talk.udp(4000, 53, b"x"))), PEER);
    }
}
