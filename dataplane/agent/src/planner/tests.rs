use std::path::PathBuf;

use mesh_gossip::{EndpointKey, EndpointTable};
use mesh_lb::{Backend, Frontend, PublishedOn, ServiceEntry};
use mesh_types::{
    Availability, ClusterId, EndpointMode, Generation, Health, Mac, Name, Network, Node, PortConfig,
    Protocol, Role, Service, ServiceId, ServiceNetwork, Subnet, TaskId, Vni,
};

use super::*;
use crate::{Attachment, Drain, NsIdentity, NsRef};

mod families;
mod host_ports;
mod incremental;
mod ports;
mod remembered;

const N1: NodeId = NodeId::from_u128(1);
const N2: NodeId = NodeId::from_u128(2);
const N3: NodeId = NodeId::from_u128(3);
const INGRESS: NetworkId = NetworkId::from_u128(10);
const PROD: NetworkId = NetworkId::from_u128(11);
const TEST: NetworkId = NetworkId::from_u128(12);
const WEB: ServiceId = ServiceId::from_u128(20);
const DRAINING: Drain = Drain::Going { until: 0, least: 0, by_node: false };
const DRAINED: Drain = Drain::Done { cut: 0, by_node: false };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(id: NodeId, address: &str, role: Role) -> Node {
    Node {
        id,
        name: name(&format!("n{}", id.as_u128())),
        role,
        advertise_addr: ip(address),
        data_path_addr: ip(address),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    }
}

fn network(id: NetworkId, label: &str, vni: u32, subnets: &[&str]) -> Network {
    Network {
        id,
        name: name(label),
        vni: Vni::new(vni).unwrap(),
        subnets: subnets.iter().map(|s| Subnet::new(s.parse().unwrap(), None).unwrap()).collect(),
        attachable: true,
        internal: false,
        ingress: id == INGRESS,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        version: 0,
    }
}

fn service(id: ServiceId, label: &str, on: &[(NetworkId, &[&str])], ports: &[&str]) -> Service {
    let network = |(network, vips): &(NetworkId, &[&str])| ServiceNetwork {
        network: *network,
        vips: vips.iter().map(|v| ip(v)).collect(),
        aliases: vec![name("www")],
    };
    Service {
        id,
        name: name(label),
        networks: on.iter().map(network).collect(),
        endpoint_mode: EndpointMode::Vip,
        ports: ports.iter().map(|p| p.parse::<PortConfig>().unwrap()).collect(),
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 0,
    }
}

fn task(id: u32, service: Option<ServiceId>, network: NetworkId, addresses: &[&str]) -> LocalTask {
    let addresses: Vec<_> = addresses.iter().map(|a| ip(a)).collect();
    let id_ = LocalEndpointId(id);
    LocalTask {
        id: TaskId::from_u128(u128::from(id) + 100),
        name: name(&format!("task{id}")),
        service,
        aliases: vec![],
        namespace: NsRef::Path(PathBuf::from("/run/netns/x")),
        namespace_id: NsIdentity { dev: 0, ino: u64::from(id) },
        attachments: vec![Attachment {
            network,
            mac: Mac::of_address(addresses[0]),
            fixed: vec![],
            local_id: id_,
            generation: Generation(1),
            egress4: addresses.iter().find(|a| a.is_ipv4()).and_then(|_| egress_address4(id_)),
            egress6: addresses.iter().find(|a| a.is_ipv6()).and_then(|_| egress_address6(id_)),
            addresses,
            link: format!("msh{id}"),
            task_link: "eth0".into(),
            ifindex: 50 + id,
            aliases: vec![],
            by_service: false,
            owner: None,
            host_ports: vec![],
        }],
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
        health: Health::None,
        health_note: None,
        follows_service: false,
        dns: mesh_types::TaskDns::default(),
    }
}

