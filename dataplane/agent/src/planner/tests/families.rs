//! Both families: inside networks, on published ports, and below.

use super::*;

const DUAL: NetworkId = NetworkId::from_u128(13);
const V6: NetworkId = NetworkId::from_u128(14);
const V4: NetworkId = NetworkId::from_u128(15);

fn dual() -> World {
    let mut world = World::new();
    let networks = [
        network(DUAL, "dual", 4099, &["10.20.0.0/24", "fd00:20::/64"]),
        network(V6, "six", 4100, &["fd00:21::/64"]),
        network(V4, "four", 4101, &["10.21.0.0/24"]),
    ];
    world.view().networks.extend(networks.map(|n| (n.id, n)));
    let vips: &[&str] = &["10.20.0.2", "fd00:20::2"];
    world.view().services.insert(WEB, service(WEB, "web", &[(DUAL, vips)], &["8080:80"]));
    world
}

#[test]
fn a_dual_stack_task_is_one_endpoint_with_two_addresses() {
    let mut world = dual();
    world.runs([task(7, Some(WEB), DUAL, &["10.20.0.5", "fd00:20::5"])]);
    let planned = world.plan();
    let network = &planned.desired.networks[&world.vni(DUAL)];
    assert!(network.entry.v4.is_some() && network.entry.v6.is_some());
    assert_eq!(network.endpoints[&ip("10.20.0.5")], network.endpoints[&ip("fd00:20::5")]);
    let local = planned.desired.local[&LocalEndpointId(7)];
    assert!(local.v4.is_some() && local.egress4.is_some());
    assert_eq!(local.v6, Some("fd00:20::5".parse().unwrap()));
    assert_eq!(local.egress6, Some("fd6d:6573:6864::7".parse().unwrap()));
    let names = &planned.names[&DUAL];
    assert_eq!(names.forward.get_by("task7").unwrap().all(), [ip("10.20.0.5"), ip("fd00:20::5")]);
    assert_eq!(names.forward.get_by("web").unwrap().all(), [ip("10.20.0.2"), ip("fd00:20::2")]);
}

#[test]
fn a_table_holds_only_tasks_of_its_family() {
    let mut world = dual();
    world.hears(N2, &[task(1, Some(WEB), DUAL, &["10.20.0.5"]), task(2, Some(WEB), DUAL, &["fd00:20::6"])]);
    world.runs([task(7, Some(WEB), DUAL, &["10.20.0.7", "fd00:20::7"])]);
    let (planned, vni) = (world.plan(), world.vni(DUAL));
    assert_eq!(behind(planned.vip(vni, "10.20.0.2")).0, [1, 7]);
    assert_eq!(behind(planned.vip(vni, "fd00:20::2")).0, [2, 7]);
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8080)).0, [1, 7]);
    assert_eq!(behind(planned.published(PublishedOn::AnyV6, 8080)).0, [2, 7]);
    let of_seven = |entry: Option<&ServiceEntry>| *entry.unwrap().backends.last().unwrap();
    let (four, six) =
        (planned.published(PublishedOn::AnyV4, 8080), planned.published(PublishedOn::AnyV6, 8080));
    assert_eq!(of_seven(four), of_seven(six), "one backend for both families");
}

#[test]
fn a_port_is_open_for_the_families_of_its_network() {
    let mut world = dual();
    world.web().networks[0].network = V6;
    world.hears(N2, &[task(1, Some(WEB), V6, &["fd00:21::5"])]);
    let planned = world.plan();
    assert_eq!(planned.published(PublishedOn::AnyV4, 8080), None);
    assert_eq!(behind(planned.published(PublishedOn::AnyV6, 8080)).0, [1]);
}

