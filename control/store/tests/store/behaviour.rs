//! What each command does, and how a refusal reads.

use crate::common::*;
use mesh_store::{Command, DecodeError, NEWEST_FORMAT, NewNetwork, NodeChange, Rejection, Sensitive, State};
use mesh_types::{EndpointMode, NetworkId, NodeId, Role, ServiceId, Subnet};

#[test]
fn init_makes_the_ingress_network() {
    let mut state = State::default();
    assert!(state.view().is_none() && state.secrets().is_none());
    assert_says(&refused(&mut state, Command::RemoveNode(NodeId::from_u128(1))), &["meshctl init"]);
    assert_says(&refused(&mut state, init(Some("10.0.0.1/8"), None)), &["10.0.0.0/8"]);
    assert_says(&refused(&mut state, init(None, Some("127.0.0.0/24"))), &["127.0.0.0/24"]);
    state.apply(init(None, None)).unwrap();
    let view = state.view().unwrap();
    let ingress = view.network("ingress").unwrap();
    assert_eq!((ingress.id, ingress.vni.get(), ingress.ingress), (INGRESS, 4096, true));
    assert_eq!(ingress.subnets[0].net().to_string(), "10.0.0.0/24");
    assert_eq!((view.version, view.gossip_keys), (1, vec![[3; 32]]));
    assert_eq!(state.secrets().unwrap().token(Role::Manager), &[2; 16]);
    assert_says(&refused(&mut state, init(None, None)), &["already"]);
}

#[test]
fn the_automatic_subnet_avoids_networks_and_nodes() {
    let mut state = State::default();
    let mut first = init(None, None);
    let Command::Init { node, .. } = &mut first else { unreachable!() };
    node.advertise_addr = ip("10.0.0.4");
    node.data_path_addr = ip("10.0.3.4");
    state.apply(first).unwrap();
    let net =
        |state: &State, text: &str| state.view().unwrap().network(text).unwrap().subnets[0].net().to_string();
    assert_eq!(net(&state, "ingress"), "10.0.1.0/24");
    create_network(&mut state, new_network(1, "wide", &["10.0.2.64/26"])).unwrap();
    create_network(&mut state, new_network(2, "auto", &[])).unwrap();
    assert_eq!(net(&state, "auto"), "10.0.4.0/24");
}

#[test]
fn networks_may_overlap_each_other_but_not_themselves() {
    let mut state = cluster(1);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap();
    let b = create_network(&mut state, new_network(2, "b", &["10.9.0.0/24"])).unwrap();
    assert_ne!(a.vni, b.vni);
    let mut say = |new, parts: &[&str]| assert_says(&refused(&mut state, Command::CreateNetwork(new)), parts);
    say(new_network(3, "c", &["10.8.0.0/24", "10.8.1.0/24"]), &["one IPv4 subnet", "10.8.1.0/24"]);
    say(new_network(3, "c", &["10.8.0.9/24"]), &["10.8.0.9/24", "10.8.0.0/24"]);
    say(new_network(3, "A", &[]), &["network name a is taken"]);
    say(new_network(1, "c", &[]), &["already"]);
    let mut new = new_network(3, "c", &["10.8.0.0/24"]);
    new.subnets[0].1 = Some(ip("10.8.1.1"));
    say(new.clone(), &["10.8.1.1", "10.8.0.0/24"]);
    new.subnets[0].1 = None;
    new.ip_ranges = vec!["10.7.0.0/25".parse().unwrap()];
    say(new.clone(), &["10.7.0.0/25", "10.8.0.0/24"]);
    new.ip_ranges = vec![];
    new.mtu = Some(100);
    say(new.clone(), &["mtu 100", "576"]);
    new.mtu = None;
    for aux in ["10.8.0.0", "10.8.0.1", "10.9.0.7"] {
        new.aux_addresses = [("router".to_owned(), ip(aux))].into();
        say(new.clone(), &["aux address", aux, "network c"]);
    }
}

#[test]
fn an_auxiliary_address_is_never_given_out() {
    let mut state = cluster(1);
    let mut new = new_network(1, "a", &["10.9.0.0/29"]);
    new.aux_addresses = [("router".to_owned(), ip("10.9.0.2")), ("tap".to_owned(), ip("10.9.0.4"))].into();
    let a = create_network(&mut state, new).unwrap();
    assert_eq!(a.aux_addresses["tap"], ip("10.9.0.4"));
    let web = create_service(&mut state, new_service(1, "web", &[a.id], &[])).unwrap();
    assert_eq!(web.networks[0].vips, [ip("10.9.0.3")]);
    let text = lease_address(&mut state, 1, a.id, "10.9.0.4").unwrap_err().to_string();
    assert_says(&text, &["10.9.0.4", "--aux-address"]);
}