/// All that a node's plan follows from.
#[derive(Debug, Clone)]
struct World {
    settings: NodeSettings,
    host_addresses: BTreeMap<IpAddr, String>,
    routes: BTreeMap<IpAddr, u32>,
    view: Arc<ClusterView>,
    tasks: Arc<Vec<LocalTask>>,
    attaching: BTreeSet<NetworkId>,
    gossip: Arc<Tables>,
}

impl World {
    /// Two nodes, seen by the first; `prod` and `test` with the same subnet; `web` on `prod`, its port 80 published.
    fn new() -> Self {
        let settings = NodeSettings {
            vtep: ip("192.168.7.1"),
            uplink_ifindex: 2,
            vxlan_ifindex: 3,
            host_ifindex: 4,
            host_mac: Mac([2; 6]),
            inner_mtu: 1450,
            vxlan_port: 4789,
            netns_cookie: 1,
            fast_path: true,
            outer_checksum: false,
        };
        let networks = [
            network(INGRESS, "ingress", 4096, &["10.0.0.0/24"]),
            network(PROD, "prod", 4097, &["10.10.3.0/24"]),
            network(TEST, "test", 4098, &["10.10.3.0/24"]),
        ];
        let nodes = [node(N1, "192.168.7.1", Role::Manager), node(N2, "192.168.7.2", Role::Worker)];
        let web = service(WEB, "web", &[(PROD, &["10.10.3.2"])], &["8080:80"]);
        let view = ClusterView {
            cluster: ClusterId::from_u128(9),
            version: 1,
            nodes: nodes.map(|n| (n.id, n)).into(),
            networks: networks.map(|n| (n.id, n)).into(),
            services: [(WEB, web)].into(),
            gossip_keys: vec![[0; 32]],
            ca_generation: 1,
        };
        Self {
            settings,
            host_addresses: [(ip("192.168.7.1"), "eth0".to_owned())].into(),
            routes: BTreeMap::new(),
            view: Arc::new(view),
            tasks: Arc::default(),
            attaching: BTreeSet::new(),
            gossip: Arc::default(),
        }
    }

    fn view(&mut self) -> &mut ClusterView {
        Arc::make_mut(&mut self.view)
    }

    fn web(&mut self) -> &mut Service {
        self.view().services.get_mut(&WEB).unwrap()
    }

    fn network(&mut self, id: NetworkId) -> &mut Network {
        self.view().networks.get_mut(&id).unwrap()
    }

    fn runs(&mut self, tasks: impl IntoIterator<Item = LocalTask>) {
        self.tasks = Arc::new(tasks.into_iter().collect());
    }

    /// Gossip tells that `from` runs these tasks and no others.
    fn hears(&mut self, from: NodeId, tasks: &[LocalTask]) {
        let told = announcements(from, &self.view, tasks);
        let told: BTreeMap<_, _> =
            told.into_iter().map(|a| ((a.scope, EndpointKey::from(&a.endpoint)), a.endpoint)).collect();
        let tables = Arc::make_mut(&mut self.gossip);
        let held = tables.endpoints.iter().flat_map(|(scope, t)| t.keys().map(move |key| (*scope, *key)));
        let past: Vec<_> = held.filter(|held| held.1.node == from && !told.contains_key(held)).collect();
        for (scope, key) in past {
            tables.endpoints.get_mut(&scope).unwrap().remove(&key);
        }
        for ((scope, key), endpoint) in told {
            if tables.endpoints.get(&scope).is_none() {
                tables.endpoints.insert(scope, EndpointTable::default());
            }
            let table = tables.endpoints.get_mut(&scope).unwrap();
            if table.get(&key).is_none_or(|known| **known != endpoint) {
                table.insert(key, Arc::new(endpoint));
            }
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            settings: self.settings,
            host_addresses: &self.host_addresses,
            routes: &self.routes,
            view: &self.view,
            tasks: &self.tasks,
            attaching: &self.attaching,
            gossip: &self.gossip,
        }
    }

