//! What the programs tell of packets and flows while somebody watches.

use crate::Address;

/// Bits of [`Watch::kinds`].
pub mod watch_kinds {
    /// Flows that begin.
    pub const NEW: u32 = 1;
    /// Flows that end.
    pub const CLOSED: u32 = 2;
    /// Packets that are dropped.
    pub const DROP: u32 = 4;
    /// Packets at each [`super::Sight`].
    pub const PACKET: u32 = 8;
}

/// `WATCH[0]`: what is told. All zero means nothing. A filter that is zero lets everything pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// When it ends, `bpf_ktime_get_ns`: nobody need be there any more to turn it off.
    pub until: u64,
    /// Bits of [`watch_kinds`].
    pub kinds: u32,
    /// Events for each CPU in each [`WATCH_WINDOW_NS`].
    pub rate: u32,
    /// Bytes of each packet that are told, at most [`SNAP`].
    pub snaplen: u32,
    /// Id of an endpoint of this node.
    pub endpoint: u32,
    /// A packet's mark (`SO_MARK`); flows have none.
    pub mark: u32,
    /// An address on either side.
    pub address: Address,
    /// A network.
    pub vni: [u8; 4],
    /// A port on either side, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Zero.
    pub reserved2: u32,
}

/// Time for which [`Watch::rate`] counts.
pub const WATCH_WINDOW_NS: u64 = 10_000_000;
/// Most bytes of a packet that are told.
pub const SNAP: usize = 2048;
/// Size of `EVENTS`, a ring buffer, in bytes.
pub const EVENTS_LEN: u32 = 256 << 10;

/// What an event is about.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A flow began; or, without a service, a TCP connection between tasks opens.
    New = 0,
    /// A flow ended.
    Closed = 1,
    /// A packet was dropped.
    Drop = 2,
    /// A packet is at a [`Sight`].
    Packet = 3,
}

/// Where a packet is seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// As a task has sent it.
    FromTask = 1,
    /// As a task gets it.
    ToTask = 2,
    /// On its way to another node, before outer headers.
    ToNode = 3,
    /// From another node, outer headers off.
    FromNode = 4,
}

impl Sight {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FromTask => "from-task",
            Self::ToTask => "to-task",
            Self::ToNode => "to-node",
            Self::FromNode => "from-node",
        }
    }
}

/// A program, as events name it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// `from_task`.
    FromTask = 1,
    /// `to_task`.
    ToTask = 2,
    /// `uplink`.
    Uplink = 3,
    /// `vxlan`.
    Vxlan = 4,
    /// `from_host`.
    FromHost = 5,
}

impl EntryPoint {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FromTask => "from_task",
            Self::ToTask => "to_task",
            Self::Uplink => "uplink",
            Self::Vxlan => "vxlan",
            Self::FromHost => "from_host",
        }
    }
}

/// Beginning of each record in `EVENTS`; the packet's first bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventHead {
    /// `bpf_ktime_get_ns`.
    pub time: u64,
    /// An [`EventKind`].
    pub kind: u8,
    /// An [`EntryPoint`]; 0 when not told.
    pub program: u8,
    /// A [`Sight`]; 0 for drops and flows.
    pub place: u8,
    /// A [`crate::DropReason`], plus one; 0 for others.
    pub reason: u8,
    /// The interface that the program runs for; for flows [`crate::ChoiceValue::ifindex`].
    pub ifindex: u32,
    /// Id of the endpoint of this node that is concerned; 0 when none is known.
    pub endpoint: u32,
    /// Flows: key into `BACKENDS`; 0 when there is none.
    pub backend: u32,
    /// Flows: [`crate::ServiceValue::number`]; 0 when not told.
    pub number: u32,
    /// The packet's mark.
    pub mark: u32,
    /// Bytes of the packet.
    pub len: u32,
    /// How many of these follow.
    pub captured: u32,
    /// Source address, of a flow the client's; zero when the packet is neither IP nor ARP, whose sender's it is.
    pub source: Address,
    /// Destination address, of a flow what the client speaks to; of ARP whose Ethernet address is asked for.
    pub destination: Address,
    /// The network; zero for published ports, and when not known.
    pub vni: [u8; 4],
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// TCP's flag byte.
    pub flags: u8,
    /// Flows: [`crate::ChoiceValue::service`].
    pub service: u16,
    /// Flows: bits of [`crate::flow_state`].
    pub state: u8,
    /// Type of an ICMP message; [`NOT_ICMP`] for others. Flows: not told.
    pub icmp_type: u8,
    /// The packet's EtherType, network order: of one that is neither IPv4 nor IPv6 there are no ports, and no addresses unless
    /// it is ARP. Flows: not told.
    pub ethertype: [u8; 2],
}

/// In place of an ICMP type.
pub const NOT_ICMP: u8 = 0xff;

/// `EVENT_COUNTS[0]`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// The present window, and how many events were told in it.
    pub window: u64,
    /// See `window`.
    pub used: u64,
    /// Events that were told.
    pub told: u64,
    /// Events that were too many.
    pub limited: u64,
    /// Events for which there was no room.
    pub lost: u64,
}
