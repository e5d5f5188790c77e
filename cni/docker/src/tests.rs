//! The plugin between an engine and a daemon that are not real.

mod later;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use mesh_api::v1::{self, attach_request::Namespace};
use mesh_types::{
    Availability, ClusterId, ClusterView, Name, Network, NetworkId, Node, NodeId, PortConfig, Role, Service,
    ServiceId, ServiceNetwork, Subnet, Vni,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{Options, Plugin, Refusal, Reserve, mesh::Mesh, server::answer};

/// What the daemon has.
#[derive(Default)]
struct State {
    view: Option<ClusterView>,
    attached: BTreeMap<String, v1::AttachRequest>,
    reserved: BTreeMap<IpAddr, String>,
    published: Vec<PortConfig>,
    aliases: BTreeMap<String, Vec<String>>,
    refuse: Option<Refusal>,
    /// How many attaches were refused, and how many were not.
    refused: usize,
    attaches: usize,
    node: String,
}

#[derive(Clone, Default)]
struct FakeMesh(Arc<Mutex<State>>);

impl FakeMesh {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl Mesh for FakeMesh {
    async fn view(&self) -> Result<ClusterView, Refusal> {
        let refusal = || Refusal { code: Code::FailedPrecondition, message: "in no cluster".to_owned() };
        self.with(|state| state.view.clone()).ok_or_else(refusal)
    }

    async fn node(&self) -> Result<String, Refusal> {
        Ok(self.with(|state| state.node.clone()))
    }

    async fn tasks(&self) -> Result<v1::ListTasksResponse, Refusal> {
        let view = self.view().await?;
        let network = view.network("prod").unwrap().id.to_string();
        let db = v1::Endpoint { network_id: network, name: "taken".to_owned(), ..Default::default() };
        let local = self.with(|state| {
            let task = |(owner, request): (&String, &v1::AttachRequest)| v1::LocalTask {
                task_id: owner.clone(),
                name: request.name.clone(),
                namespace: match &request.namespace {
                    Some(Namespace::Path(path)) => path.clone(),
                    _ => String::new(),
                },
                owners: vec![owner.clone()],
                host_ports: request.host_ports.clone(),
                ..Default::default()
            };
            state.attached.iter().map(task).collect()
        });
        Ok(v1::ListTasksResponse { endpoints: vec![db], local, ..Default::default() })
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<v1::AttachResponse, Refusal> {
        if let Some(refusal) = self.with(|state| state.refuse.clone()) {
            self.with(|state| state.refused += 1);
            return Err(refusal);
        }
        self.with(|state| {
            state.attaches += 1;
            state.attached.insert(request.owner.clone(), request);
        });
        Ok(v1::AttachResponse::default())
    }

    async fn detach(&self, owner: &str) -> Result<(), Refusal> {
        self.with(|state| state.attached.remove(owner));
        Ok(())
    }

    async fn set_aliases(&self, owner: &str, aliases: Vec<String>) -> Result<(), Refusal> {
        self.with(|state| state.aliases.insert(owner.to_owned(), aliases));
        Ok(())
    }

    async fn reserve(&self, wish: Reserve) -> Result<IpAddr, Refusal> {
        let subnet = self.view().await?.networks.get(&wish.network).unwrap().subnets[0].net();
        self.with(|state| {
            let free = || subnet.hosts().skip(1).find(|host| !state.reserved.contains_key(host));
            let full =
                || Refusal { code: Code::FailedPrecondition, message: "no address is left".to_owned() };
            let given = wish.address.or_else(free).ok_or_else(full)?;
            state.reserved.insert(given, wish.owner);
            Ok(given)
        })
    }

    async fn release(&self, _: NetworkId, address: IpAddr) -> Result<(), Refusal> {
        self.with(|state| state.reserved.remove(&address));
        Ok(())
    }

    async fn publish(&self, _: ServiceId, ports: Vec<PortConfig>) -> Result<(), Refusal> {
        self.with(|state| state.published.extend(ports));
        Ok(())
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn node(text: &str, availability: Availability) -> Node {
    Node {
        id: NodeId::random(),
        name: name(text),
        role: Role::Worker,
        advertise_addr: [192, 0, 2, 1].into(),
        data_path_addr: [192, 0, 2, 1].into(),
        availability,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 1,
    }
}

/// Networks prod (attachable), closed and old, which Docker does not know of; a service web on prod with port 80.
fn view() -> ClusterView {
    let network = |number: u8, text: &str, attachable| Network {
        id: NetworkId::random(),
        name: name(text),
        vni: Vni::new(4096 + u32::from(number)).unwrap(),
        subnets: vec![Subnet::new(format!("10.10.{number}.0/24").parse().unwrap(), None).unwrap()],
        attachable,
        internal: false,
        ingress: text == "ingress",
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: Vec::new(),
        aux_addresses: BTreeMap::new(),
        version: 1,
    };
    let networks = [network(3, "prod", true), network(4, "closed", false), network(5, "ingress", false)];
    let on = networks[0].id;
    let service = Service {
        id: ServiceId::random(),
        name: name("web"),
        networks: vec![ServiceNetwork { network: on, vips: Vec::new(), aliases: vec![name("www")] }],
        endpoint_mode: Default::default(),
        ports: vec!["80:80".parse().unwrap()],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 10,
        health: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 1,
    };
    ClusterView {
        cluster: ClusterId::random(),
        version: 1,
        nodes: Default::default(),
        networks: networks.into_iter().map(|n| (n.id, n)).collect(),
        services: [(service.id, service)].into_iter().collect(),
        gossip_keys: Vec::new(),
        ca_generation: 0,
    }
}

struct Story {
    folder: tempfile::TempDir,
    mesh: FakeMesh,
    plugin: Plugin,
    engine: Arc<Mutex<BTreeMap<String, Value>>>,
    /// The containers that the engine was told to stop.
    stopped: Arc<Mutex<Vec<String>>>,
}

impl Story {
    async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let socket = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let stopped: Arc<Mutex<Vec<String>>> = Arc::default();
        let (pages, killed) = (engine.clone(), stopped.clone());
        tokio::spawn(crate::http::serve(listener, move |path, _| {
            let id = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/kill"));
            killed.lock().unwrap().extend(id.map(str::to_owned));
            let page = pages.lock().unwrap().get(&path).cloned().unwrap_or(Value::Null);
            async move { page }
        }));
        let mesh = FakeMesh::default();
        mesh.with(|state| state.view = Some(view()));
        let plugin = Self::plugin(folder.path(), &mesh);
        Self { folder, mesh, plugin, engine, stopped }
    }

    fn plugin(folder: &Path, mesh: &FakeMesh) -> Plugin {
        let options = Options {
            book: folder.join("book.json"),
            engine_socket: folder.join("docker.sock"),
            driver: "mesh".to_owned(),
            reached: |_| {},
        };
        Plugin::new(options, mesh.clone())
    }

    async fn ask(&self, call: &str, body: Value) -> Result<Value, String> {
        let told = answer(self.plugin.clone(), format!("/{call}"), Bytes::from(body.to_string())).await;
        match told.get("Err") {
            Some(error) => {
                assert_eq!(told.get("Error"), Some(error), "both protocols' keys");
                Err(error.as_str().unwrap().to_owned())
            }
            None => Ok(told),
        }
    }

    async fn refused(&self, call: &str, body: Value) -> String {
        self.ask(call, body).await.unwrap_err()
    }

    /// A network n1 of Docker's, with its addresses from the mesh or not.
    async fn create_network(&self, space: &str, pool: &str) -> Result<Value, String> {
        let body = json!({
            "NetworkID": "n1",
            "Options": {"com.docker.network.generic": {"network": "prod"}, "com.docker.network.enable_ipv6": false},
            "IPv4Data": [{"AddressSpace": space, "Pool": pool, "Gateway": "10.10.3.1/24", "AuxAddresses": null}],
            "IPv6Data": null,
        });
        self.ask("NetworkDriver.CreateNetwork", body).await
    }

    async fn create_endpoint(&self, id: &str, address: &str, options: Value) -> Result<Value, String> {
        let interface = json!({"Address": address, "AddressIPv6": "", "MacAddress": ""});
        let body = json!({"NetworkID": "n1", "EndpointID": id, "Interface": interface, "Options": options});
        self.ask("NetworkDriver.CreateEndpoint", body).await
    }

    /// The engine's word of a container `web1` with an endpoint e1.
    fn container(&self, labels: Value) {
        let mut pages = self.engine.lock().unwrap();
        let endpoint = json!({"Name": "web1", "EndpointID": "e1", "IPv4Address": "10.10.3.2/24"});
        let network = json!({"Name": "prod", "Driver": "mesh", "Options": {"network": "prod"},
            "IPAM": {"Driver": "mesh"}, "Containers": {"ep-e1": endpoint}});
        pages.insert("/networks/n1".to_owned(), network);
        pages.insert("/networks".to_owned(), json!([{"Id": "n1"}]));
        let listed = json!([
            {"Id": "c0", "Names": ["/web10"], "Labels": {"mesh.service": "nonsense"}},
            {"Id": "c1", "Names": ["/web1"], "Labels": labels},
        ]);
        pages.insert("/containers/json".to_owned(), listed);
        let settings = json!({"Networks": {"prod": {"EndpointID": "e1", "Aliases": ["front", "web1", "web", "WWW", "no name"]}}});
        pages.insert("/containers/c1/json".to_owned(), json!({"NetworkSettings": settings}));
    }

    /// `docker rename`.
    fn rename(&self, name: &str) {
        let mut pages = self.engine.lock().unwrap();
        for (path, at) in [("/networks/n1", "/Containers/ep-e1/Name"), ("/containers/json", "/1/Names/0")] {
            let slash = if path == "/containers/json" { "/" } else { "" };
            *pages.get_mut(path).unwrap().pointer_mut(at).unwrap() = json!(format!("{slash}{name}"));
        }
    }

    async fn join(&self, sandbox: &str) -> Result<Value, String> {
        let body = json!({"NetworkID": "n1", "EndpointID": "e1", "SandboxKey": sandbox, "Options": {}});
        self.ask("NetworkDriver.Join", body).await
    }
}

const HERE: &str = "/proc/self/ns/net";

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_container_from_join_to_leave() {
    let story = Story::begin().await;
    let told = story.ask("Plugin.Activate", Value::Null).await.unwrap();
    assert_eq!(told, json!({"Implements": ["NetworkDriver", "IpamDriver"]}));
    let pool = json!({"AddressSpace": "mesh", "Pool": "", "Options": {"network": "prod"}, "V6": false});
    let pool = story.ask("IpamDriver.RequestPool", pool).await.unwrap();
    assert_eq!(pool["Pool"], "10.10.3.0/24");
    assert_eq!(pool["Data"]["com.docker.network.gateway"], "10.10.3.1/24");
    story.create_network("mesh", "10.10.3.0/24").await.unwrap();
    let address = json!({"PoolID": pool["PoolID"], "Address": "", "Options": null});
    let address = story.ask("IpamDriver.RequestAddress", address).await.unwrap();
    assert_eq!(address["Address"], "10.10.3.2/24");

    let port = json!({"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080});
    let options = json!({"com.docker.network.portmap": [port], "mesh.alias": "shop"});
    let endpoint = story.create_endpoint("e1", "10.10.3.2/24", options).await.unwrap();
    assert_eq!(endpoint["Interface"], json!({"MacAddress": "02:42:0a:0a:03:02"}));
    story.container(json!({"mesh.service": "web", "mesh.publish": "80:80 81:80"}));
    let joined = story.join(HERE).await.unwrap();
    assert_eq!(joined, json!({"DisableGatewayService": true}));
    let attached = story.mesh.with(|state| state.attached.get("docker:e1").cloned()).unwrap();
    assert_eq!(attached.namespace, Some(Namespace::Path(HERE.to_owned())));
    assert_eq!((attached.name.as_str(), attached.interface.as_str()), ("web1", "mesh0"));
    assert_eq!(
        (attached.addresses, attached.mac.as_str()),
        (vec!["10.10.3.2".to_owned()], "02:42:0a:0a:03:02")
    );
    assert_eq!((attached.aliases, attached.host_ports.len()), (vec!["shop".to_owned()], 1));
    assert!(!attached.service.is_empty());
    let published = story.mesh.with(|state| state.published.clone());
    assert_eq!(published, ["81:80".parse().unwrap()], "what is open already is not opened again");
    until(|| story.mesh.with(|state| !state.aliases.is_empty())).await;
    let aliases = story.mesh.with(|state| state.aliases.get("docker:e1").cloned()).unwrap();
    assert_eq!(aliases, ["shop", "front"], "neither its own name, its service's nor what is no name");

    let which = json!({"NetworkID": "n1", "EndpointID": "e1"});
    story.ask("NetworkDriver.Leave", which.clone()).await.unwrap();
    assert!(story.mesh.with(|state| state.attached.is_empty()));
    for _ in 0..2 {
        story.ask("NetworkDriver.DeleteEndpoint", which.clone()).await.unwrap();
        let address = json!({"PoolID": pool["PoolID"], "Address": "10.10.3.2"});
        story.ask("IpamDriver.ReleaseAddress", address).await.unwrap();
    }
    assert!(story.mesh.with(|state| state.reserved.is_empty()));
    story.ask("NetworkDriver.DeleteNetwork", json!({"NetworkID": "n1"})).await.unwrap();
    story.ask("IpamDriver.ReleasePool", json!({"PoolID": pool["PoolID"]})).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_comes_later_is_attached_then() {
    let story = Story::begin().await;
    story.create_network("LocalDefault", "172.18.0.0/16").await.unwrap();
    let endpoint = story.create_endpoint("e1", "172.18.0.2/16", json!({})).await.unwrap();
    assert_eq!(endpoint, json!({}), "Docker's own address is its own affair");
    story.container(json!({}));
    let sandbox = story.folder.path().join("sandbox");
    story.join(sandbox.to_str().unwrap()).await.unwrap();
    assert!(story.mesh.with(|state| state.attached.is_empty()));
    // A daemon that has very much to do is asked again.
    let slow = Refusal { code: Code::DeadlineExceeded, message: "no answer".to_owned() };
    story.mesh.with(|state| state.refuse = Some(slow));
    // A link stands for the mount: what it leads to is on another device than the folder.
    std::os::unix::fs::symlink(HERE, &sandbox).unwrap();
    until(|| story.mesh.with(|state| state.refused > 0)).await;
    story.mesh.with(|state| state.refuse = None);
    until(|| story.mesh.with(|state| state.attached.contains_key("docker:e1"))).await;
    let attached = story.mesh.with(|state| state.attached.get("docker:e1").cloned()).unwrap();
    assert!(attached.addresses.is_empty() && attached.mac.is_empty());
}

#[tokio::test]
async fn a_container_that_never_starts_is_not_waited_for() {
    let story = Story::begin().await;
    story.create_network("LocalDefault", "172.18.0.0/16").await.unwrap();
    story.create_endpoint("e1", "", json!({})).await.unwrap();
    story.container(json!({}));
    let sandbox = story.folder.path().join("sandbox");
    story.join(sandbox.to_str().unwrap()).await.unwrap();
    assert!(story.plugin.is_waiting("e1"));
    story.ask("NetworkDriver.Leave", json!({"NetworkID": "n1", "EndpointID": "e1"})).await.unwrap();
    assert!(!story.plugin.is_waiting("e1"));
}

#[tokio::test]
async fn what_is_wrong_with_a_container_is_told_while_docker_listens() {
    let story = Story::begin().await;
    story.create_network("mesh", "10.10.3.0/24").await.unwrap();
    for (labels, words) in [
        (json!({"mesh.service": "shop"}), "meshctl service create --network prod shop"),
        (json!({"mesh.servise": "web"}), "mesh.servise"),
        (json!({"mesh.publish": "80:80"}), "needs mesh.service"),
    ] {
        story.create_endpoint("e1", "10.10.3.2/24", json!({})).await.unwrap();
        story.container(labels);
        let error = story.join("/nonexistent").await.unwrap_err();
        assert!(error.contains(words), "{error}");
        assert!(!story.plugin.is_waiting("e1"));
    }
    // Ports of the mesh, and of other containers.
    let port = json!({"Proto": 6, "Port": 80, "HostPort": 80});
    story.create_endpoint("e1", "", json!({"com.docker.network.portmap": [port]})).await.unwrap();
    story.container(json!({}));
    let error = story.join(HERE).await.unwrap_err();
    assert!(error.contains("service web") && error.contains("80"), "{error}");
    // What the daemon itself refuses.
    story.create_endpoint("e1", "", json!({})).await.unwrap();
    let refusal = Refusal { code: Code::FailedPrecondition, message: "the lease is full".to_owned() };
    story.mesh.with(|state| state.refuse = Some(refusal));
    assert_eq!(story.join(HERE).await.unwrap_err(), "the lease is full");
    // A node that takes no tasks; that another one does not is no reason.
    let (own, other) = (node("n1", Availability::Drain), node("n2", Availability::Drain));
    let id = own.id;
    story.mesh.with(|state| {
        state.refuse = None;
        state.node = own.id.to_string();
        state.view.as_mut().unwrap().nodes.insert(other.id, other);
    });
    story.join(HERE).await.unwrap();
    story.mesh.with(|state| state.view.as_mut().unwrap().nodes.insert(own.id, own));
    let error = story.join(HERE).await.unwrap_err();
    assert!(error.contains("node n1 takes no tasks") && error.contains("--availability active"), "{error}");
    story.mesh.with(|state| state.view.as_mut().unwrap().nodes.remove(&id));
    // An engine that nobody finds, and another one than asks.
    story.engine.lock().unwrap().insert("/networks/n1".to_owned(), json!({"Name": "x"}));
    assert!(story.join(HERE).await.unwrap_err().contains("engine_socket"));
    std::fs::remove_file(story.folder.path().join("docker.sock")).unwrap();
    let error = story.join(HERE).await.unwrap_err();
    assert!(error.contains("docker.sock") && error.contains("engine_socket"), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let story = Story::begin().await;
    let create = |options: Value| json!({"NetworkID": "n1", "Options": {"com.docker.network.generic": options}, "IPv4Data": []});
    let pool = |pool: &str, options: Value| json!({"AddressSpace": "mesh", "Pool": pool, "Options": options});
    let prod = json!({"network": "prod"});
    for (call, body, words) in [
        ("NetworkDriver.CreateNetwork", create(json!({})), "-o network=NAME"),
        ("NetworkDriver.CreateNetwork", json!({"NetworkID": "n1"}), "-o network=NAME"),
        (
            "NetworkDriver.CreateNetwork",
            create(json!({"network": "nope"})),
            "no network nope; there are closed, prod",
        ),
        ("NetworkDriver.CreateNetwork", create(json!({"network": "ingress"})), "published ports only"),
        ("NetworkDriver.CreateNetwork", create(json!({"network": "prod", "mtu": "9"})), "option mtu"),
        (
            "NetworkDriver.CreateNetwork",
            json!({"NetworkID": "n1", "Options": {
                "com.docker.network.generic": {"network": "prod"}, "com.docker.network.internal": true}}),
            "--internal",
        ),
        (
            "NetworkDriver.CreateEndpoint",
            json!({"NetworkID": "n9", "EndpointID": "e1"}),
            "Docker's network n9",
        ),
        (
            "NetworkDriver.Join",
            json!({"NetworkID": "n1", "EndpointID": "e9", "SandboxKey": "/x"}),
            "endpoint e9",
        ),
        ("NetworkDriver.Join", json!([1]), "NetworkDriver.Join: invalid"),
        ("NetworkDriver.Jump", json!({}), "NetworkDriver.Jump"),
        ("IpamDriver.RequestPool", pool("", json!({})), "--ipam-opt network=NAME"),
        ("IpamDriver.RequestPool", pool("", json!({"network": "nope"})), "no network nope"),
        ("IpamDriver.RequestPool", pool("10.9.0.0/24", prod.clone()), "10.10.3.0/24, not 10.9.0.0/24"),
        ("IpamDriver.RequestAddress", json!({"PoolID": "x", "Address": ""}), "\"x\" is no pool"),
    ] {
        let error = story.refused(call, body).await;
        assert!(error.contains(words), "{call}: {error}");
    }
    let error = story.create_network("mesh", "10.10.9.0/24").await.unwrap_err();
    assert!(error.contains("two networks"), "{error}");
    story.create_network("mesh", "10.10.3.0/24").await.unwrap();
    let port = json!({"Proto": 6, "Port": 80, "HostPort": 2377});
    let error =
        story.create_endpoint("e1", "", json!({"com.docker.network.portmap": [port]})).await.unwrap_err();
    assert!(error.contains("2377/tcp") && error.contains("its managers"), "{error}");
    let group =
        json!({"NetworkID": "n1", "EndpointID": "e1", "Interface": {"MacAddress": "01:00:00:00:00:01"}});
    assert!(
        story
            .refused("NetworkDriver.CreateEndpoint", group)
            .await
            .contains("01:00:00:00:00:01 is no address")
    );
    let v6 = json!({"AddressSpace": "mesh", "Options": prod, "V6": true});
    assert!(story.refused("IpamDriver.RequestPool", v6).await.contains("no IPv6 subnet"));
    let gateway = json!({"RequestAddressType": "com.docker.network.gateway"});
    let pool = story.ask("IpamDriver.RequestPool", pool("10.10.3.0/24", prod)).await.unwrap();
    let other = json!({"PoolID": pool["PoolID"], "Address": "10.10.3.9", "Options": gateway});
    assert!(story.refused("IpamDriver.RequestAddress", other).await.contains("is 10.10.3.1, not 10.10.3.9"));
    story.mesh.with(|state| state.view = None);
    let error = story.create_network("mesh", "10.10.3.0/24").await.unwrap_err();
    assert_eq!(error, "in no cluster");
}

#[tokio::test]
async fn a_lost_book_is_written_anew_from_the_engine() {
    let story = Story::begin().await;
    story.container(json!({}));
    story.create_endpoint("e1", "10.10.3.2/24", json!({})).await.unwrap();
    // A daemon that was started again finds what the one before it was told.
    let mut again = story;
    again.plugin = Story::plugin(again.folder.path(), &again.mesh);
    again.join(HERE).await.unwrap();
    let attached = again.mesh.with(|state| state.attached.get("docker:e1").cloned()).unwrap();
    assert_eq!(attached.addresses, ["10.10.3.2"]);
    assert!(again.folder.path().join("book.json").exists());
}