#[test]
fn each_family_takes_the_first_network_with_a_way_out() {
    let mut world = dual();
    world.network(DUAL).internal = true;
    let on = |network| ServiceNetwork { network, vips: vec![], aliases: vec![] };
    world.web().networks = [DUAL, V4, V6].map(on).into();
    let way =
        |world: &World, family| published_on(&world.view, &world.view.services[&WEB], family).unwrap().id;
    assert_eq!((way(&world, Family::V4), way(&world, Family::V6)), (V4, V6));
    world.network(V6).internal = true;
    assert_eq!((way(&world, Family::V4), way(&world, Family::V6)), (V4, DUAL));
    world.network(DUAL).internal = false;
    assert_eq!((way(&world, Family::V4), way(&world, Family::V6)), (DUAL, DUAL));

    // A task on all of them: the endpoints of its ways out are told to every node, the others are not.
    world.network(DUAL).internal = true;
    world.network(V6).internal = false;
    let mut all = task(1, Some(WEB), DUAL, &["10.20.0.5", "fd00:20::5"]);
    all.attachments.extend(task(2, Some(WEB), V4, &["10.21.0.5"]).attachments);
    all.attachments.extend(task(3, Some(WEB), V6, &["fd00:21::5"]).attachments);
    let told = announcements(N2, &world.view, std::slice::from_ref(&all));
    let everywhere = told.iter().filter(|a| a.scope == INGRESS).map(|a| a.endpoint.network);
    assert_eq!(everywhere.collect::<Vec<_>>(), [V4, V6]);
    world.hears(N2, &[all]);
    let planned = world.plan();
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8080)).0, [2]);
    assert_eq!(behind(planned.published(PublishedOn::AnyV6, 8080)).0, [3]);
}

#[test]
fn nodes_of_the_other_underlay_family_are_left_out_and_named() {
    let mut world = World::new();
    let six = node(N3, "fd00::3", Role::Worker);
    world.view().nodes.insert(N3, six);
    world.hears(N3, &[task(1, Some(WEB), PROD, &["10.10.3.5"])]);
    world.runs([task(7, None, PROD, &["10.10.3.7"])]);
    let planned = world.plan();
    assert_eq!(planned.desired.peers.len(), 1);
    assert_eq!(planned.desired.networks[&world.vni(PROD)].endpoints.len(), 1);
    assert_eq!(behind(planned.published(PublishedOn::AnyV4, 8080)), (vec![], vec![]));
    let [finding] = &planned.findings[..] else { panic!("{:?}", planned.findings) };
    assert!(finding.to_string().contains("node n3 cannot be reached"), "{finding}");

    world.settings.vtep = ip("fd00::1");
    let planned = world.plan();
    assert_eq!(planned.desired.peers.keys().collect::<Vec<_>>(), [&ip("fd00::3")]);
    assert_eq!(
        behind(planned.published(PublishedOn::AnyV4, 8080)).0,
        [1],
        "families inside and below are apart"
    );
}

#[test]
fn peers_by_another_interface_are_told_so() {
    let mut world = World::new();
    let third = node(N3, "192.168.8.3", Role::Worker);
    world.view().nodes.insert(N3, third);
    world.routes = [(ip("192.168.7.2"), 2), (ip("192.168.8.3"), 9), (ip("192.168.9.9"), 9)].into();
    let peers = [(ip("192.168.7.2"), None), (ip("192.168.8.3"), Some(9))];
    assert_eq!(world.plan().desired.peers, peers.map(|(a, ifindex)| (a, PeerEntry { ifindex })).into());
}

#[test]
fn this_nodes_endpoints_are_where_it_is_now() {
    let mut world = World::new();
    world.runs([task(7, Some(WEB), PROD, &["10.10.3.7"])]);
    // The managers have not heard of the new address yet.
    world.settings.vtep = ip("192.168.7.9");
    let planned = world.plan();
    assert_eq!(
        planned.desired.networks[&world.vni(PROD)].endpoints[&ip("10.10.3.7")].vtep,
        ip("192.168.7.9")
    );
    assert_eq!(planned.vip(world.vni(PROD), "10.10.3.2").unwrap().backends[0].vtep, ip("192.168.7.9"));
    assert_eq!(planned.desired.peers.keys().collect::<Vec<_>>(), [&ip("192.168.7.2")]);
}
