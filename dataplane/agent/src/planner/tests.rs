use std::path::PathBuf;

use mesh_types::{
    Availability, ClusterId, Generation, LocalEndpointId, Mac, Name, Node, ServiceId, ServiceNetwork, Subnet,
    TaskId,
};
use proptest::prelude::*;

use super::*;
use crate::{Attachment, NsIdentity, NsRef};

const N1: NodeId = NodeId::from_u128(1);
const N2: NodeId = NodeId::from_u128(2);
const INGRESS: NetworkId = NetworkId::from_u128(10);
const PROD: NetworkId = NetworkId::from_u128(11);
const TEST: NetworkId = NetworkId::from_u128(12);
const WEB: ServiceId = ServiceId::from_u128(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn node(id: NodeId, last: u8, role: Role) -> Node {
    let address = IpAddr::from([192, 168, 7, last]);
    Node {
        id,
        name: name(&format!("n{last}")),
        role,
        advertise_addr: address,
        data_path_addr: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
    }
}

fn network(id: NetworkId, label: &str, vni: u32, subnet: &str) -> Network {
    Network {
        id,
        name: name(label),
        vni: Vni::new(vni).unwrap(),
        subnets: vec![Subnet::new(subnet.parse().unwrap(), None).unwrap()],
        attachable: true,
        internal: false,
        ingress: id == INGRESS,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
    }
}

/// Two nodes; `prod` and `test` with the same subnet; `web` on `prod`, its port 80 published.
fn view() -> ClusterView {
    let web = Service {
        id: WEB,
        name: name("web"),
        networks: vec![ServiceNetwork { network: PROD, vips: vec![ip(2)], aliases: vec![name("www")] }],
        endpoint_mode: EndpointMode::Vip,
        ports: vec!["8080:80".parse().unwrap()],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        labels: BTreeMap::new(),
        created_at: 0,
    };
    let networks = [
        network(INGRESS, "ingress", 4096, "10.0.0.0/24"),
        network(PROD, "prod", 4097, "10.10.3.0/24"),
        network(TEST, "test", 4098, "10.10.3.0/24"),
    ];
    ClusterView {
        cluster: ClusterId::from_u128(9),
        version: 1,
        nodes: [node(N1, 1, Role::Manager), node(N2, 2, Role::Worker)].map(|n| (n.id, n)).into(),
        networks: networks.map(|n| (n.id, n)).into(),
        services: [(WEB, web)].into(),
        gossip_keys: vec![[0; 32]],
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 10, 3, last])
}

fn task(id: u32, service: Option<ServiceId>, network: NetworkId, address: IpAddr) -> LocalTask {
    LocalTask {
        id: TaskId::from_u128(u128::from(id) + 100),
        name: name(&format!("task{id}")),
        service,
        aliases: vec![],
        namespace: NsRef::Path(PathBuf::from("/run/netns/x")),
        namespace_id: NsIdentity { dev: 0, ino: u64::from(id) },
        attachments: vec![Attachment {
            network,
            address,
            fixed: false,
            mac: Mac::of_address(address),
            local_id: LocalEndpointId(id),
            generation: Generation(1),
            egress: egress_address(id),
            link: format!("msh{id}"),
            task_link: "eth0".into(),
            ifindex: 50 + id,
        }],
    }
}

fn settings() -> NodeSettings {
    NodeSettings {
        vtep: Ipv4Addr::new(192, 168, 7, 1),
        uplink_ifindex: 2,
        vxlan_ifindex: 3,
        host_ifindex: 4,
        host_mac: Mac([2; 6]),
        inner_mtu: 1450,
        vxlan_port: 4789,
        netns_cookie: 1,
        fast_path: true,
    }
}

fn plan_of(node: NodeId, view: &ClusterView, tasks: &[LocalTask], remote: &Tables) -> Desired {
    let tables = tables(node, view, tasks, remote);
    let host_addresses = BTreeSet::new();
    plan(&Inputs {
        node,
        settings: settings(),
        host_addresses: &host_addresses,
        view,
        tasks,
        tables: &tables,
    })
}

/// What `node` would hear of these tasks of another node.
fn heard(from: NodeId, view: &ClusterView, tasks: &[LocalTask]) -> Tables {
    let mut remote = Tables::new();
    for a in announcements(from, view, tasks) {
        remote.entry(a.scope).or_default().push(a.endpoint);
    }
    remote
}

#[test]
fn a_node_without_tasks_still_serves_published_ports() {
    let view = view();
    let remote = heard(N2, &view, &[task(1, Some(WEB), PROD, ip(5))]);
    let desired = plan_of(N1, &view, &[], &remote);
    assert!(desired.networks.is_empty() && desired.endpoints.is_empty() && desired.local.is_empty());
    assert_eq!(desired.peers, BTreeSet::from([IpAddr::from([192, 168, 7, 2])]));
    let port = &desired.services[&Frontend::Published { port: 8080, protocol: mesh_types::Protocol::Tcp }];
    assert_eq!(port.target_port, Some(80));
    assert_eq!(port.backends.len(), 1);
    assert_eq!(port.backends[0].vtep, IpAddr::from([192, 168, 7, 2]));
    assert_eq!(port.backends[0].ifindex, None);
    assert_eq!(desired.services.len(), 1, "no VIP where no task is on its network");
}

