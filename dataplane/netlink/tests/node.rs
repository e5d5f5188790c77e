//! A node's own links, settings and events in real namespaces.
#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod support;

use mesh_netlink::{
    Error, HostLink, LinkEvent, NetNs, Netlink, enable_forwarding, ensure_masquerade, remove_masquerade,
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
fn the_uplink_is_found_by_its_address() {
    let ns = NetNs::create().unwrap();
    sh(
        &ns,
        "ip link add up0 mtu 1420 address 02:00:00:00:00:09 type veth peer name up1; ip addr add 10.1.1.2/24 dev up0; ip addr add fd01::2/64 dev up0 nodad; ip link set up0 up; ip link set up1 up; ip link set lo up",
    );
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        for address in ["10.1.1.2", "fd01::2"] {
            let uplink = netlink.uplink_of(address.parse().unwrap()).await.unwrap();
            assert_eq!((uplink.name.as_str(), uplink.mtu), ("up0", 1420));
            assert_eq!(uplink.mac, Some("02:00:00:00:00:09".parse().unwrap()));
        }
        let error = netlink.uplink_of("10.1.1.3".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "no interface of this node has address 10.1.1.3");
        let expected: Vec<std::net::IpAddr> = vec!["10.1.1.2".parse().unwrap(), "fd01::2".parse().unwrap()];
        assert_eq!(netlink.local_addresses().await.unwrap(), expected);
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
        service_addr: "169.254.63.1".parse().unwrap(),
        source: "10.1.1.2".parse().unwrap(),
        mtu: 1450,
    }
}

#[test]
fn the_host_link_leads_to_the_service_address() {
    let ns = NetNs::create().unwrap();
    sh(
        &ns,
        "ip link set lo up; ip link add up0 type veth peer name up1; ip addr add 10.1.1.2/24 dev up0; ip link set up0 up",
    );
    let ensure =
        || inside(&ns, || async { Netlink::connect().unwrap().ensure_host_link(&host_link()).await });
    let first = ensure().unwrap();
    let route = sh(&ns, "ip route get 169.254.63.1");
    assert!(route.contains("dev mesh-host src 10.1.1.2"), "{route}");
    let peer = sh(&ns, "cat /sys/class/net/mesh-peer/address || ip -br link show mesh-peer");
    let neighbour = sh(&ns, "ip neigh show dev mesh-host");
    let mac = sh(&ns, "ip -br link show mesh-peer").split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!(neighbour.trim(), format!("169.254.63.1 lladdr {mac} PERMANENT"), "{peer}");
    let before = state(&ns);
    assert_eq!(ensure().unwrap(), first);
    assert_eq!(state(&ns), before);
    // What was broken is mended.
    sh(&ns, "ip route del 169.254.63.1; ip link set mesh-peer down; ip link set mesh-host mtu 1300");
    assert_eq!(ensure().unwrap(), first);
    assert!(sh(&ns, "ip route get 169.254.63.1").contains("dev mesh-host src 10.1.1.2"));
    assert!(sh(&ns, "ip link show mesh-host").contains("mtu 1450"));
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
            "ip link set lo up; ip link add up0 type veth peer name up0 netns {}; ip addr add 10.1.1.2/24 dev up0; ip link set up0 up",
            path_of(&outside)
        ),
    );
    sh(
        &outside,
        "ip link set lo up; ip addr add 10.1.1.9/24 dev up0; ip link set up0 up; ip route add 169.254.64.0/18 via 10.1.1.2",
    );
    // Without programs: the task itself holds its egress address.
    let egress = "169.254.64.7".parse().unwrap();
    let link = mesh_netlink::TaskLink {
        host_name: "msh1",
        task_name: "eth0",
        ns: &task,
        mac: "02:42:a9:fe:40:07".parse().unwrap(),
        addresses: vec!["169.254.64.7/18".parse().unwrap()],
        default_gateway: Some("169.254.64.1".parse().unwrap()),
        mtu: 1450,
        egress: Some(egress),
    };
    let info = inside(&node, || async {
        enable_forwarding().unwrap();
        ensure_masquerade("meshd", "169.254.64.0/18".parse().unwrap()).unwrap();
        Netlink::connect().unwrap().add_task_link(&link).await.unwrap()
    });
    sh(&task, &format!("ip neigh replace 169.254.64.1 lladdr {} dev eth0", info.host_mac));
    let seen = sh(
        &outside,
        &format!(
            "socat -u -T5 TCP-LISTEN:7000,bind=10.1.1.9 SYSTEM:'echo $SOCAT_PEERADDR >&2' 2>&1 & \
         nsenter --net={} sh -c 'echo x | socat -u -T5 - TCP:10.1.1.9:7000,retry=20,interval=0.1'; wait",
            path_of(&task)
        ),
    );
    assert!(seen.contains("10.1.1.2"), "{seen}");
    // Nobody outside opens a connection inwards.
    let (pinged, text) = support::try_sh(&outside, "ping -c1 -W1 169.254.64.7");
    assert!(!pinged, "{text}");
}

#[test]
fn links_and_addresses_are_followed() {
    let ns = NetNs::create().unwrap();
    inside(&ns, || async {
        let netlink = Netlink::connect().unwrap();
        let mut links = netlink.watch_links().unwrap();
        let mut addresses = netlink.watch_addresses().unwrap();
        assert_eq!(addresses.next().await.unwrap().unwrap(), Vec::<std::net::IpAddr>::new());
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
        sh(&ns, "ip addr add 127.0.0.2/8 dev lo; ip link set lo up; ip addr add 10.1.1.3/32 dev lo");
        let expected: Vec<std::net::IpAddr> = vec!["10.1.1.3".parse().unwrap()];
        while addresses.next().await.unwrap().unwrap() != expected {}
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
        let lists = (0..32).map(|_| async { tokio::join!(netlink.links("a"), netlink.local_addresses()) });
        for (links, addresses) in futures::future::join_all(lists).await {
            assert_eq!(links.unwrap().len(), 60);
            addresses.unwrap();
        }
    });
}
