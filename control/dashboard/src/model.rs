//! A cluster at one moment, as the page shows it.

use serde::Serialize;

/// See the module.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Model {
    /// The cluster as a whole.
    pub cluster: Cluster,
    /// In any order, as all lists here.
    pub nodes: Vec<Node>,
    /// The networks.
    pub networks: Vec<Network>,
    /// The services.
    pub services: Vec<Service>,
    /// The tasks of all nodes.
    pub tasks: Vec<Task>,
    /// Who talks to whom: the busiest pairs.
    pub talks: Vec<Talk>,
    /// Packets that were dropped, by reason, on all nodes that report.
    pub drops: Vec<Drops>,
    /// What needs an operator's eye.
    pub problems: Vec<Problem>,
    /// What happened last, oldest first.
    pub events: Vec<Event>,
}

/// The cluster as a whole.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cluster {
    /// Its id.
    pub id: String,
    /// The manager that serves the page.
    pub manager: String,
    /// The manager that leads; none while none is known.
    pub leader: Option<String>,
    /// The version of the decided state.
    pub version: u64,
    /// meshd's own version.
    pub meshd: String,
    /// How many nodes report rates now; the others show none.
    pub reporting: usize,
}

/// What passes in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Packets to it.
    pub packets_in: f64,
    /// Bytes to it.
    pub bytes_in: f64,
    /// Packets from it.
    pub packets_out: f64,
    /// Bytes from it.
    pub bytes_out: f64,
    /// Flows that began.
    pub flows: f64,
    /// Packets of it that were dropped.
    pub drops: f64,
}

impl Rates {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets_in: self.packets_in + other.packets_in,
            bytes_in: self.bytes_in + other.bytes_in,
            packets_out: self.packets_out + other.packets_out,
            bytes_out: self.bytes_out + other.bytes_out,
            flows: self.flows + other.flows,
            drops: self.drops + other.drops,
        }
    }

    /// Bytes of both directions, by which lists are ordered.
    pub fn bytes(&self) -> f64 {
        self.bytes_in + self.bytes_out
    }
}

/// A node.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `manager` or `worker`.
    pub role: String,
    /// `ready`, `down`, ... as `meshctl node ls` has it.
    pub status: String,
    /// `active`, `pause` or `drain`.
    pub availability: String,
    /// Where others reach it.
    pub address: String,
    /// Tasks there.
    pub tasks: usize,
    /// What passes; none while it does not report.
    pub rates: Option<Rates>,
    /// How long a question of it to its manager takes, in milliseconds.
    pub latency_ms: Option<f64>,
}

/// A network.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its VNI.
    pub vni: u32,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// `attachable`, `internal`, `ingress`.
    pub traits: Vec<String>,
    /// Tasks on it.
    pub tasks: usize,
    /// Services on it.
    pub services: usize,
    /// What passes; none while nobody reports.
    pub rates: Option<Rates>,
}

/// A service.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Names of its networks.
    pub networks: Vec<String>,
    /// Its virtual addresses.
    pub vips: Vec<String>,
    /// What is published.
    pub ports: Vec<Port>,
    /// `vip` or `dnsrr`.
    pub mode: String,
    /// How its tasks are checked; empty: not at all.
    pub check: String,
    /// Tasks.
    pub tasks: usize,
    /// Of these, tasks that get new connections.
    pub serving: usize,
    /// `healthy`, `degraded`, `down`, `empty`.
    pub state: String,
    /// What passes; none while nobody reports.
    pub rates: Option<Rates>,
    /// How long its checks take, the median of its tasks, in milliseconds.
    pub latency_ms: Option<f64>,
}

/// A published port.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Port {
    /// `8080:80/tcp`.
    pub text: String,
    /// What `unpublish` takes: `8080/tcp`.
    pub filter: String,
}

/// A task.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The id of its service; empty for a free-standing one.
    pub service_id: String,
    /// The name of its service.
    pub service: String,
    /// The name of its node.
    pub node: String,
    /// Names of its networks.
    pub networks: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// `ready`, `draining`, `drained`.
    pub state: String,
    /// `healthy`, `unhealthy`, `starting`, or empty where nothing is checked.
    pub health: String,
    /// Why it is unhealthy.
    pub note: String,
    /// Its share of new connections, 1 to 100.
    pub weight: u32,
    /// What passes; none while its node does not report.
    pub rates: Option<Rates>,
    /// How long its last check took, in milliseconds.
    pub latency_ms: Option<f64>,
}

/// One end of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum End {
    /// A task, by its id.
    Task(String),
    /// Somebody outside the mesh.
    Outside,
}

/// Who talks to whom.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Talk {
    /// Who began.
    pub from: End,
    /// Whom it speaks to.
    pub to: End,
    /// The port that is spoken to, with its protocol: `5432/tcp`.
    pub port: String,
    /// Connections open now.
    pub flows: u64,
    /// Bytes a second in both directions; none while that is not known.
    pub bytes: Option<f64>,
}

/// Packets dropped for one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Drops {
    /// The reason's name.
    pub reason: String,
    /// Since the data paths began.
    pub total: u64,
    /// In a second; none while that is not known.
    pub rate: Option<f64>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not, or works less well.
    Warning,
}

/// What needs an operator's eye.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// In words.
    pub text: String,
    /// The page's place for it, such as `#/nodes?q=status:down`; may be empty.
    pub link: String,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Event {
    /// Milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// A number that grows, to tell events apart.
    pub number: u64,
    /// `node`, `network`, `service`, `task`, `cluster`.
    pub kind: String,
    /// `create`, `update`, `remove`.
    pub action: String,
    /// The object's id.
    pub id: String,
    /// The object's name.
    pub name: String,
    /// What changed, as `key=value` words.
    pub detail: String,
}
