//! The data path of one node: loaded programs, pinned maps and links.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, TcAttachType},
};
use mesh_abi::{Counter, DropReason};
use tracing::info;

use crate::{
    desired::Desired,
    error::Error,
    features::{self, Features},
    held::Held,
    hooks::{self, CGROUP_PREFIX, CGROUP_PROGRAMS, HookKind},
    maps::{Maps, names},
    object::OBJECT,
    pins::{self, Pins},
    plan::plan,
    sizes::{self, Sizes},
    stats::{Flows, MapUse, Stats},
};

/// How to open a data path.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the pins: one per daemon, below a BPF file system or to become one.
    pub bpf_dir: PathBuf,
    /// Root of the cgroup v2 hierarchy; found in `/proc/mounts` unless given.
    pub cgroup: Option<PathBuf>,
    /// Room in the maps. Pinned maps that are adopted keep theirs.
    pub sizes: Sizes,
    /// Uses tc filters even where the kernel has links for tc.
    pub clsact_only: bool,
}

impl Options {
    /// The usual ones, with pins below `bpf_dir`.
    pub fn new(bpf_dir: impl Into<PathBuf>) -> Self {
        Self { bpf_dir: bpf_dir.into(), cgroup: None, sizes: Sizes::default(), clsact_only: false }
    }
}

/// What one [`DataPath::apply`] wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries added or changed.
    pub written: usize,
    /// Entries deleted.
    pub deleted: usize,
    /// Maglev tables written.
    pub tables: usize,
}

impl Applied {
    /// Whether all was as desired already.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A node's data path. Dropping it leaves everything as it is and running; [`DataPath::remove`] ends it.
pub struct DataPath {
    options: Options,
    pins: Pins,
    ebpf: Ebpf,
    maps: Maps,
    held: Held,
    adopted: bool,
}

impl DataPath {
    /// What the kernel offers of what the data path needs.
    pub fn probe() -> Features {
        features::probe()
    }

