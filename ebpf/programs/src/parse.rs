//! Headers, read into plain values. Only [`Packet::fill`] and what it calls touch a frame.

use mesh_abi::{DropReason, NOT_ICMP};

use crate::{
    family::Family,
    header::{Fragment, Header, Icmp, Ipv4, Ipv6, Tcp, Udp},
    key,
    verifier::forget,
};

/// IP protocol numbers (IANA).
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
/// EtherTypes (IEEE 802).
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// Extension headers of IPv6 (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// So many are walked.
const MOST_EXTENSIONS: u32 = 4;

/// Bits of TCP's flag byte (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// What headers are read from: a packet in the kernel's hands, however it holds it.
pub trait Frame: Copy {
    /// Reads a header; a packet that ends before is malformed.
    fn load<T: Header>(self, offset: u32) -> Result<T, DropReason>;
    /// Bytes from the Ethernet header to the end.
    fn len(self) -> u32;
}

/// The part of a packet that translation changes.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Tuple<F: Family> {
    pub source: F::Address,
    pub destination: F::Address,
    /// The identifier of an ICMP echo request; zero in a reply.
    pub source_port: [u8; 2],
    /// The identifier of an ICMP echo reply; zero in a request.
    pub destination_port: [u8; 2],
}

/// An IP packet's headers.
pub struct Packet<F: Family> {
    pub tuple: Tuple<F>,
    /// What `tuple` was before the last translation.
    pub before: Tuple<F>,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of the transport header.
    pub l4: u32,
    /// Bytes of the IP and transport headers.
    pub header_len: u32,
    /// Bytes that the IP header claims for the whole packet.
    pub total_len: u32,
    /// Identification of a fragment, as [`mesh_abi::FragmentKey::id`].
    pub id: [u8; 4],
    pub protocol: u8,
    /// TCP's flag byte; zero for other protocols.
    pub flags: u8,
    /// Type of an ICMP message.
    pub icmp_type: u8,
    /// A part of a larger packet.
    pub fragment: bool,
    /// A part that has no transport header.
    pub later_fragment: bool,
    /// Such a part whose ports are not known.
    pub orphan: bool,
    /// Routers may not cut it into fragments.
    pub whole: bool,
}

impl<F: Family> Packet<F> {
    /// Reads the IP header at `l3` and what follows it, into a packet on the stack.
    #[inline(always)]
    pub fn read(frame: impl Frame, l3: u32) -> Result<Self, DropReason> {
        let none = Tuple {
            source: F::UNSPECIFIED,
            destination: F::UNSPECIFIED,
            source_port: [0; 2],
            destination_port: [0; 2],
        };
        let mut packet = Self {
            tuple: none,
            before: none,
            l3: 0,
            l4: 0,
            header_len: 0,
            total_len: 0,
            id: [0; 4],
            protocol: 0,
            flags: 0,
            icmp_type: NOT_ICMP,
            fragment: false,
            later_fragment: false,
            orphan: false,
            whole: false,
        };
        packet.fill(frame, l3).map(|()| packet)
    }

    /// Reads the IP header at `l3` and what follows it.
    #[inline(always)]
    pub fn fill(&mut self, frame: impl Frame, l3: u32) -> Result<(), DropReason> {
        self.l3 = l3;
        self.tuple.source_port = [0; 2];
        self.tuple.destination_port = [0; 2];
        self.flags = 0;
        self.icmp_type = NOT_ICMP;
        if F::V6 {
            self.read6(frame)?;
        } else {
            self.read4(frame)?;
        }
        if self.total_len > frame.len().wrapping_sub(l3) {
            return Err(DropReason::Malformed);
        }
        self.orphan = self.later_fragment;
        if self.later_fragment { Ok(()) } else { self.read_transport(frame) }
    }

    /// Reads the headers at `l3` of a packet that an ICMP error quotes: of its transport header there may be no more than
    /// eight bytes.
    #[inline(always)]
    pub fn fill_quoted(&mut self, frame: impl Frame, l3: u32) -> Result<(), DropReason> {
        self.l3 = l3;
        self.tuple.source_port = [0; 2];
        self.tuple.destination_port = [0; 2];
        if F::V6 {
            self.read6(frame)?;
        } else {
            self.read4(frame)?;
        }
        if self.later_fragment {
            return Err(DropReason::Fragment);
        }
        let [a, b, c, d, e, f, ..]: [u8; 8] = frame.load(self.l4)?;
        if matches!(self.protocol, TCP | UDP | SCTP) {
            self.tuple.source_port = [a, b];
            self.tuple.destination_port = [c, d];
        } else if self.protocol == F::ICMP && a == F::ECHO_REQUEST {
            self.tuple.source_port = [e, f];
        } else if self.protocol == F::ICMP && a == F::ECHO_REPLY {
            self.tuple.destination_port = [e, f];
        }
        Ok(())
    }

