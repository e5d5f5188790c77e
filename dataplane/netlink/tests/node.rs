//! A node's own links, settings and events in real namespaces.
#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod support;

use std::time::Duration;

use mesh_netlink::{
    Error, Frames, HostLink, HostWay, LinkEvent, NetNs, Netlink, enable_forwarding, enable_forwarding6,
    ensure_masquerade, remove_masquerade,
};
use support::{inside, path_of, sh, state};

#[test]
fn namespaces_by_path_pid_and_descriptor() {
    let ns = NetNs::create().unwrap();
    let by_path = NetNs::open_path(path_of(&ns).as_ref()).unwrap();
    assert_eq!(by_path.id().unwrap(), ns.id().unwrap());
    assert_eq!(by_path.cookie().unwrap(), ns.cookie().unwrap());
    let own = NetNs::of_pid(std::process::id()).unwrap();
    assert_ne!(own.id().unwrap(), ns.id().unwrap());
    assert_ne!(own.cookie().unwrap(), ns.cookie().unwrap());
    assert_eq!(own.id().unwrap(), NetNs::current().unwrap().id().unwrap());
    // The work runs inside; the caller stays outside.
    let inner = ns.run(|| NetNs::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(inner, ns.id().unwrap());
    assert_eq!(own.id().unwrap(), NetNs::current().unwrap().id().unwrap());
}

#[test]
fn what_is_no_namespace_is_named() {
    let error = NetNs::open_path("/var/run/netns/no-such-one".as_ref()).unwrap_err();
    assert!(error.to_string().contains("/var/run/netns/no-such-one"), "{error}");
    let error = NetNs::open_path("/etc/passwd".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "/etc/passwd is not a network namespace");
    let error = NetNs::open_path("/proc/self/ns/mnt".as_ref()).unwrap_err();
    assert!(matches!(error, Error::NotANamespace { .. }), "{error}");
    let error = NetNs::of_pid(u32::MAX).unwrap_err();
    assert!(error.to_string().contains("4294967295"), "{error}");
}

#[test]
fn interfaces_are_listed_with_their_addresses_and_routes() {
    let ns = NetNs::create().unwrap();
    sh(
        &ns,
        "ip link set lo up; ip addr add 10.9.9.9/32 dev lo; \
         ip link add up0 mtu 1420 address 02:00:00:00:00:09 type veth peer name up1; ip addr add 10.1.1.2/24 dev up0; \
         ip addr add fd01::2/64 dev up0 nodad; ip link set up0 up; ip link set up1 up; \
         ip link add link up0 name up0.7 type macvlan; ip addr add 10.1.7.2/24 dev up0.7; ip link set up0.7 up; \
         ip route add default via 10.1.7.1; ip -6 route add default via fd01::1",
    );
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let all = netlink.interfaces().await.unwrap();
        let of = |name: &str| all.iter().find(|i| i.link.name == name).unwrap();
        let texts = |name: &str| of(name).addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts("up0"), ["10.1.1.2", "fd01::2"]);
        assert_eq!(texts("up0.7"), ["10.1.7.2"]);
        assert_eq!(texts("lo"), ["10.9.9.9"]);
        let up0 = &of("up0").link;
        assert_eq!((up0.mtu, up0.up, up0.frames), (1420, true, Frames::Ethernet));
        assert_eq!(up0.mac, Some("02:00:00:00:00:09".parse().unwrap()));
        assert_eq!(of("lo").link.frames, Frames::Loopback);

        let (up0, vlan) = (up0.ifindex, of("up0.7").link.ifindex);
        let route = async |to: &str| netlink.route_to(to.parse().unwrap(), None).await.unwrap();
        assert_eq!(route("10.1.1.7").await, Some(up0));
        assert_eq!(route("192.0.2.1").await, Some(vlan));
        let from = netlink.route_to("192.0.2.1".parse().unwrap(), Some("10.9.9.9".parse().unwrap())).await;
        assert_eq!(from.unwrap(), Some(vlan));
        assert_eq!(netlink.default_interfaces().await.unwrap(), [vlan, up0]);
        sh(&ns, "ip route del default; ip -6 route del default");
        assert_eq!(route("192.0.2.1").await, None);
        assert_eq!(route("2001:db8::1").await, None);
        assert!(netlink.default_interfaces().await.unwrap().is_empty());
    });
}

