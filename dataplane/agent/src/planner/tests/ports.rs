//! What published ports and services can ask for.

use mesh_lb::SourceAffinity;
use mesh_types::Affinity;

use super::*;

const DB: ServiceId = ServiceId::from_u128(21);

fn ports(world: &mut World, ports: &[&str]) {
    world.web().ports = ports.iter().map(|p| p.parse().unwrap()).collect();
}

fn open(planned: &Planned) -> Vec<(PublishedOn, u16)> {
    let frontends = planned.desired.services.values().flat_map(|s| s.frontends.keys());
    let published = frontends.filter_map(|f| match f {
        Frontend::Published { on, port, .. } => Some((*on, *port)),
        Frontend::Vip { .. } => None,
    });
    published.collect()
}

fn at(address: &str) -> PublishedOn {
    PublishedOn::Address(ip(address))
}

#[test]
fn only_services_published_everywhere_are_told_to_every_node() {
    let mut world = World::new();
    let tasks = [task(1, Some(WEB), PROD, &["10.10.3.5"]), task(2, None, TEST, &["10.10.3.5"])];
    let scopes =
        |world: &World| announcements(N1, &world.view, &tasks).iter().map(|a| a.scope).collect::<Vec<_>>();
    assert_eq!(scopes(&world), [INGRESS, PROD, TEST]);
    ports(&mut world, &["8080:80,mode=host"]);
    assert_eq!(scopes(&world), [PROD, TEST]);
    ports(&mut world, &[]);
    assert_eq!(scopes(&world), [PROD, TEST]);
}

#[test]
fn a_host_port_leads_to_this_nodes_tasks_and_is_closed_without_any() {
    let mut world = World::new();
    ports(&mut world, &["8080:80,mode=host", "9090:90"]);
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    assert_eq!(open(&world.plan()), [(PublishedOn::AnyV4, 9090)]);
    let mut own = task(7, Some(WEB), PROD, &["10.10.3.7"]);
    world.runs([own.clone()]);
    let planned = world.plan();
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8080)).0, [7]);
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 9090)).0, [1, 7]);
    own.drain = DRAINING;
    world.runs([own.clone()]);
    let open_for_old_flows = world.plan();
    assert_eq!(behind(open_for_old_flows.published(PublishedOn::AnyV4, 8080)), (vec![], vec![7]));
    own.drain = DRAINED;
    world.runs([own]);
    assert_eq!(open(&world.plan()), [(PublishedOn::AnyV4, 9090)]);
}

#[test]
fn a_port_at_an_address_is_open_where_that_is() {
    let mut world = World::new();
    ports(&mut world, &["192.168.7.1:80:80", "192.168.7.2:81:80", "[fd00::1]:82:80"]);
    world.host_addresses.insert(ip("fd00::1"), "eth0".into());
    assert_eq!(open(&world.plan()), [(at("192.168.7.1"), 80)], "prod has no IPv6");
    world.network(PROD).subnets.push(Subnet::new("fd00:3::/64".parse().unwrap(), None).unwrap());
    assert_eq!(open(&world.plan()), [(at("192.168.7.1"), 80), (at("fd00::1"), 82)]);
}

#[test]
fn a_port_at_an_interface_is_open_on_all_its_addresses() {
    let mut world = World::new();
    ports(&mut world, &["eth0:80:80", "eth1:81:80"]);
    assert_eq!(open(&world.plan()), [(at("192.168.7.1"), 80)]);
    world.host_addresses.insert(ip("192.168.7.100"), "eth0".into());
    world.host_addresses.insert(ip("fd00::1"), "eth0".into());
    world.host_addresses.insert(ip("10.9.0.1"), "eth1".into());
    let expected = [(at("10.9.0.1"), 81), (at("192.168.7.1"), 80), (at("192.168.7.100"), 80)];
    assert_eq!(open(&world.plan()), expected);
}

