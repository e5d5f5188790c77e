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
    /// No way out: packets to addresses outside the subnets are dropped.
    pub const INTERNAL: u8 = 1;
    /// Has an IPv4 subnet.
    pub const IPV4: u8 = 2;
    /// Has an IPv6 subnet.
    pub const IPV6: u8 = 4;
}

/// Value of `NETWORKS`. The fields of a family that the network lacks are zero.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkValue {
    /// First address of the IPv6 subnet.
    pub subnet6: Address,
    /// Its gateway's address, answered by the data path itself.
    pub gateway6: Address,
    /// First address of the IPv4 subnet.
    pub subnet4: [u8; 4],
    /// Its gateway's address, answered by the data path itself.
    pub gateway4: [u8; 4],
    /// Length of the IPv4 prefix.
    pub prefix4: u8,
    /// Length of the IPv6 prefix.
    pub prefix6: u8,
    /// Bits of [`network_flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
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
    /// A local endpoint's id on this node, under which it is counted; 0 for remote ones.
    pub local: u16,
}

/// Bits of [`LocalEndpoint::flags`].
pub mod local_flags {
    /// Belongs to a service: only such endpoints are ever translated to, so only their packets may be replies of
    /// translated flows.
    pub const SERVED: u32 = 1;
}

/// Value of `LOCAL_BY_IFINDEX` (key: host-side interface index, `u32`) and of `LOCAL_BY_ID` (key: local endpoint id,
/// `u32`): everything about an endpoint of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Its IPv6 address; all zero when it has none.
    pub address6: Address,
    /// Node-local IPv6 address that stands for it outside; all zero when it has no way out.
    pub egress6: Address,
    /// Its IPv4 address; all zero when it has none.
    pub address4: [u8; 4],
    /// Node-local IPv4 address that stands for it outside; all zero when it has no way out.
    pub egress4: [u8; 4],
    /// Its network.
    pub vni: [u8; 4],
    /// Its host-side interface.
    pub ifindex: u32,
    /// Its id on this node.
    pub id: u32,
    /// Bits of [`local_flags`].
    pub flags: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Which use of `id` this is.
    pub generation: u16,
}
