//! What the programs tell while somebody watches: flows that begin and end, packets that are dropped, packets on their way.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{Array, Map, MapData, MapError, MapInfo, PerCpuArray, RingBuf};
use mesh_abi::{
    BackendValue, ChoiceValue, DropReason, EntryPoint, EventCounts, EventHead, EventKind, FlowKey, NOT_ICMP,
    PUBLISHED, SNAP, Sight, WATCH_WINDOW_NS, Watch, watch_kinds,
};
use mesh_types::{LocalEndpointId, Vni};

use crate::{
    ageing::now,
    datapath::DataPath,
    encode,
    error::Error,
    flow_list::{FlowState, FlowTask, socket, task_of},
    flows::Over,
    maps::names::{BACKENDS, EVENT_COUNTS, EVENTS, WATCH},
    table::{Table, failed, from_bytes, unusable},
};

/// How long a watch lasts unless it is renewed: a daemon that is killed leaves nothing on.
pub const WATCH_LEASE: Duration = Duration::from_secs(5);

/// What is to be told. Filters narrow each other; what has not what a filter asks for is not told (flows have no mark).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchFor {
    /// Flows that begin: those to VIPs and published ports at the node that their client's packets enter, and TCP connections
    /// between tasks at the node of the one that opens it.
    pub new: bool,
    /// TCP connections to VIPs and published ports that both sides have closed, or one has reset, where their packets enter.
    /// What ends by silence [`DataPath::age_flows`] tells.
    pub closed: bool,
    /// Packets that are dropped.
    pub drops: bool,
    /// Packets at each [`Sight`]. While this is on, the XDP program leaves all packets to the tc programs.
    pub packets: bool,
    /// One endpoint of this node.
    pub endpoint: Option<LocalEndpointId>,
    /// One network. Published ports belong to none, nor does what is dropped before its network is known.
    pub network: Option<Vni>,
    /// An address on either side.
    pub address: Option<IpAddr>,
    /// A port on either side.
    pub port: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Packets with this mark only.
    pub mark: Option<u32>,
    /// Bytes of each packet to be told, from its Ethernet header on; at most 2,048.
    pub snaplen: u32,
    /// Events per second on each CPU, at most; 100 at least.
    pub rate: u32,
}

impl Default for WatchFor {
    fn default() -> Self {
        Self {
            new: false,
            closed: false,
            drops: false,
            packets: false,
            endpoint: None,
            network: None,
            address: None,
            port: None,
            protocol: None,
            mark: None,
            snaplen: 0,
            rate: 2_000,
        }
    }
}

impl WatchFor {
    /// What serves both: each of them has to leave out what it did not ask for.
    pub fn union(self, other: Self) -> Self {
        fn common<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.filter(|one| other.as_ref() == Some(one))
        }
        Self {
            new: self.new || other.new,
            closed: self.closed || other.closed,
            drops: self.drops || other.drops,
            packets: self.packets || other.packets,
            endpoint: common(self.endpoint, other.endpoint),
            network: common(self.network, other.network),
            address: common(self.address, other.address),
            port: common(self.port, other.port),
            protocol: common(self.protocol, other.protocol),
            mark: common(self.mark, other.mark),
            snaplen: self.snaplen.max(other.snaplen),
            rate: self.rate.saturating_add(other.rate),
        }
    }

    fn encode(&self, now: u64) -> Watch {
        const WINDOWS: u64 = 1_000_000_000 / WATCH_WINDOW_NS;
        let kinds = [
            (self.new, watch_kinds::NEW),
            (self.closed, watch_kinds::CLOSED),
            (self.drops, watch_kinds::DROP),
            (self.packets, watch_kinds::PACKET),
        ];
        Watch {
            until: now.saturating_add(WATCH_LEASE.as_nanos() as u64),
            kinds: kinds.into_iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
            rate: self.rate.div_ceil(WINDOWS as u32).max(1),
            snaplen: self.snaplen.min(SNAP as u32),
            endpoint: self.endpoint.map_or(0, |id| id.0),
            mark: self.mark.unwrap_or(0),
            address: self.address.map_or([0; 16], encode::address),
            vni: self.network.map_or([0; 4], |vni| vni.get().to_be_bytes()),
            port: self.port.unwrap_or(0).to_be_bytes(),
            protocol: self.protocol.unwrap_or(0),
            ..Watch::default()
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A flow began.
    New,
    /// A flow ended.
    Closed(FlowState),
    /// An established flow was forgotten, which no packet has ended.
    Forgotten(FlowState, Forgotten),
    /// A packet was dropped.
    Dropped(DropReason),
    /// A packet is there.
    Packet(Sight),
}

/// Why a flow was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It was silent for longer than [`crate::FlowTimeouts`] allow.
    Silent,
    /// There is no task at its end any more.
    TaskGone,
}

impl Forgotten {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::TaskGone => "task-gone",
        }
    }
}

