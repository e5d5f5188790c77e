//! Two nodes in one namespace: each its own copy of the programs and maps, and its own interfaces.

use std::{cell::RefCell, process::Command};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData},
};
use mesh_abi::{
    ANY_V4, ANY_V6, Address, BackendValue, EndpointKey, EndpointValue, HostAddressKey, LocalEndpoint,
    NetworkKey, NetworkValue, NodeConfig, PUBLISHED, PeerKey, PeerValue, ServiceKey, ServiceValue,
    TableBlock, local_flags, network_flags, node_flags, v4_mapped,
};
use nix::sched::{CloneFlags, unshare};

mod addresses;
mod flows;
mod run;
mod told;

pub use addresses::*;
pub use run::Action;

/// Room for new flows that were answered, and for as many that were not.
const CHOICE_RING: u32 = 512;

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
