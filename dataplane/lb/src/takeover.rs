//! Flows outlive a change of the maps' layout or sizes: what earlier maps know of them is carried into new ones.
//!
//! New maps are made beside the earlier ones, which the programs attached before go on using until they are replaced.
//! Ids of backends and flows are copied at once; the rest is written anew from what is desired. When all programs have
//! been replaced, the flows that began in between are copied too, and the earlier maps go.

use std::path::{Path, PathBuf};

use aya::{Pod, maps::MapData};
use mesh_abi::{
    AffinityKey, AffinityValue, BackendValue, ChoiceValue, DISPLACED_MARKS, FlowKey, NodeConfig,
    ReverseValue, SocketKey, SocketValue,
};
use tracing::{info, warn};

use crate::{
    choices::Choices,
    error::Error,
    flows::Tracked,
    layout1,
    maps::{Maps, names},
    pins::Pins,
    table::{Table, unusable},
};

/// Maps of before, and how to read them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Those of layout 1.
    Layout1(PathBuf),
    /// Those of layout 2, which has `CHOICES` as a hash map and the rest as here.
    Layout2(PathBuf),
    /// Those of this layout with other sizes.
    Outgrown(PathBuf),
}

/// What is still to be carried over from earlier maps.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    sources: Vec<Source>,
}

/// How many flows were carried over, and how many could not be.
#[derive(Debug, Default)]
struct Carried {
    flows: usize,
    lost: usize,
}

