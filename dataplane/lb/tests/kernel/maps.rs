//! What the maps hold, and who takes them over.

use std::{collections::BTreeSet, fs};

use aya::maps::{HashMap, MapData};
use mesh_lb::{Choices, DataPath, FlowCount, Options};

use crate::sandbox::{Sandbox, desired};

/// The agent moves it between threads.
const fn is_send<T: Send>() {}
const _: () = is_send::<DataPath>();

#[test]
fn this_kernel_will_do() {
    let features = DataPath::probe();
    assert!(features.usable(), "{features}");
}

#[test]
fn a_new_daemon_finds_everything_as_it_was() {
    let sandbox = Sandbox::enter();
    let mut first = sandbox.open();
    assert!(!first.adopted());
    assert!(!first.apply(&desired(&[11, 12, 13])).unwrap().is_empty());
    assert!(first.apply(&desired(&[11, 12, 13])).unwrap().is_empty());
    let applied = first.apply(&desired(&[11, 12])).unwrap();
    assert_eq!(
        (applied.written, applied.deleted, applied.tables),
        (2, 1, 1),
        "two services, a backend, a table"
    );
    let (maps, backends, services) = (sandbox.maps(), sandbox.backends(), sandbox.services());
    drop(first);

    let mut second = sandbox.open();
    assert!(second.adopted());
    assert_eq!(sandbox.maps(), maps);
    let applied = second.apply(&desired(&[11, 12])).unwrap();
    assert!(applied.is_empty(), "{applied:?}");
    assert_eq!((sandbox.backends(), sandbox.services()), (backends.clone(), services));

    second.apply(&desired(&[12, 14])).unwrap();
    let after = sandbox.backends();
    let address = |id: &u32| after[id].address[15];
    let kept: Vec<_> = after.keys().filter(|id| backends.contains_key(id)).map(address).collect();
    assert_eq!(kept, [12]);
    for service in sandbox.services().values() {
        let ids: BTreeSet<u32> = sandbox.table(service).into_iter().collect();
        assert_eq!(ids, after.keys().copied().collect());
    }
}

#[test]
fn an_id_that_a_flow_names_is_not_given_again() {
    let sandbox = Sandbox::enter();
    let mut first = sandbox.open();
    first.apply(&desired(&[11])).unwrap();
    let choices = Choices::pinned(&sandbox.version()).unwrap();
    for n in 0..100u32 {
        let key = mesh_abi::FlowKey { source_port: (n as u16).to_be_bytes(), ..Default::default() };
        let value = mesh_abi::ChoiceValue { backend: 100 + n, ..Default::default() };
        assert!(choices.add(&key, &value));
    }
    assert_eq!(first.flows().unwrap().choices, FlowCount { new: 100, established: 0 });
    first.apply(&desired(&[])).unwrap();
    drop(first);
    let mut second = sandbox.open();
    second.apply(&desired(&[12])).unwrap();
    assert_eq!(sandbox.backends().into_keys().collect::<Vec<_>>(), [200]);
}

#[test]
fn maps_of_another_shape_are_not_adopted() {
    let sandbox = Sandbox::enter();
    let mut first = sandbox.open();
    first.apply(&desired(&[11])).unwrap();
    drop(first);
    let foreign = HashMap::<MapData, u32, u32>::create(4, 0).unwrap();
    fs::remove_file(sandbox.version().join("NETWORKS")).unwrap();
    foreign.pin(sandbox.version().join("NETWORKS")).unwrap();
    let mut second = sandbox.open();
    assert!(!second.adopted());
    assert!(sandbox.backends().is_empty());
    second.apply(&desired(&[11])).unwrap();
    assert_eq!(sandbox.backends().len(), 1);
}

#[test]
fn stats_begin_at_zero_and_know_every_reason() {
    let sandbox = Sandbox::enter();
    let mut path = sandbox.open();
    path.apply(&desired(&[11, 12])).unwrap();
    let stats = path.stats().unwrap();
    assert_eq!(stats.drops.len(), mesh_lb::DropReason::ALL.len());
    assert_eq!(stats.counters.len(), mesh_lb::Counter::ALL.len());
    assert!(stats.drops.values().chain(stats.counters.values()).all(|n| *n == 0));
    assert_eq!(
        (stats.maps["SERVICES"].used, stats.maps["BACKENDS"].used, stats.maps["MAGLEV"].used),
        (2, 2, 256)
    );
}

#[test]
fn a_sandbox_leaves_no_folder() {
    let inside = std::thread::spawn(|| {
        let sandbox = Sandbox::enter();
        let _path = sandbox.open();
        assert!(sandbox.version().exists());
        sandbox.pins()
    });
    let pins = inside.join().unwrap();
    assert!(!pins.exists() && !pins.parent().unwrap().exists(), "{} is left", pins.display());
}

#[test]
fn nothing_to_remove_is_fine_and_a_bad_place_is_named() {
    let sandbox = Sandbox::enter();
    DataPath::remove_pins(&sandbox.pins()).unwrap();
    let file = sandbox.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DataPath::open(Options::new(file.join("bpf"))).err().expect("no folder can be made there");
    assert!(error.to_string().contains("file/bpf"), "{error}");
}