#[test]
fn who_names_the_address_has_the_port_there() {
    let mut world = World::new();
    ports(&mut world, &["eth0:80:80"]);
    world.host_addresses.insert(ip("192.168.7.100"), "eth0".into());
    let db = service(DB, "db", &[(PROD, &["10.10.3.3"])], &["192.168.7.1:80:5432"]);
    world.view().services.insert(DB, db);
    let planned = world.plan();
    assert_eq!(planned.published(at("192.168.7.1"), 80).unwrap().target_port, Some(5432));
    assert_eq!(planned.published(at("192.168.7.100"), 80).unwrap().target_port, Some(80));
    let [finding] = &planned.findings[..] else { panic!("{:?}", planned.findings) };
    assert_eq!(
        finding.to_string(),
        "eth0:80/tcp of service web is not open on 192.168.7.1: service db publishes it there by address"
    );
    // The same within one service is nobody's loss.
    world.view().services.remove(&DB);
    ports(&mut world, &["eth0:80:80", "192.168.7.1:80:8000"]);
    let planned = world.plan();
    assert_eq!(planned.published(at("192.168.7.1"), 80).unwrap().target_port, Some(8000));
    assert!(planned.findings.is_empty());
}

#[test]
fn transports_ways_back_affinity_and_weights_are_passed_on() {
    let mut world = World::new();
    ports(&mut world, &["80:80", "81:81/sctp", "82:82/udp,return=direct"]);
    world.web().affinity = Some(Affinity { timeout_secs: 1800 });
    let mut heavy = task(1, Some(WEB), PROD, &["10.10.3.5"]);
    heavy.weight = 40;
    world.hears(N2, &[heavy]);
    world.runs([task(7, None, PROD, &["10.10.3.7"])]);
    let planned = world.plan();
    let entry = |port, protocol| {
        planned.entry(Frontend::Published { on: PublishedOn::AnyV4, port, protocol }).unwrap()
    };
    assert!(!entry(80, Protocol::Tcp).direct && !entry(81, Protocol::Sctp).direct);
    assert!(entry(82, Protocol::Udp).direct);
    let vip = planned.vip(world.vni(PROD), "10.10.3.2").unwrap();
    assert!(!vip.direct);
    for entry in [vip, entry(80, Protocol::Tcp), entry(82, Protocol::Udp)] {
        assert_eq!(entry.affinity, Some(SourceAffinity { timeout_secs: 1800 }));
        assert_eq!(entry.backends[0].weight, 40);
    }
}

#[test]
fn a_service_that_prefers_local_sends_no_new_flow_away() {
    let mut world = World::new();
    world.web().prefer_local = true;
    world.hears(N2, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    let both = |world: &World| {
        let planned = world.plan();
        let vip = behind(planned.vip(world.vni(PROD), "10.10.3.2"));
        assert!(
            !world.tasks.iter().any(|t| t.service.is_some())
                || vip == behind(planned.published(PublishedOn::AnyV4, 8080))
        );
        behind(planned.published(PublishedOn::AnyV4, 8080))
    };
    assert_eq!(both(&world), (vec![1], vec![]));
    let mut own = task(7, Some(WEB), PROD, &["10.10.3.7"]);
    world.runs([own.clone()]);
    assert_eq!(both(&world), (vec![7], vec![1]), "flows to the other node are not cut");
    own.drain = DRAINING;
    world.runs([own]);
    assert_eq!(both(&world), (vec![1], vec![7]));
}

#[test]
fn a_dnsrr_service_has_no_vip_but_ports() {
    let mut world = World::new();
    world.web().endpoint_mode = EndpointMode::Dnsrr;
    world.web().networks[0].vips.clear();
    ports(&mut world, &["80:80,mode=host"]);
    world.runs([task(7, Some(WEB), PROD, &["10.10.3.7"])]);
    let planned = world.plan();
    assert_eq!(planned.desired.services[&WEB].frontends.len(), 1);
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 80)).0, [7]);
    assert_eq!(planned.names[&PROD].forward.get_by("web").unwrap().all(), [ip("10.10.3.7")]);
}
