use std::path::PathBuf;

use mesh_types::Vni;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn tasks_of_version_1_come_back() {
    let address = IpAddr::from([10, 10, 3, 5]);
    let kept = Tasks1 {
        boot: "b".to_owned(),
        generation: Generation(7),
        tasks: vec![Task1 {
            id: TaskId::from_u128(1),
            name: name("web1"),
            service: Some(ServiceId::from_u128(2)),
            aliases: vec![name("www")],
            namespace: NsRef::Path(PathBuf::from("/run/netns/x")),
            namespace_id: NsIdentity { dev: 4, ino: 5 },
            attachments: vec![Attachment1 {
                network: NetworkId::from_u128(3),
                address,
                fixed: true,
                mac: Mac([2; 6]),
                local_id: LocalEndpointId(9),
                generation: Generation(6),
                egress: Some(Ipv4Addr::new(169, 254, 64, 9)),
                link: "msh0000abcd".to_owned(),
                task_link: "eth0".to_owned(),
                ifindex: 12,
            }],
        }],
    };
    let read = tasks(&postcard::to_stdvec(&kept).unwrap()).unwrap();
    assert_eq!((read.boot.as_str(), read.generation), ("b", Generation(7)));
    let task = &read.tasks[0];
    assert_eq!((task.name.as_str(), task.weight, task.drain), ("web1", 1, Drain::None));
    let attachment = &task.attachments[0];
    assert_eq!((&attachment.addresses, &attachment.fixed), (&vec![address], &vec![address]));
    assert_eq!((attachment.ifindex, attachment.egress6), (12, None));
    // The form of today is another one.
    assert!(kept::decode::<KeptTasks>(&postcard::to_stdvec(&kept).unwrap()).is_none_or(|k| k != read));
}

#[test]
fn a_view_and_endpoints_of_version_1_come_back() {
    let id = ServiceId::from_u128(2);
    let web = Service1 {
        id,
        name: name("web"),
        networks: vec![],
        endpoint_mode: EndpointMode::Vip,
        ports: vec![Port1 { published: 80, target: 8080, protocol: Protocol::Udp, mode: Mode1::Ingress }],
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        created_at: 5,
    };
    let network = NetworkId::from_u128(3);
    let prod = Network {
        id: network,
        name: name("prod"),
        vni: Vni::new(4097).unwrap(),
        subnets: vec![],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: Some(1400),
        labels: BTreeMap::new(),
        created_at: 6,
    };
    let kept = View1 {
        view: Cluster1 {
            cluster: ClusterId::from_u128(8),
            version: 77,
            nodes: BTreeMap::new(),
            networks: BTreeMap::from([(network, prod)]),
            services: BTreeMap::from([(id, web)]),
            gossip_keys: vec![[9; 32]],
        },
        leases: BTreeMap::from([(network, vec![IpAddr::from([10, 10, 3, 5])])]),
        managers: vec!["10.0.0.1:2377".parse().unwrap()],
    };
    let read = view(&postcard::to_stdvec(&kept).unwrap()).unwrap();
    let web = &read.view.services[&id];
    assert_eq!(web.ports, [PortConfig::new(80, 8080, Protocol::Udp)]);
    assert_eq!((web.drain_timeout_secs, web.created_at), (DEFAULT_DRAIN_SECS, 5));
    assert_eq!((read.view.version, read.view.networks[&network].mtu), (77, Some(1400)));
    assert_eq!((read.managers.len(), read.leases.len()), (1, 1));

    let endpoint = Endpoint1 {
        network,
        node: NodeId::from_u128(4),
        task: TaskId::from_u128(5),
        name: name("web1"),
        service: Some(id),
        addresses: vec![IpAddr::from([10, 10, 3, 6])],
        mac: Mac([2; 6]),
        local_id: LocalEndpointId(1),
        generation: Generation(1),
        aliases: vec![],
        state: EndpointState::Draining,
    };
    let kept = BTreeMap::from([(network, vec![endpoint])]);
    let KeptRemote(tables) = remote(&postcard::to_stdvec(&kept).unwrap()).unwrap();
    let read = &tables[&network][0];
    assert_eq!((read.name.as_str(), read.weight, read.state), ("web1", 1, EndpointState::Draining));
}

#[test]
fn noise_is_refused() {
    for bytes in [&[][..], &[0xff; 40], b"hello"] {
        assert!(tasks(bytes).is_none() && view(bytes).is_none());
    }
}
