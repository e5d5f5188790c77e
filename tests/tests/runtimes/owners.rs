//! What container runtimes need of the daemon: the same task again for who asks again, further networks for a namespace,
//! ends that are no error twice, ports of the node for one task, and addresses that are kept.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_api::v1;
use mesh_tests::{Cluster, Greeter, NetNs, Node, Talk, UdpEcho, run, wait};
use tonic::Code;

use crate::local_api::{Local, refused, request};

const SOON: Duration = Duration::from_secs(20);

fn network(node: &Node, name: &str, subnet: &str) -> Result<()> {
    node.ctl(&["network", "create", "--driver", "overlay", "--subnet", subnet, "--attachable", name])
        .map(drop)
}

fn sandbox(cluster: &Cluster, name: &str) -> Result<(NetNs, String)> {
    let namespace = NetNs::create(&cluster.net().prefix().namespace(name))?;
    let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
    Ok((namespace, path))
}

fn port(published: u32, target: u32, address: &str) -> v1::Port {
    v1::Port {
        published,
        target,
        protocol: v1::Protocol::Tcp.into(),
        at: Some(v1::port::At::Address(address.to_owned())),
        ..v1::Port::default()
    }
}

#[test]
fn an_owner_finds_its_task_again() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        network(node, "prod", "10.10.3.0/24")?;
        network(node, "back", "10.10.4.0/24")?;
        let links = node.links()?;
        let mut local = Local::of(node)?;
        let (namespace, path) = sandbox(cluster, "box")?;
        let wish = v1::AttachRequest {
            name: "db".to_owned(),
            interface: "net0".to_owned(),
            mac: "0a:00:00:00:00:07".to_owned(),
            addresses: vec!["10.10.3.77".to_owned()],
            ..request(&path, "prod", "cni:prod/1/net0")
        };
        let made = local.attach(wish.clone())?;
        let [interface] = &made.interfaces[..] else { anyhow::bail!("{:?}", made.interfaces) };
        ensure!(interface.interface == "net0" && interface.mac == "0a:00:00:00:00:07", "{interface:?}");
        ensure!(
            interface.addresses == ["10.10.3.77/24"] && interface.gateways == ["10.10.3.1"],
            "{interface:?}"
        );
        ensure!(interface.default_routes == ["10.10.3.1"] && interface.mtu > 1000, "{interface:?}");
        let inside = mesh_tests::output(namespace.command("ip")?.args(["link", "show", "net0"]))?;
        ensure!(inside.contains("0a:00:00:00:00:07"), "{inside}");
        let again = local.attach(wish.clone())?;
        ensure!(
            (again.task_id, again.interfaces) == (made.task_id.clone(), made.interfaces.clone()),
            "another"
        );
        let (code, why) =
            refused(local.attach(v1::AttachRequest { name: "other".to_owned(), ..wish.clone() }))?;
        ensure!(code == Code::AlreadyExists && why.contains("another name") && why.contains("db"), "{why}");
        let (_elsewhere, other) = sandbox(cluster, "other")?;
        let moved =
            v1::AttachRequest { interface: String::new(), ..request(&other, "prod", "cni:prod/1/net0") };
        let (code, why) = refused(local.attach(moved))?;
        ensure!(code == Code::AlreadyExists && why.contains(&path) && why.contains("namespace"), "{why}");

        // A second network for the same namespace, with its own owner.
        let second = local.attach(request(&path, "back", "cni:back/1/eth1"))?;
        ensure!(second.task_id == made.task_id && second.interfaces.len() == 1, "{second:?}");
        let (code, why) = refused(local.attach(request(&path, "back", "cni:third")))?;
        ensure!(code == Code::AlreadyExists && why.contains("back already"), "{why}");
        let listed = local.list()?;
        ensure!(listed.local[0].owners == ["cni:prod/1/net0", "cni:back/1/eth1"], "{:?}", listed.local);

        // All of it survives the daemon.
        node.kill()?;
        node.start()?;
        let mut local = Local::of(node)?;
        ensure!(local.attach(wish)?.task_id == made.task_id, "another task after a restart");
        let left = local.detach("cni:prod/1/net0")?;
        ensure!(left.task_id == made.task_id && !left.ended, "{left:?}");
        let left = local.detach("cni:back/1/eth1")?;
        ensure!(left.task_id == made.task_id && left.ended, "{left:?}");
        let left = local.detach("cni:back/1/eth1")?;
        ensure!(left == v1::DetachResponse::default(), "{left:?}");
        ensure!(node.links()? == links, "links are left");
        let (code, why) = refused(local.attach(v1::AttachRequest {
            mac: "01:00:5e:00:00:01".to_owned(),
            ..request(&path, "prod", "cni:x")
        }))?;
        ensure!(code == Code::InvalidArgument && why.contains("group"), "{why}");
        Ok(())
    })
}

