//! What each endpoint of the node and each service sends and gets, and what the programs take for it.

use std::{
    io,
    iter::Sum,
    ops::{Add, AddAssign},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::{maps::MapData, util::nr_cpus};
use mesh_abi::TrafficValue;
use mesh_types::{LocalEndpointId, ServiceId};

use crate::{
    datapath::DataPath,
    desired::Frontend,
    encode,
    error::Error,
    held::MapOp,
    sys::map::{RawMap, array_read},
    table::{check_shape, from_bytes, refused, unusable},
};

/// What went one way and the other, since the endpoint or service is there. It begins anew when maps are made anew: after a
/// change of [`crate::Sizes`], and when the node outgrows its maps.
///
/// Packets are IP packets; one that is still to be cut into segments counts as so many. Bytes are those of frames as a task
/// sends and gets them, with their Ethernet headers of 14 bytes and without outer headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Towards the task; from a service's clients.
    pub packets_in: u64,
    /// Bytes of these.
    pub bytes_in: u64,
    /// From the task; to a service's clients.
    pub packets_out: u64,
    /// Bytes of these.
    pub bytes_out: u64,
    /// Flows that began towards it, by a VIP or a published port.
    pub new_flows: u64,
    /// Packets towards the task that were dropped when it was known that they are for it; packets of a service's clients for
    /// which there was no task. Why is told for the node as a whole ([`crate::Stats::drops`]).
    pub drops_in: u64,
    /// Packets from the task that were dropped; none for a service.
    pub drops_out: u64,
}

impl Traffic {
    /// Dropped packets of both directions.
    pub fn drops(&self) -> u64 {
        self.drops_in.wrapping_add(self.drops_out)
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets_in: self.packets_in.wrapping_add(other.packets_in),
            bytes_in: self.bytes_in.wrapping_add(other.bytes_in),
            packets_out: self.packets_out.wrapping_add(other.packets_out),
            bytes_out: self.bytes_out.wrapping_add(other.bytes_out),
            new_flows: self.new_flows.wrapping_add(other.new_flows),
            drops_in: self.drops_in.wrapping_add(other.drops_in),
            drops_out: self.drops_out.wrapping_add(other.drops_out),
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::add)
    }
}

impl From<TrafficValue> for Traffic {
    fn from(v: TrafficValue) -> Self {
        Self {
            packets_in: v.packets_in,
            bytes_in: v.bytes_in,
            packets_out: v.packets_out,
            bytes_out: v.bytes_out,
            new_flows: v.new_flows,
            drops_in: v.drops_in,
            drops_out: v.drops_out,
        }
    }
}

/// The traffic of one VIP or published port, as far as its clients' packets enter by this node: from outside, from tasks of the
/// node, and from its own sockets. Replies that leave directly from another node do not come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceTraffic {
    /// The service.
    pub service: ServiceId,
    /// What its clients speak to.
    pub frontend: Frontend,
    /// What they said and heard.
    pub traffic: Traffic,
}

/// What one program has taken. Counted only while somebody holds what [`enable_stats`] gives, or `kernel.bpf_stats_enabled`
/// is 1; each run then takes some 50 ns more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramStats {
    /// Its name.
    pub program: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// How long it ran in all.
    pub time: Duration,
}

/// Lets the kernel count and time the runs of all BPF programs for as long as the result is held, by anybody.
pub fn enable_stats() -> Result<OwnedFd, Error> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|e| Error::ProgramStats { source: e.io_error })
}

impl DataPath {
    /// The traffic of each endpoint of this node.
    pub fn endpoint_traffic(&self) -> Result<Vec<(LocalEndpointId, Traffic)>, Error> {
        let ids = || self.held.local_by_id.keys();
        let all =
            self.maps.endpoint_traffic.read(ids().next_back().map_or(0, |last| last.saturating_add(1)))?;
        let of = |id: &u32| all.get(*id as usize).copied().unwrap_or_default();
        Ok(ids().map(|id| (LocalEndpointId(*id), of(id))).collect())
    }