#[test]
fn the_vxlan_device_is_made_once() {
    let ns = NetNs::create().unwrap();
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let first = netlink.ensure_vxlan("mesh-vxlan", 4789).await.unwrap();
        assert_eq!(netlink.ensure_vxlan("mesh-vxlan", 4789).await.unwrap(), first);
        let text = sh(&ns, "ip -d link show mesh-vxlan; ss -Huln");
        for part in
            ["external", "dstport 4789", "nolearning", "udp6zerocsumtx", "udp6zerocsumrx", "UP", ":4789"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        sh(&ns, "ip link set mesh-vxlan down");
        assert_eq!(netlink.ensure_vxlan("mesh-vxlan", 4789).await.unwrap(), first);
        assert!(sh(&ns, "ip link show mesh-vxlan").contains("UP"));
        netlink.ensure_vxlan("mesh-vxlan", 4790).await.unwrap();
        assert!(sh(&ns, "ip -d link show mesh-vxlan").contains("dstport 4790"));
    });
}

#[test]
fn a_held_vxlan_port_is_told_and_nothing_is_left() {
    let ns = NetNs::create().unwrap();
    sh(&ns, "ip link add theirs type vxlan id 7 dstport 4789 && ip link set theirs up");
    let before = state(&ns);
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let error = netlink.ensure_vxlan("mesh-vxlan", 4789).await.unwrap_err();
        assert!(error.to_string().contains("4789") && error.to_string().contains("theirs"), "{error}");
    });
    assert_eq!(state(&ns), before);
    // A socket that is no device of this namespace.
    sh(&ns, "ip link del theirs");
    let before = state(&ns);
    inside(&ns, || async {
        let _held = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();
        let error = Netlink::connect().unwrap().ensure_vxlan("mesh-vxlan", 4789).await.unwrap_err();
        assert!(matches!(error, Error::PortHeld { port: 4789, holder: None }), "{error}");
    });
    assert_eq!(state(&ns), before);
    sh(&ns, "ip link add mesh-vxlan type bridge");
    inside(&ns, || async {
        let error = Netlink::connect().unwrap().ensure_vxlan("mesh-vxlan", 4789).await.unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    });
}

fn host_link() -> HostLink {
    HostLink {
        name: "mesh-host".to_owned(),
        peer: "mesh-peer".to_owned(),
        ways: vec![
            HostWay {
                service: "169.254.63.1".parse().unwrap(),
                source: "10.1.1.2".parse().unwrap(),
                held: false,
            },
            HostWay {
                service: "fd6d:6573:6863::1".parse().unwrap(),
                source: "fd6d:6573:6863::2".parse().unwrap(),
                held: true,
            },
        ],
        mtu: 1450,
    }
}

