//! Networks with IPv6, alone and beside IPv4.

use crate::common::*;
use mesh_store::{Command, Response, State};
use mesh_types::{Family, NetworkId, NodeId, ServiceId};

fn lease_of(state: &mut State, network: NetworkId, count: u32, family: Option<Family>) -> Vec<String> {
    let command = Command::Lease { node: NodeId::from_u128(1), network, count, family };
    match state.apply(command).unwrap() {
        Response::Leased(addresses) => addresses.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn subnets(state: &State, network: NetworkId) -> Vec<String> {
    state.network(network).unwrap().subnets.iter().map(|s| format!("{} {}", s.net(), s.gateway())).collect()
}

#[test]
fn one_subnet_per_family_and_ipv4_first() {
    let mut state = cluster(1);
    let a = create_network(&mut state, new_network(1, "a", &["fd00:1::/64", "10.9.0.0/24"])).unwrap();
    assert_eq!(subnets(&state, a.id), ["10.9.0.0/24 10.9.0.1", "fd00:1::/64 fd00:1::1"]);
    let b = create_network(&mut state, new_network(2, "b", &["fd00:1::/64"])).unwrap();
    assert_eq!(subnets(&state, b.id), ["fd00:1::/64 fd00:1::1"]);
    let mut say = |new, parts: &[&str]| assert_says(&refused(&mut state, Command::CreateNetwork(new)), parts);
    say(new_network(3, "c", &["fd00:1::/64", "fd00:2::/64"]), &["one IPv6 subnet", "fd00:2::/64"]);
    say(new_network(3, "c", &["fe80::/64"]), &["fe80::/64"]);
    say(new_network(3, "c", &["fd00::1/64"]), &["did you mean fd00::/64"]);
    let mut new = new_network(3, "c", &["10.9.0.0/24", "fd00:1::/64"]);
    new.mtu = Some(1200);
    say(new.clone(), &["mtu 1200", "IPv6", "1280"]);
    new.mtu = None;
    new.ip_ranges = vec!["fd00:2::/80".parse().unwrap()];
    say(new.clone(), &["fd00:2::/80", "fd00:1::/64"]);
    new.ip_ranges = vec!["10.9.0.0/25".parse().unwrap(), "10.9.0.128/25".parse().unwrap()];
    say(new.clone(), &["one IPv4 ip range", "10.9.0.128/25"]);
    new.subnets.pop();
    new.ip_ranges = vec!["fd00:1::/80".parse().unwrap()];
    say(new, &["no IPv6 subnet", "fd00:1::/80"]);
}

#[test]
fn the_pool_gives_64s() {
    let mut state = State::default();
    assert_says(&refused(&mut state, init(Some("fe80::/48"), None)), &["fe80::/48"]);
    let mut two = init(None, None);
    let Command::Init { pools, .. } = &mut two else { unreachable!() };
    pools.extend(["fd00:1::/48", "fd00:2::/48"].map(|pool| pool.parse::<ipnet::IpNet>().unwrap()));
    assert_says(&refused(&mut state, two), &["one IPv6 pool", "fd00:1::/48", "fd00:2::/48"]);

    let mut first = init(Some("fd00:1:2::/63"), None);
    let Command::Init { ingress_ipv6, .. } = &mut first else { unreachable!() };
    *ingress_ipv6 = true;
    state.apply(first).unwrap();
    assert_eq!(subnets(&state, INGRESS), ["10.0.0.0/24 10.0.0.1", "fd00:1:2::/64 fd00:1:2::1"]);
    let mut new = new_network(1, "a", &["10.9.0.0/24"]);
    new.ipv6 = true;
    let a = create_network(&mut state, new.clone()).unwrap();
    assert_eq!(subnets(&state, a.id)[1], "fd00:1:2:1::/64 fd00:1:2:1::1");
    new = new_network(2, "b", &[]);
    new.ipv6 = true;
    assert_says(&refused(&mut state, Command::CreateNetwork(new.clone())), &["fd00:1:2::/63", "--subnet"]);
    new.subnets = vec![("fd00:9::/64".parse().unwrap(), Some(ip("fd00:9::ff")))];
    let b = create_network(&mut state, new).unwrap();
    assert_eq!(subnets(&state, b.id), ["fd00:9::/64 fd00:9::ff"], "what is given is all there is");

    let mut state = cluster(1);
    let mut new = new_network(1, "a", &[]);
    new.ipv6 = true;
    let a = create_network(&mut state, new).unwrap();
    assert_eq!(subnets(&state, a.id), ["10.0.1.0/24 10.0.1.1", "fd6d:6573:6800::/64 fd6d:6573:6800::1"]);
}

#[test]
fn services_get_a_vip_per_family() {
    let mut state = cluster(1);
    let both = create_network(&mut state, new_network(1, "both", &["10.9.0.0/24", "fd00:1::/64"])).unwrap();
    let six = create_network(&mut state, new_network(2, "six", &["fd00:2::/64"])).unwrap();
    let web = create_service(&mut state, new_service(1, "web", &[both.id, six.id], &["80:80"])).unwrap();
    assert_eq!(web.networks[0].vips, [ip("10.9.0.2"), ip("fd00:1::2")]);
    assert_eq!(web.networks[1].vips, [ip("fd00:2::2")]);
    state.apply(Command::RemoveService(web.id)).unwrap();
    lease_address(&mut state, 1, both.id, "fd00:1::2").unwrap();
}

#[test]
fn leases_are_of_both_families_or_of_one() {
    let mut state = cluster(1);
    let both = create_network(&mut state, new_network(1, "both", &["10.9.0.0/29", "fd00:1::/64"])).unwrap();
    let one_each = lease_of(&mut state, both.id, 1, None);
    assert_eq!(one_each, ["10.9.0.2", "fd00:1::2"]);
    assert_eq!(lease_of(&mut state, both.id, 2, Some(Family::V6)), ["fd00:1::3", "fd00:1::4"]);
    assert_eq!(lease_of(&mut state, both.id, 1, Some(Family::V4)), ["10.9.0.3"]);
    lease_address(&mut state, 1, both.id, "fd00:1::abcd:1").unwrap();
    let say = |state: &mut State, address: &str, parts: &[&str]| {
        let (node, network, address) = (NodeId::from_u128(1), both.id, ip(address));
        assert_says(&refused(state, Command::LeaseAddress { node, network, address }), parts);
    };
    say(&mut state, "fd00:1::1", &["gateway"]);
    say(&mut state, "fd00:1::", &["fd00:1::", "not a usable address"]);
    say(&mut state, "fd00:2::5", &["10.9.0.0/29, fd00:1::/64"]);

    while lease(&mut state, 1, both.id, 1).is_ok() {}
    // All or nothing: no IPv6 address is lost to a request that IPv4 refuses.
    let node = NodeId::from_u128(1);
    let held = state.leases_of(node);
    let text = refused(&mut state, Command::Lease { node, network: both.id, count: 1, family: None });
    assert_says(&text, &["network both (10.9.0.0/29)", "no free address", "n1: 5"]);
    assert_eq!(state.leases_of(node), held);
    lease_of(&mut state, both.id, 1, Some(Family::V6));

    let four = create_network(&mut state, new_network(2, "four", &["10.9.0.0/24"])).unwrap();
    let family = Some(Family::V6);
    let text = refused(&mut state, Command::Lease { node, network: four.id, count: 1, family });
    assert_says(&text, &["network four has no IPv6 addresses"]);
}

#[test]
fn returned_addresses_of_both_families_are_free_again() {
    let mut state = cluster(1);
    let both = create_network(&mut state, new_network(1, "both", &["10.9.0.0/29", "fd00:1::/126"])).unwrap();
    let node = NodeId::from_u128(1);
    create_service(&mut state, new_service(1, "web", &[both.id], &[])).unwrap();
    let got = lease(&mut state, 1, both.id, 8).unwrap();
    assert_eq!(got, [ip("10.9.0.3"), ip("10.9.0.4"), ip("fd00:1::3")]);
    give_back(&mut state, 1, both.id, &got);
    state.apply(Command::RemoveService(ServiceId::from_u128(1))).unwrap();
    assert!(state.leases_of(node).is_empty());
    assert_eq!(lease_of(&mut state, both.id, 8, Some(Family::V6)), ["fd00:1::2"]);
}
