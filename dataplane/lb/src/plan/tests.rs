//! Every prefix of a plan is safe to stop at, and a plan's end is what was desired.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use mesh_abi::{Address, BackendValue, EndpointValue, NodeConfig, ServiceKey, ServiceValue, backend_flags};
use mesh_types::{Generation, LocalEndpointId, Mac, NetworkId, Protocol, ServiceId, Subnet, TaskId, Vni};
use proptest::prelude::*;

use super::*;
use crate::{
    desired::{
        Backend, BackendKey, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NodeSettings, PeerEntry,
        PublishedOn, ServiceEntry, ServicePlan,
    },
    maglev,
    regions::table_of,
};

const ROOM: Capacities = Capacities {
    peers: 100,
    host_addresses: 100,
    networks: 100,
    endpoints: 100,
    local_by_id: 100,
    local_by_ifindex: 100,
    services: 100,
    backends: 100,
    counters: 101,
};
/// Room for five of the smallest tables and a bit.
const TABLE: u32 = 256 * 5 + 128;

fn empty() -> Desired {
    Desired::new(NodeSettings {
        vtep: Ipv4Addr::new(192, 0, 2, 1).into(),
        uplink_ifindex: 2,
        vxlan_ifindex: 3,
        host_ifindex: 4,
        host_mac: Mac([2, 0, 0, 0, 0, 1]),
        inner_mtu: 1450,
        vxlan_port: 4789,
        netns_cookie: 77,
        fast_path: true,
        outer_checksum: false,
    })
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 10, 3, n).into()
}

fn backend(n: u8, draining: bool) -> Backend {
    Backend {
        key: BackendKey(TaskId::from_u128(n.into()), NetworkId::from_u128(1)),
        vni: Vni::FIRST,
        address: address(n),
        vtep: Ipv4Addr::new(192, 0, 2, n % 3).into(),
        ifindex: (n % 3 == 1).then_some(u32::from(n)),
        endpoint: LocalEndpointId(n.into()),
        generation: Generation(1),
        draining,
        weight: 1,
    }
}

fn published(port: u16) -> Frontend {
    Frontend::Published { on: PublishedOn::AnyV4, port, protocol: Protocol::Tcp }
}

fn entry(backends: &[(u8, bool)]) -> ServiceEntry {
    let backends = backends.iter().map(|(n, draining)| backend(*n, *draining)).collect();
    ServiceEntry { affinity: None, direct: false, target_port: Some(80), backends }
}

/// A service of one port.
fn publish(desired: &mut Desired, port: u16, backends: &[(u8, bool)]) {
    let frontends = [(published(port), entry(backends))].into();
    let plan = ServicePlan { number: port.into(), frontends };
    desired.services.insert(ServiceId::from_u128(port.into()), Arc::new(plan));
}

fn with_services(services: &[(u16, &[u8])]) -> Desired {
    let mut desired = empty();
    for (port, backends) in services {
        let backends: Vec<_> = backends.iter().map(|n| (*n, false)).collect();
        publish(&mut desired, *port, &backends);
    }
    desired
}

/// The maps as the kernel sees them, kept apart from [`Held`].
#[derive(Clone)]
struct Kernel {
    config: NodeConfig,
    table: Vec<u32>,
    services: BTreeMap<ServiceKey, ServiceValue>,
    backends: BTreeMap<u32, BackendValue>,
    endpoints: BTreeMap<EndpointKey, EndpointValue>,
}

