//! What planning costs on a node that knows 100,000 endpoints, 10,000 published services and 1,000 networks:
//! `cargo run --release -p mesh-agent --example plan_at_scale [endpoints services networks]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_agent::{
    Attachment, Drain, LocalTask, NsIdentity, NsRef,
    planner::{Inputs, Planned, Planner},
};
use mesh_gossip::{EndpointTable, Tables};
use mesh_lb::NodeSettings;
use mesh_types::{
    Availability, ClusterId, ClusterView, Endpoint, EndpointMode, EndpointState, Generation, Health,
    LocalEndpointId, Mac, Name, Network, NetworkId, Node, NodeId, PortConfig, Protocol, Role, Service,
    ServiceId, ServiceNetwork, Subnet, TaskId, Vni,
};

const NODES: u32 = 100;
const INGRESS: u128 = 1;
/// Changes that a figure is the median of.
const ROUNDS: u32 = 200;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let given: Vec<u32> =
        std::env::args().skip(1).map(|a| a.parse()).collect::<std::result::Result<_, _>>()?;
    let [endpoints, services, networks] = match given[..] {
        [] => [100_000, 10_000, 1_000],
        [endpoints, services, networks] => [endpoints, services, networks],
        _ => return Err("give no numbers, or three: endpoints services networks".into()),
    };
    let mut world = World::new(endpoints, services, networks)?;
    println!("{endpoints} endpoints, {services} services, {networks} networks, {NODES} nodes");
    println!("resident before planning       {:>9} KiB", resident()?);

    let mut planner = Planner::new(node_id(0));
    let begin = Instant::now();
    let planned = planner.plan(&world.inputs());
    println!("first plan                     {:>12?}", begin.elapsed());
    check(planned, endpoints, services, networks)?;
    println!("resident with one plan         {:>9} KiB", resident()?);

    let unchanged = (0..ROUNDS).map(|_| replan(&mut planner, &world));
    report("nothing changed", unchanged.collect());

    let mut told = Vec::new();
    let mut planned = Vec::new();
    for round in 0..ROUNDS {
        // Far apart, so that no round finds the last one's memory warm.
        let number = (round * 7919) % endpoints;
        told.push(timed(|| world.change_endpoint(number)));
        planned.push(replan(&mut planner, &world));
    }
    report("one endpoint, in the tables", told);
    report("one endpoint, the plan", planned);

    let mut planned = Vec::new();
    for round in 0..20 {
        Arc::make_mut(&mut world.view)
            .services
            .entry(service_id(round))
            .and_modify(|s| s.prefer_local ^= true);
        planned.push(replan(&mut planner, &world));
    }
    report("one service, the plan", planned);

    let mut planned = Vec::new();
    for round in 0..20 {
        let tasks = Arc::make_mut(&mut world.tasks);
        tasks[round].weight += 1;
        planned.push(replan(&mut planner, &world));
    }
    report("one own task, the plan", planned);

    let gone = timed(|| world.lose_node(node_id(1)));
    let plan = replan(&mut planner, &world);
    println!(
        "a node's end ({:>6} endpoints)  {:>12?} in the tables, {plan:?} the plan",
        endpoints / NODES,
        gone
    );
    Ok(())
}

fn replan(planner: &mut Planner, world: &World) -> Duration {
    timed(|| {
        drop(std::hint::black_box(
            planner.plan(&world.inputs()).desired.services.get(&service_id(0)).cloned(),
        ))
    })
}

fn timed(run: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    run();
    begin.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{what:<31}{:>12?} median, {:?} p99", at(50), at(99));
}

/// The figures are of the work that they are said to be of.
fn check(planned: &Planned, endpoints: u32, services: u32, networks: u32) -> Result<()> {
    let known: usize = planned.desired.networks.values().map(|n| n.endpoints.len()).sum();
    let fronts: usize = planned.desired.services.values().map(|s| s.frontends.len()).sum();
    let own = networks as usize;
    // Each service has a VIP and a port in each family; each endpoint an address of each.
    if known != 2 * (endpoints as usize + own)
        || fronts != 4 * services as usize
        || planned.names.len() != own
    {
        return Err(format!("{known} addresses, {fronts} frontends, {} networks", planned.names.len()).into());
    }
    Ok(())
}