    /// Loads the programs. Maps pinned by an earlier daemon are adopted with all they hold; what that daemon attached
    /// goes on until the `attach_*` methods replace it, so call [`DataPath::apply`] first.
    pub fn open(options: Options) -> Result<Self, Error> {
        let pins = Pins::prepare(&options.bpf_dir)?;
        let folder = pins.maps();
        let wanted = sizes::maps(&options.sizes);
        let pinned = sizes::adoptable(&folder, &wanted)?;
        let adopted = pinned.contains_key(names::CONFIG);
        let mut loader = EbpfLoader::new();
        for spec in &wanted {
            let size = pinned.get(spec.name).copied().unwrap_or(spec.entries);
            loader.map_max_entries(spec.name, size).map_pin_path(spec.name, folder.join(spec.name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| Error::Object(Box::new(e)))?;
        let maps = Maps::take(&mut ebpf)?;
        for name in TC_PROGRAMS {
            classifier(&mut ebpf, name)?;
        }
        let held = maps.read()?;
        pins.remove_other_layouts()?;
        info!(path = %options.bpf_dir.display(), adopted, backends = held.backends.len(), "data path opened");
        Ok(Self { options, pins, ebpf, maps, held, adopted })
    }

    /// Whether maps of an earlier daemon were found and taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Makes the maps agree with `desired`. Only differences are written, in an order in which no packet meets half an
    /// update. After [`Error::Full`] nothing was written; after [`Error::Write`] call it again.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, Error> {
        // What a failed call may have left.
        self.held.regions.sweep();
        let mut applied = Applied::default();
        for op in plan(&self.held, desired, &self.maps.capacities())? {
            self.maps.write(&op)?;
            op.count(&mut applied);
            self.held.record(op);
        }
        self.held.regions.sweep();
        Ok(applied)
    }

    /// Attaches to the interface that holds the VTEP address: VXLAN packets and clients of published ports.
    pub fn attach_uplink(&mut self, interface: &str) -> Result<HookKind, Error> {
        self.attach(UPLINK, UPLINK, interface, TcAttachType::Ingress)
    }

    /// Attaches to the flow-based VXLAN device.
    pub fn attach_vxlan(&mut self, interface: &str) -> Result<HookKind, Error> {
        self.attach(VXLAN, VXLAN, interface, TcAttachType::Ingress)
    }

    /// Attaches to the host side of the host link.
    pub fn attach_host_link(&mut self, interface: &str) -> Result<HookKind, Error> {
        self.attach(FROM_HOST, FROM_HOST, interface, TcAttachType::Egress)
    }

    /// Attaches to both directions of a task's host-side interface.
    pub fn attach_task(&mut self, interface: &str) -> Result<HookKind, Error> {
        let [from, to] = hooks::task_hooks(interface);
        self.attach(TO_TASK, &to, interface, TcAttachType::Egress)?;
        self.attach(FROM_TASK, &from, interface, TcAttachType::Ingress)
    }

    /// Detaches from a task's interface, which may be gone already.
    pub fn detach_task(&mut self, interface: &str) -> Result<(), Error> {
        let [from, to] = hooks::task_hooks(interface);
        hooks::detach(&self.pins, &from)?;
        hooks::detach(&self.pins, &to)
    }

    /// The task interfaces that programs are attached to, by this daemon or an earlier one.
    pub fn attached_tasks(&self) -> Result<BTreeSet<String>, Error> {
        Ok(hooks::attached(&self.pins)?.keys().filter_map(|hook| hooks::task_interface(hook)).collect())
    }

    /// Attaches to the host's sockets, so that published ports answer on `localhost` and the node's own addresses.
    /// Sockets of other network namespaces are left alone.
    pub fn attach_cgroup(&mut self) -> Result<(), Error> {
        let cgroup = match &self.options.cgroup {
            Some(path) => path.clone(),
            None => features::cgroup2_root().ok_or(Error::NoCgroup)?,
        };
        for (name, attach_type, needed) in CGROUP_PROGRAMS {
            let Some(program) = sock_addr(&mut self.ebpf, name, needed)? else { continue };
            hooks::attach_cgroup(
                &self.pins,
                program,
                &format!("{CGROUP_PREFIX}{name}"),
                &cgroup,
                attach_type,
            )?;
        }
        Ok(())
    }

    /// Counters, drops, and how full the maps are.
    pub fn stats(&self) -> Result<Stats, Error> {
        let drops = DropReason::ALL.iter().map(|r| Ok((*r, self.maps.drops(*r as u32)?)));
        let counters = Counter::ALL.iter().map(|c| Ok((*c, self.maps.counter(*c as u32)?)));
        Ok(Stats {
            drops: drops.collect::<Result<_, Error>>()?,
            counters: counters.collect::<Result<_, Error>>()?,
            maps: self.map_use(),
            links: hooks::attached(&self.pins)?,
        })
    }

    /// How many flows there are. Walks the flow tables, so not for every second.
    pub fn flows(&self) -> Result<Flows, Error> {
        let (choices, reverse) = self.maps.flows()?;
        Ok(Flows { choices, reverse })
    }

    /// Ends the data path: detaches everything and removes all pins. Call it in the data path's network namespace.
    pub fn remove(self) -> Result<(), Error> {
        let root = self.options.bpf_dir.clone();
        drop(self);
        Self::remove_pins(&root)
    }

    /// As [`DataPath::remove`], without opening it. Nothing there is no error.
    pub fn remove_pins(bpf_dir: &Path) -> Result<(), Error> {
        pins::remove(bpf_dir)
    }

    fn attach(
        &mut self,
        program: &'static str,
        hook: &str,
        interface: &str,
        direction: TcAttachType,
    ) -> Result<HookKind, Error> {
        let clsact_only = self.options.clsact_only;
        let program = classifier(&mut self.ebpf, program)?;
        hooks::attach_tc(&self.pins, program, hook, interface, direction, clsact_only)
    }

    fn map_use(&self) -> BTreeMap<&'static str, MapUse> {
        let held = &self.held;
        let used = [
            (names::PEERS, held.peers.len()),
            (names::HOST_ADDRESSES, held.host_addresses.len()),
            (names::NETWORKS, held.networks.len()),
            (names::ENDPOINTS, held.endpoints.len()),
            (names::LOCAL_BY_ID, held.local_by_id.len()),
            (names::LOCAL_BY_IFINDEX, held.local_by_ifindex.len()),
            (names::SERVICES, held.services.len()),
            (names::BACKENDS, held.backends.len()),
            (names::MAGLEV, held.regions.in_use() as usize),
        ];
        let capacity = |name| self.maps.sizes().get(name).copied().unwrap_or(0);
        used.into_iter()
            .map(|(name, used)| (name, MapUse { used: used as u32, capacity: capacity(name) }))
            .collect()
    }
}

const UPLINK: &str = "uplink";
const VXLAN: &str = "vxlan";
const FROM_HOST: &str = "from_host";
const FROM_TASK: &str = "from_task";
const TO_TASK: &str = "to_task";
const TC_PROGRAMS: [&str; 5] = [FROM_TASK, TO_TASK, UPLINK, VXLAN, FROM_HOST];

/// The tc program of that name, loaded.
fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Missing { kind: "program", name })?;
    let refused = |source| Error::Program { program: name, source: Box::new(source) };
    let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
    loaded(program.load()).map_err(refused)?;
    Ok(program)
}

/// The cgroup program of that name, loaded; none when the object may lack it and does.
fn sock_addr<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
    needed: bool,
) -> Result<Option<&'a mut CgroupSockAddr>, Error> {
    let program: Option<&mut Program> = ebpf.program_mut(name);
    let Some(program) = program else {
        return if needed { Err(Error::Missing { kind: "program", name }) } else { Ok(None) };
    };
    let refused = |source| Error::Program { program: name, source: Box::new(source) };
    let program: &mut CgroupSockAddr = program.try_into().map_err(refused)?;
    loaded(program.load()).map_err(refused)?;
    Ok(Some(program))
}

fn loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}
