use std::{collections::BTreeMap, path::PathBuf};

use mesh_types::{
    ClusterId, Generation, Health, LocalEndpointId, Mac, Name, Network, NetworkId, Subnet, TaskDns, TaskId,
    Vni,
};

use super::*;
use crate::{Attachment, Drain, NsRef};

const NS: NsIdentity = NsIdentity { dev: 4, ino: 7 };

fn owner(text: &str) -> Owner {
    Owner::new(text).unwrap()
}

fn network(id: u32, name: &str) -> Network {
    Network {
        id: NetworkId::from_u128(id.into()),
        name: Name::new(name).unwrap(),
        vni: Vni::new(4096 + id).unwrap(),
        subnets: vec![Subnet::new(format!("10.10.{id}.0/24").parse().unwrap(), None).unwrap()],
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        internal: false,
        attachable: true,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 0,
    }
}

fn view() -> ClusterView {
    let networks = [network(1, "prod"), network(2, "test")];
    ClusterView {
        cluster: ClusterId::from_u128(1),
        version: 1,
        nodes: BTreeMap::new(),
        networks: networks.into_iter().map(|n| (n.id, n)).collect(),
        services: BTreeMap::new(),
        gossip_keys: vec![],
        ca_generation: 1,
    }
}

/// On network n for the owner n.
fn task(places: &[(u32, &str)]) -> LocalTask {
    let place = |&(n, by): &(u32, &str)| Attachment {
        network: NetworkId::from_u128(n.into()),
        addresses: vec![format!("10.10.{n}.2").parse().unwrap()],
        fixed: vec![],
        mac: Mac([2, 0, 0, 0, 0, 1]),
        local_id: LocalEndpointId(n),
        generation: Generation(1),
        egress4: None,
        egress6: None,
        link: format!("msh0000000{n}"),
        task_link: format!("eth{}", n - 1),
        ifindex: n,
        aliases: vec![],
        by_service: false,
        owner: Some(owner(by)),
        host_ports: vec![],
    };
    LocalTask {
        id: TaskId::from_u128(1),
        name: Name::new("db").unwrap(),
        service: None,
        aliases: vec![],
        namespace: NsRef::Path(PathBuf::from("/run/netns/x")),
        namespace_id: NS,
        attachments: places.iter().map(place).collect(),
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
        health: Health::None,
        health_note: None,
        follows_service: false,
        dns: TaskDns::default(),
    }
}

fn spec() -> AttachSpec {
    AttachSpec {
        namespace: NsRef::Path(PathBuf::from("/run/netns/x")),
        name: None,
        service: None,
        networks: vec!["prod".into()],
        addresses: vec![],
        aliases: vec![],
        weight: 1,
        drain_timeout_secs: None,
        dns: TaskDns::default(),
        owner: Some(owner("one")),
        interface: None,
        mac: None,
        host_ports: vec![],
    }
}

#[test]
fn the_same_wishes_are_the_same_task() {
    let task = task(&[(1, "one"), (2, "two")]);
    let differs = |spec: AttachSpec| super::differs(&task, spec.owner.as_ref().unwrap(), &spec, NS, &view());
    assert_eq!(differs(spec()), None);
    let name = |text: &str| Some(Name::new(text).unwrap());
    assert_eq!(differs(AttachSpec { name: name("DB"), ..spec() }), None, "names are one whatever their case");
    assert_eq!(differs(AttachSpec { name: name("other"), ..spec() }), Some("name"));
    assert_eq!(differs(AttachSpec { networks: vec!["test".into()], ..spec() }), Some("network"));
    assert_eq!(differs(AttachSpec { networks: vec!["gone".into()], ..spec() }), Some("network"));
    let two = AttachSpec { networks: vec!["test".into()], owner: Some(owner("two")), ..spec() };
    assert_eq!(differs(two), None, "what others joined it to is theirs");
    let address = |text: &str| vec![text.parse().unwrap()];
    assert_eq!(differs(AttachSpec { addresses: address("10.10.1.2"), ..spec() }), None);
    assert_eq!(differs(AttachSpec { addresses: address("10.10.2.2"), ..spec() }), Some("address"));
    let interface = |text: &str| Some(text.parse().unwrap());
    assert_eq!(differs(AttachSpec { interface: interface("eth0"), ..spec() }), None);
    assert_eq!(differs(AttachSpec { interface: interface("eth1"), ..spec() }), Some("interface"));
    assert_eq!(differs(AttachSpec { mac: Some(Mac([2, 0, 0, 0, 0, 2])), ..spec() }), Some("MAC"));
    assert_eq!(differs(AttachSpec { aliases: vec![Name::new("a").unwrap()], ..spec() }), Some("alias"));
    let ports = |text: &str| vec![text.parse().unwrap()];
    assert_eq!(differs(AttachSpec { host_ports: ports("80:80"), ..spec() }), Some("port"));
    let mut open = task.clone();
    open.attachments[1].host_ports = ports("80:80");
    let two = |host_ports| AttachSpec { networks: vec!["test".into()], host_ports, ..spec() };
    let with = |by: &str, spec: AttachSpec| super::differs(&open, &owner(by), &spec, NS, &view());
    assert_eq!(with("two", two(ports("80:80"))), None);
    assert_eq!(with("two", two(vec![])), Some("port"), "it is open and not wanted");
    assert_eq!(
        with("one", AttachSpec { host_ports: ports("80:80"), ..spec() }),
        None,
        "open with the other network"
    );
    let elsewhere = NsIdentity { dev: 4, ino: 8 };
    assert_eq!(super::differs(&task, &owner("one"), &spec(), elsewhere, &view()), Some("namespace"));
}

#[test]
fn owners_are_told_once_the_maker_first() {
    let task = task(&[(2, "two"), (1, "one"), (3, "two")]);
    assert_eq!(task.owners(), [&owner("two"), &owner("one")]);
    assert!(task.is_of(&owner("one")) && !task.is_of(&owner("three")));
}