#[test]
fn the_host_link_leads_to_the_service_address() {
    let ns = NetNs::create().unwrap();
    sh(
        &ns,
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; \
         ip link set lo up; ip link add up0 type veth peer name up1; ip addr add 10.1.1.2/24 dev up0; ip link set up0 up; ip link set up1 up",
    );
    let ensure =
        || inside(&ns, || async { Netlink::connect().unwrap().ensure_host_link(&host_link()).await });
    let first = ensure().unwrap();
    let route = sh(&ns, "ip route get 169.254.63.1");
    assert!(route.contains("dev mesh-host src 10.1.1.2"), "{route}");
    let peer = sh(&ns, "cat /sys/class/net/mesh-peer/address || ip -br link show mesh-peer");
    // IPv6 works there though it is off elsewhere.
    let route = sh(&ns, "ip route get fd6d:6573:6863::1");
    assert!(route.contains("dev mesh-host") && route.contains("src fd6d:6573:6863::2"), "{route}");
    let mac = sh(&ns, "ip -br link show mesh-peer").split_whitespace().nth(2).unwrap().to_owned();
    for (family, address) in [("-4", "169.254.63.1"), ("-6", "fd6d:6573:6863::1")] {
        let neighbour = sh(&ns, &format!("ip {family} neigh show dev mesh-host"));
        assert_eq!(neighbour.trim(), format!("{address} lladdr {mac} PERMANENT"), "{peer}");
    }
    let before = state(&ns);
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let mut routes = netlink.watch_routes().unwrap();
        assert_eq!(netlink.ensure_host_link(&host_link()).await.unwrap(), first);
        // What is as it should be is not written again: nobody is told of a change.
        let told = tokio::time::timeout(Duration::from_millis(200), routes.next()).await;
        assert!(told.is_err(), "a route was written again");
    });
    assert_eq!(state(&ns), before);
    // What was broken is mended.
    sh(&ns, "ip route del 169.254.63.1; ip link set mesh-peer down; ip link set mesh-host mtu 1300");
    assert_eq!(ensure().unwrap(), first);
    assert!(sh(&ns, "ip route get 169.254.63.1").contains("dev mesh-host src 10.1.1.2"));
    assert!(sh(&ns, "ip link show mesh-host").contains("mtu 1450"));
    // Where the node has an address of its own, the link gives up its.
    sh(&ns, "echo 0 > /proc/sys/net/ipv6/conf/up0/disable_ipv6; ip addr add fd01::2/64 dev up0 nodad");
    let mut link = host_link();
    link.ways[1] = HostWay { source: "fd01::2".parse().unwrap(), held: false, ..link.ways[1] };
    inside(&ns, || async { Netlink::connect().unwrap().ensure_host_link(&link).await.unwrap() });
    let route = sh(&ns, "ip route get fd6d:6573:6863::1");
    assert!(route.contains("dev mesh-host") && route.contains("src fd01::2"), "{route}");
    assert_eq!(sh(&ns, "ip -6 route show fd6d:6573:6863::1").lines().count(), 1);
    assert!(!sh(&ns, "ip -6 addr show mesh-host").contains("fd6d"));
}

#[test]
fn a_foreign_host_link_is_left_alone() {
    let ns = NetNs::create().unwrap();
    sh(&ns, "ip link add mesh-peer type bridge");
    let before = state(&ns);
    let error = inside(&ns, || async { Netlink::connect().unwrap().ensure_host_link(&host_link()).await });
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::NameTaken { name, .. } if name == "mesh-peer"), "{error}");
    assert_eq!(state(&ns), before);
}