    /// The first node's plan.
    fn plan(&self) -> Planned {
        Planner::new(N1).plan(&self.inputs()).clone()
    }

    fn vni(&self, id: NetworkId) -> Vni {
        self.view.networks[&id].vni
    }
}

impl Planned {
    fn entry(&self, frontend: Frontend) -> Option<&ServiceEntry> {
        let mut all = self.desired.services.values().filter_map(|s| s.frontends.get(&frontend));
        let found = all.next();
        assert!(all.next().is_none(), "two services have {frontend:?}");
        found
    }

    fn published(&self, on: PublishedOn, port: u16) -> Option<&ServiceEntry> {
        self.entry(Frontend::Published { on, port, protocol: Protocol::Tcp })
    }

    fn vip(&self, vni: Vni, address: &str) -> Option<&ServiceEntry> {
        self.entry(Frontend::Vip { vni, address: ip(address) })
    }
}

/// The numbers of the tasks behind a frontend that take new flows, and those that keep theirs.
fn behind(entry: Option<&ServiceEntry>) -> (Vec<u32>, Vec<u32>) {
    let backends = entry.map(|e| e.backends.as_slice()).unwrap_or_default();
    let ids = |draining| backends.iter().filter(move |b| b.draining == draining).map(|b| b.endpoint.0);
    (ids(false).collect(), ids(true).collect())
}

#[test]
fn a_node_without_tasks_still_serves_published_ports() {
    let mut world = World::new();
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    let planned = world.plan();
    let desired = &planned.desired;
    assert!(desired.networks.is_empty() && desired.local.is_empty() && planned.names.is_empty());
    assert_eq!(desired.peers, [(ip("192.168.7.2"), PeerEntry { ifindex: None })].into());
    let port = planned.published(PublishedOn::AnyV4, 8080).unwrap();
    assert_eq!((port.target_port, port.direct, port.affinity), (Some(80), false, None));
    let [Backend { vtep, ifindex, .. }] = port.backends[..] else { panic!("{port:?}") };
    assert_eq!((vtep, ifindex), (ip("192.168.7.2"), None));
    assert_eq!(desired.services[&WEB].frontends.len(), 1, "no VIP where no task is on its network");
    assert!(planned.findings.is_empty());
}

#[test]
fn local_and_remote_tasks_stand_behind_the_vip() {
    let mut world = World::new();
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    world.runs([task(7, Some(WEB), PROD, &["10.10.3.6"])]);
    let (planned, vni) = (world.plan(), world.vni(PROD));
    let vip = planned.vip(vni, "10.10.3.2").unwrap();
    assert_eq!(vip.target_port, None);
    assert_eq!(vip.backends.iter().map(|b| b.ifindex).collect::<Vec<_>>(), [None, Some(57)]);
    let network = &planned.desired.networks[&vni];
    assert_eq!(network.endpoints[&ip("10.10.3.5")].ifindex, None);
    assert_eq!(network.endpoints[&ip("10.10.3.6")].ifindex, Some(57));
    let local = planned.desired.local[&LocalEndpointId(7)];
    assert_eq!((local.v4, local.v6, local.served), (Some(Ipv4Addr::new(10, 10, 3, 6)), None, true));
    let names = &planned.names[&PROD];
    assert_eq!(names.forward.get_by("tasks.web").unwrap().all(), [ip("10.10.3.5"), ip("10.10.3.6")]);
    assert_eq!(names.forward.get_by("www").unwrap().all(), [ip("10.10.3.2")]);
}

#[test]
fn equal_subnets_do_not_meet() {
    let mut world = World::new();
    world.runs([task(1, None, PROD, &["10.10.3.5"]), task(2, None, TEST, &["10.10.3.5"])]);
    let planned = world.plan();
    let ifindex = |network| {
        let network = &planned.desired.networks[&world.vni(network)];
        assert_eq!(network.endpoints.len(), 1);
        network.endpoints[&ip("10.10.3.5")].ifindex
    };
    assert_eq!((ifindex(PROD), ifindex(TEST)), (Some(51), Some(52)));
    assert_eq!(planned.vip(world.vni(TEST), "10.10.3.2"), None);
    assert!(planned.names[&TEST].forward.get_by("web").is_none());
}

