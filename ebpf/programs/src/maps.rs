//! Every map of the data path. Sizes are defaults; the loader sets its own through `max_entries`.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use mesh_abi::{
    AffinityKey, AffinityValue, BackendValue, ChoiceSet, ChoiceSlot, ChoiceValue, Counter, DISPLACED_MARKS,
    DropReason, EVENTS_LEN, EndpointKey, EndpointValue, EventCounts, FlowKey, FragmentKey, FragmentValue,
    HEAD_STEP, HostAddressKey, LocalEndpoint, NetworkKey, NetworkValue, NodeConfig, PeerKey, PeerValue,
    ReverseValue, ServiceKey, ServiceValue, SocketKey, SocketValue, TableBlock, TrafficValue, Watch,
};

use crate::{
    conntrack::Clock,
    decap::Arrival,
    deliver::Way,
    events::Room,
    family::{V4, V6},
    parse::{Packet, Tuple},
    passing::{self, Passing},
    recent::Block,
    reverse::Search,
    stage,
    xdp_next_hop::{SLOTS, ToBackend, ToClient},
};

/// `CONFIG[0]`: the node itself.
#[map]
pub static CONFIG: Array<NodeConfig> = Array::with_max_entries(1, 0);

/// Nodes whose VXLAN packets are taken.
#[map]
pub static PEERS: HashMap<PeerKey, PeerValue> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// The node's own addresses, on which published ports are open.
#[map]
pub static HOST_ADDRESSES: HashMap<HostAddressKey, u32> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// Networks with an endpoint on this node.
#[map]
pub static NETWORKS: HashMap<NetworkKey, NetworkValue> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Endpoints of those networks, wherever they are.
#[map]
pub static ENDPOINTS: HashMap<EndpointKey, EndpointValue> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// This node's endpoints by host-side interface.
#[map]
pub static LOCAL_BY_IFINDEX: HashMap<u32, LocalEndpoint> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// This node's endpoints by the id that steered packets carry.
#[map]
pub static LOCAL_BY_ID: HashMap<u32, LocalEndpoint> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// VIPs and published ports.
#[map]
pub static SERVICES: HashMap<ServiceKey, ServiceValue> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// The services' Maglev tables, one region of slots each, which are keys into `BACKENDS`.
#[map]
pub static MAGLEV: Array<TableBlock> = Array::with_max_entries(16_384, 0);

/// Endpoints behind services.
#[map]
pub static BACKENDS: HashMap<u32, BackendValue> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// The backend each new flow was given, on the node that its packets entered. User space has it in its memory, too.
#[map]
pub static CHOICES: Array<ChoiceSlot> = Array::with_max_entries(32_768, BPF_F_MMAPABLE);

/// Where in it each flow is.
#[map]
pub static CHOICE_INDEX: Array<ChoiceSet> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

/// How many places of each ring were given to CPUs.
#[map]
pub static CHOICE_HEADS: Array<u64> = Array::with_max_entries(HEAD_STEP * 2, BPF_F_MMAPABLE);

/// Those that this CPU was given.
#[map]
pub static CHOICE_BLOCKS: PerCpuArray<[Block; 2]> = PerCpuArray::with_max_entries(1, 0);

/// What was read of one of them last, which may be another's by now.
#[map]
pub static RECENT: PerCpuArray<ChoiceValue> = PerCpuArray::with_max_entries(1, 0);

/// The backends of established flows.
#[map]
pub static CHOICES_KEPT: HashMap<FlowKey, ChoiceValue> =
    HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// How replies are translated back, on the task's node.
#[map]
pub static REVERSE: LruHashMap<FlowKey, ReverseValue> = LruHashMap::with_max_entries(131_072, 0);

/// The same for established flows.
#[map]
pub static REVERSE_KEPT: HashMap<FlowKey, ReverseValue> =
    HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Where a flow could not have its client's own port at the task: not zero at the hash of the reply's key that it would