/// Something that a program told, or [`DataPath::age_flows`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, by the clock `CLOCK_MONOTONIC`.
    pub time: Duration,
    /// What.
    pub what: What,
    /// The program that told it; not told where several come by, and of flows.
    pub program: Option<EntryPoint>,
    /// The interface that the packet came by or is for; of a flow the one that the client's packets come by. 0 when there is
    /// none, or it is the node's first uplink.
    pub ifindex: u32,
    /// The endpoint of this node that is concerned: the sender or client, else the one that it is for.
    pub endpoint: Option<LocalEndpointId>,
    /// The network, as far as it is known; none for published ports.
    pub vni: Option<Vni>,
    /// IP protocol number; 0 when it is no IP packet.
    pub protocol: u8,
    /// The sender, or a flow's client.
    pub source: SocketAddr,
    /// Whom it is for, or what a flow's client speaks to.
    pub destination: SocketAddr,
    /// TCP's flag byte of a packet.
    pub flags: u8,
    /// A packet's EtherType; 0 of flows.
    pub ethertype: u16,
    /// Type of an ICMP message.
    pub icmp_type: Option<u8>,
    /// A flow's task, while it is there.
    pub task: Option<FlowTask>,
    /// The service's number ([`crate::ServicePlan::number`]) of a flow that began by a service.
    pub service: Option<u32>,
    /// The packet's mark.
    pub mark: u32,
    /// Bytes of the packet.
    pub len: u32,
    /// The first of them.
    pub bytes: Vec<u8>,
}

/// How many events there were since the maps were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventTotals {
    /// Told.
    pub told: u64,
    /// Not told, since there were more than [`WatchFor::rate`].
    pub limited: u64,
    /// Not told, since nobody read fast enough.
    pub lost: u64,
}

/// Watches the programs. Only one reader gets an event: a daemon has one of these, and hands events on. It ends with this value;
/// by itself [`WATCH_LEASE`] after the last call of [`Watcher::watch`]. Its descriptor is readable when there are events.
pub struct Watcher {
    folder: PathBuf,
    id: u32,
    watch: Array<MapData, Watch>,
    events: RingBuf<MapData>,
    counts: PerCpuArray<MapData, EventCounts>,
    backends: Table<u32, BackendValue>,
}

impl DataPath {
    /// Opens what watches; nothing is watched yet. It has maps of its own and may go to another thread.
    pub fn watcher(&self) -> Result<Watcher, Error> {
        Watcher::open(&self.pins.maps())
    }
}

impl Watcher {
    /// Watches the programs whose maps are pinned in a folder, for whoever measures them; a daemon that watches meanwhile is
    /// told nothing.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let data = |name: &'static str| MapData::from_pin(folder.join(name)).map_err(|e| unusable(name, e));
        let map = |name: &'static str| Map::from_map_data(data(name)?).map_err(|e| unusable(name, e));
        Ok(Self {
            folder: folder.to_owned(),
            id: id(folder)?,
            watch: map(WATCH)?.try_into().map_err(|e| unusable(WATCH, e))?,
            events: map(EVENTS)?.try_into().map_err(|e| unusable(EVENTS, e))?,
            counts: map(EVENT_COUNTS)?.try_into().map_err(|e| unusable(EVENT_COUNTS, e))?,
            backends: Table::new(BACKENDS, data(BACKENDS)?)?,
        })
    }

    /// Watches for this from now on. To be called again every second or two, be it with the same; whether the data path has
    /// new maps since, so that the descriptor is another one. After an error it is watched as before.
    pub fn watch(&mut self, what: &WatchFor) -> Result<bool, Error> {
        let renewed = id(&self.folder)? != self.id;
        if renewed {
            *self = Self::open(&self.folder)?;
        }
        self.write(what.encode(now()?))?;
        Ok(renewed)
    }

    /// Watches nothing any more. What was told before can still be read.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.write(Watch::default())
    }

    fn write(&mut self, watch: Watch) -> Result<(), Error> {
        self.watch.set(0, watch, 0).map_err(|e| failed("write", WATCH, e))
    }

    /// The next event; none when there is none now.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.events.next()?;
            // What no program of this version has told is passed over.
            if let Some(event) = decode(&item, |id| self.backends.get(&id).ok().flatten()) {
                return Some(event);
            }
        }
    }

    /// How many events there were.
    pub fn totals(&self) -> Result<EventTotals, Error> {
        let counts = self.counts.get(&0, 0).map_err(|e| failed("read", EVENT_COUNTS, e))?;
        let sum = |of: fn(&EventCounts) -> u64| counts.iter().map(of).sum();
        Ok(EventTotals { told: sum(|c| c.told), limited: sum(|c| c.limited), lost: sum(|c| c.lost) })
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Else its time runs out.
        let _ = self.stop();
    }
}

fn id(folder: &Path) -> Result<u32, Error> {
    MapInfo::from_pin(folder.join(WATCH)).map(|info| info.id()).map_err(|e: MapError| unusable(WATCH, e))
}

