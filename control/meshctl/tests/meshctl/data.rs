//! A cluster of three nodes, two networks beside the ingress one, two services, four tasks.

use std::collections::BTreeMap;

use mesh_api::v1;

pub const CLUSTER: &str = "1cluster00000000000000000";
pub const NODE_1: &str = "1node00000000000000000000";
pub const NODE_2: &str = "2node00000000000000000000";
pub const NODE_3: &str = "3node00000000000000000000";
pub const INGRESS: &str = "1net000000000000000000000";
pub const PROD: &str = "2net000000000000000000000";
pub const TEST: &str = "3net000000000000000000000";
pub const SPARE: &str = "4net000000000000000000000";
pub const WEB: &str = "1svc000000000000000000000";
pub const DB: &str = "2svc000000000000000000000";
pub const TASK_WEB_1: &str = "1task00000000000000000000";
pub const TASK_WEB_2: &str = "2task00000000000000000000";
pub const TASK_DB: &str = "3task00000000000000000000";
pub const TASK_PROBE: &str = "4task00000000000000000000";

fn node(id: &str, name: &str, role: v1::Role, address: &str) -> v1::Node {
    v1::Node {
        id: id.to_owned(),
        name: name.to_owned(),
        role: role.into(),
        advertise_addr: address.to_owned(),
        data_path_addr: address.to_owned(),
        availability: v1::Availability::Active.into(),
        labels: BTreeMap::new(),
        joined_at: 1_700_000_000,
        version: 2,
    }
}

fn network(id: &str, name: &str, vni: u32, subnet: (&str, &str)) -> v1::Network {
    v1::Network {
        id: id.to_owned(),
        name: name.to_owned(),
        vni,
        subnets: vec![v1::Subnet { net: subnet.0.to_owned(), gateway: subnet.1.to_owned() }],
        created_at: 1_700_000_000,
        ..Default::default()
    }
}

fn place(network: &str, vips: &[&str], aliases: &[&str]) -> v1::ServiceNetwork {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    v1::ServiceNetwork { network_id: network.to_owned(), vips: texts(vips), aliases: texts(aliases) }
}

fn port(published: u32, target: u32, protocol: v1::Protocol) -> v1::Port {
    v1::Port { published, target, protocol: protocol.into(), ..v1::Port::default() }
}

pub fn view() -> v1::ClusterView {
    let ingress =
        v1::Network { ingress: true, ..network(INGRESS, "ingress", 4096, ("10.0.0.0/24", "10.0.0.1")) };
    let test = v1::Network {
        attachable: true,
        internal: true,
        mtu: 1400,
        labels: [("team".to_owned(), "web".to_owned())].into(),
        ..network(TEST, "test", 4098, ("10.10.4.0/24", "10.10.4.254"))
    };
    let web = v1::Service {
        id: WEB.to_owned(),
        name: "web".to_owned(),
        networks: vec![place(PROD, &["10.10.3.2"], &["www"])],
        endpoint_mode: v1::EndpointMode::Vip.into(),
        ports: vec![port(80, 80, v1::Protocol::Tcp), port(8053, 53, v1::Protocol::Udp)],
        labels: BTreeMap::new(),
        created_at: 1_700_000_000,
        affinity: Some(v1::Affinity { timeout_secs: 1800 }),
        prefer_local: true,
        drain_timeout_secs: 90,
        health: Some(v1::HealthCheck {
            probe: "http:80/ready".to_owned(),
            interval_secs: Some(5),
            ..v1::HealthCheck::default()
        }),
        version: 17,
    };
    let db = v1::Service {
        id: DB.to_owned(),
        name: "db".to_owned(),
        networks: vec![place(PROD, &[], &[]), place(TEST, &[], &[])],
        endpoint_mode: v1::EndpointMode::Dnsrr.into(),
        health: None,
        ..web.clone()
    };
    v1::ClusterView {
        cluster_id: CLUSTER.to_owned(),
        version: 17,
        nodes: vec![
            node(NODE_1, "n1", v1::Role::Manager, "192.168.1.1"),
            node(NODE_2, "n2", v1::Role::Worker, "192.168.1.2"),
            node(NODE_3, "n3", v1::Role::Worker, "192.168.1.3"),
        ],
        networks: vec![ingress, network(PROD, "prod", 4097, ("10.10.3.0/24", "10.10.3.1")), test],
        services: vec![web, v1::Service { ports: Vec::new(), ..db }],
        gossip_keys: Vec::new(),
        ca_generation: 1,
    }
}

