//! What is counted, as user space reads it: by endpoint and by service, through restarts, from zero for what is new.

use std::{net::Ipv4Addr, sync::Arc};

use aya::{
    maps::{HashMap, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use mesh_abi::{EndpointKey, EndpointValue, TrafficValue, v4_mapped};
use mesh_lb::{DataPath, Desired, EndpointEntry, Frontend, LocalEntry, ServicePlan, Traffic, enable_stats};
use mesh_types::{Generation, LocalEndpointId, Mac, ServiceId, Vni};

use crate::sandbox::{Sandbox, desired};

const ID: LocalEndpointId = LocalEndpointId(5);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// With an endpoint of this node.
fn with_local(generation: u16) -> Desired {
    let mut desired = desired(&[11]);
    let mac = Mac([2, 0, 0, 0, 0, 5]);
    let local = LocalEntry {
        vni: Vni::FIRST,
        v4: Some(ADDRESS),
        v6: None,
        mac,
        ifindex: 77,
        generation: Generation(generation),
        egress4: None,
        egress6: None,
        served: true,
    };
    desired.local.insert(ID, local);
    let endpoint = EndpointEntry { vtep: desired.config.vtep, mac, ifindex: Some(77) };
    let network = Arc::make_mut(desired.networks.get_mut(&Vni::FIRST).unwrap());
    network.endpoints.insert(ADDRESS.into(), endpoint);
    desired
}

/// Lets every CPU have counted `by` packets at a place.
fn count(sandbox: &Sandbox, map: &str, index: u32, by: u64) {
    let mut map: PerCpuArray<MapData, TrafficValue> = sandbox.pinned(map).try_into().unwrap();
    let values = map.get(&index, 0).unwrap();
    let more = |v: &TrafficValue| TrafficValue { packets_in: v.packets_in + by, drops_out: 1, ..*v };
    map.set(index, PerCpuValues::try_from(values.iter().map(more).collect::<Vec<_>>()).unwrap(), 0).unwrap();
}

fn of_endpoint(data_path: &DataPath) -> Traffic {
    let all = data_path.endpoint_traffic().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, ID);
    all[0].1
}

/// By the last part of the frontend: VIP, port.
fn packets_of_services(data_path: &DataPath) -> Vec<(ServiceId, u64)> {
    let mut all = data_path.service_traffic().unwrap();
    all.sort_by_key(|entry| entry.frontend);
    all.iter().map(|entry| (entry.service, entry.traffic.packets_in)).collect()
}

#[test]
fn an_endpoint_is_counted_through_restarts_and_from_zero_when_its_id_is_used_anew() {
    let sandbox = Sandbox::enter();
    let cpus = nr_cpus().unwrap() as u64;
    let mut first = sandbox.open();
    first.apply(&with_local(1)).unwrap();
    let endpoints: HashMap<_, EndpointKey, EndpointValue> = sandbox.pinned("ENDPOINTS").try_into().unwrap();
    let key = EndpointKey { vni: Vni::FIRST.get().to_be_bytes(), address: v4_mapped(ADDRESS.octets()) };
    assert_eq!(u32::from(endpoints.get(&key, 0).unwrap().local), ID.0);
    assert_eq!(of_endpoint(&first), Traffic::default());
    count(&sandbox, "ENDPOINT_TRAFFIC", ID.0, 7);
    let counted = Traffic { packets_in: 7 * cpus, drops_out: cpus, ..Traffic::default() };
    assert_eq!((of_endpoint(&first), of_endpoint(&first).drops()), (counted, cpus));
    drop(first);

    let mut second = sandbox.open();
    assert!(second.apply(&with_local(1)).unwrap().is_empty());
    assert_eq!(of_endpoint(&second), counted);
    second.apply(&with_local(2)).unwrap();
    assert_eq!(of_endpoint(&second), Traffic::default(), "another task");
}

#[test]
fn services_are_counted_by_what_clients_speak_to() {
    let sandbox = Sandbox::enter();
    let cpus = nr_cpus().unwrap() as u64;
    let mut data_path = sandbox.open();
    let one = ServiceId::from_u128(1);
    data_path.apply(&desired(&[11])).unwrap();
    assert_eq!(packets_of_services(&data_path), [(one, 0), (one, 0)]);
    for (key, value) in sandbox.services() {
        let by = if key.port == [0; 2] { 3 } else { 4 };
        assert_ne!(value.counter(), 0);
        count(&sandbox, "SERVICE_TRAFFIC", value.counter().into(), by);
    }
    assert_eq!(packets_of_services(&data_path), [(one, 3 * cpus), (one, 4 * cpus)]);
    // Other tasks, the same service.
    data_path.apply(&desired(&[12])).unwrap();
    assert_eq!(packets_of_services(&data_path), [(one, 3 * cpus), (one, 4 * cpus)]);
    drop(data_path);
    let mut data_path = sandbox.open();
    data_path.apply(&desired(&[12])).unwrap();
    assert_eq!(packets_of_services(&data_path), [(one, 3 * cpus), (one, 4 * cpus)]);

    // A port that is closed and opened again begins anew.
    let mut closed = desired(&[12]);
    let service = closed.services.get_mut(&one).unwrap();
    let mut frontends = service.frontends.clone();
    frontends.retain(|frontend, _| matches!(frontend, Frontend::Vip { .. }));
    *service = Arc::new(ServicePlan { number: 1, frontends });
    data_path.apply(&closed).unwrap();
    assert_eq!(packets_of_services(&data_path), [(one, 3 * cpus)]);
    data_path.apply(&desired(&[12])).unwrap();
    assert_eq!(packets_of_services(&data_path), [(one, 3 * cpus), (one, 0)]);
}

#[test]
fn more_services_than_there_is_room_to_count_get_room() {
    let sandbox = Sandbox::enter();
    let mut options = sandbox.options();
    options.sizes.service_counters = 2;
    let mut data_path = DataPath::open(options).unwrap();
    data_path.apply(&desired(&[11])).unwrap();
    let counters: std::collections::BTreeSet<_> = sandbox.services().values().map(|s| s.counter()).collect();
    assert_eq!(counters.len(), 2);
    assert!(!counters.contains(&0));
    assert!(data_path.map_use()["SERVICE_TRAFFIC"].capacity >= 3);
}

#[test]
fn programs_tell_their_runs() {
    let sandbox = Sandbox::enter();
    let data_path = sandbox.open();
    let _counting = enable_stats().unwrap();
    let stats = data_path.program_stats().unwrap();
    let names: Vec<_> = stats.iter().map(|s| s.program).collect();
    assert!(["from_task", "to_task", "uplink"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(stats.iter().all(|s| s.runs == 0), "nothing is attached: {stats:?}");
}
