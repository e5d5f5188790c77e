use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_lb::{FlowTask, Frontend, PublishedOn, ServiceEntry, ServicePlan};
use mesh_types::{
    Availability, ClusterId, ClusterView, EndpointMode, EndpointState, Generation, Health, LocalEndpointId,
    Mac, Name, Network, NetworkId, Node, NodeId, Role, Service, ServiceNetwork, Subnet,
};

use super::*;
use crate::flows::{FlowNames, NamedFlow};

const NODE: NodeId = NodeId::from_u128(1);
const OTHER: NodeId = NodeId::from_u128(2);
const PROD: NetworkId = NetworkId::from_u128(11);
const WEB: ServiceId = ServiceId::from_u128(20);
const VNI: u32 = 4097;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn vni() -> Vni {
    Vni::new(VNI).unwrap()
}

fn node(id: NodeId, label: &str, address: &str) -> (NodeId, Node) {
    let node = Node {
        id,
        name: name(label),
        role: Role::Worker,
        advertise_addr: ip(address),
        data_path_addr: ip(address),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    };
    (id, node)
}

fn view() -> ClusterView {
    let network = Network {
        id: PROD,
        name: name("prod"),
        vni: vni(),
        subnets: vec![Subnet::new("10.10.3.0/24".parse().unwrap(), None).unwrap()],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        version: 0,
    };
    let service = Service {
        id: WEB,
        name: name("web"),
        networks: vec![ServiceNetwork { network: PROD, vips: vec![ip("10.10.3.2")], aliases: vec![] }],
        endpoint_mode: EndpointMode::Vip,
        ports: vec!["8080:80".parse().unwrap()],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 0,
    };
    ClusterView {
        cluster: ClusterId::from_u128(1),
        version: 1,
        nodes: [node(NODE, "n1", "192.0.2.1"), node(OTHER, "n2", "192.0.2.2")].into(),
        networks: [(PROD, network)].into(),
        services: [(WEB, service)].into(),
        gossip_keys: vec![],
        ca_generation: 0,
    }
}

fn endpoint(id: u32, label: &str, node: NodeId, service: Option<ServiceId>) -> Endpoint {
    let address = ip(&format!("10.10.3.{id}"));
    Endpoint {
        network: PROD,
        node,
        task: TaskId::from_u128(u128::from(id)),
        name: name(label),
        service,
        addresses: vec![address],
        mac: Mac::of_address(address),
        local_id: LocalEndpointId(id),
        generation: Generation(1),
        aliases: vec![],
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    }
}

fn names() -> FlowNames {
    let entry = |target_port| ServiceEntry { affinity: None, direct: false, target_port, backends: vec![] };
    let frontends = [
        (Frontend::Vip { vni: vni(), address: ip("10.10.3.2") }, entry(None)),
        (
            Frontend::Published { on: PublishedOn::AnyV4, port: 8080, protocol: Protocol::Tcp },
            entry(Some(80)),
        ),
    ];
    let plan = ServicePlan { number: 1, frontends: frontends.into() };
    let endpoints = vec![endpoint(9, "probe", NODE, None), endpoint(5, "web.1", OTHER, Some(WEB))];
    FlowNames::new(NODE, Arc::new(view()), &[(WEB, Arc::new(plan))].into(), endpoints, &[])
}

/// From the task `probe` to the VIP of `web`.
fn by_vip() -> FlowEntry {
    FlowEntry {
        vni: Some(vni()),
        protocol: 6,
        client: at("10.10.3.9:40000"),
        client_task: None,
        front: at("10.10.3.2:80"),
        task: Some(FlowTask {
            vni: vni(),
            address: ip("10.10.3.5"),
            port: None,
            vtep: ip("192.0.2.2"),
            here: false,
        }),
        entrance: None,
        state: FlowState::Established,
        idle: Duration::ZERO,
    }
}

/// From outside to the port that `web` publishes.
fn by_port() -> FlowEntry {
    FlowEntry {
        vni: None,
        client: at("203.0.113.9:50000"),
        front: at("192.0.2.1:8080"),
        state: FlowState::New,
        ..by_vip()
    }
}

