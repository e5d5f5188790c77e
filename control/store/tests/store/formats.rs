//! What the version before wrote is read, and does the same. The recorded bytes are those that a meshd of format 4 wrote.

use std::collections::BTreeSet;

use mesh_store::{
    Command, DecodeError, LeaseChange, NEWEST_FORMAT, NetworkChange, NewRoot, NodeChange, OLDEST_FORMAT,
    Removable, Sensitive, State,
};
use mesh_types::{
    Affinity, Availability, EndpointMode, Family, HealthSettings, NetworkId, NodeId, Role, ServiceId,
};

use crate::common::*;

/// A command of each kind that format 4 has, most of them with all that they can hold.
fn story() -> Vec<Command> {
    let node_id = |number: u128| NodeId::from_u128(number);
    let (front, back) = (NetworkId::from_u128(11), NetworkId::from_u128(12));
    let web = ServiceId::from_u128(21);
    let mut full = new_network(12, "back", &["10.9.0.0/24", "fd00:9::/64"]);
    full.subnets[0].1 = Some(ip("10.9.0.254"));
    full.ip_ranges = vec!["10.9.0.128/25".parse().unwrap()];
    full.mtu = Some(1400);
    full.internal = true;
    full.labels = [("team".to_owned(), "shop".to_owned())].into();
    full.aux_addresses = [("router".to_owned(), ip("10.9.0.200"))].into();
    let mut service = new_service(21, "web", &[front, back], &["8080:80", "53:53/udp"]);
    service.networks[0].1.push(name("www"));
    service.affinity = Some(Affinity { timeout_secs: 60 });
    service.health =
        Some(HealthSettings { probe: Some("tcp:80".parse().unwrap()), ..HealthSettings::default() });
    service.prefer_local = true;
    let alias = mesh_store::AliasChange { network: Some(back), alias: name("shop") };
    let change = mesh_store::ServiceChange {
        add_aliases: vec![alias],
        endpoint_mode: Some(EndpointMode::Vip),
        add_ports: vec!["9000:90".parse().unwrap()],
        remove_ports: vec!["53/udp".parse().unwrap()],
        set_labels: [("tier".to_owned(), "front".to_owned())].into(),
        drain_timeout_secs: Some(7),
        ..mesh_store::ServiceChange::default()
    };
    let drained = NodeChange {
        availability: Some(Availability::Drain),
        set_labels: [("zone".to_owned(), "a".to_owned())].into(),
        ..NodeChange::default()
    };
    let promoted = NodeChange { role: Some(Role::Manager), ..NodeChange::default() };
    let used = LeaseChange { used: vec![ip("10.9.0.129")], unused: vec![], returned: vec![] };
    let root = NewRoot {
        cert_pem: "root 2".to_owned(),
        key_pem: "key 2".to_owned(),
        cross_pem: "cross 2".to_owned(),
        replaces_pem: "certificate".to_owned(),
    };
    vec![
        init(Some("10.64.0.0/10"), None),
        Command::AddNode(node(2)),
        Command::AddNode(node(3)),
        Command::UpdateNode { node: node_id(2), change: drained },
        Command::UpdateNode { node: node_id(3), change: promoted },
        Command::CreateNetwork(new_network(11, "front", &[])),
        Command::CreateNetwork(full),
        Command::CreateNetwork(new_network(13, "gone", &[])),
        Command::UpdateNetwork {
            network: front,
            change: NetworkChange { attachable: Some(false), ..NetworkChange::default() },
        },
        Command::CreateService(service),
        Command::CreateService(new_service(22, "gone", &[front], &[])),
        Command::CreateService(new_service(23, "also-gone", &[front], &[])),
        Command::UpdateService { service: web, change },
        Command::RemoveService(ServiceId::from_u128(22)),
        Command::RemoveUnchanged { object: Removable::Network(NetworkId::from_u128(13)), version: 8 },
        Command::RemoveUnchanged { object: Removable::Service(ServiceId::from_u128(23)), version: 12 },
        Command::Lease { node: node_id(2), network: back, count: 3, family: Some(Family::V4) },
        Command::LeaseAddress { node: node_id(3), network: back, address: ip("10.9.0.77") },
        Command::RenewLeases { node: node_id(2), after: 0, changes: [(back, used)].into(), full: true },
        Command::TakeBackLeases { node: node_id(2), after: 1 },
        Command::SetLeaseGrace { secs: 600 },
        Command::RotateJoinToken { role: Role::Worker, secret: Sensitive([9; 16]) },
        Command::RotateCa(Box::new(root)),
        Command::CertificateInUse { node: node_id(2), generation: 2 },
        Command::UpdateCluster {
            cert_validity_secs: Some(86_400),
            unlock_key: Some(Some(Sensitive([8; 32]))),
        },
        Command::SetGossipRotation { secs: 3_600 },
        Command::RotateGossipKeys { fresh: Sensitive([4; 32]), after: 1 },
        Command::GossipKeysInUse { version: 27, nodes: BTreeSet::from([node_id(2)]) },
        Command::StepGossipKeys { after: 27, now: 99 },
        Command::RemoveNetwork(NetworkId::from_u128(77)),
        Command::RemoveNode(node_id(1)),
    ]
}

