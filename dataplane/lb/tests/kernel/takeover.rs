//! Flows live on when the maps change their layout or their sizes.

use std::{collections::BTreeMap, fs, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
    programs::{
        TcAttachType,
        links::{FdLink, PinnedLink},
    },
};
use mesh_abi::{
    Address, BackendValue, ChoiceValue, DISPLACED_MARKS, FlowKey, NodeConfig, PUBLISHED, ReverseValue,
    SocketKey, SocketValue, flow_state, v4_mapped,
};
use mesh_lb::{Choices, DataPath, FlowCount, Limits};
use mesh_types::Vni;

use crate::sandbox::{Sandbox, desired, filters, programs, veth};

/// The values of layout 1 that are another now.
#[repr(C)]
#[derive(Clone, Copy)]
struct Choice1 {
    last_seen: u64,
    backend: u32,
    client: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Reverse1 {
    last_seen: u64,
    source: Address,
    destination: Address,
    vtep: Address,
    source_port: [u8; 2],
    destination_port: [u8; 2],
    path: u8,
    reserved: [u8; 3],
}

// SAFETY: repr(C), Copy, 'static, only integers and byte arrays, and no padding.
unsafe impl Pod for Choice1 {}
// SAFETY: as above.
unsafe impl Pod for Reverse1 {}

fn make<K: Pod, V: Pod>(folder: &Path, name: &str, entries: &[(K, V)]) -> HashMap<MapData, K, V> {
    let mut map = HashMap::<MapData, K, V>::create(4096, 0).unwrap();
    entries.iter().for_each(|(key, value)| map.insert(key, value, 0).unwrap());
    let pin = folder.join(name);
    map.pin(&pin).unwrap();
    HashMap::try_from(Map::HashMap(MapData::from_pin(pin).unwrap())).unwrap()
}

fn client(n: u16) -> FlowKey {
    FlowKey {
        source: v4_mapped([198, 51, 100, 7]),
        destination: v4_mapped([192, 0, 2, 1]),
        scope: PUBLISHED,
        source_port: n.to_be_bytes(),
        destination_port: 8080u16.to_be_bytes(),
        protocol: 6,
        ..FlowKey::default()
    }
}

fn backend1(n: u8) -> BackendValue {
    BackendValue {
        vtep: v4_mapped([192, 0, 2, n]),
        address: v4_mapped([10, 0, 0, n]),
        vni: Vni::FIRST.get().to_be_bytes(),
        endpoint: n.into(),
        generation: 1,
        ..BackendValue::default()
    }
}

fn link_id(sandbox: &Sandbox, hook: &str) -> u32 {
    let link = PinnedLink::from_pin(sandbox.pins().join("links").join(hook)).unwrap();
    FdLink::from(link).info().unwrap().id()
}

#[test]
fn flows_of_an_earlier_layout_keep_their_tasks() {
    let sandbox = Sandbox::enter();
    veth("up0");
    // What stands for the earlier version's programs: they go on until they are replaced.
    let before = {
        let mut path = sandbox.open();
        path.attach_uplink("up0").unwrap();
        let links = sandbox.pins().join("links");
        fs::rename(links.join("uplink-up0"), links.join("uplink")).unwrap();
        programs("up0", TcAttachType::Ingress)
    };
    fs::remove_dir_all(sandbox.version()).unwrap();
    let old = sandbox.pins().join("v1");
    fs::create_dir(&old).unwrap();
    make::<u32, BackendValue>(&old, "BACKENDS", &[(5, backend1(11)), (9, backend1(12))]);
    let choice = |backend| Choice1 { last_seen: 1000, backend, client: 0 };
    let mut choices =
        make(&old, "CHOICES", &[(client(1), choice(5)), (client(2), choice(9)), (client(3), choice(70))]);
    let reverse = Reverse1 {
        last_seen: 1000,
        source: v4_mapped([192, 0, 2, 1]),
        destination: v4_mapped([198, 51, 100, 7]),
        vtep: v4_mapped([192, 0, 2, 9]),
        source_port: 8080u16.to_be_bytes(),
        destination_port: [1, 2],
        path: 1,
        reserved: [0; 3],
    };
    make(&old, "REVERSE", &[(client(4), reverse)]);
    let socket =
        (SocketKey { cookie: 3, ..Default::default() }, SocketValue { address: v4_mapped([127, 0, 0, 1]) });
    make(&old, "SOCKETS", &[socket]);
    let mut config = Array::<MapData, NodeConfig>::create(1, 0).unwrap();
    config.set(0, NodeConfig { uplink_ifindex: 33, ..Default::default() }, 0).unwrap();
    config.pin(old.join("CONFIG")).unwrap();

    let mut path = sandbox.open();
    assert!(path.adopted());
    assert_eq!(programs("up0", TcAttachType::Ingress), before, "they go on until they are replaced");
    path.apply(&desired(&[11, 12, 13])).unwrap();
    let ids: BTreeMap<u32, u8> = sandbox.backends().into_iter().map(|(id, b)| (id, b.address[15])).collect();
    assert_eq!(ids, [(5, 11), (9, 12), (71, 13)].into(), "no id that a flow names is given again");
    // The earlier version's programs know one flow more by now.
    choices.insert(client(6), choice(5), 0).unwrap();
    let link = link_id(&sandbox, "uplink");
    path.attach_uplink("up0").unwrap();
    assert_eq!(link_id(&sandbox, "uplink-up0"), link, "replaced in place");
    let after = programs("up0", TcAttachType::Ingress);
    assert!(after.len() == 1 && after != before, "{after:?}");
    assert!(old.exists());
    path.settle().unwrap();
    assert!(!old.exists());

    let kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let state = flow_state::ANSWERED | flow_state::CONFIRMED;
    for (n, backend) in [(1, 5), (2, 9), (3, 70), (6, 5)] {
        let now = kept.get(&client(n), 0).unwrap();
        let wanted = ChoiceValue { last_seen: 1000, backend, ifindex: 33, state, ..Default::default() };
        assert_eq!(now, wanted);
    }
    let replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned("REVERSE_KEPT").try_into().unwrap();
    let now = replies.get(&client(4), 0).unwrap();
    let wanted = ReverseValue {
        last_seen: 1000,
        source: reverse.source,
        destination: reverse.destination,
        vtep: reverse.vtep,
        source_port: reverse.source_port,
        destination_port: reverse.destination_port,
        path: 1,
        state,
        ..Default::default()
    };
    assert_eq!(now, wanted);
    let sockets: HashMap<_, SocketKey, SocketValue> = sandbox.pinned("SOCKETS").try_into().unwrap();
    assert_eq!(sockets.get(&socket.0, 0).unwrap(), socket.1);
}

#[test]
fn flows_of_layout_2_stay_new_or_established() {
    let sandbox = Sandbox::enter();
    drop(sandbox.open());
    fs::remove_dir_all(sandbox.version()).unwrap();
    let old = sandbox.pins().join("v2");
    fs::create_dir(&old).unwrap();
    make::<u32, BackendValue>(&old, "BACKENDS", &[(5, backend1(11)), (9, backend1(12))]);
    let choice = |backend| ChoiceValue { last_seen: 1000, backend, ifindex: 3, ..Default::default() };
    let mut new = make(&old, "CHOICES", &[(client(1), choice(5)), (client(2), choice(9))]);
    make(&old, "CHOICES_KEPT", &[(client(3), choice(70))]);
    let reply = ReverseValue { last_seen: 1000, path: 1, ..Default::default() };
    make(&old, "REVERSE", &[(client(4), reply)]);
    make(&old, "REVERSE_KEPT", &[(client(5), reply)]);

    let mut path = sandbox.open();
    assert!(path.adopted());
    path.apply(&desired(&[11, 12, 13])).unwrap();
    let ids: BTreeMap<u32, u8> = sandbox.backends().into_iter().map(|(id, b)| (id, b.address[15])).collect();
    assert_eq!(ids, [(5, 11), (9, 12), (71, 13)].into());
    // The earlier version's programs know one flow more by now.
    new.insert(client(6), choice(5), 0).unwrap();
    path.settle().unwrap();
    assert!(!old.exists());
    let choices = Choices::pinned(&sandbox.version()).unwrap();
    for (n, backend) in [(1, 5), (2, 9), (6, 5)] {
        assert_eq!(choices.get(&client(n)), Some(choice(backend)));
    }
    let kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    assert_eq!(kept.get(&client(3), 0).unwrap(), choice(70));
    for (map, n) in [("REVERSE", 4), ("REVERSE_KEPT", 5)] {
        let replies: HashMap<_, FlowKey, ReverseValue> = sandbox.pinned(map).try_into().unwrap();
        assert_eq!(replies.get(&client(n), 0).unwrap(), reply);
    }
}

/// An uplink of the earlier version on which there is none any more.
#[test]
fn what_only_an_earlier_version_attached_goes() {
    let sandbox = Sandbox::enter();
    ["up0", "up1"].into_iter().for_each(veth);
    let mut first = sandbox.open();
    first.attach_uplink("up0").unwrap();
    let links = sandbox.pins().join("links");
    fs::rename(links.join("uplink-up0"), links.join("uplink")).unwrap();
    drop(first);
    let mut second = sandbox.open();
    second.attach_uplink("up1").unwrap();
    assert_eq!(programs("up0", TcAttachType::Ingress).len(), 1);
    second.settle().unwrap();
    assert_eq!(programs("up0", TcAttachType::Ingress), []);
    assert_eq!(programs("up1", TcAttachType::Ingress).len(), 1);
}

#[test]
fn maps_of_another_size_are_replaced_and_flows_carried_over() {
    let sandbox = Sandbox::enter();
    let mut first = sandbox.open();
    first.apply(&desired(&[11, 12])).unwrap();
    let backends = sandbox.backends();
    let id = *backends.keys().next().unwrap();
    let value = |n: u64| ChoiceValue { last_seen: n, backend: id, ..Default::default() };
    let mut kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let new = Choices::pinned(&sandbox.version()).unwrap();
    (0..900).for_each(|n| kept.insert(client(n), value(n.into()), 0).unwrap());
    assert!(new.add(&client(2000), &value(5)));
    let marks = |sandbox: &Sandbox| Array::<_, u32>::try_from(sandbox.pinned("DISPLACED")).unwrap();
    marks(&sandbox).set(77, 1, 0).unwrap();
    drop((first, kept, new));

    let resized = |flows: u32| {
        let mut options = sandbox.options();
        options.sizes.flows = flows;
        DataPath::open(options).unwrap()
    };
    fs::create_dir(sandbox.pins().join("v0")).unwrap();
    fs::create_dir(sandbox.pins().join("versatile")).unwrap();
    let mut second = resized(2048);
    assert!(second.adopted());
    assert_eq!(sandbox.backends(), backends, "ids go with the flows");
    let choices = second.stats().unwrap().maps["CHOICES_KEPT"];
    assert_eq!((choices.used, choices.capacity), (900, 2048));
    assert_eq!(second.flows().unwrap().choices, FlowCount { new: 1, established: 900 });
    let now = marks(&sandbox);
    let marked: Vec<u32> = (0..DISPLACED_MARKS).filter(|mark| now.get(mark, 0).unwrap() != 0).collect();
    assert_eq!(marked, [77], "where a client's port was taken is known still");
    second.apply(&desired(&[11, 12])).unwrap();
    assert_eq!(sandbox.backends(), backends);
    drop(second);

    // Before that is over, another change has to wait.
    let mut third = resized(512);
    assert_eq!(third.stats().unwrap().maps["CHOICES_KEPT"].capacity, 2048);
    assert!(third.apply(&desired(&[11, 12])).unwrap().is_empty());
    let old = sandbox.pins().join(format!("v{}-old", mesh_abi::LAYOUT_VERSION));
    assert!(old.exists());
    third.settle().unwrap();
    assert!(!old.exists() && !sandbox.pins().join("v0").exists());
    assert!(sandbox.pins().join("versatile").exists(), "not ours");
    drop(third);

    // Too small for all: the last used stay established, with room for others, and the rest may be evicted.
    let mut fourth = resized(512);
    let flows = fourth.flows().unwrap().choices;
    assert_eq!(flows.established, 384);
    assert!(flows.new > 200, "{flows:?}");
    let kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    assert!(kept.iter().all(|e| e.unwrap().1.last_seen >= 900 - 384));
    fourth.apply(&desired(&[11, 12])).unwrap();
    assert_eq!(sandbox.backends(), backends);
}

/// All that user space writes begins with the least room, and is full when the second state comes.
#[test]
fn maps_grow_when_there_is_no_room() {
    let sandbox = Sandbox::enter();
    ["up0", "msh1"].into_iter().for_each(veth);
    let open = || {
        let mut options = sandbox.options();
        let least = Limits {
            peers: Some(1),
            networks: Some(1),
            endpoints: Some(1),
            local_endpoints: Some(1),
            services: Some(2),
            table_slots: Some(256),
            backends: Some(1),
            ..Limits::default()
        };
        options.sizes = options.sizes.with(&least);
        DataPath::open(options).unwrap()
    };
    let mut path = open();
    path.apply(&desired(&[11])).unwrap();
    path.attach_uplink("up0").unwrap();
    path.attach_task("msh1").unwrap();
    path.settle().unwrap();
    let (maps, backends) = (sandbox.maps(), sandbox.backends());
    let id = *backends.keys().next().unwrap();
    let mut kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    let value = ChoiceValue { last_seen: 5, backend: id, ..Default::default() };
    kept.insert(client(1), value, 0).unwrap();
    let hooks =
        || [programs("up0", TcAttachType::Ingress), filters("msh1", "ingress"), filters("msh1", "egress")];
    let (before, link) = (hooks(), link_id(&sandbox, "uplink-up0"));

    path.apply(&desired(&[11, 12, 13])).unwrap();
    let after = hooks();
    assert!(
        after.iter().zip(&before).all(|(now, then)| now.len() == 1 && now != then),
        "{before:?} {after:?}"
    );
    assert_eq!(link_id(&sandbox, "uplink-up0"), link, "replaced in place");
    assert!(sandbox.maps().iter().all(|(name, id)| maps[name] != *id), "all of them are new");
    assert!(!sandbox.pins().join(format!("v{}-old", mesh_abi::LAYOUT_VERSION)).exists());
    assert_eq!(sandbox.backends()[&id], backends[&id], "ids go with the flows");
    assert_eq!(sandbox.backends().len(), 3);
    let kept: HashMap<_, FlowKey, ChoiceValue> = sandbox.pinned("CHOICES_KEPT").try_into().unwrap();
    assert_eq!(kept.get(&client(1), 0).unwrap(), value);
    let stats = path.stats().unwrap();
    assert!(stats.maps["BACKENDS"].capacity >= 6 && stats.maps["MAGLEV"].capacity >= 1024, "{stats:?}");
    assert_eq!(stats.uplinks.len(), 1);
    drop(path);

    let mut again = open();
    assert!(again.adopted());
    assert!(again.apply(&desired(&[11, 12, 13])).unwrap().is_empty(), "they stay large");
}