fn filter(change: impl FnOnce(&mut FlowFilter)) -> FlowFilter {
    let mut filter = FlowFilter::default();
    change(&mut filter);
    filter
}

/// Which of the two flows a filter admits.
fn admitted(filter: &FlowFilter) -> (bool, bool) {
    let names = names();
    let wanted = filter.resolve(&names).unwrap();
    (wanted.admits(&by_vip(), &names), wanted.admits(&by_port(), &names))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn kinds_hold_all_and_of_one_kind_any() {
    assert_eq!(admitted(&FlowFilter::default()), (true, true));
    assert_eq!(admitted(&filter(|f| f.services = words(&["web"]))), (true, true));
    assert_eq!(admitted(&filter(|f| f.networks = words(&["prod"]))), (true, true));
    assert_eq!(admitted(&filter(|f| f.states = words(&["new"]))), (false, true));
    assert_eq!(admitted(&filter(|f| f.states = words(&["new", "established"]))), (true, true));
    assert_eq!(admitted(&filter(|f| f.ports = vec![80, 81])), (true, false));
    assert_eq!(admitted(&filter(|f| f.protocols = words(&["udp"]))), (false, false));
    assert_eq!(admitted(&filter(|f| f.clients = words(&["203.0.113.0/24"]))), (false, true));
    assert_eq!(admitted(&filter(|f| f.clients = words(&["10.10.3.9"]))), (true, false));
    assert_eq!(admitted(&filter(|f| f.clients = words(&["probe"]))), (true, false));
    assert_eq!(admitted(&filter(|f| f.tasks = words(&["web.1"]))), (true, true));
    assert_eq!(admitted(&filter(|f| f.tasks = words(&["probe"]))), (true, false));
    let both = filter(|f| (f.tasks, f.states) = (words(&["web.1"]), words(&["new"])));
    assert_eq!(admitted(&both), (false, true));
}

#[test]
fn nonsense_is_told_what_there_is() {
    let names = names();
    let told = |filter: FlowFilter| filter.resolve(&names).unwrap_err().to_string();
    assert_eq!(told(filter(|f| f.services = words(&["nobody"]))), "no such service: nobody");
    assert_eq!(told(filter(|f| f.networks = words(&["x"]))), "no such network: x");
    assert!(told(filter(|f| f.tasks = words(&["x"]))).starts_with("no such task: x (this node knows"));
    let error = told(filter(|f| f.clients = words(&["10.0.0.0/33"])));
    assert!(error.contains("\"10.0.0.0/33\" is no address, no range such as"), "{error}");
    let error = told(filter(|f| f.states = words(&["open"])));
    assert_eq!(
        error,
        "state \"open\" is not known; there are new, answered, established, closing, closed, reset"
    );
    let error = told(filter(|f| f.protocols = words(&["esp"])));
    assert_eq!(error, "protocol \"esp\" is not known; there are tcp, udp, sctp, icmp, icmpv6");
}

#[test]
fn a_flow_is_told_with_names() {
    let NamedFlow { client, service, network, task, task_address, node, entrance, .. } =
        names().named(by_port());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((client, service, network), (None, text("web"), text("prod")));
    assert_eq!((task, task_address), (text("web.1"), Some(at("10.10.3.5:80"))));
    assert_eq!((node, entrance), (text("n2"), text("n1")));
    let vip = names().named(by_vip());
    assert_eq!((vip.client, vip.task_address), (text("probe"), Some(at("10.10.3.5:80"))));
    // By a socket of another node.
    let by_socket =
        FlowEntry { front: at("169.254.63.1:8080"), entrance: Some(ip("192.0.2.2")), ..by_port() };
    let named = names().named(by_socket);
    assert_eq!((named.client, named.service), (text("n2"), text("web")));
    // Whoever has gone has no name, and the flow is told all the same.
    let gone = names().named(FlowEntry { task: None, ..by_vip() });
    assert_eq!((gone.task, gone.task_address, gone.service), (None, None, text("web")));
}
