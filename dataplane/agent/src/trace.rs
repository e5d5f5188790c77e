//! What becomes of a packet, program by program and node by node: a first packet of a flow is made and given to the
//! programs that run, with the maps as they are, by test runs. Nothing is sent; what the runs note of the flow is
//! forgotten again. Each node runs its own programs: the daemons hand the packet on to each other.

mod begin;
mod packet;
mod reply;
mod run;
mod text;
mod verdict;
mod words;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_gossip::ErrandError;
use mesh_types::{Endpoint, GOSSIP_PORT, Lookup, LookupError, NodeId, Protocol, Vni};
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
    /// The port there; 0 for ICMP.
    pub port: u16,
    /// What the packet is.
    pub protocol: TraceProtocol,
    /// Only addresses of IPv6, or of IPv4.
    pub ipv6: Option<bool>,
}

/// What packets can be traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceProtocol {
    /// A connection's first segment.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
}

impl TraceProtocol {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// IP protocol number.
    pub(crate) fn number(self, address: IpAddr) -> u8 {
        match self {
            Self::Tcp => Protocol::Tcp.number(),
            Self::Udp => Protocol::Udp.number(),
            Self::Icmp if address.is_ipv4() => 1,
            Self::Icmp => 58,
        }
    }
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
    /// The way of the answer, once the packet is in a task.
    pub back: Option<WayBack>,
}

/// The way of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
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
    /// An answer, to what this node has sent as that.
    Return(Origin, Vec<u8>),
}

/// How a packet entered a node's data path: what its answer needs there is made of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Origin {
    by_task: bool,
    ifindex: u32,
    packet: Vec<u8>,
    /// Network, protocol, client and what it speaks to.
    flow: Option<(Option<Vni>, u8, SocketAddr, SocketAddr)>,
}

/// What happened on one node, and where the packet goes from there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Passage {
    steps: Vec<TraceStep>,
    next: Next,
    origin: Option<Origin>,
    /// The first part of the answer's way.
    back: Option<(Vec<TraceStep>, Next)>,
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
        let first = self.sender_node(&spec.from)?;
        let mut passage = match first == self.inner.node {
            true => self.begin_trace(spec).await?,
            false => {
                let asked = self.ask_node(first, &Question::Begin(spec.clone())).await;
                asked.map_err(|why| TraceError::Node { node: self.name_of_node(first), why })?
            }
        };
        let (mut steps, mut origins, mut at) = (Vec::new(), BTreeMap::new(), first);
        for _ in 0..HOPS {
            steps.append(&mut passage.steps);
            origins.extend(passage.origin.map(|origin| (at, origin)));
            let (vtep, packet) = match passage.next {
                Next::End(end) => {
                    let back = match passage.back {
                        Some((steps, next)) => Some(self.follow_back(steps, next, &origins).await),
                        None => None,
                    };
                    return Ok(Trace { steps, end, back });
                }
                Next::Node(vtep, packet) => (vtep, packet),
            };
            let Some(node) = self.node_with(vtep) else {
                return Ok(Trace { steps, end: nobody(vtep), back: None });
            };
            at = node;
            let passed = match node == self.inner.node {
                true => self.arrive_trace(&packet).await.map_err(|error| one_line(&error)),
                false => self.ask_node(node, &Question::Arrive(packet)).await,
            };
            passage = match passed {
                Ok(passage) => passage,
                Err(why) => {
                    return Ok(Trace { steps, end: self.mute(node, &why), back: None });
                }
            };
        }
        Ok(Trace { steps, end: circles(), back: None })
    }

    /// The rest of an answer's way.
    async fn follow_back(
        &self,
        mut steps: Vec<TraceStep>,
        mut next: Next,
        origins: &BTreeMap<NodeId, Origin>,
    ) -> WayBack {
        for _ in 0..HOPS {
            let (vtep, packet) = match next {
                Next::End(end) => return WayBack { steps, end },
                Next::Node(vtep, packet) => (vtep, packet),
            };
            let Some(node) = self.node_with(vtep) else { return WayBack { steps, end: nobody(vtep) } };
            let Some(origin) = origins.get(&node) else {
                let text = format!("node {} has not sent the packet on", self.name_of_node(node));
                return WayBack { steps, end: unknown(text) };
            };
            let passed = match node == self.inner.node {
                true => self.return_trace(origin, &packet).await.map_err(|error| one_line(&error)),
                false => self.ask_node(node, &Question::Return(origin.clone(), packet)).await,
            };
            let mut passage = match passed {
                Ok(passage) => passage,
                Err(why) => return WayBack { steps, end: self.mute(node, &why) },
            };
            steps.append(&mut passage.steps);
            next = passage.next;
        }
        WayBack { steps, end: circles() }
    }

    fn node_with(&self, vtep: IpAddr) -> Option<NodeId> {
        self.view().nodes.values().find(|node| node.data_path_addr == vtep).map(|node| node.id)
    }

    fn mute(&self, node: NodeId, why: &str) -> TraceEnd {
        unknown(format!("node {} cannot be asked: {why}", self.name_of_node(node)))
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
            Question::Return(origin, packet) => self.return_trace(&origin, &packet).await,
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

fn nobody(vtep: IpAddr) -> TraceEnd {
    unknown(format!("no node has the VTEP address {vtep} that the packet goes to"))
}

fn circles() -> TraceEnd {
    unknown(format!("the packet goes in circles: {HOPS} nodes are not enough"))
}

fn unknown(text: String) -> TraceEnd {
    TraceEnd { fate: TraceFate::Unknown, text, reason: None }
}

fn left(text: String) -> TraceEnd {
    TraceEnd { fate: TraceFate::Left, text, reason: None }
}
