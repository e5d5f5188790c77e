//! Changes of networks and services: everything that can change, all at once or not at all, and for one version only.

use crate::common::*;
use mesh_store::{
    AliasChange, Command, NetworkChange, NodeChange, Rejection, Response, ServiceChange, State,
};
use mesh_types::{EndpointMode, Network, NetworkId, NodeId, Service, ServiceId};

const WEB: ServiceId = ServiceId::from_u128(1);

/// A cluster with networks a and b, and the service web on a.
fn stage() -> (State, Network, Network, Service) {
    let mut state = cluster(1);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap();
    let b = create_network(&mut state, new_network(2, "b", &["10.9.1.0/24", "fd00:9::/64"])).unwrap();
    let web = create_service(&mut state, new_service(1, "web", &[a.id], &["80:80"])).unwrap();
    (state, a, b, web)
}

fn update(state: &mut State, change: ServiceChange) -> Result<Service, Rejection> {
    match state.apply(Command::UpdateService { service: WEB, change })? {
        Response::Service(service) => Ok(service),
        other => panic!("{other:?}"),
    }
}

fn refused_change(state: &mut State, change: ServiceChange, parts: &[&str]) {
    assert_says(&refused(state, Command::UpdateService { service: WEB, change }), parts);
}

fn on(network: Option<NetworkId>, alias: &str) -> AliasChange {
    AliasChange { network, alias: name(alias) }
}

#[test]
fn a_service_joins_and_leaves_networks() {
    let (mut state, a, b, web) = stage();
    let add = |id| ServiceChange { add_networks: vec![(id, vec![name("www")])], ..ServiceChange::default() };
    let leave = |id| ServiceChange { remove_networks: vec![id], ..ServiceChange::default() };
    refused_change(&mut state, add(a.id), &["web is on network a already", "--alias-add"]);
    refused_change(&mut state, add(NetworkId::from_u128(99)), &["no such network"]);
    refused_change(&mut state, leave(b.id), &["web is not on network b"]);
    refused_change(&mut state, leave(a.id), &["web would be on no network"]);
    let twice =
        ServiceChange { add_networks: vec![(b.id, vec![]), (b.id, vec![])], ..ServiceChange::default() };
    refused_change(&mut state, twice, &["network b twice"]);

    let both = update(&mut state, add(b.id)).unwrap();
    assert_eq!(both.networks[0], web.networks[0]);
    assert_eq!(both.networks[1].vips, [ip("10.9.1.2"), ip("fd00:9::2")]);
    assert_eq!(both.networks[1].aliases, [name("www")]);
    assert_says(&refused(&mut state, Command::RemoveNetwork(b.id)), &["network b is used by service web"]);
    let now = update(&mut state, leave(a.id)).unwrap();
    assert_eq!(now.networks, both.networks[1..]);
    state.apply(Command::RemoveNetwork(a.id)).unwrap();
    // What it held on the network it left is free, what it holds on the other one is not.
    assert!(lease_address(&mut state, 1, b.id, "10.9.1.2").is_err());
    let swap = ServiceChange {
        remove_networks: vec![b.id],
        add_networks: vec![(INGRESS, vec![])],
        ..ServiceChange::default()
    };
    update(&mut state, swap).unwrap();
    lease_address(&mut state, 1, b.id, "10.9.1.2").unwrap();
}

