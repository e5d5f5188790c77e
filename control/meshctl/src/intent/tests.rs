use mesh_types::{
    ClusterId, ClusterView, Network, NetworkId, Service, ServiceId, ServiceNetwork, Subnet, Vni,
};
use proptest::prelude::*;

use super::*;

const FILE: &str = r#"
version: 1
networks:
  prod:
    driver: overlay
    subnets:
      - 10.10.3.0/24
      - subnet: fd00:3::/64
        gateway: fd00:3::9
        ip_range: fd00:3::/80
        aux_addresses: {router: "fd00:3::5"}
    attachable: true
    mtu: 1400
    labels: {team: web, empty: }
  plain:
services:
  web:
    networks:
      prod: {aliases: [www, shop]}
      plain:
    ports:
      - 80:80
      - 8000-8001:9000-9001/udp
      - {published: 443, target: 8443, mode: host}
      - {target: 53, protocol: udp}
    affinity: client-ip,30m
    prefer_local: true
    drain_timeout: 2m
    health: {check: "http:80/ready?x=1", interval: 5s, retries: 5, start_period: 1m}
    labels: [a=b]
  db: {networks: [prod], endpoint_mode: dnsrr, health: "tcp:5432"}
  lone: {}
"#;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn mesh(text: &str) -> Intent {
    read(text, Dialect::Mesh).unwrap()
}

/// `LINE: word` of all that is wrong.
fn wrong(text: &str, dialect: Dialect) -> Vec<String> {
    let remarks = read(text, dialect).unwrap_err();
    remarks.iter().map(|remark| format!("{}: {}", remark.line, remark.text)).collect()
}

/// What managers would make of `intent`, in a cluster with nothing but an ingress network.
fn made(intent: &Intent) -> ClusterView {
    let network = |number: u32, name: &Name, subnets: Vec<Subnet>| Network {
        id: NetworkId::from_u128(number.into()),
        name: name.clone(),
        vni: Vni::new(4096 + number).unwrap(),
        subnets,
        attachable: false,
        internal: false,
        ingress: number == 0,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 1,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        version: 5,
    };
    let chosen = |net: &str| Subnet::new(net.parse().unwrap(), None).unwrap();
    let mut view = ClusterView {
        cluster: ClusterId::from_u128(1),
        version: 9,
        nodes: BTreeMap::new(),
        networks: BTreeMap::new(),
        services: BTreeMap::new(),
        gossip_keys: vec![],
        ca_generation: 0,
    };
    let ingress = network(0, &name("ingress"), vec![chosen("10.0.0.0/24")]);
    view.networks.insert(ingress.id, ingress);
    for (number, (name, wanted)) in (1..).zip(&intent.networks) {
        let mut subnets: Vec<_> =
            wanted.subnets.iter().map(|s| Subnet::new(s.net, s.gateway).unwrap()).collect();
        if subnets.is_empty() {
            subnets.push(chosen("10.0.7.0/24"));
        }
        if wanted.ipv6 && subnets.iter().all(|s| s.net().addr().is_ipv4()) {
            subnets.push(chosen("fd6d:6573:6800:7::/64"));
        }
        let made = Network {
            attachable: wanted.attachable,
            internal: wanted.internal,
            mtu: wanted.mtu,
            labels: wanted.labels.clone(),
            ip_ranges: wanted.subnets.iter().filter_map(|s| s.ip_range).collect(),
            aux_addresses: wanted.subnets.iter().flat_map(|s| s.aux_addresses.clone()).collect(),
            ..network(number, name, subnets)
        };
        view.networks.insert(made.id, made);
    }
    for (number, (name, wanted)) in (1..).zip(&intent.services) {
        let id = |name: &Name| view.networks.values().find(|network| network.name == *name).unwrap().id;
        let place = |(name, aliases): (&Name, &Vec<Name>)| ServiceNetwork {
            network: id(name),
            vips: vec![],
            aliases: aliases.clone(),
        };
        let mut networks: Vec<_> = wanted.networks.iter().map(place).collect();
        if networks.is_empty() {
            networks.push(ServiceNetwork { network: NetworkId::from_u128(0), vips: vec![], aliases: vec![] });
        }
        let mut ports = wanted.ports.clone();
        for (port, free) in ports.iter_mut().filter(|port| port.published == 0).zip(30_000..) {
            port.published = free;
        }
        let service = Service {
            id: ServiceId::from_u128(number),
            name: name.clone(),
            networks,
            endpoint_mode: wanted.endpoint_mode,
            ports,
            affinity: wanted.affinity,
            prefer_local: wanted.prefer_local,
            drain_timeout_secs: wanted.drain_timeout_secs,
            health: wanted.health.clone(),
            labels: wanted.labels.clone(),
            created_at: 1,
            version: 6,
        };
        view.services.insert(service.id, service);
    }
    view
}

