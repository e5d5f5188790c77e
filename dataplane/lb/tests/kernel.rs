//! The data path in a real kernel, as root: each test in namespaces of its own, which end with its thread, whatever
//! happens, and take interfaces, mounts, pins and links along.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use aya::{
    maps::{Array, HashMap, Map, MapData, MapInfo},
    programs::{
        SchedClassifier, TcAttachType,
        links::{FdLink, LinkType, PinnedLink},
    },
};
use mesh_abi::{BackendValue, ServiceKey, ServiceValue};
use mesh_lb::{
    Backend, BackendKey, DataPath, Desired, Error, Frontend, HookKind, NetworkEntry, NetworkPlan,
    NodeSettings, Options, PeerEntry, PublishedOn, ServiceEntry, ServicePlan, netns_cookie,
};
use mesh_types::{Generation, LocalEndpointId, Mac, NetworkId, Protocol, ServiceId, Subnet, TaskId, Vni};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// A network and a mount namespace for the calling thread, with a folder for pins.
struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    fn enter() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn pins(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.pins());
        // The flow tables take their memory at once.
        options.sizes.flows = 1024;
        options
    }

    fn open(&self) -> DataPath {
        DataPath::open(self.options()).unwrap()
    }

    /// Ids of the pinned maps by name.
    fn maps(&self) -> BTreeMap<String, u32> {
        let entries = fs::read_dir(self.version()).unwrap().map(|e| e.unwrap());
        entries
            .map(|e| (e.file_name().into_string().unwrap(), MapInfo::from_pin(e.path()).unwrap().id()))
            .collect()
    }

    fn version(&self) -> PathBuf {
        self.pins().join(format!("v{}", mesh_abi::LAYOUT_VERSION))
    }

    fn pinned(&self, name: &str) -> Map {
        Map::from_map_data(MapData::from_pin(self.version().join(name)).unwrap()).unwrap()
    }

    fn backends(&self) -> BTreeMap<u32, BackendValue> {
        let map: HashMap<_, u32, BackendValue> = self.pinned("BACKENDS").try_into().unwrap();
        map.iter().map(|e| e.unwrap()).collect()
    }

    fn services(&self) -> BTreeMap<ServiceKey, ServiceValue> {
        let map: HashMap<_, ServiceKey, ServiceValue> = self.pinned("SERVICES").try_into().unwrap();
        map.iter().map(|e| e.unwrap()).collect()
    }

    fn table(&self, service: &ServiceValue) -> Vec<u32> {
        let map: Array<_, u32> = self.pinned("MAGLEV").try_into().unwrap();
        (service.table_base..).take(service.table_len as usize).map(|i| map.get(&i, 0).unwrap()).collect()
    }
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn veth(name: &str) {
    run(&format!("ip link add {name} type veth peer name {name}p"));
}

/// Ids of the programs attached by links for tc.
fn programs(interface: &str, direction: TcAttachType) -> Vec<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
    programs.iter().map(|p| p.id()).collect()
}

fn filters(interface: &str, direction: &str) -> usize {
    run(&format!("tc filter show dev {interface} {direction}")).matches("direct-action").count()
}

fn backend(n: u8) -> Backend {
    Backend {
        key: BackendKey(TaskId::from_u128(n.into()), NetworkId::from_u128(1)),
        vni: Vni::FIRST,
        address: Ipv4Addr::new(10, 0, 0, n).into(),
        vtep: Ipv4Addr::new(192, 0, 2, n).into(),
        ifindex: None,
        endpoint: LocalEndpointId(n.into()),
        generation: Generation(1),
        draining: false,
        weight: 1,
    }
}

fn desired(backends: &[u8]) -> Desired {
    let mut desired = Desired::new(NodeSettings {
        vtep: Ipv4Addr::new(192, 0, 2, 1).into(),
        uplink_ifindex: 2,
        vxlan_ifindex: 0,
        host_ifindex: 0,
        host_mac: Mac([0; 6]),
        inner_mtu: 1450,
        vxlan_port: 4789,
        netns_cookie: netns_cookie().unwrap(),
        fast_path: true,
    });
    let subnet = Subnet::new("10.0.0.0/24".parse().unwrap(), None).unwrap();
    let entry = NetworkEntry { v4: Some(subnet), v6: None, internal: false };
    desired.networks.insert(Vni::FIRST, Arc::new(NetworkPlan { entry, endpoints: BTreeMap::new() }));
    desired.peers.insert(Ipv4Addr::new(192, 0, 2, 2).into(), PeerEntry::default());
    let backends: Vec<Backend> = backends.iter().map(|n| backend(*n)).collect();
    let entry = |target_port| ServiceEntry {
        affinity: None,
        direct: false,
        target_port,
        backends: backends.clone(),
    };
    let vip = Frontend::Vip { vni: Vni::FIRST, address: Ipv4Addr::new(10, 0, 0, 250).into() };
    let published = Frontend::Published { on: PublishedOn::AnyV4, port: 8080, protocol: Protocol::Tcp };
    let frontends = [(vip, entry(None)), (published, entry(Some(80)))].into();
    desired.services.insert(ServiceId::from_u128(1), Arc::new(ServicePlan { number: 1, frontends }));
    desired
}

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
    let mut choices: HashMap<_, mesh_abi::FlowKey, mesh_abi::ChoiceValue> =
        sandbox.pinned("CHOICES").try_into().unwrap();
    for n in 0..900u32 {
        let key = mesh_abi::FlowKey { source_port: (n as u16).to_be_bytes(), ..Default::default() };
        let value = mesh_abi::ChoiceValue { backend: 100 + n, ..Default::default() };
        choices.insert(key, value, 0).unwrap();
    }
    assert_eq!(first.flows().unwrap().choices, 900);
    first.apply(&desired(&[])).unwrap();
    drop(first);
    let mut second = sandbox.open();
    second.apply(&desired(&[12])).unwrap();
    assert_eq!(sandbox.backends().into_keys().collect::<Vec<_>>(), [1000]);
}

