//! The data path of one node: loaded programs, pinned maps and links.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::{EbpfLoader, maps::MapInfo};
use tracing::{info, warn};

use crate::{
    ageing::Ageing,
    attach::{self, Attached, UPLINK},
    desired::Desired,
    error::Error,
    features::{self, Features},
    flows::FlowTimeouts,
    held::{Held, MapOp},
    hooks,
    maps::{Maps, names},
    object::OBJECT,
    pins::{self, Pins},
    plan::plan,
    programs::Programs,
    sizes::{self, Found, Pinned, Sizes},
    stats::{Counts, MapUse, Stats},
    sys,
    table::Partly,
    takeover::Takeover,
    uplink::{Uplink, UplinkHook},
};

/// How to open a data path.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the pins: one per daemon, below a BPF file system or to become one.
    pub bpf_dir: PathBuf,
    /// Root of the cgroup v2 hierarchy; found in `/proc/mounts` unless given.
    pub cgroup: Option<PathBuf>,
    /// Room in the maps. Pinned maps that are too small, or for flows of another size, give way to new ones, into which
    /// the flows are carried over.
    pub sizes: Sizes,
    /// How long established flows may be silent.
    pub timeouts: FlowTimeouts,
    /// Where packets of uplinks are handled first.
    pub uplink_hook: UplinkHook,
    /// Uses tc filters even where the kernel has links for tc.
    pub clsact_only: bool,
}

impl Options {
    /// The usual ones, with pins below `bpf_dir`.
    pub fn new(bpf_dir: impl Into<PathBuf>) -> Self {
        Self {
            bpf_dir: bpf_dir.into(),
            cgroup: None,
            sizes: Sizes::default(),
            timeouts: FlowTimeouts::default(),
            uplink_hook: UplinkHook::default(),
            clsact_only: false,
        }
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
    pub(crate) options: Options,
    pub(crate) pins: Pins,
    pub(crate) programs: Programs,
    pub(crate) maps: Maps,
    pub(crate) held: Held,
    pub(crate) ageing: Ageing,
    pub(crate) uplinks: BTreeMap<String, Uplink>,
    /// What this process has attached.
    pub(crate) attached: BTreeSet<Attached>,
    takeover: Takeover,
    adopted: bool,
    settled: bool,
    /// Whether what is attached uses other maps than those that are written.
    outdated: bool,
    /// Whether it was settled before larger maps were made.
    was_settled: bool,
}

impl DataPath {
    /// What the kernel offers of what the data path needs.
    pub fn probe() -> Features {
        features::probe()
    }

    /// Loads the programs, or takes those that an earlier daemon of the same version has loaded with the same maps.
    /// Maps pinned by an earlier daemon are adopted with all they hold; from those of an earlier version's layout or of
    /// other sizes the flows are carried over. What that daemon attached goes on until the `attach_*` methods replace
    /// it, so call [`DataPath::apply`] first, and [`DataPath::settle`] afterwards.
    pub fn open(options: Options) -> Result<Self, Error> {
        let begun = Instant::now();
        let pins = Pins::prepare(&options.bpf_dir)?;
        let folder = pins.maps();
        let wanted = sizes::maps(&options.sizes);
        let (adopted, found) = match sizes::pinned(&folder, &wanted)? {
            Pinned::Nothing => (false, Found::new()),
            Pinned::Same(found) => (true, found),
            Pinned::Resized(found) => {
                if pins.put_aside()? {
                    (false, sizes::grown(found, &wanted))
                } else {
                    warn!(
                        "the pinned maps keep their sizes until the next start: an earlier change is not over"
                    );
                    (true, found)
                }
            }
        };
        let mut loader = EbpfLoader::new();
        // The kernel's types are for programs that look into its structures, which ours do not.
        loader.btf(None);
        for spec in &wanted {
            let size = found.get(spec.name).copied().unwrap_or(spec.entries);
            loader.map_max_entries(spec.name, size).map_pin_path(spec.name, folder.join(spec.name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| Error::Object(Box::new(e)))?;
        let mut maps = Maps::take(&mut ebpf)?;
        // A map that cannot be looked at is none of those that pinned programs may use.
        let id = |name| MapInfo::from_pin(folder.join(name)).map(|info| info.id());
        let shared = wanted.iter().filter_map(|spec| Some((id(spec.name).ok()?, spec.name))).collect();
        let mut programs = Programs::new(ebpf, pins.programs(), shared);
        attach::load(&mut programs)?;
        let takeover = Takeover::find(&pins);
        takeover.carry(&mut maps)?;
        let held = maps.read()?;
        let adopted = adopted || !takeover.is_empty();
        info!(
            path = %options.bpf_dir.display(),
            adopted,
            programs_kept = programs.kept(),
            backends = held.backends.len(),
            elapsed = ?begun.elapsed(),
            "data path opened"
        );
        let mut opened = Self {
            options,
            pins,
            programs,
            maps,
            held,
            ageing: Ageing::default(),
            uplinks: BTreeMap::new(),
            attached: BTreeSet::new(),
            takeover,
            adopted,
            settled: false,
            outdated: false,
            was_settled: false,
        };
        opened.count_established()?;
        // The loader has read the kernel's types all the same: 25 MiB would stay with the allocator for ever.
        sys::give_back_memory();
        Ok(opened)
    }

    /// Whether maps of an earlier daemon were found and taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Makes the maps agree with `desired`. Only differences are written, in an order in which no packet meets half an
    /// update. Networks and services that are the same allocations as in the last call that succeeded are not looked
    /// into. When there is no room, larger maps are made, and the programs that are attached are replaced by ones that
    /// use them. After an error call it again: what was written before is in itself consistent.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, Error> {
        let applied = match self.write(desired) {
            Err(Error::Full { map, capacity, wanted }) => {
                info!(map, capacity, wanted, "makes larger maps");
                let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).max(capacity.saturating_add(1));
                self.grow(self.maps.sizes(self.options.sizes).grown_for(desired).with_room(map, wanted))?;
                self.write(desired)?
            }
            other => other?,
        };
        if self.outdated {
            self.attach_again()?;
            self.outdated = false;
            // Else an earlier daemon's programs are not all replaced yet.
            if self.was_settled {
                self.settle()?;
            }
        }
        Ok(applied)
    }