#[test]
fn the_ingress_network_is_replaced_and_never_two() {
    let mut state = cluster(1);
    let new = |id, text: &str| NewNetwork { ingress: true, ..new_network(id, text, &["10.9.0.0/24"]) };
    create_network(&mut state, new_network(1, "a", &[])).unwrap();
    create_service(&mut state, new_service(1, "web", &[NetworkId::from_u128(1)], &["80:80"])).unwrap();
    create_service(&mut state, new_service(2, "local", &[NetworkId::from_u128(1)], &["81:81,mode=host"]))
        .unwrap();
    create_service(&mut state, new_service(3, "none", &[], &[])).unwrap();
    let text = refused(&mut state, Command::CreateNetwork(new(2, "ingress")));
    assert_says(&text, &["network ingress", "services none, web;"]);
    for id in [1, 3] {
        state.apply(Command::RemoveService(ServiceId::from_u128(id))).unwrap();
    }
    assert_says(&refused(&mut state, Command::CreateNetwork(new(2, "a"))), &["network name a is taken"]);
    let ingress = create_network(&mut state, new(2, "ingress")).unwrap();
    let all: Vec<_> = state.networks().filter(|network| network.ingress).map(|network| network.id).collect();
    assert_eq!((all, ingress.subnets[0].net().to_string()), (vec![ingress.id], "10.9.0.0/24".to_owned()));
    create_service(&mut state, new_service(4, "again", &[], &["80:80"])).unwrap();
}

#[test]
fn a_pool_runs_dry() {
    let mut state = State::default();
    state.apply(init(Some("10.5.0.0/23"), None)).unwrap();
    create_network(&mut state, new_network(1, "a", &[])).unwrap();
    let text = refused(&mut state, Command::CreateNetwork(new_network(2, "b", &[])));
    assert_says(&text, &["10.5.0.0/23", "--subnet"]);
}

#[test]
fn the_range_limits_what_is_given_but_not_what_is_asked_for() {
    let mut state = cluster(1);
    let mut new = new_network(1, "a", &["10.9.0.0/24"]);
    new.ip_ranges = vec!["10.9.0.64/30".parse().unwrap()];
    let a = create_network(&mut state, new).unwrap();
    assert_eq!(lease(&mut state, 1, a.id, 2).unwrap(), [ip("10.9.0.64"), ip("10.9.0.65")]);
    lease_address(&mut state, 1, a.id, "10.9.0.7").unwrap();
}

#[test]
fn a_network_in_use_stays() {
    let mut state = cluster(1);
    let a = create_network(&mut state, new_network(1, "a", &[])).unwrap();
    for (id, text) in [(1, "web"), (2, "db")] {
        create_service(&mut state, new_service(id, text, &[a.id], &[])).unwrap();
    }
    assert_says(&refused(&mut state, Command::RemoveNetwork(a.id)), &["network a", "db, web"]);
    assert_says(&refused(&mut state, Command::RemoveNetwork(INGRESS)), &["ingress", "cannot be removed"]);
    for id in [1, 2] {
        state.apply(Command::RemoveService(ServiceId::from_u128(id))).unwrap();
    }
    state.apply(Command::RemoveNetwork(a.id)).unwrap();
    assert_says(&refused(&mut state, Command::RemoveNetwork(a.id)), &["no such network", &a.id.to_string()]);
}

#[test]
fn services_get_a_vip_per_network() {
    let mut state = cluster(1);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap();
    let b = create_network(&mut state, new_network(2, "b", &["10.9.1.0/24"])).unwrap();
    let mut new = new_service(1, "web", &[a.id, b.id], &[]);
    new.networks[1].1 = vec![name("www")];
    let web = create_service(&mut state, new).unwrap();
    let vips: Vec<_> = web.networks.iter().map(|n| (n.network, n.vips.clone())).collect();
    assert_eq!(vips, [(a.id, vec![ip("10.9.0.2")]), (b.id, vec![ip("10.9.1.2")])]);
    assert_eq!(web.networks[1].aliases, [name("www")]);
    let mut new = new_service(2, "rr", &[a.id], &[]);
    new.endpoint_mode = EndpointMode::Dnsrr;
    assert!(create_service(&mut state, new.clone()).unwrap().networks[0].vips.is_empty());
    let text = refused(&mut state, change(new.id, &[], &["80:80"]));
    assert_says(&text, &["service rr", "dnsrr"]);
    let mut say = |new, parts: &[&str]| assert_says(&refused(&mut state, Command::CreateService(new)), parts);
    say(new_service(3, "WEB", &[], &[]), &["service name web is taken"]);
    say(new_service(3, "x", &[NetworkId::from_u128(99)], &[]), &["no such network"]);
    say(new_service(3, "x", &[a.id, a.id], &[]), &["service x", "network a twice"]);
    let on_ingress = create_service(&mut state, new_service(3, "x", &[], &[])).unwrap();
    assert_eq!(on_ingress.networks[0].network, INGRESS);
}

