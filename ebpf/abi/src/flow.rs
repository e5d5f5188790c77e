//! Conntrack: the choice made for a flow, and how its replies are translated back.

use crate::Address;

/// Key of `CHOICES_KEPT`, `REVERSE` and `REVERSE_KEPT`: a flow as its packets look where the map is asked.
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

/// What has been seen of a flow: bits of [`ChoiceValue::state`] and [`ReverseValue::state`].
///
/// A flow begins in `CHOICES` and `REVERSE`, whose oldest entries give way to new ones. Once [`flow_state::CONFIRMED`]
/// is set it moves to `CHOICES_KEPT` and `REVERSE_KEPT`, from where only time (user space) or its end removes it.
pub mod flow_state {
    /// The side that was spoken to has answered.
    pub const ANSWERED: u8 = 1;
    /// The side that began has spoken again after an answer: the flow is established.
    pub const CONFIRMED: u8 = 2;
    /// TCP: the side that began has sent FIN.
    pub const CLIENT_FIN: u8 = 4;
    /// TCP: the side that was spoken to has sent FIN.
    pub const SERVER_FIN: u8 = 8;
    /// TCP: one side has sent RST.
    pub const RESET: u8 = 16;
    /// Answers do not come through this node (direct return): the opener's second packet confirms.
    pub const DIRECT: u8 = 32;
}

/// Value of `CHOICES_KEPT` and part of [`crate::ChoiceSlot`], on the node that the client's packet entered: which backend a flow was
/// given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoiceValue {
    /// Time of the last packet, `bpf_ktime_get_ns`; exact to a second.
    pub last_seen: u64,
    /// Key into `BACKENDS`; a choice whose backend is gone is made anew.
    pub backend: u32,
    /// Id of the task of this node whose flow to a published port of the node itself this is; 0 for other flows.
    pub client: u32,
    /// Interface by which the client's packets come in and its answers leave; 0 when that is not an uplink.
    pub ifindex: u32,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// Zero.
    pub reserved: u8,
    /// [`crate::ServiceValue::counter`] of the service that was spoken to.
    pub service: u16,
}

/// How a reply leaves the task's node.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnPath {
    /// To an endpoint of the same network (the flow came to a VIP).
    Network = 0,
    /// Through the node at `ReverseValue::vtep`, by the return VNI, out of its uplink.
    Tunnel = 1,
    /// Out of this node's own uplink, the one at `ReverseValue::ifindex`.
    Uplink = 2,
    /// To a socket of this node, over the host link.
    Host = 3,
    /// To a socket of the node at `ReverseValue::vtep`, over its host link.
    TunnelHost = 4,
}

/// Value of `REVERSE` (LRU) and `REVERSE_KEPT`, on the task's node (key: the reply as the task sends it): what the reply
/// must look like. Written again by every packet towards the task, so an evicted entry comes back by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseValue {
    /// Time of the last packet, `bpf_ktime_get_ns`; exact to a second.
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
    /// The uplink by which replies leave ([`ReturnPath::Uplink`]); 0 for [`crate::NodeConfig::uplink_ifindex`].
    pub ifindex: u32,
    /// A [`ReturnPath`].
    pub path: u8,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// [`crate::ServiceValue::counter`] of the service that was spoken to, if this node has made the choice; 0 otherwise.
    pub service: u16,
    /// Zero.
    pub reserved: [u8; 4],
}

/// Key of `FRAGMENTS`: what the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5).
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The network's VNI, or [`crate::PUBLISHED`].
    pub scope: [u8; 4],
    /// Identification, network order; IPv4's in the last two bytes.
    pub id: [u8; 4],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `FRAGMENTS` (LRU): the ports, which only the first fragment carries.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentValue {
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
}

/// Key of `AFFINITY`: a client of a service.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The client's address.
    pub client: Address,
    /// [`crate::ServiceValue::number`].
    pub service: u32,
}

/// Value of `AFFINITY` (LRU): the backend that the client was given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AffinityValue {
    /// Time of the last new flow, `bpf_ktime_get_ns`.
    pub last_seen: u64,
    /// Key into `BACKENDS`.
    pub backend: u32,
    /// Zero.
    pub reserved: u32,
}
