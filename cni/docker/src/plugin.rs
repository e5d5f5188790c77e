//! The plugin, and what it says when it refuses.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_types::{Availability, Mac, Name, NetworkId, PortConfig};
use thiserror::Error;
use tokio::task::AbortHandle;

use crate::{
    book::{Book, BookError},
    engine::{Engine, EngineError},
    labels::LabelError,
    mesh::{Mesh, Refusal},
    repeats::Repeats,
};

/// How the plugin is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it keeps what Docker told it.
    pub book: PathBuf,
    /// The engine's API.
    pub engine_socket: PathBuf,
    /// What Docker calls the driver: the name of the plugin's socket without `.sock`.
    pub driver: String,
    /// Told of each call that is done, before Docker has its answer: where tests have the daemon end.
    pub reached: fn(&'static str),
}

/// See the crate.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) options: Arc<Options>,
    pub(crate) mesh: Arc<dyn Mesh>,
    pub(crate) engine: Engine,
    pub(crate) book: Arc<Book>,
    pub(crate) repeats: Arc<Repeats>,
    /// What is under way for an endpoint after its join was answered.
    waiting: Arc<Mutex<HashMap<String, AbortHandle>>>,
}

/// Docker's user reads it after `Error response from daemon:`. Nothing was changed.
#[derive(Debug, Error)]
pub enum PluginError {
    /// What came is not what a Docker engine sends.
    #[error("meshd does not understand Docker's request {call}")]
    Malformed {
        /// The request.
        call: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No such call.
    #[error("meshd's plugin does not know the call {0}")]
    UnknownCall(String),
    /// `-o network=` is missing.
    #[error(
        "which network of the mesh? docker network create -d mesh -o network=NAME NAME (`meshctl network ls` lists them)"
    )]
    NoOption,
    /// `--ipam-opt network=` is missing.
    #[error("which network's addresses? give --ipam-opt network=NAME, the same as -o network=NAME")]
    NoIpamOption,
    /// An option that means nothing.
    #[error(
        "option {0} is not known; there is network: -o network=NAME. Subnet, MTU and the rest are set by `meshctl network create`"
    )]
    UnknownOption(String),
    /// No such network of the mesh.
    #[error(
        "the mesh has no network {reference}; {known}. On a manager: meshctl network create --attachable {reference}"
    )]
    NoSuchNetwork {
        /// As the user said it.
        reference: String,
        /// Those that there are.
        known: String,
    },
    /// It was removed from the mesh.
    #[error("the mesh's network {0} was removed; remove Docker's network too: docker network rm")]
    Removed(NetworkId),
    /// The ingress network is for ports alone.
    #[error("network {0} carries published ports only; containers cannot join it")]
    Ingress(Name),
    /// A network of Docker's that nobody knows.
    #[error(
        "meshd knows nothing of Docker's network {0}, and Docker does not say which network of the mesh it stands for; remove it and create it again"
    )]
    UnknownNetwork(String),
    /// An endpoint that nobody knows.
    #[error(
        "meshd knows nothing of Docker's endpoint {0}; disconnect the container from the network, or remove it, and start it again"
    )]
    UnknownEndpoint(String),
    /// The address plugin was asked for another network than the driver.
    #[error(
        "-o network={name} and --ipam-opt network= mean two networks of the mesh; give the same name to both"
    )]
    TwoNetworks {
        /// That of the driver.
        name: Name,
    },
    /// The network has no addresses of that family.
    #[error("network {network} has no {family} subnet")]
    NoFamily {
        /// The network.
        network: Name,
        /// The family.
        family: mesh_types::Family,
    },
    /// `--subnet` is not that of the network.
    #[error("the subnet of network {network} is {subnet}, not {given}; leave --subnet out")]
    OtherSubnet {
        /// The network.
        network: Name,
        /// Its subnet.
        subnet: ipnet::IpNet,
        /// The user's.
        given: String,
    },
    /// `--gateway` is not that of the network.
    #[error("the gateway of network {network} is {gateway}, not {given}; leave --gateway out")]
    OtherGateway {
        /// The network.
        network: Name,
        /// Its gateway.
        gateway: IpAddr,
        /// The user's.
        given: IpAddr,
    },
    /// `--ip-range` or the like.
    #[error("ranges of addresses are set by `meshctl network create --ip-range`; leave --ip-range out")]
    SubPool,
    /// Docker asks for the same pool without end.
    #[error(
        "subnet {0} overlaps with a route of this host, so Docker does not take it; give it by --subnet {0} if that is meant"
    )]
    Overlap(ipnet::IpNet),
    /// A pool that nobody gave.
    #[error("{0:?} is no pool of the mesh")]
    UnknownPool(String),
    /// Not an address.
    #[error("{0:?} is not an address")]
    Address(String),
    /// A port without a number.
    #[error(
        "port {target}/{protocol}: name the port of the host (-p PORT:{target}); Docker would not show one that meshd chose"
    )]
    AnyPort {
        /// The container's port.
        target: u16,
        /// The transport.
        protocol: mesh_types::Protocol,
    },
    /// A range of host ports.
    #[error("port {target}/{protocol}: name one port of the host, not a range")]
    PortRange {
        /// The container's port.
        target: u16,
        /// The transport.
        protocol: mesh_types::Protocol,
    },
    /// A transport that nobody forwards.
    #[error("protocol {0} of a published port is not known; there are tcp, udp and sctp")]
    PortProtocol(u8),
    /// The host has no such address.
    #[error("port {}: this host has no address {address}; leave it out for all of them and localhost", port.place())]
    PortAddress {
        /// The port.
        port: PortConfig,
        /// The address.
        address: IpAddr,
    },
    /// The port is open at an address of a family that the network does not have.
    #[error(
        "port {}: network {network} has no {family} subnet, so that nothing could answer there", port.place()
    )]
    PortFamily {
        /// The port.
        port: PortConfig,
        /// The network.
        network: Name,
        /// The family.
        family: mesh_types::Family,
    },
    /// It is in use.
    #[error("port {} of this host is published already, by {by}", port.place())]
    PortTaken {
        /// The port.
        port: PortConfig,
        /// By whom.
        by: String,
    },
    /// The labels make no sense.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// No such service.
    #[error(
        "the mesh has no service {service}; on a manager: meshctl service create --network {network} {service}"
    )]
    NoSuchService {
        /// As the label says it.
        service: String,
        /// The network.
        network: Name,
    },
    /// The service is elsewhere.
    #[error(
        "service {service} is not on network {network}; on a manager: meshctl service update --network-add {network} {service}"
    )]
    ServiceElsewhere {
        /// The service.
        service: Name,
        /// The network.
        network: Name,
    },
    /// The network is for services alone.
    #[error(
        "network {0} is not attachable: only tasks of services may join; give the container the label mesh.service, or create the network with --attachable"
    )]
    NotAttachable(Name),
    /// The managers said that this node takes no tasks.
    #[error(
        "node {node} takes no tasks: its availability is {availability}; run the container on another node, or on a manager `meshctl node update {node} --availability active`"
    )]
    Unavailable {
        /// This node.
        node: Name,
        /// What was said.
        availability: Availability,
    },
    /// `--internal` of a network that is not.
    #[error(
        "network {0} of the mesh has a way out, so Docker's --internal would promise too much; on a manager: meshctl network create --internal, or leave --internal out"
    )]
    NotInternal(Name),
    /// No interface can have that address.
    #[error("{0} is no address for an interface: it is a group's, or zero")]
    GroupMac(Mac),
    /// The cluster itself needs the port.
    #[error("port {} of this host cannot be published: the mesh uses it for {purpose}; choose another port", port.place())]
    PortReserved {
        /// The port.
        port: PortConfig,
        /// What for.
        purpose: &'static str,
    },
    /// A container's name is a name of its task.
    #[error(
        "a task named {name} is on network {network} already, on node {node}; give the container another --name"
    )]
    NameTaken {
        /// The name.
        name: Name,
        /// The network.
        network: Name,
        /// Where the other one is.
        node: String,
    },
    /// A port of the routing mesh could not be opened.
    #[error(
        "port {port} is not open for service {service}: {why}. On a manager: meshctl publish {port} {service}"
    )]
    Publish {
        /// The port.
        port: PortConfig,
        /// The service.
        service: Name,
        /// The daemon's words.
        why: Refusal,
    },
    /// The engine could not be asked for labels.
    #[error("{0}; meshd reads a container's labels there (engine_socket in [docker] of its configuration)")]
    Engine(#[from] EngineError),
    /// The engine does not know of the container.
    #[error("Docker at {} does not know the endpoint that it asks for; is it the engine that meshd's engine_socket names?", .0.display())]
    OtherEngine(PathBuf),
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The book cannot be kept.
    #[error("{0}: {source}", source = .0.source)]
    Book(#[from] BookError),
}

impl Plugin {
    /// Opens the book.
    pub fn new(options: Options, mesh: impl Mesh) -> Self {
        let engine = Engine::new(&options.engine_socket);
        let book = Arc::new(Book::open(&options.book));
        Self {
            options: Arc::new(options),
            mesh: Arc::new(mesh),
            engine,
            book,
            repeats: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// Lets `work` go on for an endpoint after Docker has its answer, until it is done or [`Plugin::give_up`].
    pub(crate) fn go_on(&self, endpoint: &str, work: impl Future<Output = ()> + Send + 'static) {
        let (waiting, key) = (self.waiting.clone(), endpoint.to_owned());
        // Held until the handle is in place, which the task takes out at its end.
        let mut all = self.waiting();
        let task = tokio::spawn(async move {
            work.await;
            waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
        if let Some(before) = all.insert(endpoint.to_owned(), task.abort_handle()) {
            before.abort();
        }
    }

    /// Ends what is under way for the endpoint.
    pub(crate) fn give_up(&self, endpoint: &str) {
        if let Some(task) = self.waiting().remove(endpoint) {
            task.abort();
        }
    }

    /// Whether something is under way for it.
    pub(crate) fn is_waiting(&self, endpoint: &str) -> bool {
        self.waiting().contains_key(endpoint)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the daemon calls the task of an endpoint by.
pub(crate) fn owner(endpoint: &str) -> String {
    format!("{OWNER}{endpoint}")
}

/// What owners of tasks of endpoints begin with.
pub(crate) const OWNER: &str = "docker:";
/// What owners of reservations begin with.
pub(crate) const ADDRESS_OWNER: &str = "docker-address:";
