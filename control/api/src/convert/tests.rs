use std::collections::BTreeMap;

use mesh_types::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};

use super::*;

fn view() -> ClusterView {
    let node = Node {
        id: NodeId::from_u128(1),
        name: Name::new("n1").unwrap(),
        role: Role::Manager,
        advertise_addr: "192.168.7.1".parse().unwrap(),
        data_path_addr: "fd00::1".parse().unwrap(),
        availability: Availability::Pause,
        labels: BTreeMap::from([("zone".into(), "a".into())]),
        joined_at: 7,
        version: 3,
    };
    let network = Network {
        id: NetworkId::from_u128(2),
        name: Name::new("prod").unwrap(),
        vni: Vni::FIRST,
        subnets: vec![Subnet::new("10.10.3.0/24".parse().unwrap(), None).unwrap()],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: Some(1400),
        labels: BTreeMap::new(),
        created_at: 8,
        ip_ranges: vec!["10.10.3.64/26".parse().unwrap()],
        aux_addresses: BTreeMap::from([("router".into(), "10.10.3.9".parse().unwrap())]),
        version: 4,
    };
    let service = Service {
        id: ServiceId::from_u128(3),
        name: Name::new("web").unwrap(),
        networks: vec![ServiceNetwork {
            network: network.id,
            vips: vec!["10.10.3.2".parse().unwrap()],
            aliases: vec![Name::new("www").unwrap()],
        }],
        endpoint_mode: EndpointMode::Vip,
        ports: ["80:8080/udp", "10.0.0.5:7:7/sctp,mode=host", "[fd00::5]:1:2,return=direct", "eth0:1:2"]
            .map(|port| port.parse().unwrap())
            .into(),
        affinity: Some(Affinity { timeout_secs: 1800 }),
        prefer_local: true,
        drain_timeout_secs: 45,
        health: Some(HealthCheck { retries: 7, ..HealthCheck::of("http:80/ready".parse().unwrap()) }),
        labels: BTreeMap::new(),
        created_at: 9,
        version: 5,
    };
    ClusterView {
        cluster: ClusterId::from_u128(4),
        version: 10,
        nodes: BTreeMap::from([(node.id, node)]),
        networks: BTreeMap::from([(network.id, network)]),
        services: BTreeMap::from([(service.id, service)]),
        gossip_keys: vec![[5; 32]],
        ca_generation: 2,
    }
}

#[test]
fn a_view_round_trips() {
    let view = view();
    assert_eq!(ClusterView::try_from(v1::ClusterView::from(&view)), Ok(view));
}

#[test]
fn an_endpoint_round_trips() {
    let endpoint = Endpoint {
        network: NetworkId::from_u128(2),
        node: NodeId::from_u128(1),
        task: TaskId::from_u128(6),
        name: Name::new("web.1").unwrap(),
        service: Some(ServiceId::from_u128(3)),
        addresses: vec!["10.10.3.5".parse().unwrap()],
        mac: Mac([2, 66, 10, 10, 3, 5]),
        local_id: LocalEndpointId(9),
        generation: Generation(3),
        aliases: vec![],
        state: EndpointState::Draining,
        weight: 50,
        health: Health::Unhealthy,
        health_note: Some(HealthNote::of("connection refused")),
    };
    assert_eq!(Endpoint::try_from(v1::Endpoint::from(&endpoint)), Ok(endpoint.clone()));
    let free = Endpoint { service: None, ..endpoint };
    assert_eq!(Endpoint::try_from(v1::Endpoint::from(&free)), Ok(free));
}

#[test]
fn a_listener_round_trips() {
    let process = Some(ListenerProcess { name: "nginx".into(), pid: 123 });
    let address = "::".parse().unwrap();
    let listener = Listener { port: 80, protocol: Protocol::Tcp, address, process };
    assert_eq!(Listener::try_from(v1::Listener::from(&listener)), Ok(listener.clone()));
    assert_eq!(listener.to_string(), "port 80/tcp: also listened on by nginx (pid 123)");
    let unknown = Listener { process: None, ..listener };
    assert_eq!(Listener::try_from(v1::Listener::from(&unknown)), Ok(unknown));
}

#[test]
fn what_is_invalid_is_named() {
    let mut wire = v1::ClusterView::from(&view());
    wire.networks[0].vni = 0;
    assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "network.vni");
    let mut wire = v1::ClusterView::from(&view());
    wire.nodes[0].role = 99;
    assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "role");
    let mut wire = v1::ClusterView::from(&view());
    wire.services[0].ports[0].target = 65536;
    assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "port.target");
    let mut wire = v1::ClusterView::from(&view());
    wire.services[0].ports[0].at = Some(v1::port::At::Interface("a/b".into()));
    assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "port.interface");
    let mut wire = v1::ClusterView::from(&view());
    wire.services[0].ports[0].at = Some(v1::port::At::Address("::".into()));
    assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "port.address");
    let mut wire = v1::ClusterView::from(&view());
    wire.gossip_keys[0].pop();
    assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "gossip_keys");
    let subnet = v1::Subnet { net: "10.10.3.0".into(), gateway: String::new() };
    assert!(Subnet::try_from(subnet).unwrap_err().reason.contains("10.10.3.0"));
}

/// A message as the next version may write it: more fields, at the end of the whole and inside its parts.
#[test]
fn messages_of_the_next_version_are_read() {
    use prost::Message as _;
    // Field 1000 of every kind on the wire: number, text, fixed.
    let unknown =
        [&[0xc0, 0x3e, 0x07][..], &[0xc2, 0x3e, 3, b'n', b'e', b'w'], &[0xc5, 0x3e, 1, 2, 3, 4]].concat();
    let with = |bytes: Vec<u8>| [bytes, unknown.clone()].concat();
    let inside = |field: u8, message: Vec<u8>| {
        let message = with(message);
        assert!(message.len() < 1 << 14, "its length takes two bytes");
        let length = [(message.len() & 0x7f) as u8 | 0x80, (message.len() >> 7) as u8];
        [&[field << 3 | 2][..], &length, &message].concat()
    };
    let view = view();
    let now = v1::ClusterView::from(&view);
    let bare = v1::ClusterView { nodes: vec![], networks: vec![], services: vec![], ..now.clone() };
    let mut next = with(bare.encode_to_vec());
    next.extend(inside(3, now.nodes[0].encode_to_vec()));
    next.extend(inside(4, now.networks[0].encode_to_vec()));
    next.extend(inside(5, now.services[0].encode_to_vec()));
    let read = v1::ClusterView::decode(next.as_slice()).unwrap();
    assert_eq!(ClusterView::try_from(read), Ok(view));
    let request =
        v1::UpdateServiceRequest { service: "web".into(), expected_version: Some(3), ..Default::default() };
    let read = v1::UpdateServiceRequest::decode(with(request.encode_to_vec()).as_slice()).unwrap();
    assert_eq!(read, request);
    // And of the version before: fields that it does not know are absent.
    let old = v1::Service { version: 0, ..now.services[0].clone() };
    let old = v1::Service::decode(old.encode_to_vec().as_slice()).unwrap();
    assert_eq!(Service::try_from(old).unwrap().version, 0);
}
