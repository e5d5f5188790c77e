//! The flows that the data path knows, for people: read from the pinned maps by whoever asks, beside all else that goes on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::ControlFlow,
    time::Duration,
};

use aya::{Pod, maps::MapData};
use mesh_abi::{
    Address, BackendValue, ChoiceValue, FlowKey, PUBLISHED, ReturnPath, ReverseValue, flow_state, is_v4,
    v4_of,
};
use mesh_types::{LocalEndpointId, Vni};

use crate::{
    DataPath,
    ageing::now,
    choices::Choices,
    error::Error,
    flows::Tracked,
    maps::names::{CHOICES_KEPT, REVERSE, REVERSE_KEPT},
    sys::map::Position,
    table::{Table, unusable},
};

/// Entries, or sets of them, that are read at a time.
const BATCH: usize = 4096;
const SETS: u32 = 1024;

/// Reads the flows of one data path. It holds maps of its own, so a walk disturbs nobody.
pub struct FlowReader {
    choices: Choices,
    choices_kept: Table<FlowKey, ChoiceValue>,
    reverse: Table<FlowKey, ReverseValue>,
    reverse_kept: Table<FlowKey, ReverseValue>,
    backends: BTreeMap<u32, BackendValue>,
    own: Address,
}

/// A flow to a VIP or a published port, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowEntry {
    /// The network of the VIP; none for a published port.
    pub vni: Option<Vni>,
    /// IP protocol number.
    pub protocol: u8,
    /// Who began it. The port is zero where the protocol has none, or it is an echo's identifier.
    pub client: SocketAddr,
    /// The task of this node that began it by speaking to a published port of the node; then `client` is the address that
    /// stands for it outside.
    pub client_task: Option<LocalEndpointId>,
    /// What it speaks to.
    pub front: SocketAddr,
    /// Whom it was given to; none when that one is gone.
    pub task: Option<FlowTask>,
    /// VTEP address of the node that the client spoke to, if that is not this one.
    pub entrance: Option<IpAddr>,
    /// What has been seen of it.
    pub state: FlowState,
    /// How long ago its last packet was, exact to a second.
    pub idle: Duration,
}

/// The end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowTask {
    /// Its network.
    pub vni: Vni,
    /// The first of its addresses there.
    pub address: IpAddr,
    /// The port there, where this node has translated to it.
    pub port: Option<u16>,
    /// VTEP address of its node.
    pub vtep: IpAddr,
    /// Whether that is this node.
    pub here: bool,
}

/// What has been seen of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowState {
    /// Nobody has answered yet.
    New,
    /// The task has answered.
    Answered,
    /// The client has spoken again after the answer; or its second packet was seen, where answers pass by other ways.
    Established,
    /// TCP: one side has closed.
    Closing,
    /// TCP: both sides have closed.
    Closed,
    /// TCP: one side has reset it.
    Reset,
}

impl FlowState {
    /// Every one, in the order of a flow's life.
    pub const ALL: [Self; 6] =
        [Self::New, Self::Answered, Self::Established, Self::Closing, Self::Closed, Self::Reset];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Answered => "answered",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }

    /// What these bits of [`flow_state`] mean.
    pub(crate) fn of(bits: u8) -> Self {
        const FINS: u8 = flow_state::CLIENT_FIN | flow_state::SERVER_FIN;
        match bits {
            bits if bits & flow_state::RESET != 0 => Self::Reset,
            bits if bits & FINS == FINS => Self::Closed,
            bits if bits & FINS != 0 => Self::Closing,
            bits if bits & flow_state::CONFIRMED != 0 => Self::Established,
            bits if bits & flow_state::ANSWERED != 0 => Self::Answered,
            _ => Self::New,
        }
    }
}

impl DataPath {
    /// Opens what reads the flows. Backends are those of this moment.
    pub fn flow_reader(&self) -> Result<FlowReader, Error> {
        let folder = self.pins.maps();
        let open =
            |name: &'static str| MapData::from_pin(folder.join(name)).map_err(|error| unusable(name, error));
        Ok(FlowReader {
            choices: Choices::pinned(&folder)?,
            choices_kept: Table::new(CHOICES_KEPT, open(CHOICES_KEPT)?)?,
            reverse: Table::new(REVERSE, open(REVERSE)?)?,
            reverse_kept: Table::new(REVERSE_KEPT, open(REVERSE_KEPT)?)?,
            backends: self.held.backends.clone(),
            own: self.held.config.vtep,
        })
    }
}