#[test]
fn a_port_of_the_node_leads_to_one_task() -> Result<()> {
    run(2, |cluster| {
        let node = &cluster[0];
        network(node, "prod", "10.10.3.0/24")?;
        network(node, "back", "10.10.4.0/24")?;
        node.ctl(&["service", "create", "--network", "prod", "web"])?;
        node.ctl(&["publish", "80:80", "web"])?;
        cluster.wait_for_view()?;
        let mut local = Local::of(node)?;
        let (namespace, path) = sandbox(cluster, "box")?;
        let listener = namespace.run(|| std::net::TcpListener::bind("0.0.0.0:8000"))??;
        Greeter::serve(listener, "box");
        let with = |ports: &[v1::Port], owner: &str| v1::AttachRequest {
            host_ports: ports.to_vec(),
            ..request(&path, "prod", owner)
        };
        let (code, why) = refused(local.attach(with(&[port(80, 8000, "")], "a")))?;
        ensure!(code == Code::AlreadyExists && why.contains("service web"), "{why}");
        let (code, why) = refused(local.attach(with(&[port(81, 8000, "192.0.2.9")], "a")))?;
        ensure!(code == Code::InvalidArgument && why.contains("192.0.2.9"), "{why}");
        let datagrams = v1::Port { protocol: v1::Protocol::Udp.into(), ..port(8080, 8000, "") };
        let ports = [port(8080, 8000, "0.0.0.0"), port(0, 8000, ""), datagrams];
        let made = local.attach(with(&ports, "a"))?;
        let opened: Vec<u32> = made.host_ports.iter().map(|p| p.published).collect();
        ensure!(opened == [8080, 20_000, 8080], "{opened:?}");
        let _echo = UdpEcho::serve(namespace.run(|| UdpSocket::bind("0.0.0.0:8000"))??, "box")?;
        let (_other, other) = sandbox(cluster, "other")?;
        let wish = v1::AttachRequest { host_ports: vec![port(8080, 1, "")], ..request(&other, "prod", "b") };
        let (code, why) = refused(local.attach(wish))?;
        ensure!(code == Code::AlreadyExists && why.contains("8080/tcp"), "{why}");

        // From another node, on the node itself, and by localhost.
        let (own, localhost) = (node.address(), std::net::Ipv4Addr::LOCALHOST);
        let inside = cluster.net().nodes();
        for (from, to) in [(&inside[1], own), (&inside[0], own), (&inside[0], localhost)] {
            for port in [8080, 20_000] {
                let server: SocketAddr = (to, port).into();
                let greeted = wait("the task's greeting", SOON, || {
                    from.run(move || Talk::open(server, Duration::from_secs(2)))?
                })?;
                ensure!(greeted.name == "box", "{server} leads to {}", greeted.name);
            }
        }
        for (from, to) in [(&inside[1], own), (&inside[0], own), (&inside[0], localhost)] {
            let server: SocketAddr = (to, 8080).into();
            let who = wait("a datagram to come back", SOON, || {
                let socket = from.run(|| UdpSocket::bind("0.0.0.0:0"))??;
                UdpEcho::ask(&socket, server, "hello")
            })?;
            ensure!(who.0 == "box", "{server} leads to {}", who.0);
        }
        let shown = node.ctl(&["task", "inspect", &made.name])?;
        ensure!(shown.contains("8080:8000/tcp") && shown.contains("8080:8000/udp"), "{shown}");
        // Of this node alone, and as long as the task.
        let elsewhere: SocketAddr = (cluster[1].address(), 8080).into();
        let refused = inside[1].run(move || Talk::open(elsewhere, Duration::from_secs(2)))?;
        ensure!(refused.is_err(), "the other node has the port too");
        // Asked for with two networks, it closes with the second.
        let both = v1::AttachRequest {
            host_ports: vec![port(8080, 8000, "0.0.0.0")],
            ..request(&path, "back", "c")
        };
        local.attach(both)?;
        let shown = node.ctl(&["task", "inspect", &made.name])?;
        ensure!(shown.matches("8080:8000/tcp").count() == 1, "{shown}");
        local.detach("a")?;
        let server: SocketAddr = (own, 8080).into();
        let talk = || inside[1].run(move || Talk::open(server, Duration::from_secs(2)))?;
        let greeted = wait("the greeting by the other network", SOON, talk)?;
        ensure!(greeted.name == "box", "{server} leads to {}", greeted.name);
        let closed: SocketAddr = (own, 20_000).into();
        let refused = inside[1].run(move || Talk::open(closed, Duration::from_secs(2)))?;
        ensure!(refused.is_err(), "the port is open without its network");
        local.detach("c")?;
        let refused = inside[1].run(move || Talk::open(server, Duration::from_secs(2)))?;
        ensure!(refused.is_err(), "the port is open without its task");
        Ok(())
    })
}