    /// The traffic of each VIP and published port; none before the first [`DataPath::apply`].
    pub fn service_traffic(&self) -> Result<Vec<ServiceTraffic>, Error> {
        let counters = self.held.services.values().map(|value| value.counter());
        let all = self.maps.service_traffic.read(counters.max().map_or(0, |last| u32::from(last) + 1))?;
        let frontends = self.held.records.all_frontends();
        let traffic = frontends.filter_map(|(service, frontend)| {
            let counter = self.held.services.get(&encode::service(frontend))?.counter();
            let traffic = if counter == 0 { None } else { all.get(usize::from(counter)).copied() };
            Some(ServiceTraffic { service, frontend: *frontend, traffic: traffic.unwrap_or_default() })
        });
        Ok(traffic.collect())
    }

    /// What the loaded programs have taken since they were loaded.
    pub fn program_stats(&self) -> Result<Vec<ProgramStats>, Error> {
        let stats = self.programs.infos().map(|(program, info)| {
            let info = info.map_err(|source| Error::Program { program, source: Box::new(source) })?;
            Ok(ProgramStats { program, runs: info.run_count(), time: info.run_time() })
        });
        stats.collect()
    }

    /// Lets what is about to be written begin at zero, if it is new.
    pub(crate) fn begin_counting(&self, run: &[MapOp]) -> Result<(), Error> {
        let held = &self.held;
        for op in run {
            match op {
                MapOp::PutLocalById(new)
                    if held.local_by_id.get(&new.id).is_none_or(|old| old.generation != new.generation) =>
                {
                    self.maps.endpoint_traffic.clear(new.id)?;
                }
                MapOp::PutService(key, new)
                    if held.services.get(key).is_none_or(|old| old.counter() != new.counter()) =>
                {
                    self.maps.service_traffic.clear(new.counter().into())?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A per-CPU array of [`TrafficValue`]. The programs are loaded with its descriptor, so it stays open.
pub(crate) struct TrafficMap {
    name: &'static str,
    data: MapData,
    capacity: u32,
    cpus: usize,
}

/// Elements read by one call.
const CHUNK: u32 = 1024;

impl TrafficMap {
    /// Takes a map if its values have the right size.
    pub(crate) fn new(name: &'static str, data: MapData) -> Result<Self, Error> {
        let capacity = check_shape::<u32, TrafficValue>(name, &data)?;
        let cpus = nr_cpus().map_err(|(_, source)| unusable(name, source.into()))?;
        Ok(Self { name, data, capacity, cpus })
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    fn raw(&self) -> RawMap<'_> {
        let value_size = size_of::<TrafficValue>() * self.cpus;
        RawMap { fd: self.data.fd().as_fd(), key_size: size_of::<u32>(), value_size }
    }

    /// The sums of the first `len` elements.
    fn read(&self, len: u32) -> Result<Vec<Traffic>, Error> {
        let len = len.min(self.capacity);
        let mut all = Vec::with_capacity(len as usize);
        while (all.len() as u32) < len {
            let first = all.len() as u32;
            let bytes = array_read(self.raw(), first, CHUNK.min(len - first) as usize);
            let bytes = bytes.map_err(|e| refused("read", self.name, e))?;
            let before = all.len();
            all.extend(bytes.chunks_exact(self.raw().value_size).map(sum));
            if all.len() == before {
                let short = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(refused("read", self.name, short));
            }
        }
        Ok(all)
    }

    /// Begins to count anew. Nothing is to be done beyond the end, where nothing is counted.
    fn clear(&self, index: u32) -> Result<(), Error> {
        if index >= self.capacity {
            return Ok(());
        }
        let zeros = vec![0; self.raw().value_size];
        self.raw().update(&index.to_ne_bytes(), &zeros).map_err(|e| refused("write", self.name, e))
    }
}

/// The sum over all CPUs.
fn sum(element: &[u8]) -> Traffic {
    let values = element.chunks_exact(size_of::<TrafficValue>());
    values.map(|bytes| Traffic::from(from_bytes::<TrafficValue>(bytes))).sum()
}