/// have had. Never cleared: all that it costs is a longer search.
#[map]
pub static DISPLACED: Array<u32> = Array::with_max_entries(DISPLACED_MARKS, 0);

/// `CLOCK[0]`: the time.
#[map]
pub static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);

/// Next hops towards clients. Per CPU, so that nobody writes while another reads.
#[map]
pub static NEXT_HOPS: PerCpuArray<ToClient> = PerCpuArray::with_max_entries(SLOTS, 0);

/// Ways to backends on other nodes.
#[map]
pub static ROADS: PerCpuArray<ToBackend> = PerCpuArray::with_max_entries(SLOTS, 0);

/// Established flows that just passed, by hash.
#[map]
pub static PASSING: PerCpuArray<Passing> = PerCpuArray::with_max_entries(passing::SLOTS, 0);

/// In which stage flows were found last, by hash.
#[map]
pub static STAGES: PerCpuArray<u32> = PerCpuArray::with_max_entries(stage::SLOTS, 0);

/// Room for a search.
#[map]
pub static SEARCH: PerCpuArray<Search> = PerCpuArray::with_max_entries(1, 0);

/// Ports of fragmented packets.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::with_max_entries(8192, 0);

/// The backends that clients of services with source affinity were given.
#[map]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityValue> = LruHashMap::with_max_entries(65_536, 0);

/// Dropped packets by reason.
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DropReason::COUNT, 0);

/// Other packets by the way they went.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// What tasks of this node send and get, by the id of their endpoint.
#[map]
pub static ENDPOINT_TRAFFIC: PerCpuArray<TrafficValue> = PerCpuArray::with_max_entries(1024, 0);

/// What clients of services send and get, at the node that their packets entered.
#[map]
pub static SERVICE_TRAFFIC: PerCpuArray<TrafficValue> = PerCpuArray::with_max_entries(1024, 0);

/// `WATCH[0]`: what user space wants to be told.
#[map]
pub static WATCH: Array<Watch> = Array::with_max_entries(1, 0);

/// What it is told.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_LEN, 0);

/// How much that was.
#[map]
pub static EVENT_COUNTS: PerCpuArray<EventCounts> = PerCpuArray::with_max_entries(1, 0);

/// Room for an event.
#[map]
pub static EVENT_ROOM: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

/// What is known of the packet that a program runs for. On the stack it would take more room than there is, and the
/// verifier would walk each path on its own that leaves other values there.
#[repr(C)]
pub struct Scratch {
    /// The packet, if it is IPv4.
    pub packet4: Packet<V4>,
    /// The packet, if it is IPv6.
    pub packet6: Packet<V6>,
    /// The packet that it quotes, if it is an ICMP error.
    pub quote4: Packet<V4>,
    /// The same for IPv6.
    pub quote6: Packet<V6>,
    /// What an ICMP error and its quotation become.
    pub tuples4: [Tuple<V4>; 2],
    /// The same for IPv6.
    pub tuples6: [Tuple<V6>; 2],
    /// What it came in, from another node.
    pub arrival: Arrival,
    /// Where it goes.
    pub way: Way,
    /// A flow that is to be remembered.
    pub reply: FlowKey,
    /// What its replies become.
    pub value: ReverseValue,
}

/// `SCRATCH[0]`: programs of one CPU run one after the other.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Where host sockets believe that they send to.
#[map]
pub static SOCKETS: LruHashMap<SocketKey, SocketValue> = LruHashMap::with_max_entries(65536, 0);

/// Room for the packet that the program runs for.
#[inline(always)]
pub fn scratch() -> Result<*mut Scratch, DropReason> {
    SCRATCH.get_ptr_mut(0).ok_or(DropReason::HelperFailed)
}

/// The node's configuration; nothing while user space has not written any.
#[inline(always)]
pub fn node() -> Option<&'static NodeConfig> {
    let node = CONFIG.get(0)?;
    if node.uplink_ifindex == 0 { None } else { Some(node) }
}