#[test]
fn an_address_is_kept_before_and_between_tasks() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        network(node, "prod", "10.10.3.0/24")?;
        let mut local = Local::of(node)?;
        let reserve = |local: &mut Local, address: &str, owner: &str| {
            local.reserve(v1::ReserveRequest {
                network: "prod".to_owned(),
                address: address.to_owned(),
                owner: owner.to_owned(),
                ..v1::ReserveRequest::default()
            })
        };
        let any = reserve(&mut local, "", "docker:1")?;
        ensure!(any.gateway == "10.10.3.1" && any.address.ends_with("/24"), "{any:?}");
        ensure!(reserve(&mut local, "", "docker:1")? == any, "asking again gives another one");
        let fixed = reserve(&mut local, "10.10.3.200", "docker:2")?;
        ensure!(fixed.address == "10.10.3.200/24", "{fixed:?}");
        let (code, why) = refused(reserve(&mut local, "10.10.3.200", "docker:3"))?;
        ensure!(code == Code::AlreadyExists && why.contains("docker:2"), "{why}");
        let (code, why) = refused(reserve(&mut local, "10.99.0.1", "docker:3"))?;
        ensure!(code == Code::InvalidArgument || why.contains("subnet"), "{code:?} {why}");

        node.kill()?;
        node.start()?;
        let mut local = Local::of(node)?;
        let (_space, path) = sandbox(cluster, "box")?;
        let by_owner = local.attach(request(&path, "prod", "docker:1"))?;
        ensure!(by_owner.interfaces[0].addresses == [any.address.clone()], "{:?}", by_owner.interfaces);
        let (_space, path) = sandbox(cluster, "two")?;
        let wish = v1::AttachRequest {
            addresses: vec!["10.10.3.200".to_owned()],
            ..request(&path, "prod", "docker-endpoint:2")
        };
        let by_address = local.attach(wish)?;
        ensure!(by_address.interfaces[0].addresses == ["10.10.3.200/24"], "{:?}", by_address.interfaces);
        local.detach("docker-endpoint:2")?;
        let kept = |local: &mut Local| -> Result<Vec<(String, bool)>> {
            Ok(local.list()?.reserved.into_iter().map(|r| (r.address, r.used)).collect())
        };
        let own = any.address.trim_end_matches("/24").to_owned();
        ensure!(
            kept(&mut local)? == [(own, true), ("10.10.3.200".to_owned(), false)],
            "{:?}",
            kept(&mut local)?
        );
        let release = v1::ReleaseRequest { owner: "docker:1".to_owned(), ..v1::ReleaseRequest::default() };
        ensure!(
            local.release(release.clone())?.released == 1 && local.release(release)?.released == 0,
            "released"
        );
        let release = v1::ReleaseRequest {
            network: "prod".to_owned(),
            address: "10.10.3.200".to_owned(),
            ..v1::ReleaseRequest::default()
        };
        ensure!(local.release(release)?.released == 1, "not released");
        ensure!(kept(&mut local)?.is_empty(), "still kept: {:?}", kept(&mut local)?);
        reserve(&mut local, "10.10.3.200", "docker:3").context("after its release")?;
        Ok(())
    })
}
