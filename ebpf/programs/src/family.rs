//! The two families of IP: what differs between them. Everything that is generic over [`Family`] is compiled once for
//! each, so IPv4 pays nothing for IPv6.

use mesh_abi::{
    ANY_V4, ANY_V6, Address, EGRESS_POOL, EGRESS_POOL6, HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6,
    LocalEndpoint, NetworkValue, v4_of,
};

use crate::{
    header::Header,
    key,
    maps::Scratch,
    parse::{Packet, Tuple},
};

/// A family of IP.
pub trait Family: Copy + Sized + 'static {
    /// An address, with the bytes in the order in which they are on the wire.
    type Address: Header;

    /// Whether this is IPv6; a constant, so that no branch remains.
    const V6: bool;
    /// EtherType (IEEE 802).
    const ETHERTYPE: [u8; 2];
    /// Protocol number of the family's ICMP (IANA).
    const ICMP: u8;
    /// ICMP types of echo.
    const ECHO_REQUEST: u8;
    /// The answer to it.
    const ECHO_REPLY: u8;
    /// Bytes of a header without options.
    const HEADER: u32;
    /// Offset of the source address; the destination's follows it.
    const SOURCE: u32;
    /// Stands for every address of the family in [`mesh_abi::ServiceKey`].
    const ANY: Address;
    /// Where host sockets are led.
    const HOST_SERVICE: Address;
    /// No address.
    const UNSPECIFIED: Self::Address;

    /// Where the packet is that a program runs for.
    fn packet(scratch: *mut Scratch) -> *mut Packet<Self>;
    /// Where the packet is that an ICMP error quotes.
    fn quote(scratch: *mut Scratch) -> *mut Packet<Self>;
    /// Where what an ICMP error and its quotation become is.
    fn tuples(scratch: *mut Scratch) -> *mut [Tuple<Self>; 2];
    /// The address as maps hold it.
    fn mapped(address: &Self::Address) -> Address;
    /// The address that a map holds, which is known to be of this family.
    fn of(address: &Address) -> Self::Address;
    /// Whether two addresses are the same.
    fn same(a: &Self::Address, b: &Self::Address) -> bool;
    /// An endpoint's address.
    fn local(endpoint: &LocalEndpoint) -> Self::Address;
    /// The address that stands for an endpoint outside.
    fn egress(endpoint: &LocalEndpoint) -> Self::Address;
    /// A network's gateway.
    fn gateway(network: &NetworkValue) -> Self::Address;
    /// Whether an address is in a network's subnet.
    fn in_subnet(network: &NetworkValue, address: &Self::Address) -> bool;
    /// Whether an address stands for an endpoint of this node outside.
    fn is_egress(address: &Self::Address) -> bool;
    /// Whether an address means many receivers.
    fn is_multicast(address: &Self::Address) -> bool;
    /// Whether an address is of use on one link only.
    fn is_link_local(address: &Self::Address) -> bool;
    /// All bytes of an address in four.
    fn digest(address: &Self::Address) -> u32;
}

/// IPv4.
#[derive(Clone, Copy)]
pub struct V4;

impl Family for V4 {
    type Address = [u8; 4];

    const V6: bool = false;
    const ETHERTYPE: [u8; 2] = [0x08, 0x00];
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const HEADER: u32 = 20;
    const SOURCE: u32 = 12;
    const ANY: Address = ANY_V4;
    const HOST_SERVICE: Address = mesh_abi::v4_mapped(HOST_SERVICE_ADDRESS);
    const UNSPECIFIED: [u8; 4] = [0; 4];

    #[inline(always)]
    fn packet(scratch: *mut Scratch) -> *mut Packet<Self> {
        // SAFETY: a place within the scratch room; nothing is read.
        unsafe { &raw mut (*scratch).packet4 }
    }

    #[inline(always)]
    fn quote(scratch: *mut Scratch) -> *mut Packet<Self> {
        // SAFETY: see `packet`.
        unsafe { &raw mut (*scratch).quote4 }
    }

    #[inline(always)]
    fn tuples(scratch: *mut Scratch) -> *mut [Tuple<Self>; 2] {
        // SAFETY: see `packet`.
        unsafe { &raw mut (*scratch).tuples4 }
    }

    #[inline(always)]
    fn mapped(address: &[u8; 4]) -> Address {
        key::mapped(*address)
    }

    #[inline(always)]
    fn of(address: &Address) -> [u8; 4] {
        v4_of(address)
    }

    #[inline(always)]
    fn same(a: &[u8; 4], b: &[u8; 4]) -> bool {
        u32::from_ne_bytes(*a) == u32::from_ne_bytes(*b)
    }

    #[inline(always)]
    fn local(endpoint: &LocalEndpoint) -> [u8; 4] {
        endpoint.address4
    }

    #[inline(always)]
    fn egress(endpoint: &LocalEndpoint) -> [u8; 4] {
        endpoint.egress4
    }

