//! Two nodes in one namespace: each its own copy of the programs and maps, and its own interfaces.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr},
    process::Command,
};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use mesh_abi::{
    ANY_V4, ANY_V6, Address, BackendValue, ChoiceValue, Counter, DropReason, EGRESS_POOL6, EndpointKey,
    EndpointValue, EventCounts, EventHead, FlowKey, HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6,
    HostAddressKey, LocalEndpoint, NetworkKey, NetworkValue, NodeConfig, PUBLISHED, PeerKey, PeerValue,
    ReverseValue, ServiceKey, ServiceValue, TableBlock, TrafficValue, Watch, local_flags, network_flags,
    node_flags, v4_mapped,
};
use nix::sched::{CloneFlags, unshare};

use crate::packets::{Ip, Mac};

pub const VNI: [u8; 4] = [0, 0, 0x10, 0];
pub const VNI_NUMBER: u32 = 4096;
pub const GATEWAY: Ip = [10, 10, 3, 1];
pub const VIP: Ip = [10, 10, 3, 2];
pub const EMPTY_VIP: Ip = [10, 10, 3, 3];
/// Published ports: to a task on either node, and to nobody.
pub const PORT_1: u16 = 8081;
pub const PORT_2: u16 = 8082;
pub const PORT_NONE: u16 = 8083;
pub const TARGET: u16 = 80;
pub const HOST_MAC: Mac = [2, 0, 0, 0, 0xaa, 1];
pub const CLIENT: Ip = [203, 0, 113, 9];
pub const INNER_MTU: u32 = 1450;
/// Room for new flows that were answered, and for as many that were not.
const CHOICE_RING: u32 = 512;

/// A task: `a` and `b` are on node 1, `c` is on node 2.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub node: u8,
    pub id: u32,
    pub address: Ip,
    pub mac: Mac,
}

pub const A: Task = Task { node: 1, id: 11, address: [10, 10, 3, 11], mac: [2, 0, 0, 0, 3, 11] };
pub const B: Task = Task { node: 1, id: 12, address: [10, 10, 3, 12], mac: [2, 0, 0, 0, 3, 12] };
pub const C: Task = Task { node: 2, id: 13, address: [10, 10, 3, 13], mac: [2, 0, 0, 0, 3, 13] };
pub const GENERATION: u16 = 7;

/// The VTEP address of a node.
pub fn vtep(node: u8) -> Ip {
    [192, 0, 2, node]
}

/// What a program said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    Redirect,
}

/// A node's programs and maps.
pub struct Node {
    pub number: u8,
    underlay: Family,
    /// Programs are loaded when they are first run: the verifier takes its time for each.
    ebpf: RefCell<Ebpf>,
    pub uplink: u32,
    pub host: u32,
}

impl Node {
    /// Both nodes, in a new namespace of the calling thread.
    pub fn pair() -> (Self, Self) {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own: is this root?");
        (Self::new(1, 1024), Self::new(2, 1024))
    }

    /// Both nodes, over an underlay of that family.
    pub fn pair_over(underlay: Family) -> (Self, Self) {
        let (mut one, mut two) = Self::pair();
        for node in [&mut one, &mut two] {
            node.underlay = underlay;
            node.fill();
        }
        (one, two)
    }

