//! Every prefix of a plan is safe to stop at, and a plan's end is what was desired.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use mesh_abi::{BackendValue, ServiceKey, ServiceValue, backend_flags};
use mesh_types::{Generation, LocalEndpointId, Mac, NetworkId, Protocol, ServiceId, Subnet, TaskId, Vni};
use proptest::prelude::*;

use super::*;
use crate::desired::{
    Backend, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NetworkPlan, NodeSettings, PeerEntry,
    PublishedOn, ServiceEntry, ServicePlan,
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
};
/// Room for five of the smallest tables and a bit.
const TABLE: u32 = 251 * 5 + 100;

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
    table: Vec<u32>,
    services: BTreeMap<ServiceKey, ServiceValue>,
    backends: BTreeMap<u32, BackendValue>,
}

impl Kernel {
    fn new() -> Self {
        Self { table: vec![0; TABLE as usize], services: BTreeMap::new(), backends: BTreeMap::new() }
    }

    fn write(&mut self, op: &MapOp) {
        match op {
            MapOp::WriteRegion { base, elements, .. } => {
                let base = *base as usize;
                self.table[base..base + elements.len()].copy_from_slice(elements);
            }
            MapOp::LearnRegion { base, inputs } => {
                let known: BTreeSet<u32> = inputs.iter().map(|(id, ..)| *id).collect();
                let len = maglev::table_len(inputs.len()) as usize;
                let there: BTreeSet<u32> = self.table[*base as usize..][..len].iter().copied().collect();
                assert_eq!(known, there);
            }
            MapOp::PutService(key, value) => drop(self.services.insert(*key, *value)),
            MapOp::DeleteService(key) => assert!(self.services.remove(key).is_some()),
            MapOp::PutBackend(id, value) => drop(self.backends.insert(*id, *value)),
            MapOp::DeleteBackend(id) => assert!(self.backends.remove(id).is_some()),
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
        held.backends = self.backends.clone();
        held.next_backend = self.backends.keys().next_back().map_or(1, |id| id + 1);
        let read = |base: u32, len: u32| {
            Ok::<_, std::convert::Infallible>(self.table[base as usize..(base + len) as usize].to_vec())
        };
        held.adopt_services(self.services.clone(), read).unwrap();
        held
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
/// before or where it should from now on.
fn apply(held: &mut Held, kernel: &mut Kernel, desired: &Desired, steps: usize) -> Result<usize, Error> {
    held.regions.sweep();
    let ops = plan(held, desired, &ROOM)?;
    let before: BTreeMap<_, _> =
        kernel.services.iter().map(|(key, value)| (*key, kernel.targets(value))).collect();
    let wanted = targets(desired);
    let count = ops.len();
    for op in ops.into_iter().take(steps) {
        kernel.write(&op);
        held.record(op);
        for (key, value) in &kernel.services {
            let now = kernel.targets(value);
            assert!(
                before.get(key) == Some(&now) || wanted.get(key) == Some(&now),
                "{key:?} goes to {now:?}"
            );
        }
    }
    if steps >= count {
        held.regions.sweep();
        assert_eq!(kernel.services.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        kernel.services.iter().for_each(|(key, value)| assert_eq!(kernel.targets(value), wanted[key]));
    }
    Ok(count)
}

const ALL: usize = usize::MAX;

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
    let fill = plan(&held, &desired, &ROOM).unwrap();
    fill.iter().for_each(|op| held.record(op.clone()));
    assert_eq!(plan(&held, &desired, &ROOM).unwrap(), [], "nothing is left to do");
    let bare = empty();
    let clear = plan(&held, &bare, &ROOM).unwrap();
    clear.iter().for_each(|op| held.record(op.clone()));
    assert_eq!(plan(&held, &bare, &ROOM).unwrap(), []);

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
    assert_eq!(held.regions.in_use(), 251);
}

#[test]
fn a_restart_writes_nothing_and_keeps_ids() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    let desired = with_services(&[(80, &[1, 2]), (81, &[3]), (82, &[])]);
    apply(&mut held, &mut kernel, &desired, ALL).unwrap();
    let mut adopted = kernel.adopt();
    let ops = plan(&adopted, &desired, &ROOM).unwrap();
    let writes: Vec<_> = ops.iter().filter(|op| !matches!(op, MapOp::LearnRegion { .. })).collect();
    assert_eq!(
        writes,
        [&MapOp::SetConfig(encode::config(&desired))],
        "only the config was not carried over"
    );
    ops.into_iter().for_each(|op| adopted.record(op));
    assert_eq!(plan(&adopted, &desired, &ROOM).unwrap(), []);
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
    assert!(matches!(full, Err(Error::Full { map: "MAGLEV", capacity: TABLE, wanted: 1506 })), "{full:?}");
    assert_eq!(held, Held::new(TABLE));
    apply(&mut held, &mut kernel, &with_services(&ports[..5]), ALL).unwrap();

    let mut many = empty();
    many.peers.extend((0..101).map(|n| (Ipv4Addr::new(192, 0, 2, n).into(), PeerEntry::default())));
    let full = plan(&held, &many, &ROOM).map(|_| ());
    assert!(matches!(full, Err(Error::Full { map: "PEERS", capacity: 100, wanted: 101 })), "{full:?}");
}

#[test]
fn space_freed_on_the_way_is_used_when_there_is_no_other() {
    let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
    apply(&mut held, &mut kernel, &with_services(&[(1, &[1]), (2, &[2]), (3, &[3]), (4, &[4])]), ALL)
        .unwrap();
    apply(&mut held, &mut kernel, &with_services(&[(1, &[5]), (2, &[6]), (3, &[7]), (4, &[8])]), ALL)
        .unwrap();
    assert_eq!(held.regions.in_use(), 4 * 251);
}

/// A few services, each with some of a few tasks, some of them draining.
fn some_desired() -> impl Strategy<Value = Desired> {
    let backends = prop::collection::btree_map(1u8..8, any::<bool>(), 0..3);
    prop::collection::btree_map(1u16..5, backends, 0..4).prop_map(|services| {
        let mut desired = empty();
        for (port, backends) in services {
            publish(&mut desired, port, &backends.into_iter().collect::<Vec<_>>());
        }
        desired
    })
}

proptest! {
    /// Updates one after the other, some of them cut short by an error or the end of the daemon.
    #[test]
    fn no_flow_goes_astray(
        updates in prop::collection::vec((some_desired(), prop_oneof![3 => Just(ALL), 1 => 0usize..12], any::<bool>()), 1..12)
    ) {
        let (mut held, mut kernel) = (Held::new(TABLE), Kernel::new());
        for (desired, steps, restart) in updates {
            apply(&mut held, &mut kernel, &desired, steps).unwrap();
            prop_assert_eq!(&held.services, &kernel.services);
            prop_assert_eq!(&held.backends, &kernel.backends);
            if restart {
                held = kernel.adopt();
            }
        }
        let last = empty();
        apply(&mut held, &mut kernel, &last, ALL).unwrap();
        prop_assert!(kernel.backends.is_empty());
        prop_assert_eq!(held.regions.in_use(), 0);
    }
}