#[test]
fn forwarding_is_turned_on_in_this_namespace_only() {
    let (ns, other) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    for each in [&ns, &other] {
        sh(each, "echo 0 > /proc/sys/net/ipv4/ip_forward");
    }
    ns.run(|| enable_forwarding().unwrap()).unwrap();
    assert_eq!(sh(&ns, "cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    assert_eq!(sh(&other, "cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
}

#[test]
fn a_node_that_forwards_ipv6_goes_on_heeding_router_advertisements() {
    let ns = NetNs::create().unwrap();
    sh(
        &ns,
        "ip link add up0 type veth peer name up1; ip link add up2 type veth peer name up3; \
         cd /proc/sys/net/ipv6/conf; echo 0 > all/forwarding; for l in up0 up1 up3 default; do echo 1 > $l/accept_ra; done; \
         echo 0 > up2/accept_ra",
    );
    ns.run(|| enable_forwarding6().unwrap()).unwrap();
    sh(&ns, "ip link add up4 type veth peer name up5");
    let read = |key: &str| sh(&ns, &format!("cat /proc/sys/net/ipv6/conf/{key}")).trim().to_owned();
    assert_eq!(read("all/forwarding"), "1");
    assert_eq!(["up0", "up1", "up2", "up4"].map(|l| read(&format!("{l}/accept_ra"))), ["2", "2", "0", "2"]);
    // What the host's administrator decides afterwards stays.
    sh(&ns, "echo 1 > /proc/sys/net/ipv6/conf/up0/accept_ra");
    ns.run(|| enable_forwarding6().unwrap()).unwrap();
    assert_eq!(read("up0/accept_ra"), "1");
}

#[test]
fn the_masquerade_leaves_other_tables_alone() {
    let ns = NetNs::create().unwrap();
    let pool = "169.254.64.0/18".parse().unwrap();
    sh(
        &ns,
        "nft add table ip nat; nft 'add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }'",
    );
    let before = state(&ns);
    ns.run(|| ensure_masquerade("meshd", pool).unwrap()).unwrap();
    let with = sh(&ns, "nft -a list ruleset");
    assert!(with.contains("ip saddr 169.254.64.0/18 masquerade"), "{with}");
    // Handles would grow if it were written again.
    ns.run(|| ensure_masquerade("meshd", pool).unwrap()).unwrap();
    assert_eq!(sh(&ns, "nft -a list ruleset"), with);
    // Another pool replaces the first, rather than joining it.
    ns.run(|| ensure_masquerade("meshd", "169.254.128.0/18".parse().unwrap()).unwrap()).unwrap();
    let changed = sh(&ns, "nft list ruleset");
    assert!(changed.contains("169.254.128.0/18") && !changed.contains("169.254.64.0/18"), "{changed}");
    ns.run(|| ensure_masquerade("meshd", "fd6d:6573:6864::/96".parse().unwrap()).unwrap()).unwrap();
    let both = sh(&ns, "nft list ruleset");
    assert!(
        both.contains("ip6 saddr fd6d:6573:6864::/96 masquerade") && both.contains("169.254.128.0/18"),
        "{both}"
    );
    let again = sh(&ns, "nft -a list ruleset");
    ns.run(|| ensure_masquerade("meshd", "fd6d:6573:6864::/96".parse().unwrap()).unwrap()).unwrap();
    assert_eq!(sh(&ns, "nft -a list ruleset"), again);
    ns.run(|| remove_masquerade("meshd").unwrap()).unwrap();
    ns.run(|| remove_masquerade("meshd").unwrap()).unwrap();
    assert_eq!(state(&ns), before);
    let error = ns.run(|| ensure_masquerade("no table", pool)).unwrap().unwrap_err();
    assert!(matches!(error, Error::Nft { .. }), "{error}");
}

#[test]
fn a_task_reaches_the_outside_by_the_nodes_address() {
    let (node, outside, task) =
        (NetNs::create().unwrap(), NetNs::create().unwrap(), NetNs::create().unwrap());
    sh(
        &node,
        &format!(
            "ip link set lo up; ip link add up0 type veth peer name up0 netns {}; ip addr add 10.1.1.2/24 dev up0; \
             ip addr add fd01::2/64 dev up0 nodad; ip link set up0 up",
            path_of(&outside)
        ),
    );
    sh(
        &outside,
        "ip link set lo up; ip addr add 10.1.1.9/24 dev up0; ip addr add fd01::9/64 dev up0 nodad; ip link set up0 up; \
         ip route add 169.254.64.0/18 via 10.1.1.2; ip route add fd6d:6573:6864::/96 via fd01::2",
    );
    // Without programs: the task itself holds its egress addresses.
    let link = mesh_netlink::TaskLink {
        host_name: "msh1",
        task_name: "eth0",
        ns: &task,
        mac: "02:42:a9:fe:40:07".parse().unwrap(),
        addresses: vec!["169.254.64.7/18".parse().unwrap(), "fd6d:6573:6864::7/96".parse().unwrap()],
        default_gateways: vec!["169.254.64.1".parse().unwrap(), "fd6d:6573:6864::1".parse().unwrap()],
        mtu: 1450,
        egress: vec!["169.254.64.7".parse().unwrap(), "fd6d:6573:6864::7".parse().unwrap()],
    };
    let info = inside(&node, || async {
        enable_forwarding().unwrap();
        enable_forwarding6().unwrap();
        ensure_masquerade("meshd", "169.254.64.0/18".parse().unwrap()).unwrap();
        ensure_masquerade("meshd", "fd6d:6573:6864::/96".parse().unwrap()).unwrap();
        Netlink::connect().unwrap().add_task_link(&link).await.unwrap()
    });
    let mac = info.host_mac;
    sh(
        &task,
        &format!(
            "ip neigh replace 169.254.64.1 lladdr {mac} dev eth0; ip neigh replace fd6d:6573:6864::1 lladdr {mac} dev eth0"
        ),
    );
    for (kind, server, expected) in
        [("TCP4", "10.1.1.9", "10.1.1.2"), ("TCP6", "[fd01::9]", "fd01:0000:0000:0000:0000:0000:0000:0002")]
    {
        let seen = sh(
            &outside,
            &format!(
                "socat -u -T5 {kind}-LISTEN:7000,bind={server},reuseaddr SYSTEM:'echo $SOCAT_PEERADDR >&2' 2>&1 & \
                 nsenter --net={} sh -c 'echo x | socat -u -T5 - {kind}:{server}:7000,retry=20,interval=0.1'; wait",
                path_of(&task)
            ),
        );
        // socat writes IPv6 addresses in full.
        assert!(seen.contains(expected), "{seen}");
    }
    // Nobody outside opens a connection inwards.
    for address in ["169.254.64.7", "fd6d:6573:6864::7"] {
        let (pinged, text) = support::try_sh(&outside, &format!("ping -c1 -W1 {address}"));
        assert!(!pinged, "{text}");
    }
}

#[test]
fn links_and_addresses_are_followed() {
    let ns = NetNs::create().unwrap();
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let mut links = netlink.watch_links().unwrap();
        let mut addresses = netlink.watch_addresses().unwrap();
        assert_eq!(addresses.next().await.unwrap().unwrap(), []);
        let Some(Ok(LinkEvent::Added(lo))) = links.next().await else { panic!() };
        assert_eq!(lo.name, "lo");

        sh(
            &ns,
            "ip link add up0 type veth peer name up1; ip addr add 10.1.1.2/24 dev up0; ip link set up0 mtu 1420; ip link del up0",
        );
        let (mut added, mut changed, mut removed) = (false, false, false);
        while !removed {
            match links.next().await.unwrap().unwrap() {
                LinkEvent::Added(link) if link.name == "up0" => added = true,
                LinkEvent::Changed(link) if link.name == "up0" && link.mtu == 1420 => changed = true,
                LinkEvent::Removed(link) if link.name == "up0" => removed = true,
                _ => {}
            }
        }
        assert!(added && changed);
        let mut routes = netlink.watch_routes().unwrap();
        sh(&ns, "ip addr add 127.0.0.2/8 dev lo; ip link set lo up; ip addr add 10.1.1.3/32 dev lo");
        let address: std::net::IpAddr = "10.1.1.3".parse().unwrap();
        while addresses.next().await.unwrap().unwrap() != [(address, lo.ifindex)] {}
        // An address that moves is told as well.
        sh(&ns, "ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up");
        sh(&ns, "ip addr add 10.1.1.3/32 dev up0; ip addr del 10.1.1.3/32 dev lo");
        let up0 = netlink.link("up0").await.unwrap().unwrap().ifindex;
        while addresses.next().await.unwrap().unwrap() != [(address, up0)] {}
        routes.next().await.unwrap();
        sh(&ns, "ip route add 10.2.0.0/16 dev up0");
        routes.next().await.unwrap();
    });
}

/// The kernel refuses a second list on a socket that is still reading one.
#[test]
fn lists_may_be_asked_for_at_once() {
    let ns = NetNs::create().unwrap();
    // Enough links that a list does not fit into one message.
    sh(&ns, "for i in $(seq 60); do ip link add a$i type veth peer name b$i; done");
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let lists = (0..32).map(|_| async { tokio::join!(netlink.links("a"), netlink.interfaces()) });
        for (links, addresses) in futures::future::join_all(lists).await {
            assert_eq!(links.unwrap().len(), 60);
            addresses.unwrap();
        }
        // Also when nobody waits for the end of one.
        for _ in 0..20 {
            let mut list = Box::pin(netlink.interfaces());
            let polled = tokio::time::timeout(Duration::from_micros(100), &mut list).await;
            drop((list, polled));
            assert_eq!(netlink.links("a").await.unwrap().len(), 60);
        }
    });
}
