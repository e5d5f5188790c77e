//! The packets of traces: made, and read again after programs have changed them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_types::VXLAN_PORT;

const ETHERNET: usize = 14;
const V4: usize = 20;
const V6: usize = 40;
const UDP_HEADER: usize = 8;
const VXLAN: usize = 8;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST6: u8 = 128;
const ECHO_REPLY6: u8 = 129;
/// TCP's flags (RFC 9293, section 3.1).
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const HOPS: u8 = 64;

/// What is in the headers of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// Ethernet destination and source.
    pub macs: [u8; 12],
    pub protocol: u8,
    /// The port of an echo request is its identifier, and of an echo reply that of its destination.
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A packet between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub from: IpAddr,
    pub to: IpAddr,
    pub vni: u32,
    /// With its Ethernet header.
    pub inner: Vec<u8>,
}

/// The first packet of a flow: TCP's SYN, a datagram, or an echo request, whose identifier is the port that it comes from.
/// Both addresses are of one family.
pub(super) fn opening(macs: [u8; 12], protocol: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    made(macs, protocol, from, to, false)
}

/// What is answered to such a packet.
pub(super) fn answer(macs: [u8; 12], to: &Headers) -> Vec<u8> {
    made(macs, to.protocol, to.destination, to.source, true)
}

