//! What holds after any sequence of commands.

use std::{collections::BTreeSet, net::IpAddr};

use crate::common::*;
use mesh_store::{Command, LeaseChange, NewNetwork, NodeChange, Sensitive, ServiceChange, State};
use mesh_types::{
    EndpointMode, Family, NetworkId, NodeId, PortConfig, Protocol, PublishMode, Role, ServiceId,
};
use proptest::prelude::*;

fn node_id() -> impl Strategy<Value = NodeId> {
    (1u128..5).prop_map(NodeId::from_u128)
}

/// Three small networks, so that they fill up, and the ingress network.
fn network_id() -> impl Strategy<Value = NetworkId> {
    prop_oneof![(1u128..4).prop_map(NetworkId::from_u128), Just(INGRESS)]
}

fn service_id() -> impl Strategy<Value = ServiceId> {
    (1u128..5).prop_map(ServiceId::from_u128)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..10).prop_map(|low| IpAddr::from([10, 9, 0, low])),
        (0u16..10).prop_map(|low| IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, low])),
    ]
}

fn port() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "80:80",
        "80:80/udp",
        "81:1",
        "8080",
        "53/udp",
        "2377:1",
        "10.0.0.5:80:80",
        "eth0:80:80",
        "81:1,mode=host",
        "5:5/sctp",
        "10.0.0.5::80",
    ])
}

fn command() -> impl Strategy<Value = Command> {
    let names = || prop::sample::select(vec!["a", "b", "c", "A"]);
    let subnet = prop::sample::select(vec![
        "10.9.0.0/29",
        "10.9.0.0/28",
        "10.0.1.0/24",
        "fd00::/64",
        "fd00:9::/125",
        "10.9.0.1/29",
    ]);
    prop_oneof![
        1 => Just(init(None, None)),
        3 => (1u8..5).prop_map(|n| Command::AddNode(node(n))),
        1 => node_id().prop_map(Command::RemoveNode),
        1 => (node_id(), any::<bool>()).prop_map(|(node, manager)| {
            let role = Some(if manager { Role::Manager } else { Role::Worker });
            Command::UpdateNode { node, change: NodeChange { role, ..NodeChange::default() } }
        }),
        4 => (1u128..4, names(), prop::collection::vec(subnet, 0..3), any::<bool>()).prop_map(
            |(id, name, subnets, ipv6)| {
                let new = new_network(id, name, &subnets);
                Command::CreateNetwork(NewNetwork { ipv6, ..new })
            },
        ),
        1 => network_id().prop_map(Command::RemoveNetwork),
        4 => (
            1u128..5,
            names(),
            prop::collection::vec(network_id(), 0..3),
            prop::collection::vec(port(), 0..3),
            any::<bool>(),
        ).prop_map(|(id, name, networks, ports, vip)| {
            let mut new = new_service(id, name, &networks, &ports);
            new.endpoint_mode = if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr };
            Command::CreateService(new)
        }),
        1 => service_id().prop_map(Command::RemoveService),
        3 => (
            service_id(),
            prop::collection::vec(prop::sample::select(vec!["80", "81", "30000", "80/udp", "*:80", "1-99"]), 0..2),
            prop::collection::vec(port(), 0..3),
        ).prop_map(|(service, close, open)| change(service, &close, &open)),
        3 => (
            service_id(),
            prop::option::of(network_id()),
            prop::option::of(network_id()),
            prop::option::of(any::<bool>()),
            prop::option::of(0u64..40),
        ).prop_map(|(service, leave, join, vip, expected_version)| {
            let change = ServiceChange {
                expected_version,
                remove_networks: leave.into_iter().collect(),
                add_networks: join.into_iter().map(|network| (network, vec![])).collect(),
                endpoint_mode: vip.map(|vip| if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr }),
                ..ServiceChange::default()
            };
            Command::UpdateService { service, change }
        }),
        1 => (5u128..9, names()).prop_map(|(id, name)| {
            Command::CreateNetwork(NewNetwork { ingress: true, ..new_network(id, name, &["10.9.0.0/28"]) })
        }),
        6 => (node_id(), network_id(), 0u32..12, 0u8..3).prop_map(|(node, network, count, family)| {
            let family = [None, Some(Family::V4), Some(Family::V6)][usize::from(family)];
            Command::Lease { node, network, count, family }
        }),
        3 => (node_id(), network_id(), address()).prop_map(|(node, network, address)| {
            Command::LeaseAddress { node, network, address }
        }),
        4 => (
            node_id(),
            0u64..4,
            network_id(),
            prop::collection::vec(address(), 0..4),
            prop::collection::vec(address(), 0..3),
            prop::collection::vec(address(), 0..3),
        ).prop_map(|(node, after, network, used, unused, returned)| {
            let changes = [(network, LeaseChange { used, unused, returned })].into();
            Command::RenewLeases { node, after, changes, full: true }
        }),
        1 => (node_id(), 0u64..4).prop_map(|(node, after)| Command::TakeBackLeases { node, after }),
        1 => any::<[u8; 16]>().prop_map(|secret| {
            Command::RotateJoinToken { role: Role::Worker, secret: Sensitive(secret) }
        }),
    ]
}