fn lines(plan: &Plan) -> Vec<String> {
    let line = |change: &Change| {
        let action = format!("{:?}", change.action).to_lowercase();
        std::iter::once(format!("{action} {} {}", change.kind, change.name)).chain(change.details.clone())
    };
    plan.changes.iter().flat_map(line).collect()
}

fn whats(plan: Plan) -> Vec<String> {
    plan.calls.into_iter().map(|call| call.what()).collect()
}

#[test]
fn a_file_is_read() {
    let intent = mesh(FILE);
    let prod = &intent.networks[&name("prod")];
    assert_eq!((prod.subnets.len(), prod.mtu, prod.attachable), (2, Some(1400), true));
    assert_eq!(prod.subnets[1].aux_addresses["router"], "fd00:3::5".parse::<IpAddr>().unwrap());
    assert_eq!((prod.labels["team"].as_str(), prod.labels["empty"].as_str()), ("web", ""));
    let web = &intent.services[&name("web")];
    assert_eq!(web.networks[&name("prod")], [name("www"), name("shop")]);
    let ports: Vec<_> = web.ports.iter().map(ToString::to_string).collect();
    let expected = ["80:80/tcp", "8000:9000/udp", "8001:9001/udp", "443:8443/tcp,mode=host", "0:53/udp"];
    assert_eq!(ports.len(), expected.len(), "{ports:?}");
    assert_eq!(ports[..4], expected[..4]);
    assert_eq!((web.drain_timeout_secs, web.affinity.unwrap().timeout_secs), (120, 1800));
    let check = web.health.as_ref().unwrap().to_string();
    assert_eq!(check, "http:80/ready?x=1 every 5s, timeout 3s, 5 retries, start period 1m");
    assert!(intent.services[&name("lone")].networks.is_empty());
    assert_eq!(mesh(""), Intent::default());
}

#[test]
fn all_that_is_wrong_is_told_with_its_line() {
    let file = "\
networks:
  prod:
    subnets: [10.10.3.7/24, 10.10.4.0]
    driver: bridge
    colour: red
    attachable: maybe
  a b: {}
services:
  web:
    ports: [99999:1, {target: x}]
    networks: [prod, prod]
    drain_timeout: soon
    replicas: 3
    health: {interval: 1ms, port: 80}
  sick: {health: {check: 'tcp:0'}}
  web: {}
version: 2
";
    let problems = wrong(file, Dialect::Mesh);
    let parts = [
        ("3: ", "did you mean 10.10.3.0/24"),
        ("3: ", "10.10.4.0"),
        ("4: ", "bridge"),
        ("5: ", "no key colour"),
        ("6: ", "true or false"),
        ("7: ", "a b"),
        ("10: ", "99999"),
        ("10: ", "x"),
        ("11: ", "prod is named twice"),
        ("12: ", "drain_timeout"),
        ("13: ", "no key replicas"),
        ("14: ", "no key port"),
        ("14: ", "interval: \"1ms\" is not a time"),
        ("14: ", "no health check is set"),
        ("15: ", "not a port number"),
        ("16: ", "web twice"),
        ("17: ", "newer meshctl"),
    ];
    assert_eq!(problems.len(), parts.len(), "{problems:#?}");
    for (problem, (line, part)) in problems.iter().zip(parts) {
        assert!(problem.starts_with(line) && problem.contains(part), "{problem} lacks {line}{part}");
    }
    for (bad, line) in [("networks:\n  a: [\n", "2: "), ("a: b\n---\nb: c\n", "3: "), ("- a\n", "1: ")] {
        let problems = wrong(bad, Dialect::Mesh);
        assert!(!problems.is_empty(), "{bad}");
        assert!(line != "1: " || problems[0].starts_with(line), "{problems:?}");
    }
    let laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned()
        + "b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        + "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
        + "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n"
        + "e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n";
    assert!(wrong(&laughs, Dialect::Mesh)[0].contains("repeat too much"));
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(wrong(&deep, Dialect::Mesh)[0].contains("deeper than 64"));
}