    #[inline(always)]
    fn read4(&mut self, frame: impl Frame) -> Result<(), DropReason> {
        let ip: Ipv4 = frame.load(self.l3)?;
        let ip_len = u32::from(ip.version_and_len & 0x0f) * 4;
        let total_len = u32::from(u16::from_be_bytes(ip.total_len));
        if ip.version_and_len >> 4 != 4 || ip_len < F::HEADER || total_len < ip_len {
            return Err(DropReason::Malformed);
        }
        let fragment = u16::from_be_bytes(ip.fragment);
        key::copy(&mut self.tuple.source, &address(&ip.source));
        key::copy(&mut self.tuple.destination, &address(&ip.destination));
        self.l4 = self.l3 + ip_len;
        self.header_len = ip_len;
        self.total_len = total_len;
        self.id = [0, 0, ip.id[0], ip.id[1]];
        self.protocol = ip.protocol;
        // More-fragments bit and offset (RFC 791, section 3.1).
        self.fragment = fragment & 0x3fff != 0;
        self.later_fragment = fragment & 0x1fff != 0;
        self.whole = fragment & 0x4000 != 0;
        Ok(())
    }

    #[inline(always)]
    fn read6(&mut self, frame: impl Frame) -> Result<(), DropReason> {
        let ip: Ipv6 = frame.load(self.l3)?;
        if ip.version >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        key::copy(&mut self.tuple.source, &address(&ip.source));
        key::copy(&mut self.tuple.destination, &address(&ip.destination));
        self.l4 = self.l3 + F::HEADER;
        self.header_len = F::HEADER;
        self.total_len = F::HEADER + u32::from(u16::from_be_bytes(ip.payload_len));
        self.protocol = ip.next_header;
        self.id = [0; 4];
        self.fragment = false;
        self.later_fragment = false;
        self.whole = true;
        if is_extension(self.protocol) { self.read_extensions(frame) } else { Ok(()) }
    }

    /// Steps over extension headers to the transport's.
    #[inline(always)]
    fn read_extensions(&mut self, frame: impl Frame) -> Result<(), DropReason> {
        let mut at = self.l4;
        for _ in 0..MOST_EXTENSIONS {
            if self.protocol == FRAGMENT {
                let header: Fragment = frame.load(at)?;
                let offset = u16::from_be_bytes(header.offset);
                at += 8;
                self.protocol = header.next_header;
                // Offset and the bit for more; neither makes it a fragment in name only (RFC 6946).
                self.fragment = offset & 0xfff9 != 0;
                self.id = header.id;
                self.later_fragment = offset & 0xfff8 != 0;
                if self.later_fragment {
                    break;
                }
            } else if is_extension(self.protocol) {
                let [next, len]: [u8; 2] = frame.load(at)?;
                at += 8 + u32::from(len) * 8;
                self.protocol = next;
            }
        }
        if !self.later_fragment && is_extension(self.protocol) {
            return Err(DropReason::Unsupported);
        }
        let at = forget(at) & 0x3fff;
        if at < self.l4 || at - self.l3 > self.total_len {
            return Err(DropReason::Malformed);
        }
        self.header_len = at - self.l3;
        self.l4 = at;
        Ok(())
    }

    #[inline(always)]
    fn read_transport(&mut self, frame: impl Frame) -> Result<(), DropReason> {
        let len = self.total_len - self.header_len;
        match self.protocol {
            TCP => {
                let tcp: Tcp = frame.load(self.l4)?;
                let header_len = u32::from(tcp.data_offset >> 4) * 4;
                if header_len < 20 || header_len > len && !self.fragment {
                    return Err(DropReason::Malformed);
                }
                self.tuple.source_port = tcp.source_port;
                self.tuple.destination_port = tcp.destination_port;
                self.flags = tcp.flags;
                self.header_len += header_len;
            }
            UDP => {
                let udp: Udp = frame.load(self.l4)?;
                let claimed = u32::from(u16::from_be_bytes(udp.len));
                if claimed < 8 || len < 8 || claimed > len && !self.fragment {
                    return Err(DropReason::Malformed);
                }
                self.tuple.source_port = udp.source_port;
                self.tuple.destination_port = udp.destination_port;
                self.header_len += 8;
            }
            SCTP => {
                // Ports, verification tag, checksum (RFC 9260, section 3.1).
                let sctp: Udp = frame.load(self.l4)?;
                if len < 12 {
                    return Err(DropReason::Malformed);
                }
                self.tuple.source_port = sctp.source_port;
                self.tuple.destination_port = sctp.destination_port;
                self.header_len += 12;
            }
            protocol if protocol == F::ICMP => {
                let icmp: Icmp = frame.load(self.l4)?;
                if len < 8 {
                    return Err(DropReason::Malformed);
                }
                self.icmp_type = icmp.kind;
                if icmp.kind == F::ECHO_REQUEST {
                    self.tuple.source_port = icmp.identifier;
                } else if icmp.kind == F::ECHO_REPLY {
                    self.tuple.destination_port = icmp.identifier;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the protocol has ports that can be published.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP | SCTP) && !self.orphan
    }
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// An address of the family out of a header of that family.
#[inline(always)]
fn address<A: Header, B: Header>(from: &A) -> B {
    const { assert!(size_of::<B>() <= 16) };
    if size_of::<A>() == size_of::<B>() {
        // SAFETY: called with the same types on both sides only; in code of the other family, which never runs, a
        // larger type could be read, hence the size is looked at.
        unsafe { core::ptr::from_ref(from).cast::<B>().read() }
    } else {
        // SAFETY: a header type: zeros are a value. Never reached.
        unsafe { core::mem::zeroed() }
    }
}
