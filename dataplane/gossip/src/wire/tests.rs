use std::net::{IpAddr, Ipv4Addr};

use mesh_types::{EndpointState, Generation, Health, LocalEndpointId, Mac, Name, ServiceId};
use proptest::{collection::vec, prelude::*};

use super::*;

fn version() -> impl Strategy<Value = Version> {
    any::<(u64, u64)>().prop_map(|(epoch, counter)| Version { epoch, counter })
}

fn interest() -> impl Strategy<Value = Interest> {
    prop_oneof![
        Just(Interest::All),
        vec(any::<u128>(), 0..5)
            .prop_map(|n| Interest::Networks(n.into_iter().map(NetworkId::from_u128).collect())),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        any::<[u128; 3]>(),
        "[a-z][a-z0-9]{0,20}",
        any::<(Option<u128>, u32, [u8; 6], u32, u16, bool)>(),
        1u16..=100,
    )
        .prop_map(|(ids, name, (service, ip, mac, local, generation, draining), weight)| Endpoint {
            network: NetworkId::from_u128(ids[0]),
            node: NodeId::from_u128(ids[1]),
            task: TaskId::from_u128(ids[2]),
            name: Name::new(name).unwrap(),
            service: service.map(ServiceId::from_u128),
            addresses: vec![IpAddr::V4(Ipv4Addr::from(ip))],
            mac: Mac(mac),
            local_id: LocalEndpointId(local),
            generation: Generation(generation),
            aliases: vec![],
            state: if draining { EndpointState::Draining } else { EndpointState::Ready },
            weight,
            health: Health::None,
            health_note: None,
        })
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        (any::<u128>(), version(), interest()).prop_map(|(owner, version, interest)| Item::Interest {
            owner: NodeId::from_u128(owner),
            version,
            interest
        }),
        (any::<u128>(), version(), endpoint()).prop_map(|(scope, version, endpoint)| Item::Endpoint {
            scope: NetworkId::from_u128(scope),
            version,
            endpoint: Arc::new(endpoint)
        }),
        (any::<[u128; 4]>(), version()).prop_map(|(ids, version)| Item::Gone {
            scope: NetworkId::from_u128(ids[0]),
            version,
            owner: NodeId::from_u128(ids[1]),
            task: TaskId::from_u128(ids[2]),
            network: NetworkId::from_u128(ids[3]),
        }),
    ]
}

fn table() -> impl Strategy<Value = Table> {
    any::<Option<u128>>()
        .prop_map(|n| n.map_or(Table::Interests, |n| Table::Endpoints(NetworkId::from_u128(n))))
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u128>().prop_map(NodeId::from_u128)
}

fn group() -> impl Strategy<Value = Group> {
    (table(), node(), proptest::option::of(version()), vec(item(), 0..4))
        .prop_map(|(table, owner, complete, items)| Group { table, owner, complete, items })
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let owners = (node(), any::<(u64, u64)>()).prop_map(|(owner, (epoch, digest))| OwnerDigest {
        owner,
        epoch,
        digest,
    });
    prop_oneof![
        any::<Vec<u8>>().prop_map(Message::Swim),
        (any::<(bool, u64)>(), vec(item(), 0..6)).prop_map(|((relay, ticket), items)| Message::Update {
            relay,
            ticket,
            items
        }),
        any::<u64>().prop_map(|ticket| Message::Ack { ticket }),
        Just(Message::Leave),
        any::<u64>().prop_map(|epoch| Message::Outdated { epoch }),
        (item(), vec((table(), any::<u64>()), 0..4))
            .prop_map(|(interest, tables)| Message::Digest { interest, tables }),
        (item(), vec((table(), vec(owners, 0..3)), 0..3))
            .prop_map(|(interest, tables)| Message::Owners { interest, tables }),
        (vec((table(), node()), 0..3), vec(group(), 0..3))
            .prop_map(|(wants, groups)| Message::Records { wants, groups }),
    ]
}

proptest! {
    #[test]
    fn packets_round_trip(from in node(), epoch: u64, sequence: u64, message in message()) {
        let packet = Packet { from, epoch, sequence, message };
        prop_assert_eq!(Packet::decode(&packet.encode()).unwrap(), packet);
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        let _ = Packet::decode(&noise);
        let mut versioned = vec![VERSION];
        versioned.extend(noise);
        let _ = Packet::decode(&versioned);
    }

    #[test]
    fn damaged_packets_never_panic(message in message(), at: prop::sample::Index, value: u8) {
        let packet = Packet { from: NodeId::from_u128(1), epoch: 1, sequence: 1, message };
        let mut bytes = packet.encode();
        let index = at.index(bytes.len());
        bytes[index] = value;
        let _ = Packet::decode(&bytes);
        let _ = Packet::decode(&bytes[..index]);
    }
}

#[test]
fn other_versions_are_named() {
    assert_eq!(Packet::decode(&[9, 1, 2]), Err(WireError::Version(9)));
    assert_eq!(Packet::decode(&[]), Err(WireError::Empty));
}
