//! What becomes of a packet, program by program and node by node: a first packet of a flow is made and given to the
//! programs that run, with the maps as they are, by test runs. Nothing is sent; what the runs note of the flow is
//! forgotten again. Each node runs its own programs: the daemons hand the packet on to each other.

mod packet;
mod steps;
mod words;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_gossip::ErrandError;
use mesh_types::{Endpoint, GOSSIP_PORT, Lookup, LookupError, NodeId, Protocol};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Agent, ExplainError, TaskError, session::one_line};

/// Most nodes on a packet's way.
const HOPS: usize = 8;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSpec {
    /// Who sends.
    pub from: TraceFrom,
    /// A name as the task would look it up, a node, or an address.
    pub to: String,
    /// The port there.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Only addresses of IPv6, or of IPv4.
    pub ipv6: Option<bool>,
}

/// Who sends the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceFrom {
    /// A task.
    Task(String),
    /// Somebody outside with this address, whose packets come in by an uplink of the node.
    Outside(IpAddr, String),
}

/// One station on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The node's name.
    pub node: String,
    /// The program, or what else decides there.
    pub place: String,
    /// What was looked up and found.
    pub found: Vec<String>,
    /// What was done with the packet.
    pub verdict: String,
}

/// How a packet's way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceFate {
    /// In a task.
    Delivered,
    /// It is dropped.
    Dropped,
    /// It leaves what the data path decides.
    Left,
    /// The rest cannot be told.
    Unknown,
}

/// The end of a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEnd {
    /// What kind of end.
    pub fate: TraceFate,
    /// In words.
    pub text: String,
    /// The name of the reason for a drop.
    pub reason: Option<String>,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The stations.
    pub steps: Vec<TraceStep>,
    /// The end.
    pub end: TraceEnd,
}

/// Why nothing was traced.
#[derive(Debug, Error)]
pub enum TraceError {
    /// No such task.
    #[error(
        "no such task: {0} (this node knows those of its own tasks' networks; ask on a node that has it)"
    )]
    Task(String),
    /// Several.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Several tasks of this node, or the like.
    #[error(transparent)]
    Here(#[from] TaskError),
    /// The name cannot be asked for.
    #[error(transparent)]
    Name(#[from] ExplainError),
    /// Neither found by the task's resolver nor a node.
    #[error("{name} has no address for task {task}: {why}")]
    NoAddress {
        /// The name.
        name: String,
        /// The task.
        task: String,
        /// What the resolver said.
        why: String,
    },
    /// The sender and what it sends to are of two families.
    #[error("{0}")]
    Family(String),
    /// The transport is neither TCP nor UDP.
    #[error("only tcp and udp can be traced")]
    Protocol,
    /// The data path cannot be tried.
    #[error(transparent)]
    DataPath(#[from] mesh_lb::Error),
    /// Another node refused.
    #[error("node {node}: {why}")]
    Node {
        /// Its name.
        node: String,
        /// In its words.
        why: String,
    },
}

/// What one daemon asks another to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Question {
    Begin(TraceSpec),
    Arrive(Vec<u8>),
}

/// What happened on one node, and where the packet goes from there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Passage {
    steps: Vec<TraceStep>,
    next: Next,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Next {
    End(TraceEnd),
    /// To the node with this VTEP address.
    Node(IpAddr, Vec<u8>),
}

type Answer = Result<Passage, String>;

impl Agent {
    /// Follows a packet from its sender to its end.
    pub async fn trace(&self, spec: &TraceSpec) -> Result<Trace, TraceError> {
        if spec.protocol == Protocol::Sctp {
            return Err(TraceError::Protocol);
        }
        let first = self.sender_node(&spec.from)?;
        let mut passage = match first == self.inner.node {
            true => self.begin_trace(spec).await?,
            false => {
                let asked = self.ask_node(first, &Question::Begin(spec.clone())).await;
                asked.map_err(|why| TraceError::Node { node: self.name_of_node(first), why })?
            }
        };
        let mut steps = Vec::new();
        for _ in 0..HOPS {
            steps.append(&mut passage.steps);
            let (vtep, packet) = match passage.next {
                Next::End(end) => return Ok(Trace { steps, end }),
                Next::Node(vtep, packet) => (vtep, packet),
            };
            let node =
                self.view().nodes.values().find(|node| node.data_path_addr == vtep).map(|node| node.id);
            let Some(node) = node else {
                let text = format!("no node has the VTEP address {vtep} that the packet goes to");
                return Ok(Trace { steps, end: unknown(text) });
            };
            let passed = match node == self.inner.node {
                true => self.arrive_trace(&packet).await.map_err(|error| one_line(&error)),
                false => self.ask_node(node, &Question::Arrive(packet)).await,
            };
            passage = match passed {
                Ok(passage) => passage,
                Err(why) => {
                    let text = format!("node {} cannot be asked: {why}", self.name_of_node(node));
                    return Ok(Trace { steps, end: unknown(text) });
                }
            };
        }
        Ok(Trace { steps, end: unknown(format!("the packet goes in circles: {HOPS} nodes are not enough")) })
    }

    /// Has this node's part of others' traces done.
    pub(crate) fn answer_others(&self) {
        // Not to keep itself alive.
        let inner = Arc::downgrade(&self.inner);
        self.inner.gossip.answer_by(Arc::new(move |question| {
            let inner = inner.clone();
            Box::pin(async move {
                let answer: Answer = match (inner.upgrade(), postcard::from_bytes(&question)) {
                    (Some(inner), Ok(question)) => Self { inner }.answer(question).await,
                    (None, _) => Err("this node's daemon stops".to_owned()),
                    (_, Err(_)) => Err("its release does not know the question".to_owned()),
                };
                postcard::to_allocvec(&answer).unwrap_or_default()
            })
        }));
    }

    async fn answer(&self, question: Question) -> Answer {
        let passed = match question {
            Question::Begin(spec) => self.begin_trace(&spec).await,
            Question::Arrive(packet) => self.arrive_trace(&packet).await,
        };
        passed.map_err(|error| one_line(&error))
    }

    async fn ask_node(&self, node: NodeId, question: &Question) -> Answer {
        let address =
            self.view().nodes.get(&node).map(|node| node.advertise_addr).ok_or("it is no member")?;
        let bytes = postcard::to_allocvec(question).map_err(|error| error.to_string())?;
        let asked = self.inner.gossip.ask(SocketAddr::new(address, GOSSIP_PORT), &bytes).await;
        let answer = asked.map_err(|error: ErrandError| one_line(&error))?;
        postcard::from_bytes::<Answer>(&answer).map_err(|_| "its release answers otherwise".to_owned())?
    }

    /// The node where the packet begins.
    fn sender_node(&self, from: &TraceFrom) -> Result<NodeId, TraceError> {
        let task = match from {
            TraceFrom::Outside(_, node) if node.is_empty() => return Ok(self.inner.node),
            TraceFrom::Outside(_, node) => return Ok(self.view().node(node)?.id),
            TraceFrom::Task(task) => task,
        };
        match self.task(task) {
            Ok(_) => return Ok(self.inner.node),
            Err(TaskError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (endpoints, _) = self.endpoints();
        match Endpoint::find(&endpoints, task) {
            Ok(endpoint) => Ok(endpoint.node),
            Err(LookupError::Unknown { reference, .. }) => Err(TraceError::Task(reference)),
            Err(error) => Err(error.into()),
        }
    }

    fn name_of_node(&self, node: NodeId) -> String {
        self.view().nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.to_string())
    }
}

fn unknown(text: String) -> TraceEnd {
    TraceEnd { fate: TraceFate::Unknown, text, reason: None }
}
