use mesh_netlink::LinkInfo;

use super::*;

fn interface(ifindex: u32, name: &str, frames: Frames, addresses: &[&str]) -> Interface {
    Interface {
        link: LinkInfo { name: name.to_owned(), ifindex, mtu: 1500, mac: None, up: true, frames },
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node() -> Vec<Interface> {
    vec![
        interface(1, "lo", Frames::Loopback, &["203.0.113.7"]),
        interface(2, "eth0", Frames::Ethernet, &["10.1.1.2", "10.1.1.3", "fd01::2"]),
        interface(3, "eth0.7", Frames::Ethernet, &["10.7.7.2"]),
        interface(4, "wg0", Frames::Other, &["10.8.8.2"]),
        interface(5, "eth1", Frames::Ethernet, &[]),
        interface(6, "mesh-host", Frames::Ethernet, &["169.254.63.2"]),
        interface(7, "msh0000abcd", Frames::Ethernet, &[]),
    ]
}

fn at(address: &str, interface: &str) -> DataPathAddress {
    DataPathAddress { address: ip(address), interface: interface.to_owned() }
}

#[test]
fn a_chosen_address_is_followed_from_interface_to_interface() {
    let choice = DataPathChoice::Address(ip("10.7.7.2"));
    assert_eq!(data_path_address(&node(), &choice, None, false), Some(at("10.7.7.2", "eth0.7")));
    let mut moved = node();
    moved[2].addresses.clear();
    moved[4].addresses.push(ip("10.7.7.2"));
    let last = at("10.7.7.2", "eth0.7");
    assert_eq!(data_path_address(&moved, &choice, Some(&last), false), Some(at("10.7.7.2", "eth1")));
}

#[test]
fn a_lost_address_is_replaced_by_another_one_of_its_interface_and_family() {
    let choice = DataPathChoice::Address(ip("10.1.1.2"));
    let last = at("10.1.1.2", "eth0");
    let mut now = node();
    now[1].addresses = vec![ip("10.1.9.9"), ip("fd01::9")];
    assert_eq!(data_path_address(&now, &choice, Some(&last), false), None);
    let other = data_path_address(&now, &choice, Some(&last), true).unwrap();
    assert_eq!(other, at("10.1.9.9", "eth0"));
    // It stays with that one, and goes back to the chosen one when that is there again.
    now[1].addresses.insert(0, ip("10.1.0.1"));
    assert_eq!(data_path_address(&now, &choice, Some(&other), true), Some(other.clone()));
    now[1].addresses.push(ip("10.1.1.2"));
    assert_eq!(data_path_address(&now, &choice, Some(&other), false), Some(last.clone()));
    now[1].addresses = vec![ip("fd01::9")];
    assert_eq!(data_path_address(&now, &choice, Some(&last), true), None);
}

#[test]
fn a_chosen_interface_gives_whichever_address_it_has() {
    let choice = DataPathChoice::Interface("eth0".to_owned());
    assert_eq!(data_path_address(&node(), &choice, None, false), Some(at("10.1.1.2", "eth0")));
    let last = at("fd01::7", "eth0");
    assert_eq!(data_path_address(&node(), &choice, Some(&last), false), Some(at("fd01::2", "eth0")));
    let gone = DataPathChoice::Interface("eth9".to_owned());
    assert_eq!(data_path_address(&node(), &gone, Some(&last), true), None);
}

#[test]
fn uplinks_are_the_nodes_own_ethernet_interfaces() {
    let names = |vtep: &DataPathAddress, routed: &[u32], configured: Option<&[String]>| {
        let found = uplinks(&node(), vtep, &routed.iter().copied().collect(), configured);
        found.into_iter().map(|u| u.name).collect::<Vec<_>>()
    };
    let vtep = at("10.7.7.2", "eth0.7");
    assert_eq!(names(&vtep, &[], None), ["eth0.7", "eth0"]);
    assert_eq!(names(&vtep, &[5], None), ["eth0.7", "eth0", "eth1"]);
    assert_eq!(names(&vtep, &[], Some(&["eth1".to_owned(), "eth9".to_owned()])), ["eth0.7", "eth1"]);
    assert_eq!(names(&vtep, &[], Some(&[])), ["eth0.7"]);
    // A VTEP on loopback, as with routing down to the host.
    assert_eq!(names(&at("203.0.113.7", "lo"), &[5], None), ["eth0", "eth0.7", "eth1"]);
}

#[test]
fn published_ports_are_open_on_the_nodes_own_addresses() {
    let addresses = host_addresses(&node());
    assert_eq!(addresses.get(&ip("10.8.8.2")).map(String::as_str), Some("wg0"));
    assert_eq!(addresses.get(&ip("203.0.113.7")).map(String::as_str), Some("lo"));
    assert!(!addresses.contains_key(&ip("169.254.63.2")));
}

#[test]
fn sockets_speak_from_the_vtep_or_another_address_of_their_family() {
    let source = |interfaces: &[Interface], vtep: &DataPathAddress| {
        host_ways(interfaces, vtep, true).iter().map(|w| (w.source.to_string(), w.held)).collect::<Vec<_>>()
    };
    let four = at("10.1.1.3", "eth0");
    assert_eq!(source(&node(), &four), [("10.1.1.3".to_owned(), false), ("fd01::2".to_owned(), false)]);
    let mut six_only = node();
    six_only.truncate(2);
    six_only[0].addresses.clear();
    six_only[1].addresses = vec![ip("fd01::2")];
    let ways = source(&six_only, &at("fd01::2", "eth0"));
    assert_eq!(ways, [("169.254.63.2".to_owned(), true), ("fd01::2".to_owned(), false)]);
    assert_eq!(host_ways(&node(), &four, false).len(), 1);
}

#[test]
fn a_network_sets_a_ceiling_and_ipv6_a_floor() {
    let network = |subnet: &str, mtu| Network {
        id: mesh_types::NetworkId::from_u128(1),
        name: mesh_types::Name::new("n").unwrap(),
        vni: mesh_types::Vni::new(4096).unwrap(),
        subnets: vec![mesh_types::Subnet::new(subnet.parse().unwrap(), None).unwrap()],
        attachable: true,
        internal: false,
        ingress: false,
        mtu,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        version: 0,
    };
    let (four, six) = ("10.10.3.0/24", "fd00:3::/64");
    assert_eq!(task_mtu(1450, &network(four, None)), 1450);
    assert_eq!(task_mtu(1450, &network(four, Some(1300))), 1300);
    assert_eq!(task_mtu(1450, &network(four, Some(9000))), 1450);
    assert_eq!(task_mtu(1000, &network(four, None)), 1000);
    assert_eq!(task_mtu(1000, &network(six, None)), 1280);
    assert_eq!(task_mtu(1430, &network(six, Some(1400))), 1400);
}
