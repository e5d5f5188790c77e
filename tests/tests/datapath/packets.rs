//! Packets: built, taken apart, checked.

use etherparse::PacketBuilder;

/// Bytes that the fast path adds behind the Ethernet header.
pub const OUTER: usize = 50;

pub type Mac = [u8; 6];
pub type Ip = [u8; 4];

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub from_mac: Mac,
    pub to_mac: Mac,
    pub from: Ip,
    pub to: Ip,
}

impl Path {
    fn builder(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2(self.from_mac, self.to_mac).ipv4(self.from, self.to, 64)
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

    pub fn syn(&self, from: u16, to: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        self.builder().tcp(from, to, 1000, 4000).syn().write(&mut packet, &[]).unwrap();
        packet
    }

    /// A TCP segment without payload, with these bits of the flag byte.
    pub fn segment(&self, from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut packet = self.tcp(from, to, &[]);
        packet[47] = flags;
        fix_tcp(&mut packet);
        packet
    }

    pub fn ping(&self, id: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        self.builder().icmpv4_echo_request(id, 1).write(&mut packet, b"ping").unwrap();
        packet
    }

    pub fn pong(&self, id: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        self.builder().icmpv4_echo_reply(id, 1).write(&mut packet, b"ping").unwrap();
        packet
    }
}

/// Makes the checksum of a TCP segment over plain IPv4 right.
fn fix_tcp(frame: &mut [u8]) {
    frame[50..52].fill(0);
    let len = ((frame.len() - 34) as u16).to_be_bytes();
    let sum = !sum(&[&frame[26..34], &[0, 6], &len, &frame[34..]]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

/// An ARP packet; `operation` 1 asks, 2 answers.
pub fn arp(operation: u8, sender: (Mac, Ip), target: (Mac, Ip), to: Mac) -> Vec<u8> {
    let mut packet = [&to[..], &sender.0, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]].concat();
    for part in [&sender.0[..], &sender.1, &target.0, &target.1] {
        packet.extend_from_slice(part);
    }
    packet
}

/// What is looked at in an Ethernet frame with IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub path: Path,
    pub ports: (u16, u16),
}

/// Takes a frame apart; fails when a length or checksum in it is wrong.
#[track_caller]
pub fn seen(frame: &[u8]) -> Seen {
    assert_eq!(frame[12..14], [0x08, 0x00], "IPv4 in {frame:02x?}");
    let ip = &frame[14..];
    assert_eq!(ip[0], 0x45);
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len(), "total length");
    assert_eq!(sum(&[&ip[..20]]), 0xffff, "IPv4 checksum");
    let (from, to): (Ip, Ip) = (array(&ip[12..16]), array(&ip[16..20]));
    let l4 = &ip[20..];
    let pseudo = [&from[..], &to, &[0, ip[9]], &(l4.len() as u16).to_be_bytes()].concat();
    match ip[9] {
        1 => assert_eq!(sum(&[l4]), 0xffff, "ICMP checksum"),
        17 if l4[6..8] == [0, 0] => {}
        6 | 17 => assert_eq!(sum(&[&pseudo, l4]), 0xffff, "transport checksum"),
        other => panic!("protocol {other}"),
    }
    let ports = match ip[9] {
        1 => (u16::from_be_bytes([l4[4], l4[5]]), u16::from(l4[0])),
        _ => (u16::from_be_bytes([l4[0], l4[1]]), u16::from_be_bytes([l4[2], l4[3]])),
    };
    Seen { path: Path { from_mac: array(&frame[6..12]), to_mac: array(&frame[..6]), from, to }, ports }
}

/// An encapsulated packet's VNI, and the frame inside it; the outer headers are checked, and must be from and to these.
#[track_caller]
pub fn inside(frame: &[u8], from: Ip, to: Ip) -> (u32, Vec<u8>) {
    let outer = seen(frame);
    assert_eq!((outer.path.from, outer.path.to), (from, to), "outer addresses");
    assert_eq!(outer.ports.1, 4789);
    assert!(outer.ports.0 >= 49152, "source port {}", outer.ports.0);
    let udp = &frame[34..];
    assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len(), "UDP length");
    assert_eq!(udp[8], 0x08, "the VNI is valid");
    let vni = u32::from_be_bytes([0, udp[12], udp[13], udp[14]]);
    (vni, frame[OUTER..].to_vec())
}

/// Puts a frame into VXLAN, as another node would.
pub fn wrapped(vni: [u8; 4], frame: &[u8], from: Ip, to: Ip) -> Vec<u8> {
    let vxlan = [&[0x08, 0, 0, 0, vni[1], vni[2], vni[3], 0], frame].concat();
    let path = Path { from_mac: [2, 9, 9, 9, 9, 1], to_mac: [2, 9, 9, 9, 9, 2], from, to };
    path.udp(50_000, 4789, &vxlan)
}

/// The Internet checksum's sum (RFC 1071) over parts; 0xffff when what it covers is intact.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}