fn endpoint(task: &str, name: &str, service: &str, node: &str, network: &str, address: &str) -> v1::Endpoint {
    v1::Endpoint {
        network_id: network.to_owned(),
        node_id: node.to_owned(),
        task_id: task.to_owned(),
        name: name.to_owned(),
        service_id: service.to_owned(),
        addresses: vec![address.to_owned()],
        mac: "02:42:0a:0a:03:03".to_owned(),
        local_id: 1,
        generation: 1,
        aliases: Vec::new(),
        state: v1::EndpointState::Ready.into(),
        weight: 1,
        health: v1::Health::None.into(),
        health_note: String::new(),
    }
}

pub fn endpoints() -> Vec<v1::Endpoint> {
    let web_1 = endpoint(TASK_WEB_1, "web.1", WEB, NODE_1, PROD, "10.10.3.3");
    let web_1 = v1::Endpoint { health: v1::Health::Healthy.into(), ..web_1 };
    let web_2 = endpoint(TASK_WEB_2, "web.2", WEB, NODE_2, PROD, "10.10.3.4");
    vec![
        web_1.clone(),
        // As announced on the ingress network.
        web_1,
        v1::Endpoint {
            state: v1::EndpointState::Draining.into(),
            health: v1::Health::Unhealthy.into(),
            health_note: "GET /ready: status 500".to_owned(),
            ..web_2
        },
        endpoint(TASK_DB, "db.1", DB, NODE_2, PROD, "10.10.3.5"),
        endpoint(TASK_DB, "db.1", DB, NODE_2, TEST, "10.10.4.1"),
        endpoint(TASK_PROBE, "probe", "", NODE_1, TEST, "10.10.4.2"),
    ]
}

/// Of the third node; the last one is on a port that nobody publishes.
pub fn listeners() -> Vec<v1::NodeListeners> {
    let listener = |port: u32, process: &str, pid: u32| v1::Listener {
        port,
        protocol: v1::Protocol::Tcp.into(),
        address: "0.0.0.0".to_owned(),
        process: process.to_owned(),
        pid,
    };
    let listeners = vec![listener(80, "nginx", 123), listener(80, "", 0), listener(443, "caddy", 124)];
    vec![v1::NodeListeners { node_id: NODE_3.to_owned(), listeners }]
}

pub fn status() -> v1::StatusResponse {
    let member =
        |id: &str, state: v1::MemberState| v1::Member { node_id: id.to_owned(), state: state.into() };
    let hook = |interface: &str, program: &str| v1::Hook {
        interface: interface.to_owned(),
        program: program.to_owned(),
        kind: "tcx".to_owned(),
    };
    v1::StatusResponse {
        version: "0.1.0".to_owned(),
        state: "active".to_owned(),
        cluster_id: CLUSTER.to_owned(),
        node_id: NODE_1.to_owned(),
        node_name: "n1".to_owned(),
        role: v1::Role::Manager.into(),
        advertise_addr: "192.168.1.1".to_owned(),
        data_path_addr: "192.168.1.1".to_owned(),
        managers: vec!["192.168.1.1:2377".to_owned()],
        manager_session: "connected to 192.168.1.1:2377".to_owned(),
        view_version: 17,
        decided_version: 17,
        members: vec![
            member(NODE_1, v1::MemberState::Alive),
            member(NODE_2, v1::MemberState::Alive),
            member(NODE_3, v1::MemberState::Down),
        ],
        tasks: 2,
        data_path: Some(v1::DataPathStatus {
            path: "fast".to_owned(),
            uplink: "eth0".to_owned(),
            uplink_mtu: 1500,
            task_mtu: 1450,
            hooks: vec![hook("eth0", "uplink"), hook("msh00000001", "from_task")],
            drops: [
                ("spoofed_source".to_owned(), 3),
                ("unknown_vni".to_owned(), 0),
                ("no_backend".to_owned(), 12),
            ]
            .into(),
            packets: [("fast".to_owned(), 1000), ("general".to_owned(), 0)].into(),
            features: vec!["netkit: not in this kernel".to_owned()],
            uplinks: vec![v1::Uplink {
                interface: "eth0".to_owned(),
                hook: "tcx".to_owned(),
                reason: "veth".to_owned(),
                mtu: 1500,
            }],
            flows: vec![v1::FlowTable { name: "choices".to_owned(), used: 50, capacity: 1000 }],
            maps: vec![v1::FlowTable { name: "ENDPOINTS".to_owned(), used: 3, capacity: 65_536 }],
        }),
        leases: Some(v1::LeaseStatus { left_secs: 129_600, unconfirmed: 0 }),
        warnings: vec!["the clock is off by 3 s".to_owned()],
        listeners: listeners().remove(0).listeners.into_iter().take(1).collect(),
        gossip: Some(gossip()),
        log: None,
        traces: None,
    }
}

