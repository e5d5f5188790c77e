//! Malformed packets of every kind, at every program, in both families and over both underlays: no task is ever given one.
//! They are dropped and counted; on the uplink what is not the data path's passes to the kernel as it came.

use mesh_abi::{DropReason, GATEWAY_MAC, INGRESS_VNI, NodeConfig, RETURN_VNI, Steering, SteeringKind, Turn};

use crate::{
    dual::{NIC, ROUTER},
    frames::{Talk, look, wrap},
    packets::{Mac, arp},
    world::{
        A, Action, B, BOTH, C, Family, GENERATION, HOST_MAC, Node, PORT_1, PORT_2, SCTP, TARGET, VNI, client,
        egress_of, gateway, host_service, node_address, vip,
    },
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Of `enum xdp_action`.
const XDP_PASS: u32 = 2;

/// Offset of the transport header of packets without options; the kernel lets no program be tried on less.
fn l4(family: Family) -> usize {
    if family == Family::V4 { 34 } else { 54 }
}

fn talk(from_mac: Mac, to_mac: Mac, from: std::net::IpAddr, to: std::net::IpAddr) -> Talk {
    Talk { from_mac, to_mac, from, to }
}

/// What task A may say to all kinds of receivers.
fn of_task(family: Family) -> Vec<Talk> {
    let from = A.at(family);
    let mut all = vec![talk(A.mac, B.mac, from, B.at(family)), talk(A.mac, C.mac, from, C.at(family))];
    let beyond = [vip(family), client(family), node_address(1, family), node_address(2, family)];
    all.extend(beyond.map(|to| talk(A.mac, GATEWAY_MAC, from, to)));
    all
}

fn steered(mut frame: Vec<u8>, kind: SteeringKind) -> Vec<u8> {
    let to = if matches!(kind, SteeringKind::Host) { C } else { A };
    frame[..12].copy_from_slice(&Steering { vni: VNI, ..Steering::to(to.id, GENERATION, kind) }.encode());
    frame
}

/// Frames as another node sends them, to a task of node 1, by VNI.
fn of_peer(family: Family, of: impl Fn(Talk) -> Vec<u8>) -> Vec<([u8; 4], Vec<u8>)> {
    let overlay = talk(C.mac, A.mac, C.at(family), A.at(family));
    let asked = talk(C.mac, A.mac, C.at(family), vip(family));
    let outside = talk(ROUTER, NIC, client(family), node_address(2, family));
    let back = talk(NIC, ROUTER, node_address(1, family), client(family));
    vec![
        (VNI, of(overlay)),
        (INGRESS_VNI, steered(of(asked), SteeringKind::Vip)),
        (INGRESS_VNI, steered(of(outside), SteeringKind::Published)),
        (INGRESS_VNI, steered(of(outside), SteeringKind::Direct)),
        (RETURN_VNI, steered(of(back), SteeringKind::Published)),
    ]
}

/// The packets that the whole story begins with, all well formed.
fn kinds(talk: Talk) -> Vec<Vec<u8>> {
    vec![
        talk.tcp(4000, PORT_1, b"hello"),
        talk.udp(4000, PORT_1, b"hello"),
        talk.sctp(4000, PORT_1),
        talk.echo(false, 7),
    ]
}

/// Runs a packet that must go nowhere.
#[track_caller]
fn counted(node: &Node, what: &str, run: impl FnOnce(&Node) -> Action) {
    let before: u64 = node.drops().values().sum();
    assert_eq!(run(node), Action::Drop, "{what}");
    let after: u64 = node.drops().values().sum();
    assert_eq!(after, before + 1, "{what} is not counted");
}

/// A packet behind an Ethernet header that contradicts itself, sent to every program.
#[track_caller]
fn nowhere(node: &Node, family: Family, what: &str, spoil: impl Fn(&mut Vec<u8>)) {
    let spoiled = |mut packet: Vec<u8>| {
        spoil(&mut packet);
        packet
    };
    for path in of_task(family) {
        for packet in kinds(path).into_iter().map(spoiled) {
            let what = format!("{what}, {family:?}, from a task to {}: {packet:02x?}", path.to);
            counted(node, &what, |node| node.task_sends(A, &packet).0);
        }
    }
    for kind in 0..4 {
        for (vni, packet) in of_peer(family, |path| spoiled(kinds(path).swap_remove(kind))) {
            let outer = wrap(vni, &packet, node.underlay(), (2, 1));
            let what = format!("{what}, {family:?}, in VNI {vni:?}: {packet:02x?}");
            counted(node, &what, |node| node.uplink(&outer).0);
            // The kernel's device has not said from whom it is.
            counted(node, &what, |node| node.run("vxlan", node.uplink, &packet, 0).0);
            assert_eq!(node.uplink_xdp(&outer), (XDP_PASS, outer.clone()), "{what}");
        }
    }
    let to_task = talk(HOST_MAC, A.mac, client(family), egress_of(A, family));
    let by_socket = talk(HOST_MAC, GATEWAY_MAC, node_address(1, family), host_service(family));
    let from_client = talk(ROUTER, NIC, client(family), node_address(1, family));
    for kind in 0..4 {
        let packet = spoiled(kinds(to_task).swap_remove(kind));
        counted(node, what, |node| node.to_task(A, &packet).0);
        // What sockets send anywhere else than to the data path ends in the link, so it is no loss.
        let packet = spoiled(kinds(by_socket).swap_remove(kind));
        assert_eq!(node.socket_sends(&packet).0, Action::Drop, "{what}, from a socket: {packet:02x?}");
        // The kernel knows what to do with what comes from outside, and counts it.
        let packet = spoiled(kinds(from_client).swap_remove(kind));
        let what = format!("{what}, from a client: {packet:02x?}");
        assert_eq!(node.uplink(&packet), (Action::Pass, packet.clone()), "{what}");
        assert_eq!(node.uplink_xdp(&packet), (XDP_PASS, packet), "{what}");
    }
}

/// Tells the story in every family, over every underlay.
fn everywhere(story: impl Fn(&Node, Family)) {
    for underlay in BOTH {
        let (node, _) = Node::pair_over(underlay);
        for family in BOTH {
            story(&node, family);
        }
    }
}

#[test]
fn packets_that_end_too_early() {
    everywhere(|node, family| {
        // To one byte less than the shortest of the kinds has. Packets that end within the IP header are tried inside
        // VXLAN alone, below.
        let whole = kinds(of_task(family)[0]).iter().map(Vec::len).min().unwrap();
        for len in l4(family)..whole {
            nowhere(node, family, &format!("{len} bytes"), |packet| packet.truncate(len));
        }
    });
}

#[test]
fn headers_that_contradict_themselves() {
    everywhere(|node, family| {
        for version in (0..16).filter(|v| *v != if family == Family::V4 { 4 } else { 6 }) {
            nowhere(node, family, "version", |packet| packet[14] = packet[14] & 0x0f | version << 4);
        }
        if family == Family::V4 {
            for words in 0..5 {
                nowhere(node, family, "header length", |packet| packet[14] = 0x40 | words);
            }
            for total in (0..20).chain([0x100, 0x7fff, 0xffff]) {
                nowhere(node, family, "total length", |packet| {
                    packet[16..18].copy_from_slice(&u16::to_be_bytes(total));
                });
            }
            // Options up to the end of the packet or beyond leave no room for what follows.
            nowhere(node, family, "options", |packet| packet[14] = 0x4f);
        } else {
            for len in [0x100u16, 0x7fff, 0xffff] {
                nowhere(node, family, "payload length", |packet| {
                    packet[18..20].copy_from_slice(&len.to_be_bytes());
                });
            }
        }
        // The IP header says honestly that there is less than a transport header.
        for len in 0..8u16 {
            nowhere(node, family, "no transport header", |packet| shorten(packet, family, len));
        }
    });
}

/// Lets the IP header claim that so many bytes follow it.
fn shorten(packet: &mut Vec<u8>, family: Family, len: u16) {
    let total = if family == Family::V4 { len + 20 } else { len };
    let at = if family == Family::V4 { 16 } else { 18 };
    packet[at..at + 2].copy_from_slice(&total.to_be_bytes());
    packet.truncate(l4(family) + usize::from(len));
}

/// A packet from a task, and the same to a task, that must go nowhere.
#[track_caller]
fn refused(node: &Node, family: Family, what: &str, of: impl Fn(Talk) -> Vec<u8>) {
    for path in of_task(family) {
        let packet = of(path);
        counted(node, &format!("{what} to {}: {packet:02x?}", path.to), |node| node.task_sends(A, &packet).0);
    }
    for (vni, packet) in of_peer(family, of) {
        let outer = wrap(vni, &packet, node.underlay(), (2, 1));
        counted(node, &format!("{what} in VNI {vni:?}: {packet:02x?}"), |node| node.uplink(&outer).0);
    }
}

#[test]
fn transport_headers_that_contradict_themselves() {
    everywhere(|node, family| {
        let l4 = l4(family);
        for words in (0..5).chain([7, 15]) {
            refused(node, family, "TCP data offset", |path| {
                let mut packet = path.tcp(4000, PORT_1, b"hello");
                packet[l4 + 12] = words << 4;
                packet
            });
        }
        for len in (0..8).chain([14, 255, 0xffff]) {
            refused(node, family, "UDP length", |path| {
                let mut packet = path.udp(4000, PORT_1, b"hello");
                packet[l4 + 4..l4 + 6].copy_from_slice(&u16::to_be_bytes(len));
                packet
            });
        }
        for (protocol, least) in [(TCP, 20), (UDP, 8), (SCTP, 12), (icmp(family), 8)] {
            for len in 0..least {
                refused(node, family, "short header", |path| path.ip(protocol, &vec![0x50; len]));
            }
        }
    });
}

fn icmp(family: Family) -> u8 {
    if family == Family::V4 { 1 } else { 58 }
}

/// An extension header of IPv6 that claims so many units of eight bytes beyond its first.
fn extension(next: u8, units: u8) -> [u8; 8] {
    [next, units, 0, 0, 0, 0, 0, 0]
}

#[test]
fn chains_of_extension_headers() {
    for underlay in BOTH {
        let (node, _) = Node::pair_over(underlay);
        let udp = |path: Talk| path.udp(4000, PORT_1, b"hello")[54..].to_vec();
        for kind in [0, 43, 60, 44] {
            // Beyond the packet, by one unit and by as much as the field can say.
            for units in [3, 31, 255] {
                if kind != 44 {
                    let of = |path: Talk| path.ip(kind, &[&extension(UDP, units)[..], &udp(path)].concat());
                    refused(&node, Family::V6, "a long extension header", of);
                }
            }
            // Cut off within, and with nothing behind.
            for len in 0..8 {
                let of = |path: Talk| path.ip(kind, &extension(UDP, 0)[..len]);
                refused(&node, Family::V6, "half an extension header", of);
            }
            refused(&node, Family::V6, "nothing behind", |path| path.ip(kind, &extension(UDP, 0)));
            for count in 4..10 {
                let chain = [extension(kind, 0)[..].repeat(count), extension(UDP, 0).to_vec()].concat();
                let of = |path: Talk| path.ip(kind, &[&chain[..], &udp(path)].concat());
                refused(&node, Family::V6, "a long chain", of);
            }
            let endless = extension(kind, 0).repeat(150);
            refused(&node, Family::V6, "an endless chain", |path| path.ip(kind, &endless));
        }
    }
}

#[test]
fn vxlan_headers_that_contradict_themselves() {
    everywhere(|node, family| {
        let underlay = node.underlay();
        let frame = talk(C.mac, A.mac, C.at(family), A.at(family)).udp(4000, TARGET, b"hello");
        let whole = wrap(VNI, &frame, underlay, (2, 1));
        let vxlan = l4(underlay) + 8;
        // All flags but the one that says that there is a VNI; with it, others mean nothing (RFC 7348, section 5).
        let mut packet = whole.clone();
        packet[vxlan] = !0x08;
        counted(node, "no VNI", |node| node.uplink(&packet).0);
        packet[vxlan..vxlan + 4].fill(0xff);
        packet[vxlan + 7] = 0xff;
        let (action, arrived) = node.uplink(&packet);
        assert_eq!((action, &arrived[12..]), (Action::Redirect, &frame[12..]));
        // Outer headers that end anywhere pass as they came: the kernel has the last word. Whatever is cut further
        // behind contradicts the outer lengths as well.
        for len in l4(underlay)..whole.len() {
            let cut = &whole[..len];
            assert_eq!(node.uplink(cut), (Action::Pass, cut.to_vec()), "{len} bytes");
            assert_eq!(node.uplink_xdp(cut), (XDP_PASS, cut.to_vec()), "{len} bytes");
        }
        // The inner frame ends too early, and the outer lengths are right.
        for len in 0..frame.len() {
            let outer = wrap(VNI, &frame[..len], underlay, (2, 1));
            counted(node, &format!("{len} bytes inside"), |node| node.uplink(&outer).0);
        }
        for kind in [[0x81, 0x00], [0x88, 0xa8], [0x08, 0x06], [0x88, 0xcc], [0, 0]] {
            let mut odd = frame.clone();
            odd[12..14].copy_from_slice(&kind);
            let outer = wrap(VNI, &odd, underlay, (2, 1));
            counted(node, &format!("EtherType {kind:02x?}"), |node| node.uplink(&outer).0);
            counted(node, "from a task", |node| {
                odd[6..12].copy_from_slice(&A.mac);
                // ARP is answered, if it is ARP.
                node.task_sends(A, &odd).0
            });
        }
    });
}

#[test]
fn vxlan_within_vxlan_is_data_and_no_way_in() {
    everywhere(|node, family| {
        let underlay = node.underlay();
        let hidden = talk(C.mac, B.mac, C.at(family), B.at(family)).udp(4000, TARGET, b"hidden");
        let nested = wrap(VNI, &hidden, underlay, (2, 1));
        // Outermost from a peer, inside once more: nobody in the network has those addresses.
        let outer = wrap(VNI, &nested, underlay, (2, 1));
        counted(node, "nested", |node| node.uplink(&outer).0);
        for kind in [SteeringKind::Published, SteeringKind::Direct, SteeringKind::Host, SteeringKind::Vip] {
            let mut frame = steered(nested.clone(), kind);
            // To no task of this node, and refused already: else it would be sent back.
            if matches!(kind, SteeringKind::Host) {
                frame[10] |= (Turn::Refused as u8) << 2;
            }
            let outer = wrap(INGRESS_VNI, &frame, underlay, (2, 1));
            counted(node, &format!("nested, {kind:?}"), |node| node.uplink(&outer).0);
        }
        // Between tasks it is what they say to each other.
        let vxlan = &nested[l4(underlay) + 8..];
        let data = talk(C.mac, A.mac, C.at(family), A.at(family)).udp(4789, 4789, vxlan);
        let (action, arrived) = node.uplink(&wrap(VNI, &data, underlay, (2, 1)));
        assert_eq!((action, arrived), (Action::Redirect, data));
        // A task that plays a node speaks to the node's stack with its egress address, which is no peer's.
        let forged =
            talk(A.mac, GATEWAY_MAC, A.at(underlay), node_address(1, underlay)).udp(4789, 4789, vxlan);
        let (action, sent) = node.task_sends(A, &forged);
        assert_eq!((action, look(&sent).talk.from), (Action::Pass, egress_of(A, underlay)));
        let mut forged = forged;
        let as_peer = talk(A.mac, GATEWAY_MAC, node_address(2, underlay), node_address(1, underlay));
        forged.splice(.., as_peer.udp(4789, 4789, vxlan));
        counted(node, "a node's address", |node| node.task_sends(A, &forged).0);
    });
}

#[test]
fn odd_questions_for_neighbours() {
    let (node, _) = Node::pair();
    let good = arp(1, (A.mac, A.address), ([0; 6], C.address), [0xff; 6]);
    assert_eq!(node.task_sends(A, &good).0, Action::Redirect);
    for len in 15..good.len() {
        counted(&node, "half an ARP packet", |node| node.task_sends(A, &good[..len]).0);
    }
    // Hardware and protocol, their lengths, the operation: nothing but IPv4 over Ethernet is answered.
    for at in 14..22 {
        for value in [0, 1, 2, 6, 7, 0xff] {
            let mut odd = good.clone();
            if odd[at] == value {
                continue;
            }
            odd[at] = value;
            assert_eq!(node.task_sends(A, &odd).0, Action::Drop, "{odd:02x?}");
        }
    }
    let solicited = |hop_limit: u8, target: std::net::IpAddr| {
        let std::net::IpAddr::V6(target) = target else { unreachable!() };
        let mut packet = talk(A.mac, [0x33, 0x33, 0xff, 0, 0, 1], A.at(Family::V6), gateway(Family::V6))
            .icmp(135, 0, [0; 4], &[&[0; 14][..], &target.octets(), &[1, 1], &A.mac].concat());
        packet[21] = hop_limit;
        packet
    };
    let good = solicited(255, C.at(Family::V6));
    assert_eq!(node.task_sends(A, &good).0, Action::Redirect);
    counted(&node, "passed on by a router", |node| node.task_sends(A, &solicited(254, C.at(Family::V6))).0);
    let multicast = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into();
    counted(&node, "for everybody's address", |node| node.task_sends(A, &solicited(255, multicast)).0);
    for len in 54..good.len() {
        counted(&node, "half a solicitation", |node| node.task_sends(A, &good[..len]).0);
    }
    // A solicitation whose IP header honestly says that it ends before its target does.
    for len in 0..24 {
        let mut odd = good.clone();
        shorten(&mut odd, Family::V6, len);
        counted(&node, "a solicitation for nobody", |node| node.task_sends(A, &odd).0);
    }
    // Behind an extension header, which no neighbour sends.
    let behind = [&extension(58, 0)[..], &good[54..]].concat();
    let mut odd = talk(A.mac, GATEWAY_MAC, A.at(Family::V6), gateway(Family::V6)).ip(0, &behind);
    odd[21] = 255;
    counted(&node, "behind options", |node| node.task_sends(A, &odd).0);
    // Advertisements of tasks, router advertisements and redirects convince nobody.
    for kind in [133, 134, 136, 137] {
        let mut odd = good.clone();
        odd[54] = kind;
        assert_eq!(node.task_sends(A, &odd).0, Action::Drop, "type {kind}");
    }
}

#[test]
fn every_byte_of_the_headers_changed() {
    everywhere(|node, family| {
        let headers = l4(family) + 20;
        for flip in [0x01, 0x10, 0x80, 0xff] {
            for at in 12..headers {
                for path in of_task(family) {
                    for mut packet in kinds(path) {
                        if let Some(byte) = packet.get_mut(at) {
                            *byte ^= flip;
                        }
                        let (action, out) = node.task_sends(A, &packet);
                        if action == Action::Redirect && out.len() == packet.len() && out[..6] == B.mac {
                            is_whole(&out, &[B]);
                        }
                    }
                }
                for kind in 0..4 {
                    let spoiled = |path| {
                        let mut packet = kinds(path).swap_remove(kind);
                        if let Some(byte) = packet.get_mut(at) {
                            *byte ^= flip;
                        }
                        packet
                    };
                    for (vni, packet) in of_peer(family, spoiled) {
                        let (action, out) = node.uplink(&wrap(vni, &packet, node.underlay(), (2, 1)));
                        if action == Action::Redirect {
                            assert!(vni != RETURN_VNI, "nobody asked: {packet:02x?}");
                            is_whole(&out, &[A, B]);
                        }
                        assert_ne!(action, Action::Pass, "{packet:02x?}");
                    }
                }
            }
        }
        assert!(!node.drops().contains_key(&DropReason::HelperFailed), "{:?}", node.drops());
    });
}

/// What a task was given is a packet for it, and as long as it says.
#[track_caller]
fn is_whole(frame: &[u8], tasks: &[crate::world::Task]) {
    let (start, to): (usize, std::net::IpAddr) = match frame[12..14] {
        [0x08, 0x00] => {
            let header = usize::from(frame[14] & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            assert!(frame[14] >> 4 == 4 && header >= 20 && total >= header && total + 14 <= frame.len());
            (14 + header, <[u8; 4]>::try_from(&frame[30..34]).unwrap().into())
        }
        [0x86, 0xdd] => {
            let payload = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            assert!(frame[14] >> 4 == 6 && payload + 54 <= frame.len());
            (54, <[u8; 16]>::try_from(&frame[38..54]).unwrap().into())
        }
        _ => panic!("no IP: {frame:02x?}"),
    };
    assert!(start <= frame.len());
    let known = tasks.iter().any(|task| frame[..6] == task.mac && BOTH.iter().any(|f| task.at(*f) == to));
    assert!(known, "another's packet: {frame:02x?}");
}

#[test]
fn without_a_configuration_nothing_is_touched() {
    for family in BOTH {
        let (mut node, _) = Node::pair();
        node.configure(|config| *config = NodeConfig::default());
        let packet = talk(ROUTER, NIC, client(family), node_address(1, family)).tcp(1, 22, b"x");
        for len in l4(family)..=packet.len() {
            let cut = &packet[..len];
            assert_eq!(node.uplink(cut), (Action::Pass, cut.to_vec()));
            assert_eq!(node.uplink_xdp(cut), (XDP_PASS, cut.to_vec()));
        }
    }
}

#[test]
fn options_and_empty_datagrams_are_no_error() {
    let (one, two) = Node::pair();
    let path = talk(A.mac, GATEWAY_MAC, A.at(Family::V4), vip(Family::V4));
    for words in 1..=10 {
        let mut packet = path.udp(4000 + words, 53, b"");
        let options = vec![1; usize::from(words) * 4];
        packet.splice(34..34, options);
        packet[14] = 0x45 + words as u8;
        let total = (packet.len() - 14) as u16;
        packet[16..18].copy_from_slice(&total.to_be_bytes());
        packet[24..26].fill(0);
        let header = 34 + usize::from(words) * 4;
        let sum = !crate::packets::sum(&[&packet[14..header]]);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
        let (action, outer) = one.task_sends(A, &packet);
        assert_eq!(action, Action::Redirect, "{words} words of options");
        let (action, mut arrived) = two.uplink(&outer);
        assert_eq!(action, Action::Redirect, "{words} words of options: {:?}", two.drops());
        assert_eq!(crate::packets::sum(&[&arrived[14..header]]), 0xffff);
        // Without its options it is a packet as any other.
        arrived.drain(34..header);
        arrived[14] = 0x45;
        arrived[16..18].copy_from_slice(&28u16.to_be_bytes());
        arrived[24..26].fill(0);
        let sum = !crate::packets::sum(&[&arrived[14..34]]);
        arrived[24..26].copy_from_slice(&sum.to_be_bytes());
        let arrived = look(&arrived);
        assert_eq!((arrived.talk.to, arrived.ports), (C.at(Family::V4), (4000 + words, 53)));
    }
    // Nothing in it, or nothing known: between tasks all the same.
    for family in BOTH {
        let path = talk(A.mac, C.mac, A.at(family), C.at(family));
        for packet in [path.udp(1, PORT_2, b""), path.ip(59, b""), path.ip(51, &[0; 3]), path.ip(253, b"?")] {
            let (action, outer) = one.task_sends(A, &packet);
            assert_eq!((action, two.uplink(&outer)), (Action::Redirect, (Action::Redirect, packet)));
        }
    }
    assert!(one.drops().is_empty() && two.drops().is_empty());
}
