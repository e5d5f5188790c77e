//! Conntrack: the choice made for a flow, and how its replies are translated back.

use crate::Address;

/// Key of `CHOICES` and `REVERSE`: a flow as its packets look where the map is asked.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The network's VNI, or [`crate::PUBLISHED`].
    pub scope: [u8; 4],
    /// Source port, network order; the identifier for ICMP echo.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `CHOICES` (LRU, on the node that the client's packet entered): which backend a flow was given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoiceValue {
    /// Time of the last packet, `bpf_ktime_get_ns`.
    pub last_seen: u64,
    /// Key into `BACKENDS`; a choice whose backend is gone is made anew.
    pub backend: u32,
    /// Id of the task of this node whose flow to a published port of the node itself this is; 0 for other flows.
    pub client: u32,
}

/// How a reply leaves the task's node.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnPath {
    /// To an endpoint of the same network (the flow came to a VIP).
    Network = 0,
    /// Through the node at `ReverseValue::vtep`, by the return VNI, out of its uplink.
    Tunnel = 1,
    /// Out of this node's own uplink.
    Uplink = 2,
    /// To a socket of this node, over the host link.
    Host = 3,
    /// To a socket of the node at `ReverseValue::vtep`, over its host link.
    TunnelHost = 4,
}

/// Value of `REVERSE` (LRU, on the task's node; key: the reply as the task sends it): what the reply must look like.
/// Written again by every packet towards the task, so an evicted entry comes back by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseValue {
    /// Time of the last packet, `bpf_ktime_get_ns`.
    pub last_seen: u64,
    /// The reply's new source: what the client spoke to.
    pub source: Address,
    /// The reply's new destination: the client.
    pub destination: Address,
    /// Where the packets came from: VTEP address of the node that the client spoke to.
    pub vtep: Address,
    /// New source port, network order.
    pub source_port: [u8; 2],
    /// New destination port, network order.
    pub destination_port: [u8; 2],
    /// A [`ReturnPath`].
    pub path: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