#[test]
fn applied_twice_a_file_changes_nothing() {
    let intent = mesh(FILE);
    let nothing = made(&Intent::default());
    let first = plan(&intent, &nothing, true).unwrap();
    let told = lines(&first);
    for part in [
        "create network prod",
        "+ subnet fd00:3::/64, gateway fd00:3::9, range fd00:3::/80",
        "+ port 80:80/tcp",
    ] {
        assert!(told.contains(&part.to_owned()), "{part} in {told:#?}");
    }
    let expected = ["network plain", "network prod", "service db", "service lone", "service web"];
    assert_eq!(whats(first), expected.map(|what| format!("create {what}")));
    let second = plan(&intent, &made(&intent), true).unwrap();
    assert_eq!(lines(&second), Vec::<String>::new());
    assert_eq!(whats(second), Vec::<String>::new());
}

#[test]
fn what_is_exported_is_what_there_is() {
    let view = made(&mesh(FILE));
    let text = write(&view);
    let again = mesh(&text);
    assert_eq!(lines(&plan(&again, &view, true).unwrap()), Vec::<String>::new(), "{text}");
    assert_eq!(write(&made(&again)), text);
    assert_eq!(write(&made(&Intent::default())), "version: 1\n");
}

#[test]
fn differences_become_one_change_each() {
    let view = made(&mesh(FILE));
    let wanted = mesh(
        "
networks:
  prod:
    subnets: [10.10.3.0/24, {subnet: 'fd00:3::/64', ip_range: 'fd00:3::/80', aux_addresses: {router: 'fd00:3::5'}}]
    mtu: 1400
    labels: {team: shop, new: x}
  more: {subnets: [10.10.9.0/24]}
services:
  web:
    networks: {prod: {aliases: [WWW]}, more: {aliases: [m]}}
    ports: ['81:80', '8000-8001:9000-9001/udp', '443:8443,mode=host', '53/udp']
    labels: {}
",
    );
    let plan = plan(&wanted, &view, true).unwrap();
    let expected = [
        "create network more",
        "+ subnet 10.10.9.0/24",
        "update network prod",
        "~ attachable: true -> false",
        "+ label new: \"x\"",
        "~ label team: \"web\" -> \"shop\"",
        "- label empty",
        "update service web",
        "- network plain",
        "+ network more",
        "+ alias more:m",
        "- alias prod:shop",
        "- port 80:80/tcp",
        "+ port 81:80/tcp",
        "~ affinity: client-ip,30m -> none",
        "~ prefer local: true -> false",
        "~ drain timeout: 2m -> 30s",
        "~ health check: http:80/ready?x=1 every 5s, timeout 3s, 5 retries, start period 1m -> none",
        "- label a",
        "remove service db",
        "remove service lone",
        "remove network plain",
    ];
    assert_eq!(lines(&plan), expected);
    let calls: Vec<Call> = plan.calls.into_iter().collect();
    let order: Vec<_> = calls.iter().map(Call::what).collect();
    let (db, lone) = (ServiceId::from_u128(1), ServiceId::from_u128(2));
    let plain = NetworkId::from_u128(1);
    let expected = [
        "create network more".to_owned(),
        "update network prod".to_owned(),
        format!("remove service {db}"),
        format!("remove service {lone}"),
        "update service web".to_owned(),
        format!("remove network {plain}"),
    ];
    assert_eq!(order, expected);
    let Call::UpdateService(web) = &calls[4] else { panic!("{:?}", calls[4]) };
    assert_eq!(web.expected_version, Some(6));
    assert_eq!(
        web.remove_ports,
        ["80:80/tcp,mode=ingress,return=tunnel".to_owned()].map(|text| {
            // At every place alone, not at any.
            format!("*:{text}")
        })
    );
    assert_eq!((web.remove_networks.as_slice(), web.remove_aliases.len()), (&["plain".to_owned()][..], 1));
}

#[test]
fn what_cannot_change_is_refused_with_its_line() {
    let view = made(&mesh(FILE));
    let wanted = mesh(
        "networks:\n  prod: {subnets: [10.10.4.0/24], internal: true}\n  plain: {ipv6: true, mtu: 1300}\nservices:\n  \
         web: {networks: [nowhere]}\n",
    );
    let problems = plan(&wanted, &view, false).unwrap_err();
    let told: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.line, p.text)).collect();
    for part in [
        "2: network prod: its IPv4 subnet is 10.10.3.0/24, not 10.10.4.0/24",
        "2: network prod: it has an IPv6 subnet",
        "2: network prod: its MTU is 1400",
        "2: network prod: it is not internal",
        "3: network plain: it has no IPv6 subnet",
        "5: service web: network nowhere is neither declared here nor in the cluster",
    ] {
        assert!(told.iter().any(|line| line.starts_with(part)), "{part} in {told:#?}");
    }
}

