//! What the eBPF programs and user space share: map keys and values, drop reasons, constants.
//!
//! Every struct is `repr(C)` without padding, so its bytes can be a map key. Wire quantities (addresses, ports, VNIs,
//! Ethernet addresses) are byte arrays in network order; kernel quantities (interface indexes, ids) are native
//! integers. Structs of bytes alone are aligned to four all the same, so that the programs copy and compare them by words.
//! A change of any layout here must raise [`LAYOUT_VERSION`]: pinned maps are adopted only at the same one.
#![no_std]

mod address;
mod config;
mod counter;
mod endpoint;
mod event;
mod flow;
mod hash;
mod mac;
mod question;
mod recent;
mod service;
mod socket;
mod traffic;
#[cfg(feature = "user")]
mod user;

pub use address::{ANY_V4, ANY_V6, Address, is_v4, v4_mapped, v4_of};
pub use config::{HostAddressKey, NodeConfig, PeerKey, PeerValue, node_flags};
pub use counter::{Counter, DropReason};
pub use endpoint::{
    EndpointKey, EndpointValue, LocalEndpoint, NetworkKey, NetworkValue, local_flags, network_flags,
};
pub use event::{
    EVENTS_LEN, EntryPoint, EventCounts, EventHead, EventKind, NOT_ICMP, SNAP, Sight, WATCH_WINDOW_NS, Watch,
    watch_kinds,
};
pub use flow::{
    AffinityKey, AffinityValue, ChoiceValue, FlowKey, FragmentKey, FragmentValue, ReturnPath, ReverseValue,
    flow_state,
};
pub use hash::{double, finish, flow_hash, ports, times};
pub use mac::{GATEWAY_MAC, Steering, SteeringKind, Turn};
pub use question::{QUESTION, QUESTION_LEN};
pub use recent::{ChoiceSet, ChoiceSlot, HEAD_STEP, Place, WAYS, set_of};
pub use service::{
    BackendValue, ServiceKey, ServiceValue, TABLE_BLOCK, TableBlock, backend_flags, service_flags,
};
pub use socket::{SocketKey, SocketValue};
pub use traffic::TrafficValue;

/// Version of the maps' layout; part of the path under which they are pinned.
pub const LAYOUT_VERSION: u32 = 3;

/// Bytes that VXLAN over IPv4 adds: outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14.
pub const VXLAN_OVERHEAD_V4: u32 = 50;
/// Bytes that VXLAN over IPv6 adds: outer IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14.
pub const VXLAN_OVERHEAD_V6: u32 = 70;

/// Length of `DISPLACED`, an array of `u32` in which the programs mark where a flow could not have its client's own source
/// port at the task.
pub const DISPLACED_MARKS: u32 = 4096;

/// VNI of packets to published ports and VIPs on their way to the chosen task's node, the original packet untouched.
pub const INGRESS_VNI: [u8; 4] = [0, 0, 0, 1];
/// VNI of replies from published ports on their way back to the node that the client spoke to.
pub const RETURN_VNI: [u8; 4] = [0, 0, 0, 2];

/// `FlowKey::scope` and `ServiceKey::vni` of published ports, which belong to no network.
pub const PUBLISHED: [u8; 4] = [0; 4];

/// Address that the cgroup programs give to `localhost:PORT` and own-address:PORT connections of the node; routed over
/// the host link, where they are balanced like packets from outside.
pub const HOST_SERVICE_ADDRESS: [u8; 4] = [169, 254, 63, 1];
/// The same for IPv6: a unique local address (RFC 4193) that no packet on a wire has.
pub const HOST_SERVICE_ADDRESS6: Address = [0xfd, 0x6d, 0x65, 0x73, 0x68, 0x63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// First address and prefix length of the node-local addresses that stand for sandboxes on their way out.
pub const EGRESS_POOL: ([u8; 4], u8) = ([169, 254, 64, 0], 18);
/// The same for IPv6; the endpoint's id is in the last four bytes, the others are as they are here.
pub const EGRESS_POOL6: (Address, u8) =
    ([0xfd, 0x6d, 0x65, 0x73, 0x68, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 96);
