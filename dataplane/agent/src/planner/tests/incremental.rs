//! A plan made from the last one is the one made from nothing, and shares what did not change.

use proptest::prelude::*;

use super::*;

/// Something that happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    /// A node runs other tasks: which, and how they are.
    Runs { node: u8, tasks: Vec<(u8, u8)> },
    /// A service has other networks, ports and ways.
    Service { service: u8, exists: bool, networks: u8, ports: Vec<u8>, options: u8 },
    /// A network has other subnets, or is another.
    Network { network: u8, exists: bool, subnets: u8, internal: bool },
    /// A node came, went, or has another address.
    Node { node: u8, address: Option<u8> },
    /// This node's interfaces and ways.
    Host { addresses: u8, routes: u8, vtep: u8 },
    /// Tasks are being attached to networks.
    Attaching(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let tasks = proptest::collection::vec(any::<(u8, u8)>(), 0..6);
    prop_oneof![
        4 => (any::<u8>(), tasks).prop_map(|(node, tasks)| Event::Runs { node, tasks }),
        2 => (any::<(u8, bool, u8, u8)>(), proptest::collection::vec(any::<u8>(), 0..4)).prop_map(
            |((service, gone, networks, options), ports)| {
                Event::Service { service, exists: !gone || options % 2 == 0, networks, ports, options }
            }
        ),
        1 => any::<(u8, u8, bool)>().prop_map(|(network, subnets, internal)| {
            Event::Network { network, exists: subnets % 8 != 0, subnets, internal }
        }),
        1 => (any::<u8>(), proptest::option::weighted(0.8, any::<u8>()))
            .prop_map(|(node, address)| Event::Node { node, address }),
        1 => any::<(u8, u8, u8)>()
            .prop_map(|(addresses, routes, vtep)| Event::Host { addresses, routes, vtep }),
        1 => any::<u8>().prop_map(Event::Attaching),
    ]
}

const NETWORKS: [NetworkId; 4] = [INGRESS, PROD, TEST, NetworkId::from_u128(13)];

fn service_id(n: u8) -> ServiceId {
    ServiceId::from_u128(20 + u128::from(n % 4))
}

/// The networks whose bits are set in `mask`.
fn chosen(mask: u8) -> Vec<NetworkId> {
    NETWORKS.into_iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0).map(|(_, id)| id).collect()
}

fn a_task(node: u8, id: u8, how: u8) -> LocalTask {
    let (network, service) = (NETWORKS[usize::from(how % 4)], (how & 8 != 0).then(|| service_id(how / 16)));
    let number = u32::from(node % 4) * 256 + u32::from(id) + 1;
    let (four, six) = (format!("10.9.{}.{}", node % 4, id), format!("fd00:9::{number:x}"));
    let addresses: &[&str] = match how % 3 {
        0 => &[&four],
        1 => &[&six],
        _ => &[&four, &six],
    };
    let mut task = task(number, service, network, addresses);
    task.drain = match how / 64 {
        1 => DRAINING,
        2 => DRAINED,
        _ => Drain::None,
    };
    task.weight = u16::from(how % 7) + 1;
    if how & 32 != 0 {
        let port = ["90:80", "84:80", "192.168.7.1:84:80"][usize::from(id % 3)];
        task.attachments[0].host_ports = vec![port.parse().unwrap()];
    }
    task
}

