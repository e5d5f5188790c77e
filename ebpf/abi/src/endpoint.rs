//! Networks and endpoints.

use crate::Address;

/// Key of `NETWORKS`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkKey {
    /// The VNI, network order in the low three bytes.
    pub vni: [u8; 4],
}

/// Bits of [`NetworkValue::flags`].
pub mod network_flags {
    /// No way out: packets to addresses outside the subnet are dropped.
    pub const INTERNAL: u8 = 1;
}

/// Value of `NETWORKS`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkValue {
    /// First address of the subnet.
    pub subnet: Address,
    /// The gateway's address, answered by the data path itself.
    pub gateway: Address,
    /// Prefix length within the 128 bits of `subnet`: 96 more than an IPv4 prefix length.
    pub prefix_len: u8,
    /// Bits of [`network_flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Key of `ENDPOINTS`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// The network.
    pub vni: [u8; 4],
    /// The endpoint's address on it.
    pub address: Address,
}

/// Value of `ENDPOINTS`: where an endpoint is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointValue {
    /// VTEP address of its node; the node's own for local endpoints.
    pub vtep: Address,
    /// Host-side interface of a local endpoint; 0 for remote ones.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `LOCAL_BY_IFINDEX` (key: host-side interface index, `u32`) and of `LOCAL_BY_ID` (key: local endpoint id,
/// `u32`): everything about an endpoint of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Its address.
    pub address: Address,
    /// Its network.
    pub vni: [u8; 4],
    /// Its host-side interface.
    pub ifindex: u32,
    /// Its id on this node.
    pub id: u32,
    /// Node-local address that stands for it outside; all zero when it has no way out.
    pub egress: [u8; 4],
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Which use of `id` this is.
    pub generation: u16,
}
