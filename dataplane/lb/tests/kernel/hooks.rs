//! What is attached, and what becomes of it when the daemon or the interface goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use aya::programs::{
    TcAttachType,
    links::{FdLink, LinkType, PinnedLink},
};
use mesh_lb::{DataPath, HookKind, NoXdp, UplinkHook, describe_hook};

use crate::sandbox::{Sandbox, filters, programs, run, veth};

#[test]
fn what_is_attached_outlives_the_daemon_and_takes_new_programs() {
    let sandbox = Sandbox::enter();
    ["up0", "msh1.7", "host0"].into_iter().for_each(veth);
    let attach = |path: &mut DataPath| {
        assert_eq!(path.attach_uplink("up0").unwrap(), HookKind::Tcx);
        assert_eq!(path.attach_host_link("host0").unwrap(), HookKind::Tcx);
        assert_eq!(path.attach_task("msh1.7").unwrap(), HookKind::Clsact);
    };
    let all = || {
        [
            programs("up0", TcAttachType::Ingress),
            programs("host0", TcAttachType::Egress),
            filters("msh1.7", "ingress"),
            filters("msh1.7", "egress"),
        ]
        .concat()
    };
    let mut first = sandbox.open();
    attach(&mut first);
    let before = all();
    assert_eq!(before.len(), 4);
    attach(&mut first);
    assert_eq!(all(), before, "attaching again changes nothing");
    drop(first);
    assert_eq!(all(), before, "they go on without a daemon");

    sandbox.age_programs();
    let mut second = sandbox.open();
    assert_eq!(all(), before, "they go on until they are replaced");
    assert_eq!(second.attached_tasks().unwrap(), BTreeSet::from(["msh1.7".to_owned()]));
    attach(&mut second);
    let after = all();
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");

    detach(&mut second, &["msh1.7"]);
    detach(&mut second, &["msh1.7"]);
    assert_eq!(all().len(), 2);
    let links = second.stats().unwrap().links;
    assert_eq!(links.keys().map(String::as_str).collect::<Vec<_>>(), ["from_host", "uplink-up0"]);
    second.remove().unwrap();
    assert_eq!(all(), []);
    assert!(!sandbox.pins().exists());
}

fn detach(path: &mut DataPath, interfaces: &[&str]) {
    path.detach_tasks(interfaces).into_iter().for_each(|done| done.unwrap());
}

#[test]
fn many_tasks_are_detached_at_once() {
    let sandbox = Sandbox::enter();
    let all = ["msh1", "msh2", "msh3"];
    all.into_iter().for_each(veth);
    let mut path = sandbox.open();
    for interface in all {
        path.attach_task(interface).unwrap();
    }
    run("ip link del msh2");
    detach(&mut path, &["msh1", "msh2", "nosuch"]);
    assert_eq!(filters("msh1", "ingress"), []);
    assert_eq!((filters("msh3", "ingress").len(), filters("msh3", "egress").len()), (1, 1));
    assert_eq!(path.attached_tasks().unwrap(), BTreeSet::from(["msh3".to_owned()]));
}

/// As a daemon from before left it.
#[test]
fn a_tasks_links_go_on_where_they_are() {
    let sandbox = Sandbox::enter();
    veth("msh1");
    let mut first = sandbox.open();
    first.attach_task("msh1").unwrap();
    let pins = sandbox.pins().join("links");
    let programs = sandbox.pinned_programs();
    let held = || {
        ["in", "out"].map(|way| {
            let pin = pins.join(format!("task-msh1-{way}"));
            FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap().program_id()
        })
    };
    sandbox.link_task("msh1");
    drop(first);

    let mut second = sandbox.open();
    assert_eq!(second.attach_task("msh1").unwrap(), HookKind::Tcx);
    assert_eq!(held(), [programs["from_task"], programs["to_task"]]);
    assert_eq!(filters("msh1", "ingress"), [], "one of the two");
    detach(&mut second, &["msh1"]);
    assert_eq!(second.attached_tasks().unwrap(), BTreeSet::new());
}