fn made(macs: [u8; 12], protocol: u8, from: SocketAddr, to: SocketAddr, is_answer: bool) -> Vec<u8> {
    let (ack, flags) = if is_answer { (2, SYN_ACK) } else { (0, SYN) };
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let at = match protocol {
        TCP => {
            // Sequence number, acknowledgement, offset 5, flags, the window, no urgent data.
            segment.extend([0, 0, 0, 1, 0, 0, 0, ack, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        ICMP | ICMPV6 => {
            let kind = match (protocol, is_answer) {
                (ICMP, false) => ECHO_REQUEST,
                (ICMP, true) => ECHO_REPLY,
                (_, false) => ECHO_REQUEST6,
                (_, true) => ECHO_REPLY6,
            };
            let [id, other] = if is_answer { [to.port(), 1] } else { [from.port(), 1] }.map(u16::to_be_bytes);
            segment = [[kind, 0], [0, 0], id, other].concat();
            segment.extend(b"meshctl trace");
            2
        }
        _ => {
            let data = b"meshctl trace";
            segment.extend(((UDP_HEADER + data.len()) as u16).to_be_bytes());
            segment.extend([0, 0]);
            segment.extend(data);
            6
        }
    };
    let mut pseudo = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [six(from), six(to)].concat(),
    };
    pseudo.extend([0, protocol]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(&segment);
    // ICMP's covers no addresses (RFC 792), ICMPv6's does (RFC 4443, section 2.3).
    let sum = checksum(if protocol == ICMP { &segment } else { &pseudo });
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    framed(macs, protocol, from.ip(), to.ip(), &segment)
}

/// A packet in outer headers, as the kernel's VXLAN device writes them.
pub(super) fn wrapped(tunnel: &Tunnel) -> Vec<u8> {
    let mut datagram = [49_152u16.to_be_bytes(), VXLAN_PORT.to_be_bytes()].concat();
    datagram.extend(((UDP_HEADER + VXLAN + tunnel.inner.len()) as u16).to_be_bytes());
    datagram.extend([0, 0, 8, 0, 0, 0]);
    datagram.extend((tunnel.vni << 8).to_be_bytes());
    datagram.extend(&tunnel.inner);
    framed([2; 12], UDP, tunnel.from, tunnel.to, &datagram)
}

fn framed(macs: [u8; 12], protocol: u8, from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut frame = macs.to_vec();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let [hi, lo] = ((V4 + payload.len()) as u16).to_be_bytes();
            let mut header = vec![0x45, 0, hi, lo, 0, 0, 0x40, 0, HOPS, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (from, to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend([protocol, HOPS]);
            frame.extend(six(from));
            frame.extend(six(to));
        }
    }
    frame.extend(payload);
    frame
}

/// Reads a packet without extension headers.
pub(super) fn headers(frame: &[u8]) -> Option<Headers> {
    let (source, destination, protocol, at) = addresses(frame)?;
    let port = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (from, to) = match (protocol, *frame.get(at)?) {
        (ICMP, ECHO_REQUEST) | (ICMPV6, ECHO_REQUEST6) => (port(at + 4)?, 0),
        (ICMP, ECHO_REPLY) | (ICMPV6, ECHO_REPLY6) => (0, port(at + 4)?),
        (ICMP | ICMPV6, _) => (0, 0),
        _ => (port(at)?, port(at + 2)?),
    };
    Some(Headers {
        macs: *frame.first_chunk()?,
        protocol,
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// The packet inside of one between nodes.
pub(super) fn tunnel(frame: &[u8]) -> Option<Tunnel> {
    let (from, to, protocol, at) = addresses(frame)?;
    let port: [u8; 2] = *frame.get(at + 2..)?.first_chunk()?;
    let header: [u8; VXLAN] = *frame.get(at + UDP_HEADER..)?.first_chunk()?;
    if protocol != UDP || port != VXLAN_PORT.to_be_bytes() || header[0] & 8 == 0 {
        return None;
    }
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    Some(Tunnel { from, to, vni, inner: frame.get(at + UDP_HEADER + VXLAN..)?.to_vec() })
}

/// Source, destination, protocol, and where what is in the packet begins.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr, u8, usize)> {
    let packet = frame.get(ETHERNET..)?;
    match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let header: [u8; V4] = *packet.first_chunk()?;
            let v4 = |at: usize| -> Option<IpAddr> {
                Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?).into())
            };
            let length = usize::from(header[0] & 15) * 4;
            Some((v4(12)?, v4(16)?, header[9], ETHERNET + length))
        }
        [0x86, 0xdd] => {
            let header: [u8; V6] = *packet.first_chunk()?;
            let v6 = |at: usize| -> Option<IpAddr> {
                Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?).into())
            };
            Some((v6(8)?, v6(24)?, header[6], ETHERNET + V6))
        }
        _ => None,
    }
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2);
    let mut sum: u32 =
        pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_made_is_read() {
        for (from, to) in [("10.10.3.9:40000", "10.10.3.2:80"), ("[fd00::9]:40000", "[fd00::2]:80")] {
            for protocol in [TCP, UDP] {
                let frame = opening(MACS, protocol, at(from), at(to));
                let read = headers(&frame).unwrap();
                assert_eq!(read, Headers { macs: MACS, protocol, source: at(from), destination: at(to) });
                assert_eq!(tunnel(&frame), None);
                for end in 0..ETHERNET + V4 {
                    assert_eq!(headers(&frame[..end]), None);
                }
                let back = headers(&answer(MACS, &read)).unwrap();
                assert_eq!((back.source, back.destination), (at(to), at(from)));
            }
        }
        for (protocol, from, to) in
            [(ICMP, "10.10.3.9:77", "10.10.3.2:0"), (ICMPV6, "[fd00::9]:77", "[fd00::2]:0")]
        {
            let read = headers(&opening(MACS, protocol, at(from), at(to))).unwrap();
            assert_eq!(read, Headers { macs: MACS, protocol, source: at(from), destination: at(to) });
            let back = headers(&answer(MACS, &read)).unwrap();
            assert_eq!((back.source, back.destination), (at(to), at(from)));
        }
    }

    #[test]
    fn a_tunnel_holds_its_packet() {
        let inner = opening(MACS, TCP, at("10.10.3.9:40000"), at("10.10.3.2:80"));
        for (from, to) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let packed = Tunnel { from, to, vni: 4097, inner: inner.clone() };
            let frame = wrapped(&packed);
            assert_eq!(tunnel(&frame), Some(packed));
        }
    }

    #[test]
    fn checksums_make_the_sum_of_all_words_minus_zero() {
        let frame = opening(MACS, TCP, at("10.10.3.9:40000"), at("10.10.3.2:80"));
        assert_eq!(checksum(&frame[ETHERNET..ETHERNET + V4]), 0);
        let mut pseudo = frame[ETHERNET + 12..ETHERNET + V4].to_vec();
        pseudo.extend([0, TCP, 0, 20]);
        pseudo.extend(&frame[ETHERNET + V4..]);
        assert_eq!(checksum(&pseudo), 0);
    }
}
