//! Headers, read into plain values. Only [`Packet::read`] touches a frame.

use mesh_abi::DropReason;

use crate::header::{Header, Icmp, Ipv4, Tcp, Udp};

/// IP protocol numbers (IANA).
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// EtherTypes (IEEE 802).
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

pub const ICMP_ECHO_REPLY: u8 = 0;
pub const ICMP_ECHO_REQUEST: u8 = 8;

const IPV4_MIN: u32 = 20;
/// Bits of TCP's flag byte (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// What headers are read from: a packet in the kernel's hands, however it holds it.
pub trait Frame: Copy {
    /// Reads a header; a packet that ends before is malformed.
    fn load<T: Header>(self, offset: u32) -> Result<T, DropReason>;
}

/// The part of a packet that translation changes.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    /// The identifier of an ICMP echo request; zero in a reply.
    pub source_port: [u8; 2],
    /// The identifier of an ICMP echo reply; zero in a request.
    pub destination_port: [u8; 2],
}

/// An IPv4 packet's headers.
pub struct Packet {
    pub tuple: Tuple,
    /// Offset of the IPv4 header.
    pub l3: u32,
    /// Offset of the transport header.
    pub l4: u32,
    /// Bytes of the IP and transport headers.
    pub header_len: u32,
    /// Bytes that the IPv4 header claims for the whole packet.
    pub total_len: u32,
    pub protocol: u8,
    /// A part of a larger packet.
    pub fragment: bool,
    /// A part that has no transport header.
    pub later_fragment: bool,
    /// TCP's flag byte; zero for other protocols.
    pub flags: u8,
    /// Type of an ICMP message.
    pub icmp_type: u8,
}

impl Packet {
    /// Reads the IPv4 header at `l3` and what follows it.
    #[inline(always)]
    pub fn read(frame: impl Frame, l3: u32) -> Result<Self, DropReason> {
        let ip: Ipv4 = frame.load(l3)?;
        let ip_len = u32::from(ip.version_and_len & 0x0f) * 4;
        let total_len = u32::from(u16::from_be_bytes(ip.total_len));
        if ip.version_and_len >> 4 != 4 || ip_len < IPV4_MIN || total_len < ip_len {
            return Err(DropReason::Malformed);
        }
        // More-fragments bit and offset (RFC 791, section 3.1).
        let fragment = u16::from_be_bytes(ip.fragment) & 0x3fff;
        let mut packet = Self {
            tuple: Tuple {
                source: ip.source,
                destination: ip.destination,
                source_port: [0; 2],
                destination_port: [0; 2],
            },
            l3,
            l4: l3 + ip_len,
            header_len: ip_len,
            total_len,
            protocol: ip.protocol,
            fragment: fragment != 0,
            later_fragment: fragment & 0x1fff != 0,
            flags: 0,
            icmp_type: 0xff,
        };
        if !packet.later_fragment {
            packet.read_transport(frame)?;
        }
        Ok(packet)
    }

    #[inline(always)]
    fn read_transport(&mut self, frame: impl Frame) -> Result<(), DropReason> {
        match self.protocol {
            TCP => {
                let tcp: Tcp = frame.load(self.l4)?;
                self.tuple.source_port = tcp.source_port;
                self.tuple.destination_port = tcp.destination_port;
                self.flags = tcp.flags;
                self.header_len += u32::from(tcp.data_offset >> 4) * 4;
            }
            UDP => {
                let udp: Udp = frame.load(self.l4)?;
                self.tuple.source_port = udp.source_port;
                self.tuple.destination_port = udp.destination_port;
                self.header_len += 8;
            }
            ICMP => {
                let icmp: Icmp = frame.load(self.l4)?;
                self.icmp_type = icmp.kind;
                match icmp.kind {
                    ICMP_ECHO_REQUEST => self.tuple.source_port = icmp.identifier,
                    ICMP_ECHO_REPLY => self.tuple.destination_port = icmp.identifier,
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the protocol has ports that can be published.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP) && !self.fragment
    }
}