    /// After [`Error::Full`] nothing was written.
    fn write(&mut self, desired: &Desired) -> Result<Applied, Error> {
        // What a failed call may have left.
        self.held.regions.sweep();
        let plan = plan(&self.held, desired, &self.maps.capacities())?;
        self.held.begin(&plan.changes);
        let mut applied = Applied::default();
        for run in plan.ops.chunk_by(|one, next| discriminant(one) == discriminant(next)) {
            self.begin_counting(run)?;
            let written = self.maps.write(run);
            let done = written.as_ref().map_or_else(|partly| partly.done, |()| run.len());
            for op in run.iter().take(done) {
                op.count(&mut applied);
                self.held.record(op);
                if let MapOp::DeleteService(key) = op {
                    self.note_withdrawn(key);
                }
            }
            written.map_err(|Partly { error, .. }| error)?;
        }
        self.held.finish(desired, plan);
        self.forget_withdrawn()?;
        self.held.regions.sweep();
        Ok(applied)
    }

    /// Makes new maps of these sizes, and loads the programs with them; those that are attached go on with the maps that
    /// they have.
    fn grow(&mut self, sizes: Sizes) -> Result<(), Error> {
        self.finish_takeover()?;
        let larger = match Self::open(Options { sizes, ..self.options.clone() }) {
            Ok(larger) => larger,
            Err(error) => {
                self.pins.take_back()?;
                return Err(error);
            }
        };
        let attached = std::mem::take(&mut self.attached);
        let uplinks = std::mem::take(&mut self.uplinks);
        let was_settled = self.settled || self.was_settled;
        *self = Self { attached, uplinks, was_settled, outdated: true, ..larger };
        Ok(())
    }

    /// Call it once what is desired has been applied and the programs have been attached: brings the takeover of an
    /// earlier daemon's maps to its end, and removes what only that daemon's programs used. Costs nothing afterwards.
    pub fn settle(&mut self) -> Result<(), Error> {
        if self.settled {
            return Ok(());
        }
        self.finish_takeover()?;
        // The hook of an earlier version, on an interface that is no uplink any more.
        hooks::detach(&self.pins, UPLINK)?;
        self.pins.remove_other_programs()?;
        self.settled = true;
        Ok(())
    }

    fn finish_takeover(&mut self) -> Result<(), Error> {
        self.takeover.carry(&mut self.maps)?;
        self.pins.remove_other_layouts()?;
        self.takeover = Takeover::default();
        Ok(())
    }

    /// Counters, drops, how full the maps are, and what is attached: a look at each pinned link.
    pub fn stats(&self) -> Result<Stats, Error> {
        let Counts { drops, counters, maps } = self.counts()?;
        Ok(Stats {
            drops,
            counters,
            maps,
            links: hooks::attached(&self.pins)?,
            uplinks: self.uplinks.values().cloned().collect(),
        })
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

    /// How full the maps are: as [`Stats::maps`], without a system call.
    pub fn map_use(&self) -> BTreeMap<&'static str, MapUse> {
        let (held, room) = (&self.held, self.maps.capacities());
        let [choices, reverse] = self.ageing.counted.map(|count| count as usize);
        let used = [
            (names::PEERS, held.peers.len(), room.peers),
            (names::HOST_ADDRESSES, held.host_addresses.len(), room.host_addresses),
            (names::NETWORKS, held.networks.len(), room.networks),
            (names::ENDPOINTS, held.endpoint_count, room.endpoints),
            (names::LOCAL_BY_ID, held.local_by_id.len(), room.local_by_id),
            (names::LOCAL_BY_IFINDEX, held.local_by_ifindex.len(), room.local_by_ifindex),
            (names::SERVICES, held.services.len(), room.services),
            (names::BACKENDS, held.backends.len(), room.backends),
            // One is nobody's.
            (names::SERVICE_TRAFFIC, held.services.len() + 1, room.counters),
            (names::MAGLEV, held.regions.in_use() as usize, self.maps.table_slots()),
            (names::CHOICES_KEPT, choices, self.maps.choices_kept.capacity()),
            (names::REVERSE_KEPT, reverse, self.maps.reverse_kept.capacity()),
        ];
        used.into_iter()
            .map(|(name, used, capacity)| (name, MapUse { used: used as u32, capacity }))
            .collect()
    }
}
