//! What of all that is told one watcher wants.

use std::collections::BTreeSet;

use mesh_lb::{Event, FlowEntry, WatchFor, What};
use mesh_types::{Endpoint, LocalEndpointId, LookupError};

use super::{CaptureSpec, WatchError, WatchSpec};
use crate::{
    FilterError,
    flows::{FlowNames, Wanted, task_of},
};

/// Events in a second on each processor.
const EVENTS: u32 = 2_000;
const PACKETS: u32 = 20_000;

/// What one watcher wants.
pub struct Wish {
    /// What the programs are asked for: at least that.
    pub kernel: WatchFor,
    matching: Matching,
}

enum Matching {
    Flows { spec: Box<WatchSpec>, wanted: Box<Wanted> },
    Packets { capture: CaptureSpec, ids: BTreeSet<LocalEndpointId> },
}

impl Wish {
    /// What is asked for, by what its words mean now.
    pub fn of(spec: &WatchSpec, names: &FlowNames) -> Result<Self, WatchError> {
        let Some(capture) = &spec.capture else {
            let wanted = Box::new(spec.filter.resolve(names)?);
            let WatchSpec { new, closed, drops, .. } = *spec;
            let kernel = WatchFor { new, closed, drops, rate: EVENTS, ..WatchFor::default() };
            return Ok(Self { kernel, matching: Matching::Flows { spec: Box::new(spec.clone()), wanted } });
        };
        let ids = captured(&capture.of, names)?;
        Ok(Self {
            kernel: packets(capture, &ids),
            matching: Matching::Packets { capture: capture.clone(), ids },
        })
    }

    /// The same by what its words mean now: tasks come and go. What means nothing any more stays as it was.
    pub fn renew(&mut self, names: &FlowNames) {
        match &mut self.matching {
            Matching::Flows { spec, wanted } => {
                if let Ok(now) = spec.filter.resolve(names) {
                    **wanted = now;
                }
            }
            Matching::Packets { capture, ids } => {
                if let Ok(now) = captured(&capture.of, names) {
                    *ids = now;
                    self.kernel = packets(capture, ids);
                }
            }
        }
    }

    /// Whether it wants this.
    pub fn admits(&self, event: &Event, entry: &FlowEntry, names: &FlowNames) -> bool {
        match &self.matching {
            Matching::Flows { spec, wanted } => {
                let kind = match event.what {
                    What::New => spec.new,
                    What::Closed(_) | What::Forgotten(..) => spec.closed,
                    What::Dropped(_) => spec.drops,
                    What::Packet(_) => false,
                };
                kind && wanted.admits(entry, names)
            }
            Matching::Packets { capture, ids } => {
                let ends = [event.source, event.destination];
                matches!(event.what, What::Packet(_))
                    && event.endpoint.is_some_and(|id| ids.contains(&id))
                    && capture.protocol.is_none_or(|protocol| protocol == event.protocol)
                    && capture.port.is_none_or(|port| ends.iter().any(|end| end.port() == port))
            }
        }
    }

    /// As much of a packet as it wants; others may want more.
    pub fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match &self.matching {
            Matching::Flows { .. } => &[],
            Matching::Packets { capture, .. } => bytes.get(..capture.snaplen as usize).unwrap_or(bytes),
        }
    }
}

/// What the programs are asked for.
fn packets(capture: &CaptureSpec, ids: &BTreeSet<LocalEndpointId>) -> WatchFor {
    WatchFor {
        packets: true,
        endpoint: ids.first().copied().filter(|_| ids.len() == 1),
        port: capture.port,
        protocol: capture.protocol,
        snaplen: capture.snaplen,
        rate: PACKETS,
        ..WatchFor::default()
    }
}

/// Whose packets are meant.
fn captured(of: &str, names: &FlowNames) -> Result<BTreeSet<LocalEndpointId>, WatchError> {
    let task = match task_of(of, names.endpoints()) {
        Ok(task) => Some(task),
        Err(FilterError::Task(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let service = match names.view().service(of) {
        _ if task.is_some() => None,
        Ok(service) => Some(service.id),
        Err(LookupError::Unknown { .. }) => return Err(WatchError::Unknown(of.to_owned())),
        Err(error) => return Err(FilterError::from(error).into()),
    };
    let is = |e: &Endpoint| Some(e.task) == task || (service.is_some() && e.service == service);
    let ids: BTreeSet<LocalEndpointId> = names.locals().filter(|(_, e)| is(e)).map(|(id, _)| id).collect();
    if ids.is_empty() {
        let meant = names.endpoints().iter().filter(|e| is(e));
        let nodes: BTreeSet<_> = meant.map(|e| names.node_name(e.node)).collect();
        return Err(WatchError::Elsewhere { of: of.to_owned(), nodes: nodes.into_iter().collect() });
    }
    Ok(ids)
}
