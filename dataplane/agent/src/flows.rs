//! The flows that this node's data path knows, with names, for people.

mod filter;
mod names;

use std::{net::SocketAddr, ops::ControlFlow};

use mesh_lb::{FlowEntry, FlowReader};
use thiserror::Error;

pub use filter::{FilterError, FlowFilter};
pub(crate) use filter::{Wanted, task_of};
pub(crate) use names::FlowNames;

use crate::Agent;

/// Why flows cannot be listed.
#[derive(Debug, Error)]
pub enum FlowsError {
    /// The filter makes no sense.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The flow tables cannot be read.
    #[error(transparent)]
    DataPath(#[from] mesh_lb::Error),
}

/// A flow, and what it is called that takes part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFlow {
    /// As the data path knows it.
    pub entry: FlowEntry,
    /// The task, or the node, that began it; none for somebody outside.
    pub client: Option<String>,
    /// The service that it is for.
    pub service: Option<String>,
    /// The network of its task.
    pub network: Option<String>,
    /// The task that it was given to.
    pub task: Option<String>,
    /// Where that one listens.
    pub task_address: Option<SocketAddr>,
    /// That one's node.
    pub node: Option<String>,
    /// The node that the client spoke to.
    pub entrance: Option<String>,
}

/// What came of a walk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walked {
    /// Flows looked at.
    pub seen: u64,
    /// Those that met the filter.
    pub matched: u64,
}

/// A question about flows, as of the moment when it was asked.
pub struct FlowQuery {
    reader: FlowReader,
    names: FlowNames,
    wanted: Wanted,
}

impl Agent {
    /// Prepares a walk through the flows that meet `filter`.
    pub async fn flows(&self, filter: &FlowFilter) -> Result<FlowQuery, FlowsError> {
        let names = self.flow_names().await;
        let wanted = filter.resolve(&names)?;
        let reader = self.inner.reconciler.lock().await.flow_reader()?;
        Ok(FlowQuery { reader, names, wanted })
    }

    /// What flows' ends are called now.
    pub(crate) async fn flow_names(&self) -> FlowNames {
        let services = self.inner.reconciler.lock().await.services();
        let (endpoints, _) = self.endpoints();
        let tasks = self.lock().tasks.clone();
        FlowNames::new(self.inner.node, self.view(), &services, endpoints, &tasks)
    }
}

impl FlowQuery {
    /// Walks through the flows and calls `each` with those that meet the filter, until it breaks off. Takes its time: not
    /// for a thread that serves others.
    pub fn run(&self, mut each: impl FnMut(NamedFlow) -> ControlFlow<()>) -> Result<Walked, mesh_lb::Error> {
        let mut matched = 0;
        let seen = self.reader.walk(|entry| {
            if !self.wanted.admits(&entry, &self.names) {
                return ControlFlow::Continue(());
            }
            matched += 1;
            each(self.names.named(entry))
        })?;
        Ok(Walked { seen, matched })
    }
}