#[test]
fn three_nodes_share_a_29() {
    let mut state = cluster(3);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/29"])).unwrap();
    create_service(&mut state, new_service(1, "web", &[a.id], &[])).unwrap();
    for (node, address) in [(1, "10.9.0.3"), (2, "10.9.0.4"), (3, "10.9.0.5"), (1, "10.9.0.6")] {
        assert_eq!(lease(&mut state, node, a.id, 8).unwrap(), [ip(address)]);
    }
    let node = NodeId::from_u128(2);
    let text = refused(&mut state, Command::Lease { node, network: a.id, count: 1, family: None });
    assert_says(
        &text,
        &["network a", "10.9.0.0/29", "n1: 2 (0 in use), n2: 1 (0 in use), n3: 1 (0 in use)", "1 virtual"],
    );
    let text = refused(&mut state, Command::CreateService(new_service(2, "db", &[a.id], &[])));
    assert_says(&text, &["network a", "no free address"]);
    let wide = create_network(&mut state, new_network(2, "wide", &["10.8.0.0/16"])).unwrap();
    assert_eq!(lease(&mut state, 2, wide.id, 0).unwrap().len(), 1);
    assert_eq!(lease(&mut state, 2, wide.id, 5).unwrap().len(), 5);
    assert_eq!(lease(&mut state, 2, wide.id, 500).unwrap().len(), 64);
}

#[test]
fn an_address_asked_for_is_had_or_refused() {
    let mut state = cluster(2);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap();
    create_service(&mut state, new_service(1, "web", &[a.id], &[])).unwrap();
    lease_address(&mut state, 1, a.id, "10.9.0.9").unwrap();
    let version = state.version();
    lease_address(&mut state, 1, a.id, "10.9.0.9").unwrap();
    assert_eq!(state.version(), version, "nothing changed");
    let mut say = |address: &str, parts: &[&str]| {
        let node = NodeId::from_u128(2);
        let command = Command::LeaseAddress { node, network: a.id, address: ip(address) };
        assert_says(&refused(&mut state, command), parts);
    };
    say("10.9.0.9", &["10.9.0.9", "network a", "leased to node n1"]);
    say("10.9.0.2", &["virtual address of service web"]);
    say("10.9.0.1", &["gateway"]);
    say("10.9.0.255", &["10.9.0.255", "10.9.0.0/24"]);
    say("10.9.1.9", &["10.9.1.9", "10.9.0.0/24"]);
}

#[test]
fn leases_come_back() {
    let mut state = cluster(2);
    let a = create_network(&mut state, new_network(1, "a", &["10.9.0.0/24"])).unwrap();
    let got = lease(&mut state, 2, a.id, 2).unwrap();
    let second = NodeId::from_u128(2);
    assert_eq!(state.leases_of(second), [(a.id, got.clone())].into());
    give_back(&mut state, 1, a.id, &got);
    assert_eq!(state.leases_of(second), [(a.id, got.clone())].into(), "not the first one's to give");
    give_back(&mut state, 2, a.id, &got[..1]);
    assert_eq!(state.leases_of(second), [(a.id, got[1..].to_vec())].into());
    give_back(&mut state, 2, a.id, &got);
    assert!(state.leases_of(second).is_empty());
    lease(&mut state, 2, a.id, 3).unwrap();
    state.apply(Command::RemoveNode(second)).unwrap();
    assert!(state.leases_of(second).is_empty());
    let text = refused(&mut state, Command::Lease { node: second, network: a.id, count: 1, family: None });
    assert_says(&text, &["no such node"]);
}

#[test]
fn members() {
    let mut state = cluster(2);
    assert_says(&refused(&mut state, Command::AddNode(node(2))), &["already"]);
    let mut other = node(3);
    other.name = name("N2");
    assert_says(&refused(&mut state, Command::AddNode(other)), &["node name n2", "--name"]);
    let (first, second) = (NodeId::from_u128(1), NodeId::from_u128(2));
    assert_says(&refused(&mut state, Command::RemoveNode(first)), &["n1", "last manager"]);
    let update = |node, change| Command::UpdateNode { node, change };
    let role = |role| NodeChange { role: Some(role), ..NodeChange::default() };
    assert_says(&refused(&mut state, update(first, role(Role::Worker))), &["last manager"]);
    let rename = NodeChange { name: Some(name("n1")), ..NodeChange::default() };
    assert_says(&refused(&mut state, update(second, rename)), &["node name n1"]);
    let moved = |address: &str| NodeChange { data_path_addr: Some(ip(address)), ..NodeChange::default() };
    assert_says(&refused(&mut state, update(second, moved("192.168.7.1"))), &["192.168.7.1", "node n1"]);
    assert_says(&refused(&mut state, update(second, moved("::"))), &["::", "VXLAN"]);
    state.apply(update(second, moved("fd00::2"))).unwrap();
    assert_eq!(state.node(second).unwrap().data_path_addr, ip("fd00::2"));
    let version = state.version();
    state.apply(update(second, NodeChange::default())).unwrap();
    assert_eq!(state.version(), version, "nothing changed");
    state.apply(update(second, role(Role::Manager))).unwrap();
    state.apply(Command::RemoveNode(first)).unwrap();
    assert!(matches!(
        state.apply(Command::RemoveNode(second)),
        Err(Rejection::LastManager(n)) if n.as_str() == "n2"
    ));
}