impl Kernel {
    fn new() -> Self {
        Self {
            config: NodeConfig::default(),
            table: vec![0; TABLE as usize],
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }

    fn write(&mut self, op: &MapOp) {
        match op {
            MapOp::SetConfig(config) => self.config = *config,
            MapOp::WriteRegion { base, len, inputs } => {
                let base = *base as usize;
                self.table[base..base + *len as usize].copy_from_slice(&table_of(inputs));
            }
            MapOp::LearnRegion { base, inputs } => {
                let known: BTreeSet<u32> = inputs.iter().map(|(id, ..)| *id).collect();
                let len = maglev::table_len(inputs.iter().map(|i| i.2)) as usize;
                let there: BTreeSet<u32> = self.table[*base as usize..][..len].iter().copied().collect();
                assert_eq!(known, there);
            }
            MapOp::PutService(key, value) => drop(self.services.insert(*key, *value)),
            MapOp::DeleteService(key) => assert!(self.services.remove(key).is_some()),
            MapOp::PutBackend(id, value) => drop(self.backends.insert(*id, *value)),
            MapOp::DeleteBackend(id) => assert!(self.backends.remove(id).is_some()),
            MapOp::PutEndpoint(key, value) => drop(self.endpoints.insert(*key, *value)),
            MapOp::DeleteEndpoint(key) => assert!(self.endpoints.remove(key).is_some()),
            _ => {}
        }
    }

    /// The addresses that a service sends new flows to; fails when it could send one astray.
    fn targets(&self, service: &ServiceValue) -> BTreeSet<Address> {
        let (base, len) = (service.table_base as usize, service.table_len as usize);
        let ids: BTreeSet<u32> = self.table[base..base + len].iter().copied().collect();
        ids.iter()
            .map(|id| self.backends.get(id).expect("a table names a backend that is there").address)
            .collect()
    }

    /// What a daemon that starts now finds.
    fn adopt(&self) -> Held {
        let mut held = Held::new(TABLE);
        held.config = self.config;
        held.adopt_backends(self.backends.clone(), 0);
        held.adopt_endpoints(self.endpoints.clone());
        let read = |base: u32, len: u32| {
            Ok::<_, std::convert::Infallible>(self.table[base as usize..(base + len) as usize].to_vec())
        };
        held.adopt_services(self.services.clone(), read).unwrap();
        held
    }

    /// Fails unless the maps hold exactly what is desired.
    fn check(&self, desired: &Desired) {
        let wanted = targets(desired);
        assert_eq!(self.services.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        self.services.iter().for_each(|(key, value)| assert_eq!(self.targets(value), wanted[key]));
        let all = desired.services.values().flat_map(|s| s.frontends.values()).flat_map(|e| &e.backends);
        let mut backends: BTreeMap<Address, bool> = BTreeMap::new();
        all.for_each(|b| *backends.entry(encode::address(b.address)).or_default() |= b.draining);
        let there = self.backends.values().map(|b| (b.address, b.flags & backend_flags::DRAINING != 0));
        assert_eq!(there.clone().collect::<BTreeMap<_, _>>(), backends);
        assert_eq!(there.count(), backends.len(), "each backend once");
        let networks = desired.networks.iter();
        let endpoints = networks
            .flat_map(|(vni, n)| n.endpoints.iter().map(|(a, e)| encode::endpoint((*vni, *a), e, None)))
            .collect();
        assert_eq!(self.endpoints, endpoints);
        let addressed = self.services.keys().any(|key| key.address != mesh_abi::ANY_V4);
        assert_eq!(self.config, encode::config(desired, addressed));
    }
}

/// The addresses that each service should send new flows to.
fn targets(desired: &Desired) -> BTreeMap<ServiceKey, BTreeSet<Address>> {
    let ready = |entry: &ServiceEntry| -> BTreeSet<Address> {
        entry.backends.iter().filter(|b| !b.draining).map(|b| encode::address(b.address)).collect()
    };
    let frontends = desired.services.values().flat_map(|s| &s.frontends);
    frontends.map(|(frontend, entry)| (encode::service(frontend), ready(entry))).collect()
}

/// Applies `desired`, at most `steps` writes of it, checking after each that every service sends flows where it did
/// before or where it should from now on, and that services at one address are looked for while there are any.
fn apply(held: &mut Held, kernel: &mut Kernel, desired: &Desired, steps: usize) -> Result<usize, Error> {
    held.regions.sweep();
    let plan = plan(held, desired, &ROOM)?;
    held.begin(&plan.changes);
    let before: BTreeMap<_, _> =
        kernel.services.iter().map(|(key, value)| (*key, kernel.targets(value))).collect();
    let wanted = targets(desired);
    let count = plan.ops.len();
    for op in plan.ops.iter().take(steps) {
        kernel.write(op);
        held.record(op);
        for (key, value) in &kernel.services {
            let now = kernel.targets(value);
            assert!(
                before.get(key) == Some(&now) || wanted.get(key) == Some(&now),
                "{key:?} goes to {now:?}"
            );
            let seen = kernel.config.flags & node_flags::ADDRESSED_PORTS != 0;
            assert!(key.address == mesh_abi::ANY_V4 || seen, "{key:?} is not looked for");
        }
    }
    if steps >= count {
        held.finish(desired, plan);
        held.regions.sweep();
        kernel.check(desired);
    }
    Ok(count)
}

const ALL: usize = usize::MAX;

/// Applies `desired` and returns the writes.
fn apply_all(held: &mut Held, desired: &Desired) -> Vec<MapOp> {
    let plan = plan(held, desired, &ROOM).unwrap();
    held.begin(&plan.changes);
    let ops = plan.ops.clone();
    ops.iter().for_each(|op| held.record(op));
    held.finish(desired, plan);
    ops
}

#[test]
fn every_map_is_filled_and_emptied_in_order() {
    let mut desired = with_services(&[(80, &[5])]);
    desired.peers.insert(Ipv4Addr::new(192, 0, 2, 2).into(), PeerEntry::default());
    desired.host_addresses.insert(Ipv4Addr::new(192, 0, 2, 1).into());
    let subnet = Subnet::new("10.10.3.0/24".parse().unwrap(), None).unwrap();
    let vtep = Ipv4Addr::new(192, 0, 2, 1).into();
    let mac = Mac::of_address(address(5));
    let network = NetworkPlan {
        entry: NetworkEntry { v4: Some(subnet), v6: None, internal: true },
        endpoints: [(address(5), EndpointEntry { vtep, mac, ifindex: Some(9) })].into(),
    };
    desired.networks.insert(Vni::FIRST, Arc::new(network));
    let local = LocalEntry {
        vni: Vni::FIRST,
        v4: Some(Ipv4Addr::new(10, 10, 3, 5)),
        v6: None,
        mac,
        ifindex: 9,
        generation: Generation(3),
        egress4: Some(Ipv4Addr::new(169, 254, 64, 1)),
        egress6: None,
        served: true,
    };
    desired.local.insert(LocalEndpointId(1), local);

    let mut held = Held::new(TABLE);
    let fill = apply_all(&mut held, &desired);
    assert_eq!(apply_all(&mut held, &desired), [], "nothing is left to do");
    let bare = empty();
    let clear = apply_all(&mut held, &bare);
    assert_eq!(apply_all(&mut held, &bare), []);

    let place = |op: &MapOp| match op {
        MapOp::SetConfig(_) => 0,
        MapOp::PutPeer(..) | MapOp::DeletePeer(_) => 1,
        MapOp::PutHostAddress(_) | MapOp::DeleteHostAddress(_) => 2,
        MapOp::PutNetwork(..) | MapOp::DeleteNetwork(_) => 3,
        MapOp::PutLocalById(_) | MapOp::DeleteLocalById(_) => 4,
        MapOp::PutLocalByIfindex(_) | MapOp::DeleteLocalByIfindex(_) => 5,
        MapOp::PutEndpoint(..) | MapOp::DeleteEndpoint(_) => 6,
        MapOp::PutBackend(..) | MapOp::DeleteBackend(_) => 7,
        MapOp::WriteRegion { .. } | MapOp::LearnRegion { .. } => 8,
        MapOp::PutService(..) | MapOp::DeleteService(_) => 9,
    };
    assert_eq!(fill.iter().map(place).collect::<Vec<_>>(), (0..=9).collect::<Vec<_>>());
    assert_eq!(clear.iter().map(place).collect::<Vec<_>>(), [9, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn one_change_is_few_writes() {
    let ports: Vec<(u16, &[u8])> = (1..=4).map(|port| (port, [1u8, 2].as_slice())).collect();
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let all = apply(&mut held, &mut kernel, &with_services(&ports), ALL).unwrap();
    assert_eq!(all, 1 + 2 + 1 + 4, "config, two backends, one table for all, four services");
    let mut changed = ports.clone();
    changed[0].1 = &[1];
    assert_eq!(
        apply(&mut held, &mut kernel, &with_services(&changed), ALL).unwrap(),
        2,
        "a table and a service"
    );
    assert_eq!(
        apply(&mut held, &mut kernel, &with_services(&ports), ALL).unwrap(),
        1,
        "the table is there still"
    );
    assert_eq!(held.regions.in_use(), 256, "251 slots in whole blocks");
}

#[test]
fn a_restart_writes_nothing_and_keeps_ids() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let desired = with_services(&[(80, &[1, 2]), (81, &[3]), (82, &[])]);
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
    let mut adopted = kernel.adopt();
    let ops = apply_all(&mut adopted, &desired);
    assert!(ops.iter().all(|op| matches!(op, MapOp::LearnRegion { .. })), "{ops:?}");
    assert_eq!(apply_all(&mut adopted, &desired), []);
    assert_eq!(adopted.backends, held.backends);
}

#[test]
fn ids_rest_after_use() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let mut seen = BTreeSet::new();
    for n in 1..50 {
        apply(&mut held, &mut kernel, &with_services(&[(80, &[n])]), ALL).unwrap();
        let ids: Vec<u32> = kernel.backends.keys().copied().collect();
        assert!(matches!(ids[..], [id] if seen.insert(id)), "{ids:?} after {seen:?}");
    }
}

/// A node that only seemed to be down: its tasks' flows find them again.
#[test]
fn one_that_comes_back_has_its_id_again() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let ids = |kernel: &Kernel| {
        kernel.backends.iter().map(|(id, b)| (b.address[15], *id)).collect::<BTreeMap<_, _>>()
    };
    apply(&mut held, &mut kernel, &with_services(&[(80, &[1, 2])]), ALL).unwrap();
    let before = ids(&kernel);
    apply(&mut held, &mut kernel, &with_services(&[(80, &[2])]), ALL).unwrap();
    apply(&mut held, &mut kernel, &with_services(&[(80, &[2, 3])]), ALL).unwrap();
    apply(&mut held, &mut kernel, &with_services(&[(80, &[1, 2, 3])]), ALL).unwrap();
    let after = ids(&kernel);
    assert_eq!((after[&1], after[&2]), (before[&1], before[&2]));
    apply(&mut held, &mut kernel, &with_services(&[(80, &[1, 2, 3, 4])]), ALL).unwrap();
    assert!(ids(&kernel)[&4] > after[&3]);
}

#[test]
fn a_draining_backend_keeps_its_entry_but_no_slot() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let mut desired = empty();
    publish(&mut desired, 80, &[(1, false), (2, false)]);
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
    let before: Vec<u32> = kernel.backends.keys().copied().collect();
    publish(&mut desired, 80, &[(1, true), (2, false)]);
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
    assert_eq!(before, kernel.backends.keys().copied().collect::<Vec<_>>());
    let draining = kernel.backends.values().filter(|b| b.flags & backend_flags::DRAINING != 0);
    assert_eq!(draining.map(|b| b.address).collect::<Vec<_>>(), [encode::address(address(1))]);
    publish(&mut desired, 80, &[(1, true), (2, true)]);
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
    assert!(kernel.services.values().all(|s| s.table_len == 0));
}

#[test]
fn too_much_is_refused_whole() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let ports: Vec<(u16, &[u8])> = vec![(1, &[1]), (2, &[2]), (3, &[3]), (4, &[4]), (5, &[5]), (6, &[6])];
    let full = apply(&mut held, &mut kernel, &with_services(&ports), ALL);
    assert!(matches!(full, Err(Error::Full { map: "MAGLEV", capacity: TABLE, wanted: 1536 })), "{full:?}");
    assert_eq!(held, Held::new(TABLE));
    apply(&mut held, &mut kernel, &with_services(&ports[..5]), ALL).unwrap();