/// No address has two uses, each lies in its network, ports and names have one owner, references resolve.
fn check(state: &State) {
    let Some(view) = state.view() else { return };
    let leases: Vec<_> = view.nodes.keys().map(|node| state.leases_of(*node)).collect();
    for network in view.networks.values() {
        let families: Vec<_> = network.subnets.iter().map(|subnet| subnet.family()).collect();
        assert!(!families.is_empty() && families.is_sorted_by(|a, b| a < b), "{families:?}");
        for place in view.services.values().filter(|s| s.endpoint_mode == EndpointMode::Vip) {
            for on in place.networks.iter().filter(|on| on.network == network.id) {
                assert_eq!(on.vips.iter().map(|vip| Family::of(*vip)).collect::<Vec<_>>(), families);
            }
        }
        let mut seen = BTreeSet::new();
        for subnet in &network.subnets {
            assert!(seen.insert(subnet.gateway()));
        }
        let vips = view.services.values().flat_map(|s| &s.networks).filter(|n| n.network == network.id);
        let vips = vips.flat_map(|n| &n.vips);
        let leased = leases.iter().filter_map(|leases| leases.get(&network.id)).flatten();
        for address in vips.chain(leased) {
            assert!(seen.insert(*address), "{address} twice on {}", network.name);
            assert!(network.subnet_of(*address).is_some_and(|subnet| subnet.is_host(*address)));
        }
    }
    for leases in &leases {
        assert!(leases.keys().all(|network| view.networks.contains_key(network)));
    }
    let vnis: BTreeSet<_> = view.networks.values().map(|n| n.vni).collect();
    assert_eq!(vnis.len(), view.networks.len());
    let mut ports: Vec<PortConfig> = Vec::new();
    for service in view.services.values() {
        assert!(!service.networks.is_empty());
        assert!(service.networks.iter().all(|n| view.networks.contains_key(&n.network)));
        for port in &service.ports {
            assert!(port.published != 0);
            assert!(service.endpoint_mode == EndpointMode::Vip || port.mode == PublishMode::Host);
            assert!(port.protocol != Protocol::Sctp || port.published == port.target);
            assert!(!ports.iter().any(|other| other.clashes(port)), "{port} twice");
            ports.push(*port);
        }
    }
    let versions = view.nodes.values().map(|n| n.version);
    let versions = versions.chain(view.networks.values().map(|n| n.version));
    let mut versions = versions.chain(view.services.values().map(|s| s.version));
    assert!(versions.all(|version| (1..=view.version).contains(&version)));
    assert!(view.nodes.values().any(|node| node.role == Role::Manager));
    assert_eq!(view.networks.values().filter(|n| n.ingress).count(), 1);
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_invariants(commands in prop::collection::vec(command(), 0..80)) {
        let mut state = State::default();
        let mut twin = State::default();
        for command in std::iter::once(init(None, Some("10.9.0.0/28"))).chain(commands) {
            let before = (state.encode(), state.view().map(|mut v| { v.version = 0; v }), state.view_version());
            let outcome = state.apply(command.clone());
            prop_assert_eq!(&twin.apply(command), &outcome);
            let after = state.encode();
            prop_assert_eq!(&twin.encode(), &after);
            if outcome.is_err() {
                prop_assert_eq!(&before.0, &after, "refused and changed");
            }
            let view = state.view().map(|mut v| { v.version = 0; v });
            prop_assert_eq!(before.1 != view, before.2 != state.view_version(), "the view's version tells");
            let decoded = State::decode(&after);
            prop_assert_eq!(decoded.as_ref(), Ok(&state));
            // A manager that starts from a snapshot goes on as the others do.
            twin = decoded.unwrap();
            check(&state);
        }
    }

    /// What sessions rely on: the difference between any two states is told, and makes the later view of the earlier one.
    #[test]
    fn differences_are_told(commands in prop::collection::vec(command(), 0..60), steps in 1usize..9) {
        let mut state = State::default();
        state.apply(init(None, Some("10.9.0.0/28"))).unwrap();
        let mut known = state.clone();
        for commands in commands.chunks(steps) {
            for command in commands {
                // Refused ones change nothing.
                let _ = state.apply(command.clone());
            }
            let (before, after) = (known.view().unwrap(), state.view().unwrap());
            let change = known.view_change(&state).unwrap();
            let same: Vec<_> = change.now.services.keys().filter(|id| before.services.get(id) == after.services.get(id)).collect();
            prop_assert!(same.is_empty(), "{same:?} did not change");
            let (mut made, mut other) = (before.clone(), after.clone());
            prop_assert!(made.change(change.clone()));
            prop_assert_eq!(&made, &after);
            prop_assert_eq!(other.change(change), before.version == after.version, "only of the view that it is about");
            prop_assert_eq!(&other, &after);
            let nodes: BTreeSet<_> = before.nodes.keys().chain(after.nodes.keys()).copied().collect();
            for node in nodes {
                let differ = known.leases_of(node) != state.leases_of(node);
                prop_assert_eq!(known.leases_differ(&state, node), differ);
                // From disk nothing is shared.
                let decoded = State::decode(&state.encode()).unwrap();
                prop_assert_eq!(known.leases_differ(&decoded, node), differ);
            }
            known = state.clone();
        }
    }

    #[test]
    fn noise_is_no_state(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(State::decode(&bytes).is_err());
    }
}