    /// Node 1 alone, with room for so many translated flows.
    pub fn with_flows(flows: u32) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own: is this root?");
        Self::new(1, flows)
    }

    /// Both nodes, with room for so many established flows.
    pub fn pair_with_kept(flows: u32) -> (Self, Self) {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own: is this root?");
        (Self::sized(1, 1024, flows), Self::sized(2, 1024, flows))
    }

    fn new(number: u8, flows: u32) -> Self {
        Self::sized(number, flows, 1024)
    }

    fn sized(number: u8, flows: u32, kept: u32) -> Self {
        // Small tables: there are many tests.
        let ebpf = EbpfLoader::new()
            .map_max_entries("MAGLEV", 64)
            .map_max_entries("CHOICES", 2 * CHOICE_RING)
            .map_max_entries("CHOICE_INDEX", CHOICE_RING / 4)
            .map_max_entries("CHOICES_KEPT", kept)
            .map_max_entries("REVERSE", flows)
            .map_max_entries("REVERSE_KEPT", kept)
            .map_max_entries("FRAGMENTS", 64)
            .map_max_entries("AFFINITY", 64)
            .map_max_entries("SOCKETS", 64)
            .load(mesh_lb::OBJECT)
            .expect("load");
        let (uplink, host) = (interface(&format!("up{number}")), interface(&format!("host{number}")));
        let mut node = Self { number, underlay: Family::V4, ebpf: RefCell::new(ebpf), uplink, host };
        node.fill();
        node
    }

    fn fill(&mut self) {
        let number = self.number;
        self.configure(|_| ());
        for other in [1, 2, 3] {
            if other != number {
                self.put("PEERS", PeerKey { vtep: self.vtep_of(other) }, PeerValue::default());
            }
        }
        for family in BOTH {
            self.put(
                "HOST_ADDRESSES",
                HostAddressKey { address: mapped(node_address(number, family)) },
                1u32,
            );
        }
        self.network(0);
        for task in [A, B, C] {
            self.add(task);
        }
        // Maglev regions of one element: the VIP and the first port have C and A, the second port has C.
        let mut maglev: Array<_, TableBlock> =
            Array::try_from(self.ebpf.get_mut().map_mut("MAGLEV").unwrap()).unwrap();
        let mut block: TableBlock = [0; 64];
        block[..3].copy_from_slice(&[C.id, A.id, B.id]);
        maglev.set(0, block, 0).unwrap();
        self.service(vip_key(VIP), 0, 1, 0);
        self.service(vip_key(EMPTY_VIP), 0, 0, 0);
        self.service(ServiceKey { address: mapped(vip(Family::V6)), ..vip_key(VIP) }, 0, 1, 0);
        for address in [ANY_V4, ANY_V6] {
            for protocol in [6, 17] {
                let key = |port| ServiceKey { address, ..port_key(port, protocol) };
                self.service(key(PORT_1), 1, 1, TARGET);
                self.service(key(PORT_2), 0, 1, TARGET);
                self.service(key(PORT_NONE), 0, 0, TARGET);
            }
            let key = |port| ServiceKey { address, ..port_key(port, SCTP) };
            self.service(key(PORT_1), 1, 1, PORT_1);
            self.service(key(PORT_2), 0, 1, PORT_2);
        }
    }

    /// The node's configuration, changed by `change`.
    pub fn configure(&mut self, change: impl FnOnce(&mut NodeConfig)) {
        let mut config = NodeConfig {
            flags: node_flags::FAST_PATH
                | if self.underlay == Family::V6 { node_flags::UNDERLAY_V6 } else { 0 },
            uplink_ifindex: self.uplink,
            vxlan_ifindex: self.uplink,
            host_ifindex: self.host,
            inner_mtu: INNER_MTU,
            choice_mask: CHOICE_RING - 1,
            vxlan_port: 4789u16.to_be_bytes(),
            vtep: self.vtep_of(self.number),
            host_mac: HOST_MAC,
            ..NodeConfig::default()
        };
        change(&mut config);
        let mut map: Array<_, NodeConfig> =
            Array::try_from(self.ebpf.get_mut().map_mut("CONFIG").unwrap()).unwrap();
        map.set(0, config, 0).unwrap();
    }

    /// The network, with these flags.
    pub fn network(&mut self, flags: u8) {
        let value = NetworkValue {
            subnet4: [10, 10, 3, 0],
            gateway4: GATEWAY,
            prefix4: 24,
            subnet6: mapped(task_address6(0)),
            gateway6: mapped(gateway(Family::V6)),
            prefix6: 64,
            flags: flags | network_flags::IPV4 | network_flags::IPV6,
            reserved: 0,
        };
        self.put("NETWORKS", NetworkKey { vni: VNI }, value);
    }

    pub fn make_internal(&mut self) {
        self.network(network_flags::INTERNAL);
    }

    fn add(&mut self, task: Task) {
        let here = task.node == self.number;
        let ifindex = if here { interface(&format!("task{}", task.id)) } else { 0 };
        let vtep = self.vtep_of(task.node);
        let endpoint =
            EndpointValue { vtep, ifindex, mac: task.mac, local: if here { task.id as u16 } else { 0 } };
        for family in BOTH {
            let address = mapped(task.at(family));
            self.put("ENDPOINTS", EndpointKey { vni: VNI, address }, endpoint);
        }
        if here {
            let local = LocalEndpoint {
                address6: mapped(task.at(Family::V6)),
                egress6: mapped(egress_of(task, Family::V6)),
                address4: task.address,
                egress4: egress(task),
                vni: VNI,
                ifindex,
                id: task.id,
                flags: local_flags::SERVED,
                mac: task.mac,
                generation: GENERATION,
            };
            self.put("LOCAL_BY_IFINDEX", ifindex, local);
            self.put("LOCAL_BY_ID", task.id, local);
        }
        self.backend(task, 0);
    }

    /// Makes a task of this node one of no service.
    pub fn serves_nobody(&mut self, task: Task) {
        let index = index(&format!("task{}", task.id));
        let mut map: HashMap<&mut MapData, u32, LocalEndpoint> =
            HashMap::try_from(self.ebpf.get_mut().map_mut("LOCAL_BY_IFINDEX").unwrap()).unwrap();
        let local = map.get(&index, 0).unwrap();
        map.insert(index, LocalEndpoint { flags: 0, ..local }, 0).unwrap();
    }

    /// The task as a backend, with these flags.
    pub fn backend(&mut self, task: Task, flags: u32) {
        let here = task.node == self.number;
        let value = BackendValue {
            vtep: self.vtep_of(task.node),
            address: v4_mapped(task.address),
            vni: VNI,
            endpoint: task.id,
            ifindex: if here { index(&format!("task{}", task.id)) } else { 0 },
            flags,
            generation: GENERATION,
            reserved: [0; 2],
        };
        self.put("BACKENDS", task.id, value);
    }

    pub fn service(&mut self, key: ServiceKey, table_base: u32, table_len: u32, target: u16) {
        let target_port = target.to_be_bytes();
        let value = ServiceValue { table_base, table_len, target_port, ..ServiceValue::default() };
        self.put("SERVICES", key, value.with(0, counter_of(&key)));
    }

    /// The service of a key, changed by `change`.
    pub fn service_with(&mut self, key: ServiceKey, change: impl FnOnce(&mut ServiceValue)) {
        let mut value = self.get::<_, ServiceValue>("SERVICES", key).unwrap();
        change(&mut value);
        self.put("SERVICES", key, value);
    }

    /// The first Maglev slots.
    pub fn table(&mut self, tasks: &[Task]) {
        let mut maglev: Array<_, TableBlock> =
            Array::try_from(self.ebpf.get_mut().map_mut("MAGLEV").unwrap()).unwrap();
        let mut block = maglev.get(&0, 0).unwrap();
        block.iter_mut().zip(tasks).for_each(|(slot, task)| *slot = task.id);
        maglev.set(0, block, 0).unwrap();
    }

    pub fn put<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) {
        self.put_all(map, [(key, value)]);
    }

    pub fn put_all<K: Pod, V: Pod>(&mut self, map: &str, entries: impl IntoIterator<Item = (K, V)>) {
        let mut map: HashMap<&mut MapData, K, V> =
            HashMap::try_from(self.ebpf.get_mut().map_mut(map).unwrap()).unwrap();
        for (key, value) in entries {
            map.insert(key, value, 0).unwrap();
        }
    }

    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: K) {
        let mut map: HashMap<&mut MapData, K, V> =
            HashMap::try_from(self.ebpf.get_mut().map_mut(map).unwrap()).unwrap();
        map.remove(&key).unwrap();
    }

    /// What a map of flows says of one.
    pub fn get<K: Pod, V: Pod>(&self, map: &str, key: K) -> Option<V> {
        let ebpf = self.ebpf.borrow();
        let map: HashMap<&MapData, K, V> = HashMap::try_from(ebpf.map(map).unwrap()).unwrap();
        map.get(&key, 0).ok()
    }

    /// Lets every flow that is not kept yet seem to have been silent for two seconds.
    pub fn flows_rest(&self) {
        let mut ebpf = self.ebpf.borrow_mut();
        fn older<V: Pod>(map: &mut aya::maps::Map, last_seen: impl Fn(&mut V) -> &mut u64) {
            let mut map: HashMap<&mut MapData, FlowKey, V> = HashMap::try_from(map).unwrap();
            let all: Vec<(FlowKey, V)> = map.iter().map(|entry| entry.unwrap()).collect();
            for (key, mut value) in all {
                *last_seen(&mut value) -= 2_000_000_000;
                map.insert(key, value, 0).unwrap();
            }
        }
        older::<ReverseValue>(ebpf.map_mut("REVERSE").unwrap(), |value| &mut value.last_seen);
        let choices = choices(&ebpf);
        let mut all = Vec::new();
        choices.for_each(|key, value| all.push((key, value)));
        for (key, mut value) in all {
            value.last_seen -= 2_000_000_000;
            choices.remove(&key);
            assert!(choices.add(&key, &value));
        }
    }

    /// The choice for a flow that is not kept.
    pub fn choice(&self, key: &FlowKey) -> Option<ChoiceValue> {
        choices(&self.ebpf.borrow()).get(key)
    }

    /// How many choices are not kept.
    pub fn choices(&self) -> usize {
        let mut count = 0;
        choices(&self.ebpf.borrow()).for_each(|_, _| count += 1);
        count
    }

    /// Forgets the choices of all flows that are not kept.
    pub fn clear_flows(&self) {
        let choices = choices(&self.ebpf.borrow());
        let mut keys = Vec::new();
        choices.for_each(|key, _| keys.push(key));
        keys.iter().for_each(|key| choices.remove(key));
    }

    /// How many flows a map holds.
    pub fn count<K: Pod, V: Pod>(&self, map: &str) -> usize {
        let ebpf = self.ebpf.borrow();
        let map: HashMap<&MapData, K, V> = HashMap::try_from(ebpf.map(map).unwrap()).unwrap();
        map.keys().filter(|key| key.is_ok()).count()
    }

    /// What `uplink_xdp` makes of a packet; its action is one of the kernel's `enum xdp_action`.
    pub fn uplink_xdp(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        let mut ebpf = self.ebpf.borrow_mut();
        let program: &mut Xdp = ebpf.program_mut("uplink_xdp").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            load(|| program.load());
        }
        // `struct xdp_md` of linux/bpf.h.
        let mut context = [0u8; 24];
        context[4..8].copy_from_slice(&(packet.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&self.uplink.to_ne_bytes());
        let mut out = vec![0u8; packet.len() + 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The host side of a task's link.
    pub fn interface_of(&self, task: Task) -> u32 {
        index(&format!("task{}", task.id))
    }

    /// What `from_task` makes of a packet that a task sends.
    pub fn task_sends(&self, task: Task, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("from_task", index(&format!("task{}", task.id)), packet, 0)
    }

    pub fn to_task(&self, task: Task, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("to_task", index(&format!("task{}", task.id)), packet, 0)
    }

    pub fn uplink(&self, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("uplink", self.uplink, packet, 0)
    }

    pub fn socket_sends(&self, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("from_host", self.host, packet, 0)
    }

    /// Runs a program once; `gso_size` other than 0 makes the packet one that is still to be segmented.
    pub fn run(&self, program: &str, ifindex: u32, packet: &[u8], gso_size: u32) -> (Action, Vec<u8>) {
        let mut ebpf = self.ebpf.borrow_mut();
        let program: &mut SchedClassifier = ebpf.program_mut(program).unwrap().try_into().unwrap();
        if program.fd().is_err() {
            load(|| program.load());
        }
        // `struct __sk_buff` of linux/bpf.h, of which a test run takes these fields.
        let mut context = [0u8; 192];
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        context[164..168].copy_from_slice(&u32::from(gso_size != 0).to_ne_bytes());
        context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        let mut out = vec![0u8; packet.len() + 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value as i32 {
            -1 => Action::Pass,
            2 => Action::Drop,
            7 => Action::Redirect,
            other => panic!("verdict {other}"),
        };
        (action, out)
    }

    /// The packets counted as dropped so far, without the reasons that never came up.
    pub fn drops(&self) -> BTreeMap<DropReason, u64> {
        let all = DropReason::ALL.iter().map(|reason| (*reason, self.slot("DROPS", *reason as u32)));
        all.filter(|(_, count)| *count != 0).collect()
    }

    pub fn counted(&self, counter: Counter) -> u64 {
        self.slot("COUNTERS", counter as u32)
    }

    /// What was counted of a task of this node.
    pub fn traffic_of(&self, task: Task) -> TrafficValue {
        self.traffic("ENDPOINT_TRAFFIC", task.id)
    }

    /// What was counted of a service.
    pub fn traffic_to(&self, key: &ServiceKey) -> TrafficValue {
        self.traffic("SERVICE_TRAFFIC", counter_of(key).into())
    }

    fn traffic(&self, map: &str, index: u32) -> TrafficValue {
        let ebpf = self.ebpf.borrow();
        let map: PerCpuArray<_, TrafficValue> = PerCpuArray::try_from(ebpf.map(map).unwrap()).unwrap();
        let all = map.get(&index, 0).unwrap();
        let sum = |of: fn(&TrafficValue) -> u64| all.iter().map(of).sum();
        TrafficValue {
            packets_in: sum(|t| t.packets_in),
            bytes_in: sum(|t| t.bytes_in),
            packets_out: sum(|t| t.packets_out),
            bytes_out: sum(|t| t.bytes_out),
            new_flows: sum(|t| t.new_flows),
            drops_in: sum(|t| t.drops_in),
            drops_out: sum(|t| t.drops_out),
            reserved: sum(|t| t.reserved),
        }
    }

    /// Lets the programs tell of this from now on, for a minute.
    pub fn watch(&self, watch: Watch) {
        self.set_watch(Watch { until: nanoseconds() + 60_000_000_000, ..watch });
    }

    pub fn set_watch(&self, watch: Watch) {
        let mut ebpf = self.ebpf.borrow_mut();
        let mut map: Array<_, Watch> = Array::try_from(ebpf.map_mut("WATCH").unwrap()).unwrap();
        map.set(0, watch, 0).unwrap();
    }

    /// What was told since the last call, with the bytes of packets.
    pub fn told(&self) -> Vec<(EventHead, Vec<u8>)> {
        let mut ebpf = self.ebpf.borrow_mut();
        let mut ring = RingBuf::try_from(ebpf.map_mut("EVENTS").unwrap()).unwrap();
        let mut all = Vec::new();
        while let Some(record) = ring.next() {
            let (head, bytes) = record.split_at(size_of::<EventHead>());
            // SAFETY: plain integers, as many bytes.
            let head: EventHead = unsafe { head.as_ptr().cast::<EventHead>().read_unaligned() };
            all.push((head, bytes.to_vec()));
        }
        all
    }

    /// Events told, those that were too many, those that were lost.
    pub fn event_counts(&self) -> (u64, u64, u64) {
        let ebpf = self.ebpf.borrow();
        let map: PerCpuArray<_, EventCounts> =
            PerCpuArray::try_from(ebpf.map("EVENT_COUNTS").unwrap()).unwrap();
        let all = map.get(&0, 0).unwrap();
        let sum = |of: fn(&EventCounts) -> u64| all.iter().map(of).sum();
        (sum(|c| c.told), sum(|c| c.limited), sum(|c| c.lost))
    }

    fn slot(&self, map: &str, index: u32) -> u64 {
        let ebpf = self.ebpf.borrow();
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(ebpf.map(map).unwrap()).unwrap();
        map.get(&index, 0).unwrap().iter().sum()
    }
}

impl Node {
    /// A node's VTEP address.
    fn vtep_of(&self, number: u8) -> Address {
        mapped(node_address(number, self.underlay))
    }

    /// Which underlay packets cross.
    pub fn underlay(&self) -> Family {
        self.underlay
    }
}

/// The choices that are not kept.
fn choices(ebpf: &Ebpf) -> mesh_lb::Choices {
    let map = |name| match ebpf.map(name) {
        Some(aya::maps::Map::Array(data)) => data,
        _ => panic!("no array {name}"),
    };
    mesh_lb::Choices::new(map("CHOICES"), map("CHOICE_INDEX"), map("CHOICE_HEADS")).unwrap()
}

/// Loads a program. A verifier that is interrupted, by whatever signal, asks to be called again.
fn load(mut attempt: impl FnMut() -> Result<(), ProgramError>) {
    let interrupted = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == ErrorKind::WouldBlock,
        _ => false,
    };
    let last = (0..20).map(|_| attempt()).find(|loaded| !loaded.as_ref().is_err_and(interrupted));
    last.expect("a verifier that is not interrupted each time").expect("the verifier takes the program");
}

/// A family of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
pub const SCTP: u8 = 132;

impl Task {
    /// Its address of a family.
    pub fn at(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.address.into(),
            Family::V6 => task_address6(self.address[3]),
        }
    }
}