#[test]
fn ports_that_change_hands_are_closed_first() {
    let before = mesh("services: {a: {ports: ['80:80']}, b: {ports: ['81:81']}, c: {ports: ['82:82']}}");
    let swapped = mesh(
        "services: {a: {ports: ['81:80']}, b: {ports: ['80:81']}, c: {ports: ['83:82']}, d: {ports: ['10.0.0.5:82:1']}}",
    );
    let plan = plan(&swapped, &made(&before), false).unwrap();
    let calls: Vec<Call> = plan.calls.into_iter().collect();
    let (closing, rest) = calls.split_at(3);
    for call in closing {
        let Call::UpdateService(request) = call else { panic!("{call:?}") };
        assert!(request.remove_ports.len() == 1 && request.add_ports.is_empty(), "{request:?}");
    }
    for call in &rest[..3] {
        let Call::UpdateService(request) = call else { panic!("{call:?}") };
        assert!(request.remove_ports.is_empty() && request.add_ports.len() == 1, "{request:?}");
    }
    assert_eq!(rest[3].what(), "create service d");
}

const COMPOSE: &str = r#"
name: shop
x-common: &common
  image: nginx
  restart: always
networks:
  front:
    driver: overlay
    driver_opts: {com.docker.network.driver.mtu: "1400"}
    attachable: true
    ipam:
      config:
        - subnet: 10.20.0.0/16
          ip_range: 10.20.1.0/24
  back: {internal: true, enable_ipv6: true}
  other: {external: true, name: prod}
volumes: {data: {}}
services:
  web:
    <<: *common
    networks:
      front: {aliases: [www], ipv4_address: 10.20.1.9}
      back:
    ports:
      - "8080:80"
      - "0.0.0.0:443:443"
      - target: 53
        published: "5353"
        protocol: udp
        mode: host
    healthcheck: {test: [CMD-SHELL, "curl -f http://localhost/ || exit 1"], interval: 90s, start_interval: 1s}
    deploy: {replicas: 2, endpoint_mode: vip, labels: {tier: front}}
  db: {image: postgres, networks: [back, other]}
  lone: {image: x, healthcheck: {test: redis-cli ping, interval: 5s}}
  own: {network_mode: host}
"#;

#[test]
fn a_compose_file_is_read_for_its_networks_and_ports() {
    let intent = read(COMPOSE, Dialect::Compose).unwrap();
    let names: Vec<_> = intent.networks.keys().map(Name::as_str).collect();
    assert_eq!(names, ["back", "default", "front"]);
    assert!(intent.external.contains(&name("prod")));
    let front = &intent.networks[&name("front")];
    assert_eq!(
        (front.mtu, front.subnets[0].ip_range.unwrap().to_string()),
        (Some(1400), "10.20.1.0/24".to_owned())
    );
    let web = &intent.services[&name("web")];
    assert_eq!(web.networks[&name("front")], [name("www")]);
    let ports: Vec<_> = web.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8080:80/tcp", "443:443/tcp", "5353:53/udp,mode=host"]);
    assert_eq!(web.labels["tier"], "front");
    assert!(intent.services[&name("db")].networks.contains_key(&name("prod")));
    assert!(intent.services[&name("lone")].networks.contains_key(&name("default")));
    assert!(!intent.services.contains_key(&name("own")));
    let ignored: Vec<_> = intent.ignored.iter().map(|r| r.text.as_str()).collect();
    for part in [
        "volumes: not a matter",
        "service web: deploy.replicas, image, restart",
        "ipv4_address",
        "network_mode",
    ] {
        assert!(ignored.iter().any(|text| text.contains(part)), "{part} in {ignored:#?}");
    }
    let named = read("services: {a: {networks: {default: {aliases: [x]}}}}", Dialect::Compose).unwrap();
    assert!(named.networks.contains_key(&name("default")) && named.services.len() == 1, "{named:?}");
    let problems = wrong("services: {a: {networks: [x], ports: ['1:2:3:4']}}", Dialect::Compose);
    assert!(problems.len() == 2 && problems.iter().any(|p| p.contains("network x")), "{problems:?}");
    assert!(
        wrong("networks: {a: {driver_opts: {encrypted: ''}}}", Dialect::Compose)[0].contains("not encrypted")
    );
}

/// The page whose file is a project of Docker's.
const DOCKER: &str = include_str!("../../../../docs/docker.md");

