//! Walks the flows: forgets established ones that are over, counts, keeps connections that are silent from giving way to new
//! flows, and forgets those of ports that are published no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aya::Pod;
use mesh_abi::{
    ANY_V4, ANY_V6, BackendValue, ChoiceValue, FlowKey, HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6,
    PUBLISHED, ServiceKey, is_v4, v4_mapped,
};
use mesh_types::LocalEndpointId;
use nix::time::{ClockId, clock_gettime};

use crate::{
    choices::Choices,
    datapath::DataPath,
    error::Error,
    events::Event,
    flow_list::FlowState,
    flows::{Aged, FlowCount, FlowTimeouts, Flows, Over, Tracked, in_use, is_confirmed, over, settled},
    sys::map::Position,
    table::{Partly, Table},
};

/// How far the walk is, and what it has counted.
#[derive(Debug, Default)]
pub(crate) struct Ageing {
    /// Whether `REVERSE_KEPT` is being walked; `CHOICES_KEPT` else.
    in_reverse: bool,
    position: Position,
    /// Flows that stay, of the map that is being walked.
    counting: u64,
    /// Those of the last walk that came to the end: choices and reverse.
    pub(crate) counted: [u64; 2],
    /// Flows of `REVERSE_KEPT` by the number of the endpoint of this node that serves them: of this walk, and of the last
    /// one that came to the end.
    serving: BTreeMap<u32, u64>,
    served: BTreeMap<u32, u64>,
    /// How far the walks through the new flows are: choices and reverse.
    sweeps: (u32, Position),
    /// Published ports, services no more, whose flows are still to be forgotten.
    withdrawn: BTreeSet<ServiceKey>,
    /// What ended without a packet that says so, while somebody wants to know.
    ended: Option<Ended>,
}

/// Flows that were forgotten, and how many more there were than are kept.
#[derive(Debug, Default)]
struct Ended {
    events: Vec<Event>,
    lost: u64,
}

/// Ends that wait to be fetched.
const ENDS: usize = 4096;

/// Calls of [`DataPath::age_flows`] in which all new flows are looked at.
const SWEEP: u32 = 2;

/// Nanoseconds of the clock that the programs stamp flows with (`bpf_ktime_get_ns`).
pub(crate) fn now() -> Result<u64, Error> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|e| Error::Clock { source: e.into() })?;
    Ok(Duration::from(now).as_nanos() as u64)
}

impl DataPath {
    /// How long established flows may be silent from now on.
    pub fn set_flow_timeouts(&mut self, timeouts: FlowTimeouts) {
        self.options.timeouts = timeouts;
    }

    /// Forgets established flows that are over: silent for too long, closed, or left by a task that is gone. Looks at
    /// about `budget` flows and goes on there with the next call, so that no call takes long; to be called each second
    /// or so.
    pub fn age_flows(&mut self, budget: usize) -> Result<Aged, Error> {
        let now = now()?;
        let timeouts = self.options.timeouts;
        let local = self.held.local_by_id.values();
        let local: BTreeMap<_, _> = local.flat_map(|l| addresses_of(l).map(|a| ((l.vni, a), l.id))).collect();
        let backends = &self.held.backends;
        let walk = &mut self.ageing;
        let mut aged = Aged::default();
        while aged.seen < budget && !aged.finished {
            if walk.in_reverse {
                let mut serving = std::mem::take(&mut walk.serving);
                let orphan = |key: &FlowKey, _: &_| match local.get(&(key.scope, key.source)) {
                    Some(id) => {
                        *serving.entry(*id).or_default() += 1;
                        false
                    }
                    None => true,
                };
                walk.slice(&self.maps.reverse_kept, budget, &timeouts, now, orphan, |_, _, _| (), &mut aged)?;
                walk.serving = serving;
            } else {
                let orphan = |_: &FlowKey, choice: &ChoiceValue| !backends.contains_key(&choice.backend);
                let mut ended = walk.ended.take();
                let tell = |key: &FlowKey, choice: &ChoiceValue, why| {
                    if let Some(ended) = &mut ended {
                        ended.add(key, choice, why, backends.get(&choice.backend), now);
                    }
                };
                let sliced =
                    walk.slice(&self.maps.choices_kept, budget, &timeouts, now, orphan, tell, &mut aged);
                walk.ended = ended;
                sliced?;
            }
            if walk.position.at_start() {
                walk.counted[usize::from(walk.in_reverse)] = std::mem::take(&mut walk.counting);
                if walk.in_reverse {
                    walk.served = std::mem::take(&mut walk.serving);
                }
                aged.finished = walk.in_reverse;
                walk.in_reverse = !walk.in_reverse;
            }
        }
        let (choices, reverse) = &mut walk.sweeps;
        aged.moved += sweep_choices(&self.maps.choices, &self.maps.choices_kept, choices, now)?;
        aged.moved += sweep(&self.maps.reverse, &self.maps.reverse_kept, reverse, now)?;
        Ok(aged)
    }

