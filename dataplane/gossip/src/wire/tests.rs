use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_types::{EndpointState, Generation, Health, HealthNote, LocalEndpointId, Mac, Name, ServiceId};
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
        proptest::option::of(".{0,200}"),
    )
        .prop_map(|(ids, name, (service, ip, mac, local, generation, draining), weight, note)| {
            Endpoint {
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
                health: if note.is_some() { Health::Unhealthy } else { Health::None },
                health_note: note.as_deref().map(HealthNote::of),
            }
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
        (node(), any::<([u8; 4], u16)>(), any::<(Vec<u8>, u64)>()).prop_map(
            |(node, addr, (swim, ticket))| {
                Message::Inquire { node, addr: SocketAddr::from(addr), swim, ticket }
            }
        ),
        any::<(Vec<u8>, u64)>().prop_map(|(swim, ticket)| Message::Probe { swim, ticket }),
        any::<(Vec<u8>, u64)>().prop_map(|(swim, ticket)| Message::Probed { swim, ticket }),
        any::<(Vec<u8>, u64)>().prop_map(|(swim, ticket)| Message::Witness { swim, ticket }),
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
    fn what_a_later_release_appends_is_passed_over(message in message(), appended: Vec<u8>) {
        let packet = Packet { from: NodeId::from_u128(1), epoch: 1, sequence: 1, message };
        let bytes = [packet.encode(), appended].concat();
        prop_assert_eq!(Packet::decode(&bytes).unwrap(), packet);
    }

    #[test]
    fn items_may_be_longer_or_shorter_than_known(mut endpoint in endpoint(), appended in vec(any::<u8>(), 0..20)) {
        (endpoint.health, endpoint.health_note) = (Health::None, None);
        let item = Item::Endpoint {
            scope: NetworkId::from_u128(1),
            version: Version { epoch: 1, counter: 1 },
            endpoint: Arc::new(endpoint),
        };
        let known = postcard::to_stdvec(&item).unwrap();
        let older = known.strip_suffix(&[0, 0]).expect("the fields that came last have zeros for defaults");
        for encoded in [&known[..], older, &[&known[..], &appended].concat()] {
            let mut bytes = update_of(&[encoded, &known]);
            prop_assert_eq!(items_of(&bytes), vec![item.clone(), item.clone()]);
            // A kind that only a later release knows.
            let unknown = [&[3], encoded].concat();
            bytes = update_of(&[&unknown, &known]);
            prop_assert_eq!(items_of(&bytes), vec![item.clone()]);
        }
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

/// A packet with an update of items encoded so.
fn update_of(items: &[&[u8]]) -> Vec<u8> {
    let empty = Message::Update { relay: false, ticket: 1, items: Vec::new() };
    let mut bytes = Packet { from: NodeId::from_u128(1), epoch: 1, sequence: 1, message: empty }.encode();
    assert_eq!(bytes.pop(), Some(0));
    bytes.push(items.len() as u8);
    for item in items {
        bytes = postcard::to_extend(item, bytes).unwrap();
    }
    bytes
}

fn items_of(packet: &[u8]) -> Vec<Item> {
    match Packet::decode(packet).unwrap().message {
        Message::Update { items, .. } => items,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kinds_of_later_releases_are_named() {
    let farewell =
        Packet { from: NodeId::from_u128(1), epoch: 1, sequence: 1, message: Message::Leave }.encode();
    let (kind, before) = farewell.split_last().unwrap();
    assert_eq!(*kind, 3);
    let of_kind = |kind: u8| Packet::decode(&[before, &[kind, 1, 2, 3]].concat());
    let last = Packet { message: Message::Witness { swim: vec![], ticket: 0 }, ..of_kind(3).unwrap() };
    assert_eq!(last.encode()[before.len()], KINDS as u8 - 1, "the last kind known");
    assert_eq!(of_kind(KINDS as u8), Err(WireError::Kind(KINDS)));
    assert_eq!(of_kind(100), Err(WireError::Kind(100)));
}