fn a_service(n: u8, networks: u8, ports: &[u8], options: u8) -> Service {
    const PORTS: [&str; 8] = [
        "80:80",
        "81:81/udp,return=direct",
        "82:82/sctp",
        "83:80,mode=host",
        "192.168.7.1:84:80",
        "eth0:84:80",
        "eth1:85:80,mode=host",
        "[fd00:7::1]:86:80",
    ];
    let mut service = service(service_id(n), &format!("s{}", n % 4), &[], &[]);
    // Ports of two services never clash.
    let taken = ports.iter().map(|p| PORTS[usize::from(p % 8)].parse::<PortConfig>().unwrap());
    service.ports = taken
        .map(|mut p| {
            p.published += u16::from(n % 4) * 100;
            p
        })
        .collect();
    service.networks = chosen(networks)
        .into_iter()
        .map(|network| ServiceNetwork {
            network,
            vips: vec![ip(&format!("10.9.255.{n}")), ip(&format!("fd00:9::ffff:{n:x}"))],
            aliases: vec![],
        })
        .collect();
    service.prefer_local = options & 1 != 0;
    service.endpoint_mode = if options & 2 != 0 { EndpointMode::Dnsrr } else { EndpointMode::Vip };
    service
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Runs { node, tasks } => {
            let tasks: BTreeMap<_, _> =
                tasks.iter().map(|(id, how)| (id % 8, a_task(*node, id % 8, *how))).collect();
            let tasks: Vec<_> = tasks.into_values().collect();
            match node % 4 {
                0 => world.runs(tasks),
                n => world.hears(NodeId::from_u128(u128::from(n) + 1), &tasks),
            }
        }
        Event::Service { service, exists, networks, ports, options } => {
            let made = a_service(*service, *networks, ports, *options);
            match exists {
                true => drop(world.view().services.insert(made.id, made)),
                false => drop(world.view().services.remove(&made.id)),
            }
        }
        Event::Network { network: n, exists, subnets, internal } => {
            let id = NETWORKS[usize::from(n % 4)];
            let subnets: &[&str] = match subnets % 3 {
                0 => &["10.9.0.0/16"],
                1 => &["fd00:9::/64"],
                _ => &["10.9.0.0/16", "fd00:9::/64"],
            };
            let mut made = network(id, &format!("net{}", n % 4), 4096 + u32::from(n % 4), subnets);
            made.internal = *internal;
            match exists {
                true => drop(world.view().networks.insert(id, made)),
                false => drop(world.view().networks.remove(&id)),
            }
        }
        Event::Node { node: n, address } => {
            let id = NodeId::from_u128(u128::from(n % 4) + 1);
            match address {
                Some(a) if a % 5 == 0 => {
                    let six = node(id, &format!("fd00:7::{:x}", a % 3 + 1), Role::Worker);
                    world.view().nodes.insert(id, six);
                }
                Some(a) => {
                    let four = node(id, &format!("192.168.7.{}", n % 4 + a % 3 * 4 + 1), Role::Worker);
                    world.view().nodes.insert(id, four);
                }
                None => drop(world.view().nodes.remove(&id)),
            }
        }
        Event::Host { addresses, routes, vtep } => {
            let held =
                [("192.168.7.1", "eth0"), ("10.1.0.1", "eth1"), ("fd00:7::1", "eth0"), ("fd00:8::1", "eth1")];
            let held = held.into_iter().enumerate().filter(|(n, _)| addresses & (1 << n) != 0);
            world.host_addresses = held.map(|(_, (a, i))| (ip(a), i.to_owned())).collect();
            world.routes =
                (1..=12u8).map(|n| (ip(&format!("192.168.7.{n}")), u32::from(routes % n))).collect();
            world.settings.vtep = ip(if vtep % 4 == 0 { "fd00:7::1" } else { "192.168.7.1" });
        }
        Event::Attaching(mask) => world.attaching = chosen(*mask).into_iter().collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_plan_does_not_depend_on_what_happened_before(events in proptest::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        let mut planner = Planner::new(N1);
        let mut last = planner.plan(&world.inputs()).clone();
        for event in &events {
            happen(&mut world, event);
            let anew = world.plan();
            let now = planner.plan(&world.inputs());
            prop_assert_eq!(&now.desired, &anew.desired, "after {:?}", event);
            prop_assert_eq!(&now.names, &anew.names);
            prop_assert_eq!(&now.announcements, &anew.announcements);
            prop_assert_eq!(&now.interest, &anew.interest);
            prop_assert_eq!(&now.findings, &anew.findings);
            prop_assert_eq!(&now.host_findings, &anew.host_findings);
            for (vni, network) in &now.desired.networks {
                let before = last.desired.networks.get(vni).filter(|before| *before == network);
                prop_assert!(before.is_none_or(|before| Arc::ptr_eq(before, network)), "equal parts are shared");
            }
            for (id, service) in &now.desired.services {
                let before = last.desired.services.get(id).filter(|before| *before == service);
                prop_assert!(before.is_none_or(|before| Arc::ptr_eq(before, service)), "equal parts are shared");
            }
            last = now.clone();
        }
    }
}

#[test]
fn a_change_makes_anew_only_what_it_concerns() {
    let other = ServiceId::from_u128(21);
    let mut world = World::new();
    let second = service(other, "other", &[(TEST, &["10.10.3.3"])], &["9090:90"]);
    world.view().services.insert(other, second);
    world.runs([task(7, None, PROD, &["10.10.3.7"]), task(8, None, TEST, &["10.10.3.7"])]);
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.5"]), task(2, Some(other), TEST, &["10.10.3.5"])]);
    let mut planner = Planner::new(N1);
    let before = planner.plan(&world.inputs()).clone();
    world.hears(N2, &[task(2, Some(other), TEST, &["10.10.3.5"])]);
    let after = planner.plan(&world.inputs());
    let networks = |p: &Planned, id| p.desired.networks[&world.vni(id)].clone();
    assert!(Arc::ptr_eq(&networks(&before, TEST), &networks(after, TEST)));
    assert!(!Arc::ptr_eq(&networks(&before, PROD), &networks(after, PROD)));
    assert!(Arc::ptr_eq(&before.desired.services[&other], &after.desired.services[&other]));
    assert!(!Arc::ptr_eq(&before.desired.services[&WEB], &after.desired.services[&WEB]));
    assert!(Arc::ptr_eq(&before.names[&TEST], &after.names[&TEST]));
    assert!(Arc::ptr_eq(&before.announcements, &after.announcements));
}