/// An address of a node, by which published ports are reached, too.
pub fn node_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => vtep(number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn task_address6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd10, 3, 0, 0, 0, 0, 0, last.into()).into()
}

pub fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => GATEWAY.into(),
        Family::V6 => task_address6(1),
    }
}

pub fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => VIP.into(),
        Family::V6 => task_address6(2),
    }
}

/// Somebody outside.
pub fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLIENT.into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9).into(),
    }
}

/// The address by which host sockets reach published ports.
pub fn host_service(family: Family) -> IpAddr {
    match family {
        Family::V4 => HOST_SERVICE_ADDRESS.into(),
        Family::V6 => HOST_SERVICE_ADDRESS6.into(),
    }
}

/// The address that stands for a task outside.
pub fn egress_of(task: Task, family: Family) -> IpAddr {
    let mut pool = EGRESS_POOL6.0;
    pool[15] = task.id as u8;
    match family {
        Family::V4 => egress(task).into(),
        Family::V6 => pool.into(),
    }
}

/// An address as maps hold it.
pub fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4_mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub fn egress(task: Task) -> Ip {
    [169, 254, 64, task.id as u8]
}

pub fn vip_key(address: Ip) -> ServiceKey {
    ServiceKey { vni: VNI, address: v4_mapped(address), ..ServiceKey::default() }
}

pub fn port_key(port: u16, protocol: u8) -> ServiceKey {
    ServiceKey { vni: PUBLISHED, address: ANY_V4, port: port.to_be_bytes(), protocol, reserved: 0 }
}

/// The clock that the programs read.
pub fn nanoseconds() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    std::time::Duration::from(now).as_nanos() as u64
}

/// Where the service of a key is counted: VIPs by the last byte of their address, ports by theirs.
fn counter_of(key: &ServiceKey) -> u16 {
    if key.vni == PUBLISHED { u16::from_be_bytes(key.port) % 1000 } else { key.address[15].into() }
}

/// Makes an interface of that name (a bridge: every kernel has them) and returns its number. It goes with the namespace.
fn interface(name: &str) -> u32 {
    if let Ok(index) = nix::net::if_::if_nametoindex(name) {
        return index;
    }
    let made = Command::new("ip").args(["link", "add", "name", name, "type", "bridge"]).status().unwrap();
    assert!(made.success(), "ip link add {name}");
    index(name)
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}
