//! Namespaces for a test, and a small node for them.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::PathBuf, process::Command, sync::Arc};

use aya::{
    maps::{Array, HashMap, Map, MapData, MapInfo},
    programs::{LinkOrder, ProgramInfo, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions},
};
use mesh_abi::{BackendValue, ServiceKey, ServiceValue, TABLE_BLOCK, TableBlock};
use mesh_lb::{
    Backend, BackendKey, DataPath, Desired, Frontend, NetworkEntry, NetworkPlan, NodeSettings, Options,
    PeerEntry, PublishedOn, ServiceEntry, ServicePlan, netns_cookie,
};
use mesh_types::{Generation, LocalEndpointId, Mac, NetworkId, Protocol, ServiceId, Subnet, TaskId, Vni};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// A network and a mount namespace for the calling thread, with a folder for pins.
pub struct Sandbox {
    pub folder: tempfile::TempDir,
}

impl Sandbox {
    pub fn enter() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        // The folder has a mount in it and cannot be removed before; so it goes with the namespace, however that ends.
        let temporary = std::env::temp_dir();
        mount(Some("tmpfs"), &temporary, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn pins(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(self.pins());
        // The flow tables take their memory at once.
        options.sizes.flows = 1024;
        options
    }

    pub fn open(&self) -> DataPath {
        DataPath::open(self.options()).unwrap()
    }

    /// Ids of the pinned maps by name.
    pub fn maps(&self) -> BTreeMap<String, u32> {
        let entries = fs::read_dir(self.version()).unwrap().map(|e| e.unwrap());
        entries
            .filter(|e| e.file_type().unwrap().is_file())
            .map(|e| (e.file_name().into_string().unwrap(), MapInfo::from_pin(e.path()).unwrap().id()))
            .collect()
    }

    /// The folders of pinned programs.
    pub fn program_folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.version()).unwrap().map(|e| e.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }

    /// The only one of them.
    pub fn program_folder(&self) -> PathBuf {
        let mut folders = self.program_folders();
        assert_eq!(folders.len(), 1, "{folders:?}");
        folders.remove(0)
    }

    /// Ids of the pinned programs by name.
    pub fn pinned_programs(&self) -> BTreeMap<String, u32> {
        let entries = fs::read_dir(self.program_folder()).unwrap().map(|e| e.unwrap());
        entries
            .map(|e| (e.file_name().into_string().unwrap(), ProgramInfo::from_pin(e.path()).unwrap().id()))
            .collect()
    }

    /// Makes the pinned programs those of another object, as if this one were new.
    pub fn age_programs(&self) -> PathBuf {
        let folder = self.program_folder();
        let other = folder.with_file_name("programs-0123");
        fs::rename(folder, &other).unwrap();
        other
    }

    /// Holds the programs of a task's interface by links, as daemons before this one did.
    pub fn link_task(&self, interface: &str) {
        let ways = [("from_task", TcAttachType::Ingress, "in"), ("to_task", TcAttachType::Egress, "out")];
        for (name, direction, way) in ways {
            let mut program = SchedClassifier::from_pin(self.program_folder().join(name)).unwrap();
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let link = program.attach_with_options(interface, direction, options).unwrap();
            let link: FdLink = program.take_link(link).unwrap().try_into().unwrap();
            link.pin(self.pins().join(format!("links/task-{interface}-{way}"))).unwrap();
        }
    }

    pub fn version(&self) -> PathBuf {
        self.pins().join(format!("v{}", mesh_abi::LAYOUT_VERSION))
    }

    pub fn pinned(&self, name: &str) -> Map {
        Map::from_map_data(MapData::from_pin(self.version().join(name)).unwrap()).unwrap()
    }

    pub fn backends(&self) -> BTreeMap<u32, BackendValue> {
        let map: HashMap<_, u32, BackendValue> = self.pinned("BACKENDS").try_into().unwrap();
        map.iter().map(|e| e.unwrap()).collect()
    }

    pub fn services(&self) -> BTreeMap<ServiceKey, ServiceValue> {
        let map: HashMap<_, ServiceKey, ServiceValue> = self.pinned("SERVICES").try_into().unwrap();
        map.iter().map(|e| e.unwrap()).collect()
    }

    pub fn table(&self, service: &ServiceValue) -> Vec<u32> {
        let map: Array<_, TableBlock> = self.pinned("MAGLEV").try_into().unwrap();
        let slot = |n| map.get(&(n / TABLE_BLOCK), 0).unwrap()[(n % TABLE_BLOCK) as usize];
        (service.table_base..).take(service.table_len as usize).map(slot).collect()
    }
}

pub fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn veth(name: &str) {
    run(&format!("ip link add {name} type veth peer name {name}p"));
}

/// Ids of the programs attached by links for tc.
pub fn programs(interface: &str, direction: TcAttachType) -> Vec<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
    programs.iter().map(|p| p.id()).collect()
}

/// Ids of the programs of filters.
pub fn filters(interface: &str, direction: &str) -> Vec<u32> {
    let shown = run(&format!("tc filter show dev {interface} {direction}"));
    let lines = shown.lines().filter(|line| line.contains("direct-action"));
    let id = |line: &str| line.split_once(" id ")?.1.split(' ').next()?.parse().ok();
    lines.map(|line| id(line).unwrap_or_else(|| panic!("no program in {line}"))).collect()
}

pub fn backend(n: u8) -> Backend {
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

pub fn desired(backends: &[u8]) -> Desired {
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
        outer_checksum: false,
    });
    let subnet = Subnet::new("10.0.0.0/24".parse().unwrap(), None).unwrap();
    let entry = NetworkEntry { v4: Some(subnet), v6: None, internal: false };
    desired.networks.insert(Vni::FIRST, Arc::new(NetworkPlan { entry, endpoints: BTreeMap::new() }));
    desired.peers.insert(Ipv4Addr::new(192, 0, 2, 2).into(), PeerEntry::default());
    let backends: Vec<Backend> = backends.iter().map(|n| backend(*n)).collect();
    let entry =
        |target_port| ServiceEntry { affinity: None, direct: false, target_port, backends: backends.clone() };
    let vip = Frontend::Vip { vni: Vni::FIRST, address: Ipv4Addr::new(10, 0, 0, 250).into() };
    let published = Frontend::Published { on: PublishedOn::AnyV4, port: 8080, protocol: Protocol::Tcp };
    let frontends = [(vip, entry(None)), (published, entry(Some(80)))].into();
    desired.services.insert(ServiceId::from_u128(1), Arc::new(ServicePlan { number: 1, frontends }));
    desired
}