    let mut many = empty();
    many.peers.extend((0..101).map(|n| (Ipv4Addr::new(192, 0, 2, n).into(), PeerEntry::default())));
    let full = plan(&held, &many, &ROOM).map(drop);
    assert!(matches!(full, Err(Error::Full { map: "PEERS", capacity: 100, wanted: 101 })), "{full:?}");
}

#[test]
fn space_freed_on_the_way_is_used_when_there_is_no_other() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    apply(&mut held, &mut kernel, &with_services(&[(1, &[1]), (2, &[2]), (3, &[3]), (4, &[4])]), ALL)
        .unwrap();
    apply(&mut held, &mut kernel, &with_services(&[(1, &[5]), (2, &[6]), (3, &[7]), (4, &[8])]), ALL)
        .unwrap();
    assert_eq!(held.regions.in_use(), 4 * 256);
}

/// A service that is the same allocation as before is not looked into; one that is new, but equal, is, and needs no
/// write. So it is with networks.
#[test]
fn parts_that_are_the_same_need_no_look() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let mut desired = with_services(&[(80, &[1, 2]), (81, &[3])]);
    let endpoint = |n| EndpointEntry {
        vtep: Ipv4Addr::new(192, 0, 2, n).into(),
        mac: Mac::of_address(address(n)),
        ifindex: None,
    };
    let network = |numbers: &[u8]| {
        let entry = NetworkEntry { v4: None, v6: None, internal: false };
        let endpoints = numbers.iter().map(|n| (address(*n), endpoint(*n))).collect();
        Arc::new(NetworkPlan { entry, endpoints })
    };
    desired.networks.insert(Vni::FIRST, network(&[1, 2]));
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
    assert_eq!(held.records.changes(&desired), Changes::default());

    let mut equal = desired.clone();
    equal.networks.insert(Vni::FIRST, network(&[1, 2]));
    publish(&mut equal, 80, &[(1, false), (2, false)]);
    let changes = held.records.changes(&equal);
    assert_eq!((changes.networks.len(), changes.services.len()), (1, 1));
    assert_eq!(apply(&mut held, &mut kernel, &equal, ALL).unwrap(), 0);
    assert_eq!(held.records.changes(&equal), Changes::default());

    let mut other = equal.clone();
    other.networks.insert(Vni::FIRST, network(&[2, 3]));
    assert_eq!(apply(&mut held, &mut kernel, &other, ALL).unwrap(), 2, "one comes, one goes");
    other.networks.clear();
    assert_eq!(apply(&mut held, &mut kernel, &other, ALL).unwrap(), 3, "two endpoints and a network");
}