#[test]
fn versions_tell_what_changed() {
    let mut state = cluster(1);
    let before = state.view_version();
    lease(&mut state, 1, INGRESS, 1).unwrap();
    let secret = Sensitive([9; 16]);
    state.apply(Command::RotateJoinToken { role: Role::Worker, secret }).unwrap();
    assert_eq!(state.secrets().unwrap().token(Role::Worker), &[9; 16]);
    assert_eq!((state.view_version(), state.version()), (before, before + 2));
    create_network(&mut state, new_network(1, "a", &[])).unwrap();
    assert_eq!(state.view_version(), state.version());
}

#[test]
fn nothing_remains_of_a_hundred_rounds() {
    let mut state = cluster(3);
    let mut sizes = Vec::new();
    // Counters keep their number of bytes from round 130 on, so equal sizes mean that nothing was left.
    for round in 0..300u128 {
        let a = create_network(&mut state, new_network(round, "a", &[])).unwrap();
        let web =
            create_service(&mut state, new_service(round, "web", &[a.id], &["80:80", "8080", "53/udp"]));
        publish(&mut state, &web.unwrap(), "90:90").unwrap();
        state.apply(Command::AddNode(node(9))).unwrap();
        let got = lease(&mut state, 2, a.id, 8).unwrap();
        lease_address(&mut state, 3, a.id, "10.0.1.200").unwrap();
        lease(&mut state, 9, INGRESS, 8).unwrap();
        give_back(&mut state, 2, a.id, &got);
        state.apply(Command::RemoveNode(NodeId::from_u128(9))).unwrap();
        state.apply(Command::RemoveService(ServiceId::from_u128(round))).unwrap();
        state.apply(Command::RemoveNetwork(a.id)).unwrap();
        sizes.push(state.encode().len());
        let view = state.view().unwrap();
        assert_eq!((view.networks.len(), view.services.len(), view.nodes.len()), (1, 0, 3));
    }
    assert!(sizes[130..].iter().all(|size| *size == sizes[130]), "{sizes:?}");
}

#[test]
fn secrets_stay_out_of_logs() {
    let mut state = cluster(1);
    let command = Command::RotateJoinToken { role: Role::Worker, secret: Sensitive([77; 16]) };
    let text = format!("{command:?} {:?}", init(None, None));
    state.apply(command).unwrap();
    let text = format!("{text} {state:?}");
    assert!(!text.contains("private key") && !text.contains("77, 77") && !text.contains("3, 3"), "{text}");
}

#[test]
fn damaged_bytes_are_refused() {
    let state = cluster(2);
    let bytes = state.encode();
    assert_eq!(State::decode(&bytes), Ok(state));
    for length in 0..bytes.len() {
        assert!(State::decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    for position in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[position] ^= 0x10;
        assert!(State::decode(&bytes).is_err(), "flipped at {position}");
    }
    let mut newer = bytes.clone();
    newer[0] = NEWEST_FORMAT;
    assert_eq!(State::decode(&newer), Err(DecodeError::Checksum), "the format is not what was written");
    let found = NEWEST_FORMAT + 1;
    newer[0] = found;
    let error = State::decode(&newer).unwrap_err();
    assert_eq!(error, DecodeError::Newer { found });
    assert_says(&error.to_string(), &[&format!("format {found}"), "newer meshd"]);
    newer[0] = 1;
    let error = State::decode(&newer).unwrap_err();
    assert_eq!(error, DecodeError::Older { found: 1 });
    assert_says(&error.to_string(), &["format 1", "anew"]);
}

#[test]
fn gateways_default_to_the_first_host() {
    let mut state = cluster(1);
    let mut new = new_network(1, "a", &["10.9.0.0/24"]);
    new.subnets[0].1 = Some(ip("10.9.0.254"));
    let a = create_network(&mut state, new).unwrap();
    assert_eq!(a.subnets.iter().map(Subnet::gateway).collect::<Vec<_>>(), [ip("10.9.0.254")]);
    assert_eq!(lease(&mut state, 1, a.id, 1).unwrap(), [ip("10.9.0.1")]);
}