    /// Whether [`DataPath::ended`] is to tell of flows that are forgotten from now on.
    pub fn tell_ended(&mut self, on: bool) {
        self.ageing.ended = on.then(|| self.ageing.ended.take().unwrap_or_default());
    }

    /// The flows that [`DataPath::age_flows`] has forgotten since the last call of this, of those that entered here; and how
    /// many more there were. The programs have told of those that a packet has ended.
    pub fn ended(&mut self) -> (Vec<Event>, u64) {
        let Ended { events, lost } = self.ageing.ended.as_mut().map(std::mem::take).unwrap_or_default();
        (events, lost)
    }

    /// Notes that a service was deleted, whose flows [`DataPath::forget_withdrawn`] is to forget if it was a published port.
    pub(crate) fn note_withdrawn(&mut self, key: &ServiceKey) {
        if key.vni == PUBLISHED {
            self.ageing.withdrawn.insert(*key);
        }
    }

    /// Forgets the flows of ports that are published no more, so that their next packet finds the node's own stack, which
    /// tells its sender that nobody is there. The XDP program would go on to carry them.
    pub(crate) fn forget_withdrawn(&mut self) -> Result<(), Error> {
        if self.ageing.withdrawn.is_empty() {
            return Ok(());
        }
        let number = |key: &ServiceKey| (key.port, key.protocol);
        let withdrawn: BTreeSet<_> = self.ageing.withdrawn.iter().map(number).collect();
        let open: Vec<_> = self.held.services.keys().filter(|key| key.vni == PUBLISHED).collect();
        let open: BTreeSet<_> = open.into_iter().map(|key| (number(key), key.address)).collect();
        let is_over = |key: &FlowKey| {
            let port = (key.destination_port, key.protocol);
            let any = if is_v4(&key.destination) { ANY_V4 } else { ANY_V6 };
            // A socket of the node may have asked for any address.
            let by_socket =
                [v4_mapped(HOST_SERVICE_ADDRESS), HOST_SERVICE_ADDRESS6].contains(&key.destination);
            let is_open = if by_socket {
                open.range((port, ANY_V6)..).next().is_some_and(|(there, _)| *there == port)
            } else {
                open.contains(&(port, key.destination)) || open.contains(&(port, any))
            };
            key.scope == PUBLISHED && withdrawn.contains(&port) && !is_open
        };
        // In the order in which flows move.
        let (new, kept) = (&self.maps.choices, &self.maps.choices_kept);
        let mut over = Vec::new();
        new.for_each(|key, _| over.extend(is_over(&key).then_some(key)));
        over.drain(..).for_each(|key| new.remove(&key));
        kept.for_each(|key, _| over.extend(is_over(&key).then_some(key)))?;
        kept.delete(over.into_iter()).map_err(|Partly { error, .. }| error)?;
        self.ageing.withdrawn.clear();
        Ok(())
    }

    /// Other timeouts, from the next [`DataPath::age_flows`] on.
    pub fn set_timeouts(&mut self, timeouts: FlowTimeouts) {
        self.options.timeouts = timeouts;
    }

    /// How many flows there are. Walks the flow tables, so not for every second.
    pub fn flows(&self) -> Result<Flows, Error> {
        let maps = &self.maps;
        let mut new = 0;
        maps.choices.for_each(|_, _| new += 1);
        Ok(Flows {
            choices: FlowCount { new, established: count(&maps.choices_kept)? },
            reverse: FlowCount { new: count(&maps.reverse)?, established: count(&maps.reverse_kept)? },
        })
    }

    /// How many translated flows each of these endpoints of this node still has to serve: open TCP connections, and
    /// others' flows with a packet within the last 10 s. Walks a flow table, so only while somebody waits for it.
    pub fn flows_of(
        &self,
        endpoints: &BTreeSet<LocalEndpointId>,
    ) -> Result<BTreeMap<LocalEndpointId, u64>, Error> {
        let now = now()?;
        let mut flows: BTreeMap<_, u64> = endpoints.iter().map(|id| (*id, 0)).collect();
        let locals = endpoints.iter().filter_map(|id| Some((*id, self.held.local_by_id.get(&id.0)?)));
        let ids: BTreeMap<_, _> =
            locals.flat_map(|(id, l)| addresses_of(l).map(move |a| ((l.vni, a), id))).collect();
        for replies in [&self.maps.reverse, &self.maps.reverse_kept] {
            replies.for_each(|key, flow| {
                let id = ids.get(&(key.scope, key.source));
                if let Some(count) = id.and_then(|id| flows.get_mut(id))
                    && is_confirmed(&flow)
                    && in_use(&key, &flow, now)
                {
                    *count += 1;
                }
            })?;
        }
        Ok(flows)
    }

    /// How many established translated flows each endpoint of this node serves, as of the last walk of
    /// [`DataPath::age_flows`] that came to the end. Those without are not there.
    pub fn served_flows(&self) -> BTreeMap<LocalEndpointId, u64> {
        self.ageing.served.iter().map(|(id, flows)| (LocalEndpointId(*id), *flows)).collect()
    }

