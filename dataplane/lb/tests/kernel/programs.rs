//! Programs that are in the kernel already are taken, when they are the right ones.

use std::fs;

use aya::{
    maps::{HashMap, MapData},
    programs::{ProgramInfo, TcAttachType},
};
use mesh_lb::{DataPath, Limits};

use crate::sandbox::{Sandbox, desired, filters, programs, veth};

#[test]
fn a_daemon_of_the_same_version_takes_them() {
    let sandbox = Sandbox::enter();
    veth("up0");
    let mut first = sandbox.open();
    first.apply(&desired(&[11])).unwrap();
    first.attach_uplink("up0").unwrap();
    first.settle().unwrap();
    let (pinned, attached) = (sandbox.pinned_programs(), programs("up0", TcAttachType::Ingress));
    let names: Vec<&str> = pinned.keys().map(String::as_str).collect();
    assert_eq!(names, ["from_host", "from_task", "to_task", "uplink", "vxlan"]);
    assert_eq!(attached, [pinned["uplink"]]);
    drop(first);

    let mut second = sandbox.open();
    assert_eq!(sandbox.pinned_programs(), pinned);
    second.apply(&desired(&[11, 12])).unwrap();
    second.attach_uplink("up0").unwrap();
    second.settle().unwrap();
    assert_eq!(programs("up0", TcAttachType::Ingress), attached);
    veth("msh1");
    second.attach_task("msh1").unwrap();
    assert_eq!(filters("msh1", "ingress"), [pinned["from_task"]]);
    assert_eq!(filters("msh1", "egress"), [pinned["to_task"]]);
    second.remove().unwrap();
    assert_eq!(programs("up0", TcAttachType::Ingress), []);
    assert!(!sandbox.pins().exists());
}

#[test]
fn filters_are_made_of_them_too() {
    let sandbox = Sandbox::enter();
    veth("up0");
    let open = || {
        let mut options = sandbox.options();
        options.clsact_only = true;
        DataPath::open(options).unwrap()
    };
    open().attach_uplink("up0").unwrap();
    let pinned = sandbox.pinned_programs();
    let mut second = open();
    second.attach_uplink("up0").unwrap();
    let shown = crate::sandbox::run("tc filter show dev up0 ingress");
    let id = format!(" id {} ", pinned["uplink"]);
    assert_eq!((shown.matches("direct-action").count(), shown.matches(&id).count()), (1, 1), "{shown}");
}

#[test]
fn those_of_another_version_go_once_they_are_replaced() {
    let sandbox = Sandbox::enter();
    veth("up0");
    let mut first = sandbox.open();
    first.attach_uplink("up0").unwrap();
    let before = sandbox.pinned_programs();
    drop(first);
    let old = sandbox.age_programs();

    let mut second = sandbox.open();
    assert!(old.exists() && sandbox.program_folders().len() == 2);
    assert_eq!(programs("up0", TcAttachType::Ingress), [before["uplink"]], "until they are replaced");
    second.attach_uplink("up0").unwrap();
    second.settle().unwrap();
    assert!(!old.exists());
    let after = sandbox.pinned_programs();
    assert!(after.iter().all(|(name, id)| before[name] != *id), "{before:?} {after:?}");
    assert_eq!(programs("up0", TcAttachType::Ingress), [after["uplink"]]);
}

#[test]
fn what_is_odd_is_replaced() {
    let sandbox = Sandbox::enter();
    drop(sandbox.open());
    let before = sandbox.pinned_programs();
    let folder = sandbox.program_folder();
    // A map, a folder, nothing at all, and the programs of each other.
    fs::remove_file(folder.join("uplink")).unwrap();
    HashMap::<MapData, u32, u32>::create(4, 0).unwrap().pin(folder.join("uplink")).unwrap();
    fs::remove_file(folder.join("vxlan")).unwrap();
    fs::create_dir_all(folder.join("vxlan").join("deeper")).unwrap();
    fs::rename(folder.join("from_task"), folder.join("aside")).unwrap();
    fs::rename(folder.join("to_task"), folder.join("from_task")).unwrap();
    fs::remove_file(folder.join("aside")).unwrap();

    drop(sandbox.open());
    let after = sandbox.pinned_programs();
    let kept: Vec<&str> =
        after.iter().filter(|(name, id)| before[*name] == **id).map(|(name, _)| name.as_str()).collect();
    assert_eq!((after.len(), kept), (5, vec!["from_host"]));
    for (name, id) in &after {
        let info = ProgramInfo::from_pin(folder.join(name)).unwrap();
        assert_eq!((info.name(), info.id()), (name.as_bytes(), *id));
    }
    drop(sandbox.open());
    assert_eq!(sandbox.pinned_programs(), after, "they will do");
}

/// Each uses a map that is not the pinned one any more.
#[test]
fn programs_of_other_maps_are_not_taken() {
    let sandbox = Sandbox::enter();
    let mut first = sandbox.open();
    first.apply(&desired(&[11])).unwrap();
    drop(first);
    let before = sandbox.pinned_programs();
    // All of them count drops.
    fs::remove_file(sandbox.version().join("DROPS")).unwrap();
    drop(sandbox.open());
    let drops = sandbox.maps()["DROPS"];
    let folder = sandbox.program_folder();
    let after = sandbox.pinned_programs();
    for (name, id) in &after {
        assert_ne!(before[name], *id, "{name}");
        let maps = ProgramInfo::from_pin(folder.join(name)).unwrap().map_ids().unwrap().unwrap();
        assert!(maps.contains(&drops), "{name}");
    }
}

#[test]
fn larger_maps_take_new_programs() {
    let sandbox = Sandbox::enter();
    veth("up0");
    let open = || {
        let mut options = sandbox.options();
        options.sizes = options.sizes.with(&Limits { backends: Some(1), ..Limits::default() });
        DataPath::open(options).unwrap()
    };
    let mut path = open();
    path.apply(&desired(&[11])).unwrap();
    path.attach_uplink("up0").unwrap();
    path.settle().unwrap();
    let before = sandbox.pinned_programs();
    path.apply(&desired(&[11, 12, 13])).unwrap();
    let after = sandbox.pinned_programs();
    assert!(after.iter().all(|(name, id)| before[name] != *id), "{before:?} {after:?}");
    assert_eq!(programs("up0", TcAttachType::Ingress), [after["uplink"]]);
    drop(path);

    let mut again = open();
    again.attach_uplink("up0").unwrap();
    assert_eq!(sandbox.pinned_programs(), after);
    assert_eq!(programs("up0", TcAttachType::Ingress), [after["uplink"]]);
    drop(again);

    // Other sizes, while the programs in place use the earlier maps.
    let mut options = sandbox.options();
    options.sizes.flows = 2048;
    let mut resized = DataPath::open(options).unwrap();
    let last = sandbox.pinned_programs();
    assert!(last.iter().all(|(name, id)| after[name] != *id), "{after:?} {last:?}");
    resized.attach_uplink("up0").unwrap();
    resized.settle().unwrap();
    assert_eq!(programs("up0", TcAttachType::Ingress), [last["uplink"]]);
}
