//! Frames that test runs begin with.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use etherparse::PacketBuilder;

/// Ethernet, IPv4 without options, the least TCP header.
const TCP_HEADERS: usize = 14 + 20 + 20;
const UDP_HEADERS: usize = 14 + 20 + 8;

/// Where the last two bytes of the source address are in such a frame.
pub const SOURCE_ADDRESS: usize = 28;
/// Where the source port is.
pub const SOURCE_PORT: usize = 34;
/// What the fast path puts in front of a frame.
pub const OUTER: usize = 50;

/// An end of a conversation.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Its Ethernet address, or that of the router towards it.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

/// What a TCP segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The first.
    Syn,
    /// The answer to it.
    SynAck,
    /// Any later one.
    Ack,
}

/// A TCP segment of `length` bytes with its headers.
pub fn tcp(from: End, to: End, segment: Segment, length: usize) -> Result<Vec<u8>> {
    let frame = PacketBuilder::ethernet2(from.mac, to.mac)
        .ipv4(from.address.octets(), to.address.octets(), 64)
        .tcp(from.port, to.port, 1000, 4000);
    let frame = match segment {
        Segment::Syn => frame.syn(),
        Segment::SynAck => frame.syn().ack(1),
        Segment::Ack => frame.ack(1),
    };
    let mut bytes = Vec::new();
    frame
        .write(&mut bytes, &vec![7; length.saturating_sub(TCP_HEADERS)])
        .context("building a TCP segment")?;
    Ok(bytes)
}

/// A UDP datagram of `length` bytes with its headers.
pub fn udp(from: End, to: End, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from.mac, to.mac)
        .ipv4(from.address.octets(), to.address.octets(), 64)
        .udp(from.port, to.port)
        .write(&mut bytes, &vec![7; length.saturating_sub(UDP_HEADERS)])
        .context("building a UDP datagram")?;
    Ok(bytes)
}

/// Makes a frame one of another flow, by its source port. `offset` is where it begins in the packet.
pub fn renumber(packet: &mut [u8], offset: usize, flow: u16) {
    let at = offset + SOURCE_PORT;
    if let Some(place) = packet.get_mut(at..at + 2) {
        place.copy_from_slice(&flow.to_be_bytes());
    }
}

/// The sender's Ethernet address and port in a frame.
pub fn sender(frame: &[u8]) -> Option<([u8; 6], u16)> {
    let mac = frame.get(6..)?.first_chunk::<6>()?;
    let port = frame.get(SOURCE_PORT..)?.first_chunk::<2>()?;
    Some((*mac, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: End = End { mac: [2, 0, 0, 0, 0, 1], address: Ipv4Addr::new(192, 0, 2, 1), port: 1000 };
    const B: End = End { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(192, 0, 2, 2), port: 80 };

    #[test]
    fn frames_are_as_long_as_asked_and_change_flow() {
        assert_eq!(udp(A, B, 64).unwrap().len(), 64);
        let mut frame = tcp(A, B, Segment::Syn, 72).unwrap();
        assert_eq!((frame.len(), frame[47]), (72, 0x02), "SYN alone");
        assert_eq!(sender(&frame), Some((A.mac, A.port)));
        renumber(&mut frame, 0, 0x0102);
        assert_eq!((sender(&frame), &frame[SOURCE_ADDRESS..][..2]), (Some((A.mac, 0x0102)), &[2, 1][..]));
        assert_eq!(sender(&frame[..35]), None);
    }
}