    #[inline(always)]
    fn gateway(network: &NetworkValue) -> [u8; 4] {
        network.gateway4
    }

    #[inline(always)]
    fn in_subnet(network: &NetworkValue, address: &[u8; 4]) -> bool {
        word_matches(u32::from_ne_bytes(*address), u32::from_ne_bytes(network.subnet4), network.prefix4)
    }

    #[inline(always)]
    fn is_egress(address: &[u8; 4]) -> bool {
        let (first, prefix_len) = EGRESS_POOL;
        word_matches(u32::from_ne_bytes(*address), u32::from_ne_bytes(first), prefix_len)
    }

    /// Multicast, the reserved block and the limited broadcast (RFC 6890).
    #[inline(always)]
    fn is_multicast(address: &[u8; 4]) -> bool {
        address[0] >= 224
    }

    #[inline(always)]
    fn is_link_local(_: &[u8; 4]) -> bool {
        false
    }

    #[inline(always)]
    fn digest(address: &[u8; 4]) -> u32 {
        u32::from_le_bytes(*address)
    }
}

/// IPv6. Addresses are held by words as they lie in memory: the alignment lets them be copied by words.
#[derive(Clone, Copy)]
pub struct V6;

impl Family for V6 {
    type Address = [u32; 4];

    const V6: bool = true;
    const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const HEADER: u32 = 40;
    const SOURCE: u32 = 8;
    const ANY: Address = ANY_V6;
    const HOST_SERVICE: Address = HOST_SERVICE_ADDRESS6;
    const UNSPECIFIED: [u32; 4] = [0; 4];

    #[inline(always)]
    fn packet(scratch: *mut Scratch) -> *mut Packet<Self> {
        // SAFETY: a place within the scratch room; nothing is read.
        unsafe { &raw mut (*scratch).packet6 }
    }

    #[inline(always)]
    fn quote(scratch: *mut Scratch) -> *mut Packet<Self> {
        // SAFETY: see `packet`.
        unsafe { &raw mut (*scratch).quote6 }
    }

    #[inline(always)]
    fn tuples(scratch: *mut Scratch) -> *mut [Tuple<Self>; 2] {
        // SAFETY: see `packet`.
        unsafe { &raw mut (*scratch).tuples6 }
    }

    #[inline(always)]
    fn mapped(address: &[u32; 4]) -> Address {
        key::bytes(*address)
    }

    #[inline(always)]
    fn of(address: &Address) -> [u32; 4] {
        key::words(address)
    }

    #[inline(always)]
    fn same(a: &[u32; 4], b: &[u32; 4]) -> bool {
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    #[inline(always)]
    fn local(endpoint: &LocalEndpoint) -> [u32; 4] {
        key::words(&endpoint.address6)
    }

    #[inline(always)]
    fn egress(endpoint: &LocalEndpoint) -> [u32; 4] {
        key::words(&endpoint.egress6)
    }

    #[inline(always)]
    fn gateway(network: &NetworkValue) -> [u32; 4] {
        key::words(&network.gateway6)
    }

    #[inline(always)]
    fn in_subnet(network: &NetworkValue, address: &[u32; 4]) -> bool {
        let subnet = key::words(&network.subnet6);
        let len = network.prefix6;
        word_matches(address[0], subnet[0], len.min(32))
            && word_matches(address[1], subnet[1], len.saturating_sub(32).min(32))
            && word_matches(address[2], subnet[2], len.saturating_sub(64).min(32))
            && word_matches(address[3], subnet[3], len.saturating_sub(96).min(32))
    }

    #[inline(always)]
    fn is_egress(address: &[u32; 4]) -> bool {
        const POOL: [u8; 16] = EGRESS_POOL6.0;
        let [a, b, ..] = key::constant(&POOL);
        (address[0] ^ a) | (address[1] ^ b) | address[2] == 0
    }

    #[inline(always)]
    fn is_multicast(address: &[u32; 4]) -> bool {
        address[0].to_ne_bytes()[0] == 0xff
    }

    /// `fe80::/10` (RFC 4291, section 2.5.6).
    #[inline(always)]
    fn is_link_local(address: &[u32; 4]) -> bool {
        let [a, b, ..] = address[0].to_ne_bytes();
        a == 0xfe && b & 0xc0 == 0x80
    }

    #[inline(always)]
    fn digest(a: &[u32; 4]) -> u32 {
        a[0] ^ a[1].rotate_left(8) ^ a[2].rotate_left(16) ^ a[3].rotate_left(24)
    }
}

/// Whether the first `len` bits of two words, which hold bytes in network order, are the same.
#[inline(always)]
fn word_matches(a: u32, b: u32, len: u8) -> bool {
    let differing = u32::from_be(a ^ b);
    len == 0 || differing >> (32 - u32::from(len.min(32))) == 0
}