/// Kibibytes of memory of this process.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn node_id(n: u32) -> NodeId {
    NodeId::from_u128(u128::from(n) + 1)
}

fn network_id(n: u32) -> NetworkId {
    NetworkId::from_u128(u128::from(n) + INGRESS + 1)
}

/// Ids as random ones are spread.
fn service_id(n: u32) -> ServiceId {
    ServiceId::from_u128(u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn task_id(n: u32) -> TaskId {
    TaskId::from_u128(u128::from(n + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9_94d0_49bb_1331_11eb))
}

/// Addresses of a host in a network: the same in every network, since they may overlap.
fn addresses(host: u32) -> Vec<IpAddr> {
    let four = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + host);
    let six = Ipv6Addr::from(0xfd00_0064_u128 << 96 | u128::from(host));
    vec![four.into(), six.into()]
}

struct World {
    settings: NodeSettings,
    host_addresses: BTreeMap<IpAddr, String>,
    routes: BTreeMap<IpAddr, u32>,
    view: Arc<ClusterView>,
    tasks: Arc<Vec<LocalTask>>,
    attaching: BTreeSet<NetworkId>,
    gossip: Arc<Tables>,
    networks: u32,
    services: u32,
}

impl World {
    fn new(endpoints: u32, services: u32, networks: u32) -> Result<Self> {
        let vtep = IpAddr::from([192, 168, 0, 1]);
        let settings = NodeSettings {
            vtep,
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
        let mut world = Self {
            settings,
            host_addresses: [(vtep, "eth0".to_owned())].into(),
            routes: BTreeMap::new(),
            view: Arc::new(view(services, networks)?),
            tasks: Arc::new((0..networks).map(own_task).collect::<Result<_>>()?),
            attaching: BTreeSet::new(),
            gossip: Arc::default(),
            networks,
            services,
        };
        for number in 0..endpoints {
            let endpoint = world.endpoint(number)?;
            world.tell(endpoint);
        }
        Ok(world)
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

    /// Another node's endpoint.
    fn endpoint(&self, number: u32) -> Result<Endpoint> {
        let service = number % self.services;
        let addresses = addresses(100_000 + number);
        Ok(Endpoint {
            network: network_id(service % self.networks),
            node: node_id(1 + number % (NODES - 1)),
            task: task_id(number),
            name: Name::new(format!("task{number}"))?,
            service: Some(service_id(service)),
            mac: Mac::of_address(addresses[0]),
            addresses,
            local_id: LocalEndpointId(1 + number / (NODES - 1)),
            generation: Generation(1),
            aliases: vec![],
            state: EndpointState::Ready,
            weight: 1,
            health: Health::None,
            health_note: None,
        })
    }

    /// As gossip takes news in: the table of its network, and that of the ingress network.
    fn tell(&mut self, endpoint: Endpoint) {
        let endpoint = Arc::new(endpoint);
        let tables = &mut Arc::make_mut(&mut self.gossip).endpoints;
        for scope in [endpoint.network, NetworkId::from_u128(INGRESS)] {
            if tables.get(&scope).is_none() {
                tables.insert(scope, EndpointTable::default());
            }
            if let Some(table) = tables.get_mut(&scope) {
                table.insert((&*endpoint).into(), endpoint.clone());
            }
        }
    }

    fn change_endpoint(&mut self, number: u32) {
        if let Ok(mut endpoint) = self.endpoint(number) {
            endpoint.state = EndpointState::Draining;
            self.tell(endpoint);
        }
    }

    fn lose_node(&mut self, node: NodeId) {
        let tables = &mut Arc::make_mut(&mut self.gossip).endpoints;
        let theirs = tables.iter().flat_map(|(scope, t)| t.keys().map(move |key| (*scope, *key)));
        for (scope, key) in theirs.filter(|(_, key)| key.node == node).collect::<Vec<_>>() {
            tables.get_mut(&scope).and_then(|table| table.remove(&key));
        }
    }
}

/// One task of this node on each network, so that all of them are its concern.
fn own_task(number: u32) -> Result<LocalTask> {
    let addresses = addresses(10 + number);
    let attachment = Attachment {
        network: network_id(number),
        mac: Mac::of_address(addresses[0]),
        addresses,
        fixed: vec![],
        local_id: LocalEndpointId(1 + number),
        generation: Generation(1),
        egress4: None,
        egress6: None,
        link: format!("msh{number:08x}"),
        task_link: "eth0".into(),
        ifindex: 100 + number,
        aliases: vec![],
        by_service: false,
        owner: None,
        host_ports: vec![],
    };
    Ok(LocalTask {
        id: task_id(1_000_000 + number),
        name: Name::new(format!("own{number}"))?,
        service: None,
        aliases: vec![],
        namespace: NsRef::Pid(number),
        namespace_id: NsIdentity { dev: 0, ino: number.into() },
        attachments: vec![attachment],
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
        health: Health::None,
        health_note: None,
        follows_service: false,
        dns: mesh_types::TaskDns::default(),
    })
}

fn view(services: u32, networks: u32) -> Result<ClusterView> {
    let subnets =
        vec![Subnet::new("10.64.0.0/10".parse()?, None)?, Subnet::new("fd00:64::/64".parse()?, None)?];
    let network = |id: NetworkId, label: String, vni: u32| -> Result<Network> {
        Ok(Network {
            id,
            name: Name::new(label)?,
            vni: Vni::new(vni)?,
            subnets: subnets.clone(),
            attachable: true,
            internal: false,
            ingress: vni == 4096,
            mtu: None,
            labels: BTreeMap::new(),
            created_at: 0,
            ip_ranges: vec![],
            aux_addresses: BTreeMap::new(),
            version: 0,
        })
    };
    let service = |n: u32| -> Result<Service> {
        Ok(Service {
            id: service_id(n),
            name: Name::new(format!("service{n}"))?,
            networks: vec![ServiceNetwork {
                network: network_id(n % networks),
                vips: addresses(50_000 + n),
                aliases: vec![],
            }],
            endpoint_mode: EndpointMode::Vip,
            ports: vec![PortConfig::new(1 + (n % 65_000) as u16, 80, Protocol::Tcp)],
            affinity: None,
            prefer_local: false,
            drain_timeout_secs: 30,
            health: None,
            labels: BTreeMap::new(),
            created_at: 0,
            version: 0,
        })
    };
    let node = |n: u32| -> Result<Node> {
        let address = IpAddr::from([192, 168, 0, 1 + n as u8]);
        Ok(Node {
            id: node_id(n),
            name: Name::new(format!("n{n}"))?,
            role: Role::Worker,
            advertise_addr: address,
            data_path_addr: address,
            availability: Availability::Active,
            labels: BTreeMap::new(),
            joined_at: 0,
            version: 0,
        })
    };
    let mut view = ClusterView {
        cluster: ClusterId::from_u128(1),
        version: 1,
        nodes: BTreeMap::new(),
        networks: BTreeMap::new(),
        services: BTreeMap::new(),
        gossip_keys: vec![],
        ca_generation: 1,
    };
    for n in 0..NODES {
        view.nodes.insert(node_id(n), node(n)?);
    }
    let ingress = NetworkId::from_u128(INGRESS);
    view.networks.insert(ingress, network(ingress, "ingress".into(), 4096)?);
    for n in 0..networks {
        view.networks.insert(network_id(n), network(network_id(n), format!("net{n}"), 4097 + n)?);
    }
    for n in 0..services {
        view.services.insert(service_id(n), service(n)?);
    }
    Ok(view)
}