/// Should two services claim one port, the last one has it, and when that goes the other gets it.
#[test]
fn a_frontend_claimed_twice_is_never_lost() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let mut desired = with_services(&[(80, &[1])]);
    let second = ServicePlan { number: 2, frontends: [(published(80), entry(&[(2, false)]))].into() };
    desired.services.insert(ServiceId::from_u128(1000), Arc::new(second));
    for _ in 0..2 {
        apply(&mut held, &mut kernel, &desired, ALL).unwrap();
        let targets: Vec<_> = kernel.services.values().map(|s| kernel.targets(s)).collect();
        assert_eq!(targets, [BTreeSet::from([encode::address(address(2))])]);
    }
    desired.services.remove(&ServiceId::from_u128(1000));
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
}

/// A few services on a few networks, each with some of a few tasks, some of them draining.
fn some_desired() -> impl Strategy<Value = Desired> {
    let backends = || prop::collection::btree_map(1u8..8, any::<bool>(), 0..3);
    // Up to two ports each: the service's own, and one that may be any service's, on any address or one.
    let service = (backends(), prop::option::of((backends(), 20u16..23, any::<bool>())));
    let services = prop::collection::btree_map(1u16..5, service, 0..4);
    let networks = prop::collection::btree_map(0u32..3, prop::collection::btree_set(1u8..6, 0..4), 0..3);
    (services, networks).prop_map(|(services, networks)| {
        let mut desired = empty();
        let mut taken = BTreeSet::new();
        for (port, (backends, other)) in services {
            let list = |backends: BTreeMap<u8, bool>| entry(&backends.into_iter().collect::<Vec<_>>());
            let mut frontends = BTreeMap::from([(published(port), list(backends))]);
            if let Some((backends, port, at_one)) = other.filter(|(_, port, _)| taken.insert(*port)) {
                let one = Ipv4Addr::new(192, 0, 2, 1).into();
                let on = if at_one { PublishedOn::Address(one) } else { PublishedOn::AnyV4 };
                let frontend = Frontend::Published { on, port, protocol: Protocol::Udp };
                frontends.insert(frontend, list(backends));
            }
            let plan = ServicePlan { number: port.into(), frontends };
            desired.services.insert(ServiceId::from_u128(port.into()), Arc::new(plan));
        }
        for (vni, endpoints) in networks {
            let entry = NetworkEntry { v4: None, v6: None, internal: false };
            let endpoint = |n: u8| {
                let vtep = Ipv4Addr::new(192, 0, 2, n).into();
                (address(n), EndpointEntry { vtep, mac: Mac::of_address(address(n)), ifindex: None })
            };
            let endpoints = endpoints.into_iter().map(endpoint).collect();
            let vni = Vni::new(Vni::FIRST.get() + vni).unwrap();
            desired.networks.insert(vni, Arc::new(NetworkPlan { entry, endpoints }));
        }
        desired
    })
}

