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

headers!(u32, u64, [u64; 8], [u8; 1], [u8; 2], [u8; 4], [u8; 8], Ethernet, Macs, Ipv4, Tcp, Udp, Icmp, Arp, Vxlan, Outer);

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

/// All that is put before an IPv4 packet behind the outer Ethernet header.
#[repr(C, align(2))]
#[derive(Clone, Copy)]
pub struct Outer {
    pub ip: [u8; 12],
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub udp: [u8; 8],
    pub vxlan: Vxlan,
    pub ethernet: Ethernet,
}