impl Takeover {
    /// The maps of before that there are.
    pub(crate) fn find(pins: &Pins) -> Self {
        let sources = [
            Source::Layout1(pins.layout(1)),
            Source::Layout2(pins.layout(2)),
            Source::Outgrown(pins.outgrown()),
        ];
        Self { sources: sources.into_iter().filter(|s| s.folder().join(names::BACKENDS).exists()).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Copies the flows, and the ids of backends if there are none yet. What is in the new maps already stays. A map of
    /// before that cannot be read is left behind with a warning: its flows are balanced anew.
    pub(crate) fn carry(&self, maps: &mut Maps) -> Result<(), Error> {
        for source in &self.sources {
            if maps.backends.entries()?.is_empty() {
                note(source.folder(), carry_backends(source.folder(), maps));
            }
            note(source.folder(), source.carry_marks(maps));
            let mut carried = Carried::default();
            note(source.folder(), source.carry_choices(maps, &mut carried));
            note(source.folder(), source.carry_reverse(maps, &mut carried));
            note(
                source.folder(),
                copy::<SocketKey, SocketValue>(source.folder(), names::SOCKETS, &maps.sockets),
            );
            if let Source::Layout2(folder) | Source::Outgrown(folder) = source {
                note(folder, copy::<AffinityKey, AffinityValue>(folder, names::AFFINITY, &maps.affinity));
            }
            let Carried { flows, lost } = carried;
            info!(from = %source.folder().display(), flows, lost, "flows carried over from earlier maps");
        }
        Ok(())
    }
}

impl Source {
    fn folder(&self) -> &Path {
        match self {
            Self::Layout1(folder) | Self::Layout2(folder) | Self::Outgrown(folder) => folder,
        }
    }

    /// Before the flows: a reply's way back is looked for under another port only where a mark says so.
    fn carry_marks(&self, maps: &mut Maps) -> Result<(), Error> {
        let pin = self.folder().join(names::DISPLACED);
        let before = match self {
            Self::Outgrown(_) if pin.exists() => {
                let data = MapData::from_pin(&pin).map_err(|e| unusable(names::DISPLACED, e))?;
                Some(Table::<u32, u32>::new(names::DISPLACED, data)?)
            }
            // Earlier ones looked under all ports.
            _ => None,
        };
        for mark in 0..DISPLACED_MARKS {
            let was_set = match &before {
                Some(before) => before.get(&mark)?.is_some_and(|mark| mark != 0),
                None => true,
            };
            if was_set {
                maps.displace(mark)?;
            }
        }
        Ok(())
    }

    fn carry_choices(&self, maps: &Maps, carried: &mut Carried) -> Result<(), Error> {
        let (kept, new) = (&maps.choices_kept, &maps.choices);
        match self {
            Self::Layout1(folder) => {
                let uplink = config(folder)?.map_or(0, |config| config.uplink_ifindex);
                let choices = read::<FlowKey, layout1::Choice>(folder, names::CHOICES)?;
                let choices = choices.into_iter().map(|(key, choice)| (key, choice.now(&key, uplink)));
                add_established(kept, new, choices.collect(), carried)
            }
            Self::Layout2(folder) => {
                add_established(kept, new, read(folder, names::CHOICES_KEPT)?, carried)?;
                add_new(new, read(folder, names::CHOICES)?, carried)
            }
            Self::Outgrown(folder) => {
                let flows = read(folder, names::CHOICES_KEPT)?.into_iter();
                let flows = flows.map(|(key, value)| (key, uncounted(value))).collect();
                add_established(kept, new, flows, carried)?;
                let mut flows = Vec::new();
                if folder.join(names::CHOICES).exists() {
                    Choices::pinned(folder)?.for_each(|key, value| flows.push((key, uncounted(value))));
                }
                add_new(new, flows, carried)
            }
        }
    }

    fn carry_reverse(&self, maps: &Maps, carried: &mut Carried) -> Result<(), Error> {
        let (kept, new) = (&maps.reverse_kept, &maps.reverse);
        match self {
            Self::Layout1(folder) => {
                let replies = read::<FlowKey, layout1::Reverse>(folder, names::REVERSE)?;
                let replies = replies.into_iter().map(|(key, reply)| (key, reply.now()));
                add_established(kept, new, replies.collect(), carried)
            }
            Self::Layout2(folder) | Self::Outgrown(folder) => {
                let replies = |name| {
                    let replies = read::<FlowKey, ReverseValue>(folder, name)?.into_iter();
                    Ok::<_, Error>(replies.map(|(key, v)| (key, ReverseValue { service: 0, ..v })).collect())
                };
                add_established(kept, new, replies(names::REVERSE_KEPT)?, carried)?;
                add_new(new, replies(names::REVERSE)?, carried)
            }
        }
    }
}

/// Services are counted elsewhere in new maps; the flow's next packet tells where.
fn uncounted(choice: ChoiceValue) -> ChoiceValue {
    ChoiceValue { service: 0, ..choice }
}

/// Ids go with the flows that name them.
fn carry_backends(folder: &Path, maps: &Maps) -> Result<(), Error> {
    copy::<u32, BackendValue>(folder, names::BACKENDS, &maps.backends)
}

fn config(folder: &Path) -> Result<Option<NodeConfig>, Error> {
    let pin = folder.join(names::CONFIG);
    let data = MapData::from_pin(&pin).map_err(|e| unusable(names::CONFIG, e))?;
    Table::<u32, NodeConfig>::new(names::CONFIG, data)?.get(&0)
}

/// The entries of a map of before; none when it is not there.
fn read<K: Pod, V: Pod>(folder: &Path, name: &'static str) -> Result<Vec<(K, V)>, Error> {
    let pin = folder.join(name);
    if !pin.exists() {
        return Ok(Vec::new());
    }
    let data = MapData::from_pin(&pin).map_err(|e| unusable(name, e))?;
    Table::<K, V>::new(name, data)?.entries()
}

fn copy<K: Pod, V: Pod>(folder: &Path, name: &'static str, to: &Table<K, V>) -> Result<(), Error> {
    for (key, value) in read::<K, V>(folder, name)? {
        to.add(&key, &value)?;
    }
    Ok(())
}

/// Flows that are not established yet.
trait Recent<V> {
    /// So many are kept at most.
    fn room(&self) -> usize;
    /// Whether a flow is there.
    fn has(&self, key: &FlowKey) -> Result<bool, Error>;
    /// Adds a flow unless it is there.
    fn enter(&self, key: &FlowKey, value: &V) -> Result<bool, Error>;
}

impl Recent<ChoiceValue> for Choices {
    fn room(&self) -> usize {
        self.capacity() as usize
    }

    fn has(&self, key: &FlowKey) -> Result<bool, Error> {
        Ok(self.get(key).is_some())
    }

    fn enter(&self, key: &FlowKey, value: &ChoiceValue) -> Result<bool, Error> {
        Ok(self.add(key, value))
    }
}

impl Recent<ReverseValue> for Table<FlowKey, ReverseValue> {
    fn room(&self) -> usize {
        self.capacity() as usize
    }

    fn has(&self, key: &FlowKey) -> Result<bool, Error> {
        Ok(self.get(key)?.is_some())
    }

    fn enter(&self, key: &FlowKey, value: &ReverseValue) -> Result<bool, Error> {
        self.add(key, value)
    }
}

/// Adds established flows, the last used first: as many as leave a quarter free for new ones to become established.
/// The others join the new ones.
fn add_established<V: Pod + Tracked>(
    kept: &Table<FlowKey, V>,
    new: &impl Recent<V>,
    mut flows: Vec<(FlowKey, V)>,
    carried: &mut Carried,
) -> Result<(), Error> {
    flows.sort_by_key(|(_, flow)| std::cmp::Reverse(flow.last_seen()));
    let room = kept.capacity() as usize / 4 * 3;
    let rest = flows.split_off(flows.len().min(room));
    for (key, flow) in flows {
        // A flow that began anew in the new maps is not to be found there as it was before.
        if !new.has(&key)? {
            carried.flows += usize::from(kept.add(&key, &flow)?);
        }
    }
    add_new(new, rest, carried)
}

/// Adds flows to a map whose oldest make room, the last used last.
fn add_new<V: Pod + Tracked>(
    new: &impl Recent<V>,
    mut flows: Vec<(FlowKey, V)>,
    carried: &mut Carried,
) -> Result<(), Error> {
    flows.sort_by_key(|(_, flow)| flow.last_seen());
    let lost = flows.len().saturating_sub(new.room());
    carried.lost += lost;
    for (key, flow) in flows.into_iter().skip(lost) {
        carried.flows += usize::from(new.enter(&key, &flow)?);
    }
    Ok(())
}

fn note(folder: &Path, result: Result<(), Error>) {
    if let Err(error) = result {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        warn!(from = %folder.display(), %error, source, "earlier maps are left behind in part");
    }
}
