//! Packets of either family: built, taken apart, checked.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, PacketBuilderStep};

use crate::{
    packets::{Mac, array, sum},
    world::{Family, node_address},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const FRAGMENT: u8 = 44;

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    pub from_mac: Mac,
    pub to_mac: Mac,
    pub from: IpAddr,
    pub to: IpAddr,
}

impl Talk {
    pub fn family(&self) -> Family {
        if self.from.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The same the other way.
    pub fn back(self) -> Self {
        Self { from_mac: self.to_mac, to_mac: self.from_mac, from: self.to, to: self.from }
    }

    fn builder(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.from_mac, self.to_mac);
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets()).unwrap();
                header.dont_fragment = true;
                ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: IpNumber::UDP,
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                };
                ethernet.ip(etherparse::IpHeaders::Ipv6(header, Default::default()))
            }
            _ => panic!("one family each"),
        }
    }

    pub fn udp(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        self.builder().udp(from, to).write(&mut packet, payload).unwrap();
        packet
    }

    pub fn tcp(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        self.builder().tcp(from, to, 1000, 4000).ack(7).write(&mut packet, payload).unwrap();
        packet
    }

    /// A TCP segment with these bits of the flag byte; its sequence number is 1000, that which it acknowledges 7.
    pub fn segment(&self, (from, to): (u16, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.tcp(from, to, payload);
        let l4 = if self.family() == Family::V4 { 34 } else { 54 };
        let (old, new) = (u16::from_be_bytes([0x50, frame[l4 + 13]]), u16::from_be_bytes([0x50, flags]));
        frame[l4 + 13] = flags;
        // RFC 1624, equation 3.
        let checksum = u16::from_be_bytes([frame[l4 + 16], frame[l4 + 17]]);
        let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[l4 + 16..l4 + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        frame
    }

    /// SCTP's common header, whose checksum is nobody's business here, and some bytes.
    pub fn sctp(&self, from: u16, to: u16) -> Vec<u8> {
        let header =
            [&from.to_be_bytes()[..], &to.to_be_bytes(), &[1, 2, 3, 4, 9, 9, 9, 9], b"chunk..."].concat();
        self.ip(SCTP, &header)
    }

    /// Echo: `kind` 8 or 128 asks, 0 or 129 answers.
    pub fn echo(&self, answer: bool, id: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = self.builder();
        let done = match (self.family(), answer) {
            (Family::V4, false) => builder.icmpv4_echo_request(id, 1).write(&mut packet, b"ping"),
            (Family::V4, true) => builder.icmpv4_echo_reply(id, 1).write(&mut packet, b"ping"),
            (Family::V6, false) => builder.icmpv6_echo_request(id, 1).write(&mut packet, b"ping"),
            (Family::V6, true) => builder.icmpv6_echo_reply(id, 1).write(&mut packet, b"ping"),
        };
        done.unwrap();
        packet
    }

    /// An ICMP message of that type and code with `rest` as its second word, about a packet (an Ethernet frame).
    pub fn icmp(&self, kind: u8, code: u8, rest: [u8; 4], about: &[u8]) -> Vec<u8> {
        let quoted = &about[14..];
        let mut message = [&[kind, code, 0, 0][..], &rest, &quoted[..quoted.len().min(548)]].concat();
        let protocol = if self.family() == Family::V4 { 1 } else { 58 };
        let pseudo = if self.family() == Family::V4 { vec![] } else { self.pseudo(protocol, message.len()) };
        let checksum = !sum(&[&pseudo, &message]);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.ip(protocol, &message)
    }

    /// A packet of any protocol.
    pub fn ip(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        // The builder would look into the payload: a packet's headers are put before it by hand.
        let mut packet = self.udp(0, 0, &vec![0; payload.len().saturating_sub(8)]);
        let start = if self.family() == Family::V4 { 34 } else { 54 };
        packet.truncate(start);
        packet.extend_from_slice(payload);
        if self.family() == Family::V4 {
            packet[23] = protocol;
            packet[16..18].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
            packet[24..26].fill(0);
            let checksum = !sum(&[&packet[14..34]]);
            packet[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            packet[20] = protocol;
            packet[18..20].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        packet
    }

    fn pseudo(&self, protocol: u8, len: usize) -> Vec<u8> {
        [octets(self.from), octets(self.to), (len as u32).to_be_bytes().to_vec(), vec![0, 0, 0, protocol]]
            .concat()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// What is looked at in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub talk: Talk,
    pub protocol: u8,
    /// Ports; identifier and type of an ICMP message; nothing of a later fragment.
    pub ports: (u16, u16),
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

/// Takes a frame apart; fails when a length or checksum in it is wrong.
#[track_caller]
pub fn look(frame: &[u8]) -> Look {
    let ip = &frame[14..];
    let (from, to, header_len, mut protocol, fragment): (IpAddr, IpAddr, usize, u8, (bool, bool)) =
        match frame[12..14] {
            [0x08, 0x00] => {
                assert_eq!(ip[0], 0x45);
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len(), "total length");
                assert_eq!(sum(&[&ip[..20]]), 0xffff, "IPv4 checksum");
                let place = u16::from_be_bytes([ip[6], ip[7]]);
                let fragment = (place & 0x3fff != 0, place & 0x1fff != 0);
                (array::<4>(&ip[12..16]).into(), array::<4>(&ip[16..20]).into(), 20, ip[9], fragment)
            }
            [0x86, 0xdd] => {
                assert_eq!(ip[0] >> 4, 6);
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), ip.len() - 40, "payload length");
                let (from, to) = (array::<16>(&ip[8..24]).into(), array::<16>(&ip[24..40]).into());
                (from, to, 40, ip[6], (false, false))
            }
            [a, b] => panic!("EtherType {a:02x}{b:02x}"),
            _ => unreachable!(),
        };
    let mut l4 = &ip[header_len..];
    let mut fragment = fragment;
    while from.is_ipv6() && [0, 43, FRAGMENT, 60].contains(&protocol) {
        let len = if protocol == FRAGMENT { 8 } else { 8 + usize::from(l4[1]) * 8 };
        if protocol == FRAGMENT {
            let place = u16::from_be_bytes([l4[2], l4[3]]);
            fragment = (true, place & 0xfff8 != 0);
        }
        protocol = l4[0];
        l4 = &l4[len..];
        if fragment.1 {
            break;
        }
    }
    let talk = Talk { from_mac: array(&frame[6..12]), to_mac: array(&frame[..6]), from, to };
    let whole = |pseudo: bool| {
        let covered = if pseudo { talk.pseudo(protocol, l4.len()) } else { vec![] };
        assert_eq!(sum(&[&covered, l4]), 0xffff, "checksum of protocol {protocol}");
    };
    let mut ports = (0, 0);
    if !fragment.1 {
        if !fragment.0 {
            match protocol {
                1 => whole(false),
                58 | TCP => whole(true),
                UDP if from.is_ipv4() && l4[6..8] == [0, 0] => {}
                UDP if l4[6..8] == [0, 0] && l4[2..4] == 4789u16.to_be_bytes() => {}
                UDP => whole(true),
                _ => {}
            }
        }
        ports = match protocol {
            1 | 58 => (u16::from_be_bytes([l4[4], l4[5]]), l4[0].into()),
            TCP | UDP | SCTP => (u16::from_be_bytes([l4[0], l4[1]]), u16::from_be_bytes([l4[2], l4[3]])),
            _ => (0, 0),
        };
    }
    Look { talk, protocol, ports, payload: ip[header_len..].to_vec() }
}

/// An encapsulated packet's VNI, and the frame inside it; the outer headers are checked, and must be between these nodes.
#[track_caller]
pub fn unwrapped(frame: &[u8], underlay: Family, (from, to): (u8, u8)) -> (u32, Vec<u8>) {
    let outer = look(frame);
    let between = (node_address(from, underlay), node_address(to, underlay));
    assert_eq!(
        (outer.talk.from, outer.talk.to, outer.protocol),
        (between.0, between.1, UDP),
        "outer addresses"
    );
    assert_eq!(outer.ports.1, 4789);
    assert!(outer.ports.0 >= 49152, "source port {}", outer.ports.0);
    let udp = &outer.payload;
    assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len(), "UDP length");
    assert_eq!(udp[8], 0x08, "the VNI is valid");
    (u32::from_be_bytes([0, udp[12], udp[13], udp[14]]), udp[16..].to_vec())
}

/// Puts a frame into VXLAN, as another node would.
pub fn wrap(vni: [u8; 4], frame: &[u8], underlay: Family, (from, to): (u8, u8)) -> Vec<u8> {
    let vxlan = [&[0x08, 0, 0, 0, vni[1], vni[2], vni[3], 0], frame].concat();
    let (from, to) = (node_address(from, underlay), node_address(to, underlay));
    Talk { from_mac: [2, 9, 9, 9, 9, 1], to_mac: [2, 9, 9, 9, 9, 2], from, to }.udp(50_000, 4789, &vxlan)
}

/// Cuts a packet into fragments of so many bytes of payload (a multiple of eight) each, the last one shorter.
pub fn fragments(frame: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let whole = look(frame);
    let pieces: Vec<_> = whole.payload.chunks(size).collect();
    let count = pieces.len();
    let piece = |(index, piece): (usize, &&[u8])| {
        let (offset, more) = (index * size / 8, index + 1 < count);
        match whole.talk.family() {
            Family::V4 => {
                let mut packet = whole.talk.ip(whole.protocol, piece);
                packet[18..20].copy_from_slice(&id.to_be_bytes());
                packet[20..22].copy_from_slice(&(u16::from(more) << 13 | offset as u16).to_be_bytes());
                checksum4(&mut packet);
                packet
            }
            Family::V6 => {
                let place = (offset << 3) as u16 | u16::from(more);
                let [a, b] = place.to_be_bytes();
                let [c, d] = id.to_be_bytes();
                whole.talk.ip(FRAGMENT, &[&[whole.protocol, 0, a, b, 0, 0, c, d][..], piece].concat())
            }
        }
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// Puts fragments, in order, together again.
pub fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let first = look(&fragments[0]);
    let skipped = if first.talk.family() == Family::V4 { 0 } else { 8 };
    let parts: Vec<u8> = fragments.iter().flat_map(|f| look(f).payload[skipped..].to_vec()).collect();
    first.talk.ip(first.protocol, &parts)
}

/// Makes an IPv4 header's checksum right.
pub fn checksum4(packet: &mut [u8]) {
    packet[24..26].fill(0);
    let checksum = !sum(&[&packet[14..34]]);
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
}