#[test]
fn aliases_come_and_go_on_one_network_or_on_all() {
    let (mut state, a, b, _) = stage();
    let both = ServiceChange { add_networks: vec![(b.id, vec![])], ..ServiceChange::default() };
    update(&mut state, both).unwrap();
    let add = |all| ServiceChange { add_aliases: all, ..ServiceChange::default() };
    let remove = |all| ServiceChange { remove_aliases: all, ..ServiceChange::default() };
    let web = update(&mut state, add(vec![on(None, "www"), on(Some(b.id), "shop")])).unwrap();
    assert_eq!(web.networks[0].aliases, [name("www")]);
    assert_eq!(web.networks[1].aliases, [name("www"), name("shop")]);
    let version = web.version;
    let same = update(&mut state, add(vec![on(None, "WWW")])).unwrap();
    assert_eq!(same.version, version, "nothing changed");
    refused_change(&mut state, add(vec![on(Some(INGRESS), "x")]), &["not on network ingress"]);
    refused_change(&mut state, remove(vec![on(Some(a.id), "shop")]), &["no alias shop on network a"]);
    refused_change(&mut state, remove(vec![on(None, "nothing")]), &["no alias nothing"]);
    let web = update(&mut state, remove(vec![on(Some(a.id), "www"), on(None, "SHOP")])).unwrap();
    assert_eq!((web.networks[0].aliases.len(), &web.networks[1].aliases), (0, &vec![name("www")]));
}

#[test]
fn the_endpoint_mode_changes_with_what_depends_on_it() {
    let (mut state, a, _, web) = stage();
    let mode = |mode| ServiceChange { endpoint_mode: Some(mode), ..ServiceChange::default() };
    refused_change(&mut state, mode(EndpointMode::Dnsrr), &["web", "dnsrr", "mode=host"]);
    let mut change = mode(EndpointMode::Dnsrr);
    change.remove_ports = vec!["80".parse().unwrap()];
    change.add_ports = vec!["80:80,mode=host".parse().unwrap()];
    let rr = update(&mut state, change).unwrap();
    assert!(rr.networks[0].vips.is_empty());
    lease_address(&mut state, 1, a.id, &web.networks[0].vips[0].to_string()).unwrap();
    refused_change(
        &mut state,
        ServiceChange { prefer_local: Some(true), ..ServiceChange::default() },
        &["vip"],
    );
    let back = update(&mut state, mode(EndpointMode::Vip)).unwrap();
    assert_eq!((back.networks[0].vips.len(), back.ports.len()), (1, 1));
    assert_ne!(back.networks[0].vips, web.networks[0].vips);
    let same = update(&mut state, mode(EndpointMode::Vip)).unwrap();
    assert_eq!(same, back);
}

#[test]
fn a_change_for_another_version_is_refused() {
    let (mut state, a, _, web) = stage();
    let label = |version, value: &str| ServiceChange {
        expected_version: version,
        set_labels: [("a".to_owned(), value.to_owned())].into(),
        ..ServiceChange::default()
    };
    let now = update(&mut state, label(Some(web.version), "1")).unwrap();
    assert!(now.version > web.version);
    let is = now.version.to_string();
    refused_change(&mut state, label(Some(web.version), "2"), &["service web", "changed meanwhile", &is]);
    // What was made for no version in particular is always done.
    update(&mut state, label(None, "3")).unwrap();

    let network = |change| Command::UpdateNetwork { network: a.id, change };
    let open = NetworkChange {
        attachable: Some(false),
        expected_version: Some(a.version),
        ..NetworkChange::default()
    };
    state.apply(network(open.clone())).unwrap();
    let close = NetworkChange { attachable: Some(true), ..open };
    assert_says(&refused(&mut state, network(close)), &["network a was changed meanwhile"]);
    let view = state.view().unwrap();
    assert!(!view.networks[&a.id].attachable && view.networks[&a.id].version > a.version);

    let node = NodeId::from_u128(1);
    let change = NodeChange { expected_version: Some(99), name: Some(name("x")), ..NodeChange::default() };
    assert_says(
        &refused(&mut state, Command::UpdateNode { node, change }),
        &["node n1 was changed meanwhile"],
    );
    let change = NodeChange { expected_version: Some(1), name: Some(name("x")), ..NodeChange::default() };
    state.apply(Command::UpdateNode { node, change }).unwrap();
    assert!(state.node(node).unwrap().version > 1);
}