#[test]
fn an_endpoint_of_an_unknown_node_is_left_out() {
    let mut world = World::new();
    world.hears(NodeId::from_u128(99), &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    world.runs([task(7, None, PROD, &["10.10.3.6"])]);
    let planned = world.plan();
    assert_eq!(planned.desired.networks[&world.vni(PROD)].endpoints.len(), 1);
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8080)), (vec![], vec![]));
}

#[test]
fn gossip_about_oneself_is_not_believed() {
    let mut world = World::new();
    world.hears(N1, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    assert_eq!(behind(world.plan().published(PublishedOn::AnyV4, 8080)), (vec![], vec![]));
}

#[test]
fn an_address_belongs_to_whom_this_node_gave_it() {
    let mut world = World::new();
    world.hears(N2, &[task(1, None, PROD, &["10.10.3.5"])]);
    world.runs([task(0x7fff, None, PROD, &["10.10.3.5"])]);
    let network = &world.plan().desired.networks[&world.vni(PROD)];
    assert_eq!(network.endpoints[&ip("10.10.3.5")].vtep, ip("192.168.7.1"));
}

#[test]
fn what_drains_keeps_its_flows_and_what_has_drained_is_no_backend() {
    let mut world = World::new();
    let mut tasks: Vec<_> =
        (1..=3).map(|id| task(id, Some(WEB), PROD, &[&format!("10.10.3.{}", id + 4)])).collect();
    tasks[1].drain = DRAINING;
    tasks[2].drain = DRAINED;
    world.hears(N2, &tasks);
    world.runs([task(7, None, PROD, &["10.10.3.9"])]);
    let planned = world.plan();
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8080)), (vec![1], vec![2]));
    assert_eq!(planned.names[&PROD].forward.get_by("tasks.web").unwrap().all(), [ip("10.10.3.5")]);
    assert!(planned.names[&PROD].forward.get_by("task3").is_some(), "it is still there");
    assert_eq!(planned.desired.networks[&world.vni(PROD)].endpoints.len(), 4);
}

#[test]
fn managers_want_every_table_and_workers_their_own() {
    let world = World::new();
    let none = BTreeSet::new();
    assert_eq!(interest(N1, &world.view, &[], &none), Interest::All);
    let tasks = [task(1, None, PROD, &["10.10.3.5"])];
    assert_eq!(interest(N2, &world.view, &tasks, &none), Interest::Networks([INGRESS, PROD].into()));
    let attaching = [TEST].into();
    assert_eq!(interest(N2, &world.view, &[], &attaching), Interest::Networks([INGRESS, TEST].into()));
}

#[test]
fn names_are_there_before_the_task_is() {
    let mut world = World::new();
    world.attaching.insert(PROD);
    let planned = world.plan();
    assert_eq!(planned.names[&PROD].forward.get_by("web").unwrap().all(), [ip("10.10.3.2")]);
    assert!(planned.desired.networks.is_empty());
}

#[test]
fn egress_addresses_stay_in_the_pool() {
    let four = |id| egress_address4(LocalEndpointId(id)).map(|a| a.to_string());
    assert_eq!(four(0), None);
    assert_eq!(four(1).as_deref(), Some("169.254.64.1"));
    assert_eq!(four((1 << 14) - 2).as_deref(), Some("169.254.127.254"));
    assert_eq!(four((1 << 14) - 1), None);
    let six = |id| egress_address6(LocalEndpointId(id)).map(|a| a.to_string());
    assert_eq!(six(0), None);
    assert_eq!(six(0x0102_0304).as_deref(), Some("fd6d:6573:6864::102:304"));
}
