use std::collections::BTreeSet;

use mesh_dns::{Answer, TaskView, resolve, reverse_name};
use mesh_types::{
    EndpointState, Generation, Health, LocalEndpointId, Mac, Name, NetworkId, NodeId, Protocol, Subnet,
    TaskId, Vni,
};
use proptest::prelude::*;

use super::*;

const PROD: NetworkId = NetworkId::from_u128(11);
const WEB: ServiceId = ServiceId::from_u128(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn prod() -> Network {
    let subnet = |text: &str| Subnet::new(text.parse().unwrap(), None).unwrap();
    Network {
        id: PROD,
        name: name("prod"),
        vni: Vni::new(4097).unwrap(),
        subnets: vec![subnet("10.10.3.0/24"), subnet("fd00:3::/64")],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        version: 0,
    }
}

fn web(mode: EndpointMode) -> Service {
    let vips = if mode == EndpointMode::Vip { vec!["10.10.3.2".parse().unwrap()] } else { vec![] };
    Service {
        id: WEB,
        name: name("Web"),
        networks: vec![ServiceNetwork { network: PROD, vips, aliases: vec![name("www")] }],
        endpoint_mode: mode,
        ports: vec!["80:8080".parse().unwrap()],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 0,
    }
}

fn endpoint(number: u8, service: Option<ServiceId>) -> Endpoint {
    Endpoint {
        network: PROD,
        node: NodeId::from_u128(1),
        task: TaskId::from_u128(number.into()),
        name: name(&format!("Task{number}")),
        service,
        addresses: vec![[10, 10, 3, number].into(), format!("fd00:3::{number:x}").parse().unwrap()],
        mac: Mac([2, 0, 0, 0, 0, number]),
        local_id: LocalEndpointId(number.into()),
        generation: Generation(1),
        aliases: vec![name("one-of-them")],
        state: EndpointState::Ready,
        weight: number.into(),
        health: Health::None,
        health_note: None,
    }
}

fn v4(names: &NetworkNames, name: &str) -> Option<Vec<u8>> {
    let last = |a: &IpAddr| if let IpAddr::V4(a) = a { a.octets()[3] } else { 0 };
    names.forward.get(name).map(|all| all.v4().iter().map(last).collect())
}

#[test]
fn a_service_by_its_virtual_address() {
    let mut sick = endpoint(7, Some(WEB));
    sick.health = Health::Unhealthy;
    let mut draining = endpoint(8, Some(WEB));
    draining.state = EndpointState::Draining;
    let all = [endpoint(5, Some(WEB)), endpoint(6, Some(WEB)), sick, draining, endpoint(9, None)];
    let names = network_names(&prod(), [&web(EndpointMode::Vip)], &all);
    for text in ["web", "www"] {
        assert_eq!(v4(&names, text), Some(vec![2]), "{text}");
        assert!(names.forward[text].v6().is_empty());
    }
    assert_eq!(v4(&names, "tasks.web"), Some(vec![5, 6]));
    assert_eq!(v4(&names, "one-of-them"), Some(vec![5, 6, 7, 8, 9]));
    // A task's own name stays, whatever its state.
    for number in 5..=9 {
        assert_eq!(v4(&names, &format!("task{number}")), Some(vec![number]));
        assert_eq!(names.reverse[&IpAddr::from([10, 10, 3, number])], format!("Task{number}.prod"));
    }
    assert_eq!(names.reverse[&"10.10.3.2".parse::<IpAddr>().unwrap()], "Web.prod");
    let tasks: Vec<_> =
        names.services["www"].tasks.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
    assert_eq!(tasks, [("Task5", 5), ("Task6", 6)]);
    assert_eq!(
        names.services["web"].ports,
        [ServicePort { protocol: Protocol::Tcp, published: 80, target: 8080 }]
    );
}

#[test]
fn a_service_by_its_tasks() {
    let mut sick = endpoint(7, Some(WEB));
    sick.health = Health::Starting;
    let names = network_names(&prod(), [&web(EndpointMode::Dnsrr)], &[endpoint(5, Some(WEB)), sick]);
    for text in ["web", "www", "tasks.web"] {
        assert_eq!(v4(&names, text), Some(vec![5]), "{text}");
        assert_eq!(names.forward[text].v6().len(), 1);
    }
}

#[test]
fn a_service_without_tasks_is_known() {
    for (mode, vip) in [(EndpointMode::Dnsrr, vec![]), (EndpointMode::Vip, vec![2])] {
        let names = network_names(&prod(), [&web(mode)], &[]);
        assert_eq!(v4(&names, "web"), Some(vip));
        assert_eq!(v4(&names, "tasks.web"), Some(vec![]));
    }
}

#[test]
fn nothing_of_other_networks() {
    let mut service = web(EndpointMode::Vip);
    service.networks[0].network = NetworkId::from_u128(99);
    let mut elsewhere = endpoint(5, Some(WEB));
    elsewhere.network = NetworkId::from_u128(99);
    let names = network_names(&prod(), [&service], &[elsewhere, endpoint(6, Some(WEB))]);
    let known: BTreeSet<&str> = names.forward.keys().map(String::as_str).collect();
    assert_eq!(known, ["one-of-them", "task6"].into());
    assert!(names.services.is_empty());
}

#[test]
fn people_are_told_who_has_a_name() {
    let mut sick = endpoint(7, Some(WEB));
    sick.health = Health::Unhealthy;
    let all = [endpoint(5, Some(WEB)), sick];
    let ask = |mode, name| origins(&prod(), [&web(mode)], &all, name);
    assert_eq!(ask(EndpointMode::Vip, "web"), ["service Web, by its virtual address"]);
    assert_eq!(ask(EndpointMode::Vip, "www"), ["alias of service Web, by its virtual address"]);
    let left_out = "its task Task7, left out: it takes no connections now";
    assert_eq!(
        ask(EndpointMode::Dnsrr, "web"),
        ["service Web, by its tasks (dnsrr)", "its task Task5", left_out]
    );
    assert_eq!(ask(EndpointMode::Vip, "tasks.web"), ["the tasks of service Web", "its task Task5", left_out]);
    assert_eq!(ask(EndpointMode::Vip, "task5"), ["task Task5"]);
    assert_eq!(ask(EndpointMode::Vip, "one-of-them").len(), 2);
    assert!(ask(EndpointMode::Vip, "nope").is_empty());
}

proptest! {
    /// The name of every address leads back to it.
    #[test]
    fn reverse_names_lead_back(
        tasks in prop::collection::btree_map(3u8..250, (any::<bool>(), any::<bool>()), 0..20), dnsrr: bool,
    ) {
        let endpoints: Vec<Endpoint> = tasks.iter().map(|(number, (of_web, ready))| {
            let mut endpoint = endpoint(*number, of_web.then_some(WEB));
            endpoint.state = if *ready { EndpointState::Ready } else { EndpointState::Drained };
            endpoint
        }).collect();
        let mode = if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip };
        let names = network_names(&prod(), [&web(mode)], &endpoints);
        prop_assert_eq!(names.reverse.len(), 2 * endpoints.len() + usize::from(!dnsrr));
        let addresses: Vec<IpAddr> = names.reverse.keys().copied().collect();
        let view = TaskView { networks: vec![Arc::new(names)], ..TaskView::default() };
        for address in addresses {
            let reverse = reverse_name(address);
            let (Answer::Ptr(target), _) = resolve(&view, &reverse, mesh_dns::RecordType::PTR) else {
                return Err(TestCaseError::fail(reverse));
            };
            let target = target.to_ascii_lowercase();
            let qtype = if address.is_ipv4() { mesh_dns::RecordType::A } else { mesh_dns::RecordType::AAAA };
            let (Answer::Addresses(back), _) = resolve(&view, &target, qtype) else {
                return Err(TestCaseError::fail(target));
            };
            prop_assert!(back.contains(&address), "{} {:?}", target, back);
        }
    }
}