#[test]
fn links_outlive_the_daemon_and_take_new_programs() {
    let sandbox = Sandbox::enter();
    ["up0", "msh1.7", "host0"].into_iter().for_each(veth);
    let attach = |path: &mut DataPath| {
        assert_eq!(path.attach_uplink("up0").unwrap(), HookKind::Tcx);
        assert_eq!(path.attach_host_link("host0").unwrap(), HookKind::Tcx);
        assert_eq!(path.attach_task("msh1.7").unwrap(), HookKind::Tcx);
    };
    let all = || {
        [
            programs("up0", TcAttachType::Ingress),
            programs("host0", TcAttachType::Egress),
            programs("msh1.7", TcAttachType::Ingress),
            programs("msh1.7", TcAttachType::Egress),
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

    let mut second = sandbox.open();
    assert_eq!(all(), before, "they go on until they are replaced");
    assert_eq!(second.attached_tasks().unwrap(), BTreeSet::from(["msh1.7".to_owned()]));
    attach(&mut second);
    let after = all();
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");

    second.detach_task("msh1.7").unwrap();
    second.detach_task("msh1.7").unwrap();
    assert_eq!(all().len(), 2);
    let links = second.stats().unwrap().links;
    assert_eq!(links.keys().map(String::as_str).collect::<Vec<_>>(), ["from_host", "uplink"]);
    second.remove().unwrap();
    assert_eq!(all(), []);
    assert!(!sandbox.pins().exists());
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
    assert_eq!(programs("msh1", TcAttachType::Ingress).len(), 1);
    run("ip link del msh1");
    path.detach_task("msh1").unwrap();
    assert_eq!(path.attached_tasks().unwrap(), BTreeSet::new());

    path.attach_uplink("up0").unwrap();
    path.attach_uplink("up1").unwrap();
    assert_eq!(programs("up0", TcAttachType::Ingress), []);
    assert_eq!(programs("up1", TcAttachType::Ingress).len(), 1);
    let error = path.attach_uplink("nosuch0").unwrap_err();
    assert!(error.to_string().contains("nosuch0"), "{error}");
    assert_eq!(programs("up1", TcAttachType::Ingress).len(), 1, "a failure leaves what was there");
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
    let count = || [filters("up0", "ingress"), filters("msh1", "ingress"), filters("msh1", "egress")];
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
    third.detach_task("msh1").unwrap();
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
    let mut second = open();
    assert_eq!(links(&second), before, "they go on until they are replaced");
    second.attach_cgroup().unwrap();
    for (name, (link, program)) in links(&second) {
        assert!(before[&name].0 == link && before[&name].1 != program, "{name}");
    }
    second.remove().unwrap();
    assert!(!sandbox.pins().exists());
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
fn maps_of_another_size_keep_it_and_other_layouts_go() {
    let sandbox = Sandbox::enter();
    let maps = {
        let _first = sandbox.open();
        sandbox.maps()
    };
    fs::create_dir(sandbox.pins().join("v0")).unwrap();
    fs::create_dir(sandbox.pins().join("versatile")).unwrap();
    let mut options = sandbox.options();
    options.sizes.peers = 1;
    let mut second = DataPath::open(options).unwrap();
    assert_eq!(sandbox.maps(), maps);
    assert_eq!(second.stats().unwrap().maps["PEERS"].capacity, 4096);
    second.apply(&desired(&[11])).unwrap();
    assert!(!sandbox.pins().join("v0").exists());
    assert!(sandbox.pins().join("versatile").exists());
}

#[test]
fn more_than_fits_is_refused_by_name() {
    let sandbox = Sandbox::enter();
    let mut options = sandbox.options();
    options.sizes.services = 1;
    let mut path = DataPath::open(options).unwrap();
    let error = path.apply(&desired(&[11])).unwrap_err();
    assert!(matches!(error, Error::Full { map: "SERVICES", capacity: 1, wanted: 2 }), "{error}");
    assert!(sandbox.backends().is_empty(), "nothing was written");
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
        (2, 2, 251)
    );
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