impl Event {
    /// Of a flow that was forgotten.
    pub(crate) fn ended(
        key: &FlowKey,
        choice: &ChoiceValue,
        state: FlowState,
        why: Over,
        task: Option<&BackendValue>,
        now: u64,
    ) -> Self {
        let why = match why {
            Over::Expired => Forgotten::Silent,
            Over::Orphaned => Forgotten::TaskGone,
        };
        Self {
            time: Duration::from_nanos(now),
            what: What::Forgotten(state, why),
            program: None,
            ifindex: choice.ifindex,
            endpoint: Some(choice.client).filter(|id| *id != 0).map(LocalEndpointId),
            vni: Vni::new(u32::from_be_bytes(key.scope)).ok().filter(|_| key.scope != PUBLISHED),
            protocol: key.protocol,
            source: socket(&key.source, key.source_port),
            destination: socket(&key.destination, key.destination_port),
            flags: 0,
            ethertype: 0,
            icmp_type: None,
            task: task.and_then(task_of),
            service: None,
            mark: 0,
            len: 0,
            bytes: Vec::new(),
        }
    }
}

fn decode(record: &[u8], backend: impl Fn(u32) -> Option<BackendValue>) -> Option<Event> {
    let (head, rest) = record.split_at_checked(size_of::<EventHead>())?;
    let head: EventHead = from_bytes(head);
    let what = match head.kind {
        kind if kind == EventKind::New as u8 => What::New,
        kind if kind == EventKind::Closed as u8 => What::Closed(FlowState::of(head.state)),
        kind if kind == EventKind::Drop as u8 => {
            What::Dropped(*DropReason::ALL.get(usize::from(head.reason).checked_sub(1)?)?)
        }
        kind if kind == EventKind::Packet as u8 => What::Packet(sight(head.place)?),
        _ => return None,
    };
    let is_packet = matches!(what, What::Dropped(_) | What::Packet(_));
    Some(Event {
        time: Duration::from_nanos(head.time),
        what,
        program: ENTRY_POINTS.into_iter().find(|program| *program as u8 == head.program),
        ifindex: head.ifindex,
        endpoint: Some(head.endpoint).filter(|id| *id != 0).map(LocalEndpointId),
        vni: Vni::new(u32::from_be_bytes(head.vni)).ok().filter(|_| head.vni != PUBLISHED),
        protocol: head.protocol,
        source: socket(&head.source, head.source_port),
        destination: socket(&head.destination, head.destination_port),
        flags: head.flags,
        ethertype: if is_packet { u16::from_be_bytes(head.ethertype) } else { 0 },
        icmp_type: Some(head.icmp_type)
            .filter(|kind| is_packet && ICMP.contains(&head.protocol) && *kind != NOT_ICMP),
        task: if head.backend == 0 { None } else { backend(head.backend).and_then(|b| task_of(&b)) },
        service: Some(head.number).filter(|number| *number != 0),
        mark: head.mark,
        len: head.len,
        bytes: rest.get(..head.captured as usize)?.to_vec(),
    })
}

const ENTRY_POINTS: [EntryPoint; 5] =
    [EntryPoint::FromTask, EntryPoint::ToTask, EntryPoint::Uplink, EntryPoint::Vxlan, EntryPoint::FromHost];

/// IP protocol numbers of ICMP and ICMPv6 (IANA).
const ICMP: [u8; 2] = [1, 58];

fn sight(place: u8) -> Option<Sight> {
    let all = [Sight::FromTask, Sight::ToTask, Sight::ToNode, Sight::FromNode];
    all.into_iter().find(|sight| *sight as u8 == place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_lets_through_what_either_wants() {
        let one =
            WatchFor { new: true, port: Some(80), protocol: Some(6), snaplen: 64, ..WatchFor::default() };
        let other =
            WatchFor { drops: true, port: Some(80), protocol: Some(17), rate: 50, ..WatchFor::default() };
        let both = one.union(other);
        assert_eq!((both.new, both.closed, both.drops, both.packets), (true, false, true, false));
        assert_eq!((both.port, both.protocol, both.snaplen, both.rate), (Some(80), None, 64, 2_050));
    }

    #[test]
    fn what_is_watched_ends_and_is_bounded() {
        let large = WatchFor { packets: true, snaplen: 1 << 20, rate: 1, ..WatchFor::default() };
        let watch = large.encode(7);
        assert_eq!(watch.until, 7 + WATCH_LEASE.as_nanos() as u64);
        assert_eq!((watch.kinds, watch.snaplen, watch.rate), (watch_kinds::PACKET, SNAP as u32, 1));
        assert_eq!(WatchFor::default().encode(0).rate, 20);
    }

    #[test]
    fn records_of_any_bytes_are_read_or_passed_over() {
        let none = |_| None;
        for len in 0..200 {
            for byte in [0, 1, 2, 3, 4, 0xff] {
                let event = decode(&vec![byte; len], none);
                assert!(event.is_none() || len >= size_of::<EventHead>(), "{len} {byte}");
            }
        }
        let all_zero = decode(&[0; size_of::<EventHead>()], none).map(|event| event.what);
        assert_eq!(all_zero, Some(What::New));
    }
}