#[test]
fn an_interface_may_come_back_or_be_another() {
    let sandbox = Sandbox::enter();
    ["up0", "up1"].into_iter().for_each(veth);
    veth("msh1");
    let mut path = sandbox.open();
    path.attach_task("msh1").unwrap();
    run("ip link del msh1");
    veth("msh1");
    path.attach_task("msh1").unwrap();
    assert_eq!(filters("msh1", "ingress").len(), 1);
    run("ip link del msh1");
    detach(&mut path, &["msh1"]);
    assert_eq!(path.attached_tasks().unwrap(), BTreeSet::new());

    path.attach_uplink("up0").unwrap();
    path.attach_uplink("up1").unwrap();
    let error = path.attach_uplink("nosuch0").unwrap_err();
    assert!(error.to_string().contains("nosuch0"), "{error}");
    let count = |name| programs(name, TcAttachType::Ingress).len();
    assert_eq!((count("up0"), count("up1")), (1, 1), "a failure leaves what was there");
    assert_eq!(path.attached_uplinks().unwrap(), BTreeSet::from(["up0".to_owned(), "up1".to_owned()]));

    run("ip link del up1");
    veth("up1");
    path.attach_uplink("up1").unwrap();
    path.attach_uplink("up0").unwrap();
    assert_eq!((count("up0"), count("up1")), (1, 1), "the new one too");
    path.detach_uplink("up0").unwrap();
    path.detach_uplink("up0").unwrap();
    run("ip link del up1");
    path.detach_uplink("up1").unwrap();
    assert_eq!(count("up0"), 0);
    assert_eq!(path.attached_uplinks().unwrap(), BTreeSet::new());
    assert_eq!(path.stats().unwrap().uplinks, []);
}

/// As VLAN interfaces usually have, and BPF file systems refuse.
#[test]
fn an_uplink_may_have_a_dot_in_its_name() {
    let sandbox = Sandbox::enter();
    veth("up0.7");
    let mut path = sandbox.open();
    path.attach_uplink("up0.7").unwrap();
    assert_eq!(programs("up0.7", TcAttachType::Ingress).len(), 1);
    assert_eq!(path.attached_uplinks().unwrap(), BTreeSet::from(["up0.7".to_owned()]));
    let hooks = path.stats().unwrap().links;
    let described: Vec<_> = hooks.keys().map(|hook| describe_hook(hook)).collect();
    assert_eq!(described, [(Some("up0.7".to_owned()), "uplink".to_owned())]);
}

/// How XDP runs on an interface: `xdp` in its driver, `xdpgeneric` not, nothing without.
fn xdp_mode(interface: &str) -> Option<String> {
    let shown = run(&format!("ip -oneline link show dev {interface}"));
    shown.split_whitespace().find(|word| word.starts_with("xdp")).map(str::to_owned)
}

fn with_hook(sandbox: &Sandbox, hook: UplinkHook) -> DataPath {
    let mut options = sandbox.options();
    options.uplink_hook = hook;
    DataPath::open(options).unwrap()
}

/// What [`mesh_lb::Stats`] says of the one uplink.
fn xdp_of(path: &DataPath) -> Result<(), NoXdp> {
    let stats = path.stats().unwrap();
    assert_eq!(stats.uplinks.len(), 1, "{stats:?}");
    let uplink = &stats.uplinks[0];
    assert_eq!(
        (uplink.interface.as_str(), uplink.tc),
        ("up0", HookKind::Tcx),
        "tc's program is there always"
    );
    assert_eq!(stats.links.get("xdp-up0"), uplink.xdp.is_ok().then_some(&HookKind::Xdp));
    uplink.xdp.clone()
}

/// veth can run XDP, but loses more by it than it gains.
#[test]
fn xdp_is_for_drivers_that_run_it_well() {
    let sandbox = Sandbox::enter();
    veth("up0");
    let mut path = with_hook(&sandbox, UplinkHook::Auto);
    path.attach_uplink("up0").unwrap();
    assert_eq!(xdp_of(&path), Err(NoXdp::Driver("veth".to_owned())));
    assert_eq!(xdp_mode("up0"), None);
}

#[test]
fn xdp_runs_in_the_driver_and_outlives_the_daemon() {
    let sandbox = Sandbox::enter();
    veth("up0");
    let link = || {
        let pin = sandbox.pins().join("links").join("xdp-up0");
        let info = FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap();
        assert_eq!(info.link_type().unwrap(), LinkType::Xdp);
        (info.id(), info.program_id())
    };
    let mut first = with_hook(&sandbox, UplinkHook::Xdp);
    first.attach_uplink("up0").unwrap();
    assert_eq!(xdp_of(&first), Ok(()));
    assert_eq!(xdp_mode("up0").as_deref(), Some("xdp"));
    let before = link();
    first.attach_uplink("up0").unwrap();
    assert_eq!(link(), before, "attaching again changes nothing");
    drop(first);
    assert_eq!(link(), before, "it goes on without a daemon");

    let mut same = with_hook(&sandbox, UplinkHook::Xdp);
    same.attach_uplink("up0").unwrap();
    assert_eq!(link(), before, "a daemon of the same version takes it");
    drop(same);

    sandbox.age_programs();
    let mut second = with_hook(&sandbox, UplinkHook::Xdp);
    second.attach_uplink("up0").unwrap();
    let after = link();
    assert!(after.0 == before.0 && after.1 != before.1, "replaced in place: {before:?} {after:?}");
    assert_eq!(second.attached_uplinks().unwrap(), BTreeSet::from(["up0".to_owned()]));

    run("ip link del up0");
    veth("up0");
    second.attach_uplink("up0").unwrap();
    assert_eq!((xdp_of(&second), xdp_mode("up0").as_deref()), (Ok(()), Some("xdp")), "on the new one too");
    drop(second);

    let mut third = with_hook(&sandbox, UplinkHook::Tc);
    third.attach_uplink("up0").unwrap();
    assert_eq!((xdp_of(&third), xdp_mode("up0")), (Err(NoXdp::Configured), None));
    drop(third);

    let mut fourth = with_hook(&sandbox, UplinkHook::Xdp);
    fourth.attach_uplink("up0").unwrap();
    fourth.detach_uplink("up0").unwrap();
    assert_eq!(xdp_mode("up0"), None);
    fourth.attach_uplink("up0").unwrap();
    fourth.remove().unwrap();
    assert_eq!(xdp_mode("up0"), None);
}