    /// Counts the established flows once, for [`DataPath::stats`] before the first walk is over.
    pub(crate) fn count_established(&mut self) -> Result<(), Error> {
        self.ageing.counted = [count(&self.maps.choices_kept)?, count(&self.maps.reverse_kept)?];
        Ok(())
    }
}

impl Ended {
    fn add(&mut self, key: &FlowKey, choice: &ChoiceValue, why: Over, task: Option<&BackendValue>, now: u64) {
        // Of others the programs have told.
        let state = FlowState::of(choice.state());
        if matches!(state, FlowState::Closed | FlowState::Reset) {
            return;
        }
        if self.events.len() >= ENDS {
            self.lost += 1;
            return;
        }
        self.events.push(Event::ended(key, choice, state, why, task, now));
    }
}

impl Ageing {
    /// Looks at the next flows of a map, forgets those that are over, and tells `each` of them.
    #[expect(clippy::too_many_arguments, reason = "one walk for both maps, which differ in the rest")]
    fn slice<V: Pod + Tracked + PartialEq>(
        &mut self,
        map: &Table<FlowKey, V>,
        budget: usize,
        timeouts: &FlowTimeouts,
        now: u64,
        mut orphan: impl FnMut(&FlowKey, &V) -> bool,
        mut each: impl FnMut(&FlowKey, &V, Over),
        aged: &mut Aged,
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        let seen = map.walk(&mut self.position, budget.saturating_sub(aged.seen), |key, flow| {
            if let Some(why) = over(timeouts, &key, &flow, orphan(&key, &flow), now) {
                found.push((key, flow, why));
            }
        })?;
        aged.seen += seen;
        self.counting += (seen - found.len()) as u64;
        let mut gone = Vec::with_capacity(found.len());
        for (key, flow, why) in found {
            // A packet since then has begun it anew. One between this look and the deletion loses its entry, and the
            // next one of that flow asks the table, as after an eviction.
            if map.get(&key)?.is_some_and(|now| now == flow) {
                gone.push(key);
                each(&key, &flow, why);
                match why {
                    Over::Expired => aged.expired += 1,
                    Over::Orphaned => aged.orphaned += 1,
                }
            }
        }
        map.delete(gone.into_iter()).map_err(|Partly { error, .. }| error)
    }
}

/// Moves silent connections from the next part of the first stage's choices to the second; how many.
fn sweep_choices(
    new: &Choices,
    kept: &Table<FlowKey, ChoiceValue>,
    position: &mut u32,
    now: u64,
) -> Result<usize, Error> {
    let mut found = Vec::new();
    new.walk(position, new.sets().div_ceil(SWEEP), |key, flow| {
        if settled(&key, &flow, now) {
            found.push((key, flow));
        }
    });
    let mut moved = 0;
    for (key, flow) in found {
        // See `sweep`.
        if !kept.add(&key, &flow)? {
            continue;
        }
        if new.get(&key).is_some_and(|now| now == flow) {
            new.remove(&key);
            moved += 1;
        } else {
            kept.delete(std::iter::once(key)).map_err(|Partly { error, .. }| error)?;
        }
    }
    Ok(moved)
}

/// The same for replies.
fn sweep<V: Pod + Tracked + PartialEq>(
    new: &Table<FlowKey, V>,
    kept: &Table<FlowKey, V>,
    position: &mut Position,
    now: u64,
) -> Result<usize, Error> {
    let mut found = Vec::new();
    new.walk(position, new.capacity().div_ceil(SWEEP) as usize, |key, flow| {
        if settled(&key, &flow, now) {
            found.push((key, flow));
        }
    })?;
    let mut moved = Vec::with_capacity(found.len());
    for (key, flow) in found {
        // One that is there already, or for which there is no room, stays.
        if !kept.add(&key, &flow)? {
            continue;
        }
        if new.get(&key)?.is_some_and(|now| now == flow) {
            moved.push(key);
        } else {
            // It speaks: the programs move it.
            kept.delete(std::iter::once(key)).map_err(|Partly { error, .. }| error)?;
        }
    }
    let count = moved.len();
    new.delete(moved.into_iter()).map_err(|Partly { error, .. }| error)?;
    Ok(count)
}

/// The addresses from which an endpoint's replies come.
fn addresses_of(local: &mesh_abi::LocalEndpoint) -> impl Iterator<Item = mesh_abi::Address> + use<> {
    let v4 = (local.address4 != [0; 4]).then(|| mesh_abi::v4_mapped(local.address4));
    let v6 = (local.address6 != [0; 16]).then_some(local.address6);
    v4.into_iter().chain(v6)
}

fn count<V: Pod>(map: &Table<FlowKey, V>) -> Result<u64, Error> {
    let mut count = 0;
    map.for_each(|_, _| count += 1)?;
    Ok(count)
}