impl FlowReader {
    /// Calls `each` with every flow until it breaks off; how many there were. A flow that entered at this node is told of
    /// by what was chosen here, others by how their replies go back. One that moves between tables meanwhile, or ends, may
    /// be missed or come twice.
    pub fn walk(&self, mut each: impl FnMut(FlowEntry) -> ControlFlow<()>) -> Result<u64, Error> {
        let now = now()?;
        let mut seen = 0;
        let mut flow = ControlFlow::Continue(());
        let mut take = |entry: Option<FlowEntry>| {
            let Some(entry) = entry else { return ControlFlow::Continue(()) };
            seen += 1;
            if flow.is_continue() {
                flow = each(entry);
            }
            flow
        };
        let mut position = 0;
        loop {
            let mut over = ControlFlow::Continue(());
            self.choices
                .walk(&mut position, SETS, |key, choice| over = take(self.chosen(&key, &choice, now)));
            if over.is_break() {
                return Ok(seen);
            }
            if position == 0 {
                break;
            }
        }
        let choices = |key: &FlowKey, choice: &ChoiceValue| self.chosen(key, choice, now);
        let replies = |key: &FlowKey, back: &ReverseValue| self.landed(key, back, now);
        let over = table(&self.choices_kept, &mut |key, choice| take(choices(key, choice)))?.is_break()
            || table(&self.reverse, &mut |key, back| take(replies(key, back)))?.is_break();
        if !over {
            let _ = table(&self.reverse_kept, &mut |key, back| take(replies(key, back)))?;
        }
        Ok(seen)
    }

    fn chosen(&self, key: &FlowKey, choice: &ChoiceValue, now: u64) -> Option<FlowEntry> {
        let vni = Vni::new(u32::from_be_bytes(key.scope)).ok();
        let task = self.backends.get(&choice.backend).and_then(task_of);
        Some(FlowEntry {
            vni: vni.filter(|_| key.scope != PUBLISHED),
            protocol: key.protocol,
            client: socket(&key.source, key.source_port),
            client_task: Some(choice.client).filter(|id| *id != 0).map(LocalEndpointId),
            front: socket(&key.destination, key.destination_port),
            task,
            entrance: None,
            state: FlowState::of(choice.state()),
            idle: silent(choice, now),
        })
    }

    /// None for one that entered here, too: its choice tells of it.
    fn landed(&self, key: &FlowKey, back: &ReverseValue, now: u64) -> Option<FlowEntry> {
        if back.vtep == self.own {
            return None;
        }
        let vni = Vni::new(u32::from_be_bytes(key.scope)).ok()?;
        let own = ip(&self.own);
        let task = FlowTask {
            vni,
            address: ip(&key.source),
            port: Some(u16::from_be_bytes(key.source_port)),
            vtep: own,
            here: true,
        };
        Some(FlowEntry {
            vni: (back.path == ReturnPath::Network as u8).then_some(vni),
            protocol: key.protocol,
            client: socket(&back.destination, back.destination_port),
            client_task: None,
            front: socket(&back.source, back.source_port),
            task: Some(task),
            entrance: Some(ip(&back.vtep)),
            state: FlowState::of(back.state()),
            idle: silent(back, now),
        })
    }
}

fn table<V: Pod>(
    table: &Table<FlowKey, V>,
    each: &mut impl FnMut(&FlowKey, &V) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    let mut position = Position::default();
    loop {
        let mut flow = ControlFlow::Continue(());
        table.walk(&mut position, BATCH, |key, value| {
            if flow.is_continue() {
                flow = each(&key, &value);
            }
        })?;
        if flow.is_break() || position.at_start() {
            return Ok(flow);
        }
    }
}

fn silent(flow: &impl Tracked, now: u64) -> Duration {
    // A packet may be newer than the clock was read.
    Duration::from_nanos(now.saturating_sub(flow.last_seen()))
}

/// The task behind a backend.
pub(crate) fn task_of(backend: &BackendValue) -> Option<FlowTask> {
    Some(FlowTask {
        vni: Vni::new(u32::from_be_bytes(backend.vni)).ok()?,
        address: ip(&backend.address),
        port: None,
        vtep: ip(&backend.vtep),
        here: backend.ifindex != 0,
    })
}

/// An address as maps hold it.
pub(crate) fn ip(address: &Address) -> IpAddr {
    if is_v4(address) { Ipv4Addr::from(v4_of(address)).into() } else { IpAddr::from(*address) }
}

pub(crate) fn socket(address: &Address, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(ip(address), u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_what_is_furthest() {
        use flow_state::{ANSWERED, CLIENT_FIN, CONFIRMED, DIRECT, RESET, SERVER_FIN};
        let open = ANSWERED | CONFIRMED;
        for (bits, state) in [
            (0, FlowState::New),
            (DIRECT, FlowState::New),
            (ANSWERED, FlowState::Answered),
            (open, FlowState::Established),
            (DIRECT | CONFIRMED, FlowState::Established),
            (open | CLIENT_FIN, FlowState::Closing),
            (open | SERVER_FIN, FlowState::Closing),
            (open | CLIENT_FIN | SERVER_FIN, FlowState::Closed),
            (open | CLIENT_FIN | RESET, FlowState::Reset),
        ] {
            assert_eq!(FlowState::of(bits), state, "{bits:b}");
        }
    }
}