#[test]
fn a_compose_file_of_docker_is_read_for_what_the_mesh_has_to_have() {
    let block = DOCKER.split("```yaml").nth(1).and_then(|text| text.split("```").next()).unwrap();
    let intent = read(block.split_once('\n').unwrap().1, Dialect::Compose).unwrap();
    let prod = &intent.networks[&name("prod")];
    assert!(prod.attachable && !prod.ipv6 && prod.subnets.is_empty(), "{prod:?}");
    let web = &intent.services[&name("web")];
    assert_eq!(web.networks, BTreeMap::from([(name("prod"), vec![])]));
    assert_eq!(web.ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["8080:80/tcp"]);
    assert!(intent.ignored.is_empty() && intent.networks.len() == 1, "{intent:?}");

    let intent = read(DOCKERS_OWN, Dialect::Compose).unwrap();
    let mesh = &intent.networks[&name("shop")];
    assert!(mesh.ipv6 && !mesh.attachable && mesh.subnets.len() == 2, "{mesh:?}");
    assert_eq!(intent.networks.len(), 1);
    let shop = &intent.services[&name("shop")];
    assert_eq!(shop.ports.len(), 2, "both parts' ports: {shop:?}");
    assert!(shop.health.is_some(), "{shop:?}");
    assert!(intent.services[&name("far")].networks.contains_key(&name("there")));
    assert!(intent.external.contains(&name("there")));
    let ignored: Vec<_> = intent.ignored.iter().map(|r| r.text.as_str()).collect();
    assert!(
        ignored.len() == 2 && ignored.iter().any(|text| text.contains("network back: one of Docker's own")),
        "{ignored:?}"
    );

    for (file, said) in [
        ("networks: {a: {driver: mesh}}", "driver_opts: { network: a }"),
        (
            "networks: {a: {driver: mesh, driver_opts: {network: a}}}\nservices: {s: {networks: [b]}}",
            "network b",
        ),
        ("services: {s: {labels: {mesh.service: s}}}", "needs a network with driver: mesh"),
        (
            "networks: {a: {driver: mesh, attachable: false, driver_opts: {network: a}}}\nservices: {s: {networks: [a]}}",
            "network a is not attachable",
        ),
        (
            "networks: {a: {driver: mesh, driver_opts: {network: a}}}\nservices: {s: {networks: [a], labels: ['mesh.publish=80:80']}}",
            "needs mesh.service",
        ),
        (
            "networks: {a: {driver: mesh, driver_opts: {network: a}}}\nservices: {s: {networks: [a], labels: ['mesh.publish=x', 'mesh.service=s']}}",
            "mesh.publish",
        ),
    ] {
        let problems = wrong(file, Dialect::Compose);
        assert!(problems.len() == 1 && problems[0].contains(said), "{file}: {problems:?}");
    }
}

const DOCKERS_OWN: &str = r#"
networks:
  front:
    driver: mesh
    enable_ipv6: true
    attachable: false
    driver_opts: { network: shop, other: x }
    ipam: { driver: mesh, options: { network: shop }, config: [{ subnet: 10.1.0.0/16 }, { subnet: "fd00:1::/64" }] }
  back: {}
  far: { external: true, name: there }
volumes: { data: {} }
services:
  one:
    image: x
    ports: ["127.0.0.1:80:80"]
    networks: { front: { aliases: [www] }, back: {} }
    labels: { mesh.service: shop, mesh.publish: "80:80" }
  two:
    networks: [front]
    healthcheck: { test: [CMD-SHELL, "curl -f http://localhost/ || exit 1"], interval: 10s }
    labels: [mesh.service=shop, "mesh.publish=80:80 81:81/udp"]
  three: { networks: [far], labels: { mesh.service: far } }
  four: { image: y }
"#;

proptest! {
    #[test]
    fn noise_is_refused_or_read(text in "[a-z0-9:{}\\[\\]&*<\"'#\\- \n]{0,80}") {
        for dialect in [Dialect::Mesh, Dialect::Compose] {
            if let Ok(intent) = read(&text, dialect) {
                let _ = plan(&intent, &made(&Intent::default()), true);
            }
        }
    }

    #[test]
    fn labels_of_any_text_come_back(key in "[ -~äé\n\t]{1,20}", value in "\\PC{0,20}") {
        let mut intent = mesh("networks: {a: {}}");
        intent.networks.get_mut(&name("a")).unwrap().labels.insert(key, value);
        let view = made(&intent);
        let again = mesh(&write(&view));
        prop_assert_eq!(&again.networks[&name("a")].labels, &intent.networks[&name("a")].labels);
    }
}