/// The commands as the meshd of format 4 wrote them, a line of hexadecimal digits each.
fn recorded() -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = include_str!("format4.commands").lines();
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

const STATE: &[u8] = include_bytes!("format4.state");

#[test]
fn commands_of_the_version_before_are_read_and_written_as_they_were() {
    assert_eq!(recorded().len(), story().len());
    for (bytes, command) in recorded().into_iter().zip(story()) {
        assert_eq!(postcard::from_bytes::<Command>(&bytes).unwrap(), command);
        assert_eq!(postcard::to_stdvec(&command).unwrap(), bytes, "{command:?}");
        assert_eq!(command.format(), OLDEST_FORMAT, "{command:?}");
    }
}

#[test]
fn they_do_what_they_did() {
    let mut state = State::default();
    for command in story() {
        // One names a network that is not there.
        let _ = state.apply(command);
    }
    assert_eq!(state.encode(), STATE);
    assert_eq!(State::decode(STATE), Ok(state));
}

#[test]
fn nothing_new_is_written_before_it_is_agreed() {
    let mut state = State::decode(STATE).unwrap();
    let version = state.version();
    assert_eq!(state.format(), OLDEST_FORMAT);
    state.apply(Command::RaiseFormat { format: NEWEST_FORMAT }).unwrap();
    let bytes = state.encode();
    assert_eq!((state.format(), state.version(), bytes[0]), (NEWEST_FORMAT, version + 1, NEWEST_FORMAT));
    assert_eq!(State::decode(&bytes), Ok(state.clone()));
    let mut lowered = bytes.clone();
    lowered[0] = OLDEST_FORMAT;
    assert_eq!(State::decode(&lowered), Err(DecodeError::Checksum));
    state.apply(Command::RaiseFormat { format: OLDEST_FORMAT }).unwrap();
    assert_eq!(state.encode(), bytes, "it never falls");
}

#[test]
fn what_is_new_says_so() {
    let removal = Command::RemoveUnchanged { object: Removable::Node(NodeId::from_u128(2)), version: 1 };
    assert_eq!(removal.format(), 5);
    // So no meshd that does not know this command can take it for another one.
    assert_eq!(Command::RaiseFormat { format: 6 }.format(), 6);
}

#[test]
fn a_cluster_that_is_made_anew_agrees_anew() {
    let mut old = State::decode(STATE).unwrap();
    old.apply(Command::RaiseFormat { format: NEWEST_FORMAT }).unwrap();
    let mut new = State::default();
    new.apply(Command::Restore(Box::new(old))).unwrap();
    let by_bytes = postcard::to_stdvec(&Command::Restore(Box::new(new.clone()))).unwrap();
    let mut other = State::default();
    other.apply(postcard::from_bytes(&by_bytes).unwrap()).unwrap();
    assert_eq!((new.format(), other.encode()), (OLDEST_FORMAT, new.encode()));
}

#[test]
fn a_node_is_removed_if_nobody_has_changed_it_since() {
    let mut state = cluster(2);
    let (id, version) = (NodeId::from_u128(2), state.node(NodeId::from_u128(2)).unwrap().version);
    let removal = |version| Command::RemoveUnchanged { object: Removable::Node(id), version };
    let change = NodeChange { availability: Some(Availability::Pause), ..NodeChange::default() };
    state.apply(Command::UpdateNode { node: id, change }).unwrap();
    assert_says(&refused(&mut state, removal(version)), &["node n2", "version 3", "not 2"]);
    state.apply(removal(version + 1)).unwrap();
    assert!(state.node(id).is_none());
}
