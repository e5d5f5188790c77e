//! Which flows somebody wants to see.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use mesh_lb::{FlowEntry, FlowState};
use mesh_types::{Endpoint, Lookup, LookupError, Protocol, ServiceId, TaskId, Vni};
use thiserror::Error;

use super::FlowNames;

/// Conditions in people's words. Of those of one kind one has to hold, of all kinds each; a kind without any holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Services, by name or id.
    pub services: Vec<String>,
    /// Networks of the VIP or of the task.
    pub networks: Vec<String>,
    /// Who began: an address, a range such as `10.0.0.0/8`, or a task.
    pub clients: Vec<String>,
    /// Tasks that began or serve the flow.
    pub tasks: Vec<String>,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`.
    pub protocols: Vec<String>,
    /// See [`FlowState::as_str`].
    pub states: Vec<String>,
    /// The port that the client speaks to.
    pub ports: Vec<u16>,
}

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// No such service, network or task, or several.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// No task of that name is known here.
    #[error(
        "no such task: {0} (this node knows those of its own tasks' networks; ask on a node that has it)"
    )]
    Task(String),
    /// Neither of the things that a client can be.
    #[error("client {0:?} is no address, no range such as 10.10.0.0/16, and no task that this node knows")]
    Client(String),
    /// Another word.
    #[error("{kind} {given:?} is not known; there are {known}")]
    Word {
        /// What it should have been.
        kind: &'static str,
        /// What was given.
        given: String,
        /// The words that there are.
        known: String,
    },
}

impl FlowFilter {
    /// The same with what its words mean now.
    pub(crate) fn resolve(&self, names: &FlowNames) -> Result<Wanted, FilterError> {
        let view = names.view();
        let services = self.services.iter().map(|service| Ok(view.service(service)?.id));
        let networks = self.networks.iter().map(|network| Ok(view.network(network)?.vni));
        let clients = self.clients.iter().map(|client| Client::of(client, names.endpoints()));
        let tasks = self.tasks.iter().map(|task| task_of(task, names.endpoints()));
        Ok(Wanted {
            services: services.collect::<Result<_, FilterError>>()?,
            networks: networks.collect::<Result<_, FilterError>>()?,
            clients: clients.collect::<Result<_, _>>()?,
            tasks: tasks.collect::<Result<_, _>>()?,
            protocols: self.protocols.iter().map(|word| protocol(word)).collect::<Result<_, _>>()?,
            states: self.states.iter().map(|word| state(word)).collect::<Result<_, _>>()?,
            ports: self.ports.iter().copied().collect(),
        })
    }
}

/// A filter whose words are understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    services: BTreeSet<ServiceId>,
    networks: BTreeSet<Vni>,
    clients: Vec<Client>,
    tasks: BTreeSet<TaskId>,
    protocols: BTreeSet<u8>,
    states: BTreeSet<FlowState>,
    ports: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Client {
    From(IpNet),
    Task(TaskId),
}

impl Client {
    fn of(text: &str, endpoints: &[Endpoint]) -> Result<Self, FilterError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::From(address.into()));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::From(net));
        }
        match task_of(text, endpoints) {
            Ok(task) => Ok(Self::Task(task)),
            Err(FilterError::Task(text)) => Err(FilterError::Client(text)),
            Err(other) => Err(other),
        }
    }
}

impl Wanted {
    /// Whether a flow meets it. What is quickest to see comes first: there may be a million flows.
    pub(crate) fn admits(&self, flow: &FlowEntry, names: &FlowNames) -> bool {
        fn holds<T: Ord>(wanted: &BTreeSet<T>, is: impl FnOnce() -> bool) -> bool {
            wanted.is_empty() || is()
        }
        let task = |endpoint: Option<&Endpoint>| endpoint.is_some_and(|e| self.tasks.contains(&e.task));
        let network = |vni: Option<Vni>| vni.is_some_and(|vni| self.networks.contains(&vni));
        let client = |client: &Client| match client {
            Client::From(net) => net.contains(&flow.client.ip()),
            Client::Task(task) => names.client(flow).is_some_and(|client| client.task == *task),
        };
        holds(&self.protocols, || self.protocols.contains(&flow.protocol))
            && holds(&self.ports, || self.ports.contains(&flow.front.port()))
            && holds(&self.states, || self.states.contains(&flow.state))
            && holds(&self.networks, || network(flow.vni) || network(flow.task.map(|task| task.vni)))
            && (self.clients.is_empty() || self.clients.iter().any(client))
            && holds(&self.tasks, || task(names.task(flow)) || task(names.client(flow)))
            && holds(&self.services, || names.service(flow).is_some_and(|s| self.services.contains(&s)))
    }
}

/// The task that a name or the beginning of an id means.
pub(crate) fn task_of(reference: &str, endpoints: &[Endpoint]) -> Result<TaskId, FilterError> {
    match Endpoint::find(endpoints, reference) {
        Ok(endpoint) => Ok(endpoint.task),
        Err(LookupError::Unknown { reference, .. }) => Err(FilterError::Task(reference)),
        // A task on several networks has an endpoint on each.
        Err(error @ LookupError::Ambiguous { .. }) => {
            let fits = endpoints.iter().filter(|e| e.id_text().starts_with(reference));
            let tasks: BTreeSet<TaskId> = fits.map(|e| e.task).collect();
            tasks.first().copied().filter(|_| tasks.len() == 1).ok_or(FilterError::Lookup(error))
        }
    }
}

fn protocol(word: &str) -> Result<u8, FilterError> {
    let [tcp, udp, sctp] =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|known| (known.as_str(), known.number()));
    let all = [tcp, udp, sctp, ("icmp", 1), ("icmpv6", 58)];
    let found = all.into_iter().find(|(name, _)| *name == word);
    found.map(|(_, number)| number).ok_or_else(|| unknown("protocol", word, all.map(|(name, _)| name)))
}

fn state(word: &str) -> Result<FlowState, FilterError> {
    let found = FlowState::ALL.into_iter().find(|state| state.as_str() == word);
    found.ok_or_else(|| unknown("state", word, FlowState::ALL.map(FlowState::as_str)))
}

fn unknown<const N: usize>(kind: &'static str, given: &str, known: [&str; N]) -> FilterError {
    FilterError::Word { kind, given: given.to_owned(), known: known.join(", ") }
}

#[cfg(test)]
mod tests;