/// A node that hears of a difference, of which nothing is known yet.
pub fn gossip() -> v1::GossipStatus {
    let member = |id: &str, state: v1::MemberState, statement, behind_millis: Option<u64>| v1::GossipMember {
        node_id: id.to_owned(),
        state: state.into(),
        address: "192.168.1.1:7946".to_owned(),
        lasted_millis: 125_000,
        incarnation: 1000,
        statement,
        entries: 2,
        behind_millis,
    };
    v1::GossipStatus {
        incarnation: 1000,
        statements: 12,
        tables: 2,
        tables_behind: 1,
        behind_millis: 1250,
        equal_millis: Some(3400),
        datagrams_in_per_second: 12.3,
        datagrams_out_per_second: 13.0,
        bytes_in_per_second: 1800.0,
        bytes_out_per_second: 1900.4,
        syncs_equal: 7,
        refused: [("forged".to_owned(), 2), ("replayed".to_owned(), 0)].into(),
        members: vec![
            member(NODE_1, v1::MemberState::Alive, 12, None),
            member(NODE_2, v1::MemberState::Suspect, 5, Some(1250)),
            member(NODE_3, v1::MemberState::Down, 3, None),
        ],
        ..v1::GossipStatus::default()
    }
}

/// All that it knows.
pub fn gossip_dump() -> v1::DumpGossipResponse {
    use v1::gossip_entry::Content;
    let table = |network_id: &str, digest, behind_millis: Option<u64>| v1::GossipTable {
        network_id: network_id.to_owned(),
        entries: 2,
        tombstones: 1,
        digest,
        equal_millis: Some(3400).filter(|_| behind_millis.is_none()),
        behind_millis,
    };
    let entry = |owner: &str, statement, counts, content| v1::GossipEntry {
        table: PROD.to_owned(),
        owner: owner.to_owned(),
        incarnation: 1000,
        statement,
        counts,
        content: Some(content),
    };
    let endpoints = endpoints();
    let web_2 = endpoints.iter().find(|endpoint| endpoint.name == "web.2").unwrap();
    let gone = v1::GossipTombstone {
        task_id: web_2.task_id.clone(),
        network_id: PROD.to_owned(),
        age_millis: 61_000,
    };
    let wants = v1::GossipInterest { all: false, networks: vec![PROD.to_owned()] };
    v1::DumpGossipResponse {
        node_id: NODE_1.to_owned(),
        node_name: "n1".to_owned(),
        status: Some(gossip()),
        tables: vec![table("", 0x0102, None), table(PROD, 0xfeed_0000_0000_0001, Some(1250))],
        entries: vec![
            v1::GossipEntry { table: String::new(), ..entry(NODE_1, 1, true, Content::Interest(wants)) },
            entry(NODE_1, 12, true, Content::Endpoint(endpoints[0].clone())),
            entry(NODE_2, 5, true, Content::Gone(gone)),
            entry(
                NODE_3,
                3,
                false,
                Content::Endpoint(v1::Endpoint { node_id: NODE_3.to_owned(), ..web_2.clone() }),
            ),
        ],
    }
}

/// A network that was made and a service that changed, a minute later.
pub fn events() -> Vec<v1::Event> {
    let event = |minute: u64, kind: &str, action: &str, id: &str, name: &str| v1::Event {
        time_millis: 1_700_000_000_250 + minute * 60_000,
        version: 17 + minute,
        kind: kind.to_owned(),
        action: action.to_owned(),
        id: id.to_owned(),
        name: name.to_owned(),
        attributes: BTreeMap::new(),
    };
    let made = event(0, "network", "create", PROD, "prod");
    let changed = event(1, "service", "update", WEB, "web");
    let ports =
        [("labels".to_owned(), String::new()), ("ports".to_owned(), "80:80/tcp 81:81/tcp".to_owned())];
    vec![made, v1::Event { attributes: ports.into(), ..changed }]
}

/// The only manager.
pub fn managers() -> Vec<v1::ManagerStatus> {
    vec![v1::ManagerStatus { node_id: NODE_1.to_owned(), leader: true, voter: true, reachable: true }]
}