#[test]
fn local_and_remote_tasks_stand_behind_the_vip() {
    let view = view();
    let remote = heard(N2, &view, &[task(1, Some(WEB), PROD, ip(5))]);
    let desired = plan_of(N1, &view, &[task(7, Some(WEB), PROD, ip(6))], &remote);
    let vni = view.networks[&PROD].vni;
    let vip = &desired.services[&Frontend::Vip { vni, address: ip(2) }];
    assert_eq!(vip.target_port, None);
    assert_eq!(vip.backends.iter().map(|b| b.ifindex).collect::<Vec<_>>(), [None, Some(57)]);
    assert_eq!(desired.endpoints[&(vni, ip(5))].ifindex, None);
    assert_eq!(desired.endpoints[&(vni, ip(6))].ifindex, Some(57));
    assert_eq!(desired.local.len(), 1);
}

#[test]
fn equal_subnets_do_not_meet() {
    let view = view();
    let tasks = [task(1, None, PROD, ip(5)), task(2, None, TEST, ip(5))];
    let desired = plan_of(N1, &view, &tasks, &Tables::new());
    assert_eq!(desired.endpoints.len(), 2);
    let ifindex = |network| desired.endpoints[&(view.networks[&network].vni, ip(5))].ifindex;
    assert_eq!((ifindex(PROD), ifindex(TEST)), (Some(51), Some(52)));
    let vip = Frontend::Vip { vni: view.networks[&TEST].vni, address: ip(2) };
    assert!(!desired.services.contains_key(&vip));
}

#[test]
fn an_endpoint_of_an_unknown_node_is_left_out() {
    let view = view();
    let stranger = heard(NodeId::from_u128(99), &view, &[task(1, Some(WEB), PROD, ip(5))]);
    let desired = plan_of(N1, &view, &[task(7, None, PROD, ip(6))], &stranger);
    assert_eq!(desired.endpoints.len(), 1);
    assert!(desired.services.values().all(|s| s.backends.is_empty()));
}

#[test]
fn gossip_about_oneself_is_not_believed() {
    let view = view();
    let echo = heard(N1, &view, &[task(1, Some(WEB), PROD, ip(5))]);
    let desired = plan_of(N1, &view, &[], &echo);
    assert!(desired.services.values().all(|s| s.backends.is_empty()));
}

#[test]
fn only_published_services_are_told_to_every_node() {
    let mut view = view();
    let tasks = [task(1, Some(WEB), PROD, ip(5)), task(2, None, TEST, ip(5))];
    let scopes =
        |view: &ClusterView| announcements(N1, view, &tasks).iter().map(|a| a.scope).collect::<Vec<_>>();
    assert_eq!(scopes(&view), [INGRESS, PROD, TEST]);
    view.services.get_mut(&WEB).unwrap().ports.clear();
    assert_eq!(scopes(&view), [PROD, TEST]);
}

#[test]
fn managers_want_every_table_and_workers_their_own() {
    let view = view();
    let none = BTreeSet::new();
    assert_eq!(interest(N1, &view, &[], &none), Interest::All);
    let tasks = [task(1, None, PROD, ip(5))];
    assert_eq!(interest(N2, &view, &tasks, &none), Interest::Networks([INGRESS, PROD].into()));
    let attaching = [TEST].into();
    assert_eq!(interest(N2, &view, &[], &attaching), Interest::Networks([INGRESS, TEST].into()));
}

#[test]
fn egress_addresses_stay_in_the_pool() {
    assert_eq!(egress_address(0), None);
    assert_eq!(egress_address(1), Some(Ipv4Addr::new(169, 254, 64, 1)));
    assert_eq!(egress_address((1 << 14) - 2), Some(Ipv4Addr::new(169, 254, 127, 254)));
    assert_eq!(egress_address((1 << 14) - 1), None);
}

proptest! {
    /// Whatever is told in whatever order, the plan is the same.
    #[test]
    fn the_order_of_news_does_not_matter(mut lasts in proptest::collection::btree_set(3u8..250, 1..20), swap: bool) {
        let view = view();
        let tasks: Vec<_> = lasts.iter().map(|&l| task(u32::from(l), Some(WEB), PROD, ip(l))).collect();
        let mut remote = heard(N2, &view, &tasks);
        let own = [task(1, Some(WEB), PROD, ip(251))];
        let before = plan_of(N1, &view, &own, &remote);
        remote.values_mut().for_each(|e| if swap { e.reverse() } else { e.rotate_left(1) });
        let mut after = plan_of(N1, &view, &own, &remote);
        let mut before = before;
        for desired in [&mut before, &mut after] {
            desired.services.values_mut().for_each(|s| s.backends.sort_by_key(|b| b.key));
        }
        prop_assert_eq!(before, after);
        lasts.clear();
    }
}
