//! Headers as they are on the wire: bytes in network order, aligned so that fields are read and written whole.

use mesh_abi::Steering;

/// A type that can be read from a packet and written into one.
///
/// # Safety
///
/// `repr(C)`, no padding, and every pattern of bits is a value.
pub unsafe trait Header: Copy {}

macro_rules! headers {
    ($($ty:ty),* $(,)?) => {$(
        // SAFETY: bytes, or a repr(C) struct of bytes whose size is a multiple of its alignment.
        unsafe impl Header for $ty {}
    )*};
}

headers!(
    u32,
    u64,
    [u64; 8],
    [u32; 5],
    [u32; 10],
    [u8; 1],
    [u8; 2],
    [u8; 4],
    [u8; 8],
    [u32; 3],
    [u32; 4],
    [u32; 7],
    [u32; 12],
    [u32; 17],
    Ethernet,
    Macs,
    Ipv4,
    Ipv6,
    Fragment,
    Tcp,
    Udp,
    Icmp,
    Arp,
    Vxlan,
    Outer4,
    Outer6,
    Advertisement,
);

/// The two addresses of an Ethernet header.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    pub to: [u8; 6],
    pub from: [u8; 6],
}

impl Macs {
    /// The addresses that carry the sending node's choice.
    #[inline(always)]
    pub fn of(steering: Steering) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = steering.encode();
        Self { to: [a, b, c, d, e, f], from: [g, h, i, j, k, l] }
    }

    /// The choice that they carry.
    #[inline(always)]
    pub fn steering(&self) -> Option<Steering> {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.to, self.from);
        Steering::decode(&[a, b, c, d, e, f, g, h, i, j, k, l])
    }
}

/// An Ethernet header (IEEE 802.3).
#[repr(C, align(2))]
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub to: [u8; 6],
    pub from: [u8; 6],
    pub kind: [u8; 2],
}

/// An IPv4 header without options (RFC 791, section 3.1).
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_and_len: u8,
    pub tos: u8,
    pub total_len: [u8; 2],
    pub id: [u8; 2],
    pub fragment: [u8; 2],
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: [u8; 2],
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

/// An IPv6 header (RFC 8200, section 3).
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub version: u8,
    pub flow: [u8; 3],
    pub payload_len: [u8; 2],
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// A fragment header of IPv6 (RFC 8200, section 4.5).
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Fragment {
    pub next_header: u8,
    pub reserved: u8,
    /// In units of eight bytes; the lowest bit says that more follow.
    pub offset: [u8; 2],
    pub id: [u8; 4],
}

/// The part of a TCP header (RFC 9293, section 3.1) up to the window.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    pub sequence: [u8; 4],
    pub acknowledgement: [u8; 4],
    pub data_offset: u8,
    pub flags: u8,
    pub window: [u8; 2],
}

/// A UDP header (RFC 768).
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Udp {
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    pub len: [u8; 2],
    pub checksum: [u8; 2],
}

/// The header of an ICMP echo (RFC 792), as long as any ICMP header.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: [u8; 2],
    pub identifier: [u8; 2],
    pub sequence: [u8; 2],
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[repr(C, align(2))]
#[derive(Clone, Copy)]
pub struct Arp {
    /// Ethernet, IPv4, and the lengths of their addresses.
    pub types: [u8; 6],
    pub operation: [u8; 2],
    pub sender_mac: [u8; 6],
    pub sender: [u8; 4],
    pub target_mac: [u8; 6],
    pub target: [u8; 4],
}

/// The flag of a VXLAN header that says that its VNI is valid.
pub const VNI_VALID: u8 = 0x08;

/// A VXLAN header (RFC 7348, section 5).
#[repr(C, align(2))]
#[derive(Clone, Copy)]
pub struct Vxlan {
    pub flags: u8,
    pub reserved: [u8; 3],
    pub vni: [u8; 3],
    pub reserved2: u8,
}

/// All that is put before an IP packet behind the outer Ethernet header, over IPv4.
#[repr(C, align(2))]
#[derive(Clone, Copy)]
pub struct Outer4 {
    pub ip: [u8; 12],
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub udp: [u8; 8],
    pub vxlan: Vxlan,
    pub ethernet: Ethernet,
}

/// The same over IPv6.
#[repr(C, align(2))]
#[derive(Clone, Copy)]
pub struct Outer6 {
    pub ip: [u8; 8],
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub udp: [u8; 8],
    pub vxlan: Vxlan,
    pub ethernet: Ethernet,
}

/// A neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4) with the option that gives an Ethernet
/// address.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Advertisement {
    pub kind: u8,
    pub code: u8,
    pub checksum: [u8; 2],
    pub flags: [u8; 4],
    pub target: [u32; 4],
    /// Type and length.
    pub option: [u8; 2],
    pub mac: [u8; 6],
}