/// Takes over parts of `before`, as the planner does with what did not change: those whose bit is set in `which`, and
/// that have no port which another service has now.
fn share(desired: &mut Desired, before: &Desired, which: u8) {
    let kept = |n: u32| which >> (n % 8) & 1 == 1;
    for (id, old) in before.services.iter().filter(|(id, _)| kept(id.as_u128() as u32)) {
        let others = desired.services.iter().filter(|(other, _)| *other != id);
        let taken: BTreeSet<_> = others.flat_map(|(_, plan)| plan.frontends.keys()).collect();
        if old.frontends.keys().all(|frontend| !taken.contains(frontend)) {
            desired.services.insert(*id, old.clone());
        }
    }
    for (vni, old) in before.networks.iter().filter(|(vni, _)| kept(vni.get())) {
        desired.networks.insert(*vni, old.clone());
    }
}

proptest! {
    /// Updates one after the other, some of them cut short by an error or the end of the daemon, and most sharing parts
    /// with the one before.
    #[test]
    fn no_flow_goes_astray(
        updates in prop::collection::vec(
            (some_desired(), prop_oneof![3 => Just(ALL), 1 => 0usize..12], prop::bool::weighted(0.2), any::<u8>()),
            1..12,
        )
    ) {
        let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
        let mut before = empty();
        // Whose each id has been since the daemon started.
        let mut owners: BTreeMap<u32, Address> = BTreeMap::new();
        for (mut desired, steps, restart, kept) in updates {
            share(&mut desired, &before, kept);
            match apply(&mut held, &mut kernel, &desired, steps) {
                // Two tables of each service, old and new, may be more than there is room for.
                Err(Error::Full { map: "MAGLEV", .. }) => {}
                other => drop(other.unwrap()),
            }
            prop_assert_eq!(&held.services, &kernel.services);
            prop_assert_eq!(&held.backends, &kernel.backends);
            let endpoints = held.endpoints.iter().flat_map(|(network, endpoints)| {
                let key = |address: &Address| EndpointKey { vni: network.vni, address: *address };
                endpoints.iter().map(move |(address, value)| (key(address), *value))
            });
            prop_assert_eq!(endpoints.collect::<BTreeMap<_, _>>(), kernel.endpoints.clone());
            for (id, backend) in &kernel.backends {
                prop_assert_eq!(*owners.entry(*id).or_insert(backend.address), backend.address);
            }
            if restart {
                held = kernel.adopt();
                owners.clear();
            }
            before = desired;
        }
        let last = empty();
        apply(&mut held, &mut kernel, &last, ALL).unwrap();
        prop_assert!(kernel.backends.is_empty());
        prop_assert_eq!(held.regions.in_use(), 0);
        prop_assert_eq!(held.loose.clone(), Default::default());
    }
}