/// A flow by a published port and one by a VIP.
pub fn flows() -> Vec<v1::Flow> {
    let by_port = v1::Flow {
        protocol: "tcp".to_owned(),
        client_address: "203.0.113.9".to_owned(),
        client_port: 50_000,
        address: "192.168.1.1".to_owned(),
        port: 80,
        service: "web".to_owned(),
        network: "prod".to_owned(),
        task: "web.2".to_owned(),
        task_address: "10.10.3.4".to_owned(),
        task_port: 80,
        node: "n2".to_owned(),
        entrance: "n1".to_owned(),
        state: "established".to_owned(),
        idle_millis: 3_000,
        ..v1::Flow::default()
    };
    let gone = v1::Flow {
        client_address: "10.10.3.9".to_owned(),
        client: "probe".to_owned(),
        address: "10.10.3.2".to_owned(),
        task: String::new(),
        task_address: String::new(),
        task_port: 0,
        node: String::new(),
        state: "new".to_owned(),
        idle_millis: 400_000,
        ..by_port.clone()
    };
    vec![by_port, gone]
}

/// What would become of a packet.
pub fn trace(dropped: bool) -> v1::TraceResponse {
    let step = |node: &str, place: &str, found: &[&str], verdict: &str| v1::TraceStep {
        node: node.to_owned(),
        place: place.to_owned(),
        found: found.iter().map(|line| (*line).to_owned()).collect(),
        verdict: verdict.to_owned(),
    };
    let text = |text: &str| text.to_owned();
    let resolver = step("n1", "the task's resolver", &["web. A: 10.10.3.2 (a name)"], "web is 10.10.3.2");
    if dropped {
        let steps = vec![resolver, step("n1", "from_task", &[], "dropped: no-backend")];
        let (fate, reason) = (text("dropped"), text("no-backend"));
        return v1::TraceResponse { steps, fate, text: text("the service has no task"), reason, back: None };
    }
    let sent =
        step("n1", "from_task", &["10.10.3.2 is the virtual address of service web"], "sent to node n2");
    let steps = vec![resolver, sent, step("n2", "uplink", &[], "into task web.2")];
    let (fate, reason) = (text("delivered"), String::new());
    let back = v1::TraceBack {
        steps: vec![step("n2", "from_task", &["task web.2 answers"], "sent to node n1")],
        fate: text("delivered"),
        text: text("task probe gets it"),
        reason: String::new(),
    };
    v1::TraceResponse { steps, fate, text: text("task web.2 gets it"), reason, back: Some(back) }
}

/// What a node counted, after so many seconds.
pub fn snapshot(seconds: u64) -> v1::NodeSnapshot {
    let traffic = |times: u64| {
        Some(v1::Traffic {
            bytes_in: 1000 * times * seconds,
            bytes_out: 2_000_000 * times * seconds,
            new_flows: times * seconds,
            ..v1::Traffic::default()
        })
    };
    let front = v1::FrontendCounts { traffic: traffic(5), ..v1::FrontendCounts::default() };
    let web = v1::ServiceCounts {
        service_id: WEB.to_owned(),
        name: "web".to_owned(),
        tasks: 2,
        ready: 1,
        flows: 7,
        frontends: vec![front],
    };
    let task = |task: &str, times| v1::EndpointCounts {
        task_id: task.to_owned(),
        task: task.to_owned(),
        network: "prod".to_owned(),
        flows: 3 * times,
        traffic: traffic(times),
        ..v1::EndpointCounts::default()
    };
    v1::NodeSnapshot {
        unix_millis: 1000 * seconds,
        node_name: "n1".to_owned(),
        members: [("alive".to_owned(), 2), ("down".to_owned(), 1)].into(),
        drops: [("malformed".to_owned(), 9), ("no-backend".to_owned(), 4 * seconds)].into(),
        services: vec![web],
        endpoints: vec![task("web.1", 1), task("web.2", 2)],
        ..v1::NodeSnapshot::default()
    }
}

/// What a watcher is told: flows, or packets.
pub fn watched(packets: bool) -> Vec<v1::WatchEvent> {
    let flow = flows().remove(0);
    let of = |kind: &str| v1::WatchEvent {
        kind: kind.to_owned(),
        unix_nanos: 1_000_000_000,
        flow: Some(flow.clone()),
        ..v1::WatchEvent::default()
    };
    let packet = v1::WatchEvent {
        place: "to-task".to_owned(),
        here: "web.2".to_owned(),
        length: 60,
        packet: vec![2; 60],
        ..of("packet")
    };
    let dropped =
        v1::WatchEvent { reason: "no-backend".to_owned(), program: "uplink".to_owned(), ..of("dropped") };
    let (begun, lost) = (
        v1::WatchEvent { kind: "begun".to_owned(), ..v1::WatchEvent::default() },
        v1::WatchEvent { kind: "lost".to_owned(), lost: 5, ..v1::WatchEvent::default() },
    );
    match packets {
        true => vec![begun, packet.clone(), packet.clone(), lost, packet],
        false => vec![begun, of("new"), dropped, lost],
    }
}
