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

fn names_made<'a>(
    network: &Network,
    services: impl IntoIterator<Item = &'a Service>,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> NetworkNames {
    network_names(network, services, endpoints).names
}

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
    names.forward.get_by(name).map(|all| all.v4().iter().map(last).collect())
}

#[test]
fn a_service_by_its_virtual_address() {
    let mut sick = endpoint(7, Some(WEB));
    sick.health = Health::Unhealthy;
    let mut draining = endpoint(8, Some(WEB));
    draining.state = EndpointState::Draining;
    let all = [endpoint(5, Some(WEB)), endpoint(6, Some(WEB)), sick, draining, endpoint(9, None)];
    let names = names_made(&prod(), [&web(EndpointMode::Vip)], &all);
    for text in ["web", "www"] {
        assert_eq!(v4(&names, text), Some(vec![2]), "{text}");
        assert!(names.forward.get_by(text).unwrap().v6().is_empty());
    }
    assert_eq!(v4(&names, "tasks.web"), Some(vec![5, 6]));
    assert_eq!(v4(&names, "one-of-them"), Some(vec![5, 6, 7, 8, 9]));
    // A task's own name stays, whatever its state.
    for number in 5..=9 {
        assert_eq!(v4(&names, &format!("task{number}")), Some(vec![number]));
        let full = format!("Task{number}.prod");
        assert_eq!(names.reverse.get(&IpAddr::from([10, 10, 3, number])), Some(&full));
    }
    assert_eq!(names.reverse.get(&"10.10.3.2".parse::<IpAddr>().unwrap()).unwrap(), "Web.prod");
    let tasks: Vec<_> = names
        .services
        .get_by("www")
        .unwrap()
        .tasks
        .iter()
        .map(|(name, weight)| (name.as_str(), *weight))
        .collect();
    assert_eq!(tasks, [("Task5", 5), ("Task6", 6)]);
    assert_eq!(
        names.services.get_by("web").unwrap().ports,
        [ServicePort { protocol: Protocol::Tcp, published: 80, target: 8080 }]
    );
}

#[test]
fn a_service_by_its_tasks() {
    let mut sick = endpoint(7, Some(WEB));
    sick.health = Health::Starting;
    let names = names_made(&prod(), [&web(EndpointMode::Dnsrr)], &[endpoint(5, Some(WEB)), sick]);
    for text in ["web", "www", "tasks.web"] {
        assert_eq!(v4(&names, text), Some(vec![5]), "{text}");
        assert_eq!(names.forward.get_by(text).unwrap().v6().len(), 1);
    }
}

#[test]
fn a_service_without_tasks_is_known() {
    for (mode, vip) in [(EndpointMode::Dnsrr, vec![]), (EndpointMode::Vip, vec![2])] {
        let names = names_made(&prod(), [&web(mode)], &[]);
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
    let names = names_made(&prod(), [&service], &[elsewhere, endpoint(6, Some(WEB))]);
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
        let names = names_made(&prod(), [&web(mode)], &endpoints);
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

/// One of a few tasks, and how it is: few enough names and addresses that they meet.
type Change = (u8, Option<(u8, u8, u8, u8)>);

fn any_endpoint(number: u8, (named, addressed, options, weight): (u8, u8, u8, u8)) -> Endpoint {
    let mut made = endpoint(number, [None, Some(WEB), Some(DB)][usize::from(options % 3)]);
    made.name = name(&format!("Task{}", if named < 200 { number } else { named % 6 }));
    made.aliases = [name("www"), name("one-of-them"), name("Task3")]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| options & (8 << bit) != 0)
        .map(|(_, alias)| alias)
        .collect();
    let last = if addressed < 200 { 10 + number } else { 2 + addressed % 6 };
    made.addresses = vec![[10, 10, 3, last].into()];
    if addressed % 4 == 0 {
        made.addresses.push(format!("fd00:3::{last:x}").parse().unwrap());
    }
    made.health = if options & 64 == 0 { Health::Healthy } else { Health::Unhealthy };
    made.weight = weight.into();
    made
}

const DB: ServiceId = ServiceId::from_u128(21);

fn two_services() -> [Service; 2] {
    let mut db = web(EndpointMode::Dnsrr);
    (db.id, db.name) = (DB, name("db"));
    db.networks[0].aliases = vec![name("data"), name("Task5")];
    [web(EndpointMode::Vip), db]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Names that followed changes are those that would be made from nothing.
    #[test]
    fn followed_names_are_those_made_anew(
        batches in prop::collection::vec(
            prop::collection::vec((0u8..8, prop::option::weighted(0.8, any::<(u8, u8, u8, u8)>())), 1..4), 1..30,
        )
    ) {
        let services = two_services();
        let mut running: BTreeMap<u8, Arc<Endpoint>> = BTreeMap::new();
        let mut kept = network_names(&prod(), &services, []);
        for batch in batches {
            let change = |(number, how): Change| {
                let after = how.map(|how| Arc::new(any_endpoint(number, how)));
                let before = match &after {
                    Some(after) => running.insert(number, after.clone()),
                    None => running.remove(&number),
                };
                (before, after)
            };
            let changes: Vec<EndpointChange> = batch.into_iter().map(change).collect();
            let anew = network_names(&prod(), &services, running.values().map(|e| &**e));
            let mut followed = kept.names.clone();
            let find = |id| services.iter().find(|service| service.id == id);
            if !kept.contested && follow(&mut followed, &prod(), find, &changes) {
                prop_assert_eq!(&followed, &anew.names, "after {:?}", changes);
                prop_assert!(!anew.contested);
            }
            kept = anew;
        }
    }
}

#[test]
fn tasks_that_come_change_and_go_are_followed() {
    let services = two_services();
    let find = |id| services.iter().find(|service| service.id == id);
    let one = |number, service| Some(Arc::new(endpoint(number, service)));
    let mut sick = endpoint(5, Some(DB));
    sick.health = Health::Unhealthy;
    let steps = [
        vec![(None, one(5, Some(DB))), (None, one(6, Some(WEB))), (None, one(7, None))],
        vec![(one(5, Some(DB)), Some(Arc::new(sick.clone())))],
        vec![(one(6, Some(WEB)), None), (Some(Arc::new(sick)), one(5, Some(DB)))],
        vec![(one(5, Some(DB)), None), (one(7, None), None)],
    ];
    let empty = names_made(&prod(), &services, []);
    let mut names = empty.clone();
    let mut known = Vec::new();
    for step in steps {
        assert!(follow(&mut names, &prod(), find, &step));
        known.push((v4(&names, "data"), v4(&names, "tasks.web"), v4(&names, "one-of-them")));
    }
    let (none, both) = (Some(vec![]), Some(vec![5, 6, 7]));
    assert_eq!(known[0], (Some(vec![5]), Some(vec![6]), both.clone()));
    assert_eq!(known[1], (none.clone(), Some(vec![6]), both));
    assert_eq!(known[2], (Some(vec![5]), none.clone(), Some(vec![5, 7])));
    assert_eq!(known[3], (none.clone(), none, None));
    assert_eq!(names, empty);
}