/// Bridges have no XDP of their own; generic XDP, which they could have, is worse than tc.
#[test]
fn what_refuses_xdp_gets_tc_alone() {
    let sandbox = Sandbox::enter();
    run("ip link add up0 type bridge");
    let mut path = with_hook(&sandbox, UplinkHook::Xdp);
    path.attach_uplink("up0").unwrap();
    let why = xdp_of(&path).unwrap_err();
    assert!(matches!(why, NoXdp::Refused(_)), "{why}");
    assert_eq!(xdp_mode("up0"), None);
    assert_eq!(programs("up0", TcAttachType::Ingress).len(), 1);
}

#[test]
fn kernels_without_links_for_tc_get_filters() {
    let sandbox = Sandbox::enter();
    ["up0", "msh1"].into_iter().for_each(veth);
    let open = || {
        let mut options = sandbox.options();
        options.clsact_only = true;
        DataPath::open(options).unwrap()
    };
    let mut first = open();
    assert_eq!(first.attach_uplink("up0").unwrap(), HookKind::Clsact);
    assert_eq!(first.attach_task("msh1").unwrap(), HookKind::Clsact);
    drop(first);
    let count = || {
        [("up0", "ingress"), ("msh1", "ingress"), ("msh1", "egress")]
            .map(|(link, way)| filters(link, way).len())
    };
    assert_eq!(count(), [1, 1, 1]);

    let mut second = open();
    second.attach_uplink("up0").unwrap();
    second.attach_task("msh1").unwrap();
    assert_eq!(count(), [1, 1, 1], "replaced, not added");
    assert_eq!(second.attached_tasks().unwrap(), BTreeSet::from(["msh1".to_owned()]));
    drop(second);

    let mut third = sandbox.open();
    assert_eq!(third.attach_uplink("up0").unwrap(), HookKind::Tcx, "a newer kernel");
    assert_eq!(count(), [0, 1, 1]);
    detach(&mut third, &["msh1"]);
    assert_eq!(count(), [0, 0, 0]);
    third.remove().unwrap();
    assert!(!sandbox.pins().exists());
}

/// A cgroup of its own, so that no socket of this machine is concerned.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(" cgroup2 ")).expect("a cgroup v2 hierarchy");
        let root = Path::new(line.split(' ').nth(1).unwrap());
        let path = root.join(format!("mesh-lb-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn host_sockets() {
    let sandbox = Sandbox::enter();
    let cgroup = Cgroup::make();
    let open = || {
        let mut options = sandbox.options();
        options.cgroup = Some(cgroup.0.clone());
        DataPath::open(options).unwrap()
    };
    // Ids of the link and of its program, by name.
    let links = |path: &DataPath| -> BTreeMap<String, (u32, u32)> {
        let links = path.stats().unwrap().links.into_iter().filter(|(_, kind)| *kind == HookKind::Cgroup);
        let ids = |name: &str| {
            let link = PinnedLink::from_pin(sandbox.pins().join("links").join(name)).unwrap();
            let info = FdLink::from(link).info().unwrap();
            assert_eq!(info.link_type().unwrap(), LinkType::Cgroup);
            (info.id(), info.program_id())
        };
        links.map(|(name, _)| (name.clone(), ids(&name))).collect()
    };
    let mut first = open();
    first.attach_cgroup().unwrap();
    let before = links(&first);
    for name in ["connect4", "sendmsg4", "recvmsg4", "getpeername4"] {
        assert!(before.contains_key(&format!("cgroup-{name}")), "{before:?}");
    }
    first.attach_cgroup().unwrap();
    assert_eq!(links(&first), before);
    drop(first);
    let mut same = open();
    same.attach_cgroup().unwrap();
    assert_eq!(links(&same), before, "a daemon of the same version takes them");
    drop(same);
    sandbox.age_programs();
    let mut second = open();
    assert_eq!(links(&second), before, "they go on until they are replaced");
    second.attach_cgroup().unwrap();
    for (name, (link, program)) in links(&second) {
        assert!(before[&name].0 == link && before[&name].1 != program, "{name}");
    }
    second.remove().unwrap();
    assert!(!sandbox.pins().exists());
}
