//! SWARM's acceptance 5: a service's name gives one VIP, `tasks.` all tasks; aliases, PTR, empty answers for other
//! families, TCP, and forwarding of what is not ours. The VIP leads to every task.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, GATEWAY, Node, OUTSIDE, StubDns, Tally, Task, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(20);

fn expect(task: &Task, words: &[&str], expected: &[String]) -> Result<()> {
    wait("the answer", SOON, || {
        let found = task.dig(words)?;
        let mut expected = expected.to_vec();
        expected.sort();
        ensure!(found == expected, "{}: dig {words:?} finds {found:?}, not {expected:?}", task.name());
        Ok(())
    })
}

/// The response code; a slow machine is asked again.
fn answered(task: &Task, words: &[&str]) -> Result<String> {
    wait("an answer", SOON, || task.dig_status(words))
}

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--subnet",
        "10.10.3.0/24",
        "--attachable",
        "prod",
    ])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--alias", "www", "web"])?;
    cluster.wait_for_view()
}

#[test]
fn services_tasks_and_aliases() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let spec = |name| TaskSpec { name, network: "prod", service: Some("web"), ..TaskSpec::default() };
        let tasks = [cluster[0].run_nginx(&spec("web1"))?, cluster[1].run_nginx(&spec("web2"))?];
        let alone = TaskSpec { name: "alone", network: "prod", ..TaskSpec::default() };
        let observer = cluster[2].run_idle(&alone)?;
        let addresses: Vec<String> =
            tasks.iter().map(|t| t.task.address().map(|a| a.to_string())).collect::<Result<_>>()?;
        expect(&observer, &["tasks.web"], &addresses)?;
        expect(&observer, &["web1"], &addresses[..1])?;
        expect(&tasks[0].task, &["alone"], &[observer.address()?.to_string()])?;
        let vip = observer.dig(&["web"])?;
        ensure!(vip.len() == 1 && !addresses.contains(&vip[0]), "web is {vip:?}");
        for name in ["www", "WEB", "web.prod", "www.prod"] {
            expect(&observer, &[name], &vip)?;
        }
        expect(&observer, &["+tcp", "web"], &vip)?;
        expect(&observer, &["-x", &vip[0]], &["web.prod.".to_owned()])?;
        expect(&observer, &["-x", &addresses[1]], &["web2.prod.".to_owned()])?;
        expect(&observer, &["web", "AAAA"], &[])?;
        ensure!(
            observer.dig_status(&["web", "AAAA"])? == "NOERROR",
            "AAAA of a known name is no empty answer"
        );
        ensure!(
            observer.dig_status(&["nothing.prod"])? == "NXDOMAIN",
            "an unknown name of ours is not denied"
        );
        // Programs ask through resolv.conf, as dig without a server does.
        let resolv = mesh_tests::output(observer.command("cat")?.arg("/etc/resolv.conf"))?;
        ensure!(resolv.contains("nameserver 127.0.0.11"), "resolv.conf is {resolv}");

        let server = SocketAddr::from((vip[0].parse::<Ipv4Addr>().context("the VIP")?, 80));
        let from = observer.address()?;
        let tally = observer.inside(|| -> Result<Tally> {
            let mut tally = Tally::default();
            for _ in 0..300 {
                tally.count(&get(server, SOON)?);
            }
            Ok(tally)
        })??;
        tally.spread_evenly(2, 0.35)?;
        let own = IpAddr::V4(from).to_string();
        ensure!(tally.0.keys().all(|answer| answer.ends_with(&own)), "a task saw another client: {tally:?}");
        // A task of the service reaches its own service too, itself included.
        expect(&tasks[0].task, &["tasks.web"], &addresses)?;
        let tally = tasks[0].task.inside(|| -> Result<Tally> {
            let mut tally = Tally::default();
            for _ in 0..60 {
                tally.count(get(server, SOON)?.split(' ').next().unwrap_or_default());
            }
            Ok(tally)
        })??;
        ensure!(tally.0.len() == 2, "a task reaches through its own VIP only {tally:?}");
        Ok(())
    })
}

/// What a second name server outside answers.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// What one on the overlay answers.
const INNER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 78);

/// What all names come to that tasks of one node may ask for: one after the other, on one cluster.
#[test]
fn other_names_are_forwarded_and_ours_are_not() -> Result<()> {
    run(1, |cluster| {
        create(cluster)?;
        let node = &cluster[0];
        node.ctl(&["network", "create", "--internal", "--attachable", "--subnet", "10.10.4.0/24", "vault"])?;
        node.ctl(&["service", "update", "--publish-add", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let run = |name, options| {
            let spec = TaskSpec { name, network: "prod", options, ..TaskSpec::default() };
            node.run_idle(&spec)
        };
        let observer = run("observer", &[])?;
        let status = answered(&observer, &["outside.example"])?;
        ensure!(status == "SERVFAIL", "with no resolver to ask, a foreign name is {status}");
        let gateway = cluster.net().hub().run(|| UdpSocket::bind((GATEWAY, 53)))?.context("port 53")?;
        let stub = StubDns::serve(gateway, OUTSIDE)?;
        expect(&observer, &["outside.example"], &[OUTSIDE.to_string()])?;
        expect(&observer, &["observer"], &[observer.address()?.to_string()])?;

        let weight = ["--weight", "3"];
        let spec = TaskSpec { name: "web1", network: "prod", service: Some("web"), options: &weight };
        let web1 = node.run_idle(&spec)?;
        services_by_port(&observer, &web1)?;
        nothing_leaks(&observer, &stub, &web1)?;
        answers_are_kept(&observer, &stub)?;
        settings_of_a_task(node, &observer, &stub)?;
        name_server_on_the_overlay(node, &observer, &stub)?;

        // Of an internal network nothing goes out, whoever is to be asked.
        let server = GATEWAY.to_string();
        let options = ["--dns", server.as_str()];
        let spec = TaskSpec { name: "hidden", network: "vault", options: &options, ..TaskSpec::default() };
        let hidden = node.run_idle(&spec)?;
        ensure!(answered(&hidden, &["hidden.example"])? == "NXDOMAIN", "an internal network has a way out");
        expect(&hidden, &["hidden"], &[hidden.address()?.to_string()])?;
        ensure!(!stub.heard().contains(&"hidden.example".to_owned()), "the question went out all the same");

        explained(node, &observer, &hidden)?;
        changed_name_servers(cluster, &observer)
    })
}

fn services_by_port(observer: &Task, web1: &Task) -> Result<()> {
    let one = ["0 0 80 web.prod.".to_owned()];
    for name in ["_http._tcp.web", "_80._tcp.WWW.prod", "_8080._tcp.web"] {
        expect(observer, &[name, "SRV"], &one)?;
    }
    expect(observer, &["_http._tcp.tasks.web", "SRV"], &["0 3 80 web1.prod.".to_owned()])?;
    let text = mesh_tests::output(observer.command("dig")?.args([
        "+noall",
        "+additional",
        "_http._tcp.tasks.web",
        "SRV",
    ]))?;
    let address = web1.address()?.to_string();
    ensure!(text.contains("web1.prod.") && text.contains(&address), "no address beside it: {text}");
    ensure!(answered(observer, &["_https._tcp.web", "SRV"])? == "NXDOMAIN", "a port that is not there");
    // By the C library, as programs do.
    let found = mesh_tests::output(observer.command("getent")?.args(["ahostsv4", "web1.prod"]))?;
    ensure!(found.contains(&address), "getent finds {found:?}");
    Ok(())
}

/// Whatever is asked for of ours, found or not: the stub, which knows every name, hears nothing of it.
fn nothing_leaks(observer: &Task, stub: &StubDns, web1: &Task) -> Result<()> {
    let before = stub.heard().len();
    let address = web1.address()?.to_string();
    for words in [
        &["nothing.prod"][..],
        &["prod"],
        &["web", "AAAA"],
        &["web", "MX"],
        &["tasks.web", "AAAA"],
        &["tasks.nothing.prod"],
        &["_https._tcp.web", "SRV"],
        &["_tcp.web", "SRV"],
        &["_http._tcp.nothing.prod", "SRV"],
        &["-x", &address],
        &["-x", "10.10.3.250"],
        &["-x", "169.254.64.1"],
        &["-x", "127.0.0.11"],
        &["localhost"],
    ] {
        let status = answered(observer, words)?;
        ensure!(matches!(status.as_str(), "NOERROR" | "NXDOMAIN"), "{words:?} is {status}");
    }
    let heard = stub.heard();
    ensure!(heard.len() == before, "names of ours went out: {:?}", &heard[before..]);
    Ok(())
}

fn answers_are_kept(observer: &Task, stub: &StubDns) -> Result<()> {
    for _ in 0..10 {
        expect(observer, &["kept.example"], &[OUTSIDE.to_string()])?;
    }
    let asked = stub.heard().iter().filter(|name| *name == "kept.example").count();
    // A slow machine may have asked again.
    ensure!((1..=4).contains(&asked), "asked {asked} times for what was known");
    Ok(())
}

fn settings_of_a_task(node: &Node, observer: &Task, stub: &StubDns) -> Result<()> {
    let options = ["--hostname", "db-host", "--dns-search", "corp.example", "--dns-option", "ndots:1"];
    let spec = TaskSpec { name: "db", network: "prod", options: &options, ..TaskSpec::default() };
    let db = node.run_idle(&spec)?;
    let resolv = mesh_tests::output(db.command("cat")?.arg("/etc/resolv.conf"))?;
    ensure!(
        resolv == "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:1\n",
        "resolv.conf is {resolv}"
    );
    expect(observer, &["db-host"], &[db.address()?.to_string()])?;
    expect(observer, &["db-host.prod"], &[db.address()?.to_string()])?;
    let found = mesh_tests::output(db.command("getent")?.args(["ahostsv4", "files"]))?;
    ensure!(found.contains(&OUTSIDE.to_string()), "getent finds {found:?}");
    let found = mesh_tests::output(db.command("getent")?.args(["ahostsv4", "observer.prod"]))?;
    ensure!(found.contains(&observer.address()?.to_string()), "getent finds {found:?}");
    ensure!(answered(&db, &["single"])? == "NXDOMAIN", "a name that wants a search domain went out");
    let heard = stub.heard();
    ensure!(heard.contains(&"files.corp.example".to_owned()), "heard {heard:?}");
    ensure!(!heard.iter().any(|name| name == "single"), "heard {heard:?}");
    let local = &node.ctl_json(&["task", "inspect", "db"])?[0]["local"]["dns"];
    ensure!(local["hostname"] == "db-host" && local["search"][0] == "corp.example", "inspect shows {local}");
    for (option, value) in [("--dns", "127.0.0.11"), ("--hostname", "a_b"), ("--dns-option", "ndot:1")] {
        let refusal = node.refused(&["run", "--network", "prod", option, value, "--", "true"])?;
        ensure!(refusal.code == 2 && refusal.message.contains(value), "{refusal:?}");
    }
    Ok(())
}

/// A task may ask a name server that is a task itself; that is kept over a restart of the daemon.
fn name_server_on_the_overlay(node: &Node, observer: &Task, stub: &StubDns) -> Result<()> {
    let address = observer.address()?;
    let socket = observer.inside(move || UdpSocket::bind((address, 53)))?.context("port 53 in a task")?;
    let inner = StubDns::serve(socket, INNER)?;
    let server = address.to_string();
    let options = ["--dns", server.as_str()];
    let spec = TaskSpec { name: "asker", network: "prod", options: &options, ..TaskSpec::default() };
    let asker = node.run_idle(&spec)?;
    expect(&asker, &["inner.example"], &[INNER.to_string()])?;
    expect(&asker, &["observer"], std::slice::from_ref(&server))?;
    expect(observer, &["other.example"], &[OUTSIDE.to_string()])?;
    ensure!(inner.heard().iter().all(|name| name == "inner.example"), "heard {:?}", inner.heard());
    node.stop()?;
    node.start()?;
    expect(&asker, &["again.example"], &[INNER.to_string()])?;
    ensure!(!stub.heard().iter().any(|name| name == "again.example"), "the node's name server was asked");
    let local = &node.ctl_json(&["task", "inspect", "asker"])?[0]["local"]["dns"];
    ensure!(local["servers"][0] == server.as_str(), "inspect shows {local}");
    Ok(())
}

/// `meshctl dns lookup` says what dig finds, and why.
fn explained(node: &Node, observer: &Task, hidden: &Task) -> Result<()> {
    let ask = |from: &Task, words: &[&str]| {
        let words = [&["dns", "lookup", "--from", from.name()], words].concat();
        Ok::<_, anyhow::Error>(node.ctl_json(&words)?["lookups"].clone())
    };
    let vip = observer.dig(&["web"])?;
    let told = ask(observer, &["web"])?;
    ensure!(told[0]["records"][0].as_str().is_some_and(|r| r.ends_with(&vip[0])), "{told}");
    ensure!(told[0]["network"] == "prod" && told[1]["type"] == "AAAA", "{told}");
    ensure!(told[0]["origins"][0].as_str().is_some_and(|o| o.starts_with("service web")), "{told}");
    let told = ask(observer, &["--type", "srv", "_http._tcp.web"])?;
    ensure!(told[0]["records"][0].as_str().is_some_and(|r| r.ends_with("0 0 80 web.prod.")), "{told}");
    let told = ask(observer, &[&observer.address()?.to_string()])?;
    ensure!(told[0]["origins"][0] == "task observer", "{told}");
    let told = ask(observer, &["explained.example"])?;
    let upstream = told[0]["upstream"].as_str().unwrap_or_default();
    ensure!(upstream.starts_with(&GATEWAY.to_string()) && told[0]["network"].is_null(), "{told}");
    let told = ask(hidden, &["explained.example"])?;
    ensure!(told[0]["code"] == "NXDOMAIN" && told[0]["upstream"].is_null(), "{told}");
    let refusal = node.refused(&["dns", "lookup", "--from", "nobody", "web"])?;
    ensure!(refusal.code == 1 && refusal.message.contains("nobody"), "{refusal:?}");
    Ok(())
}

/// The node's name servers are followed: another file behind a link, and one that does not answer before one that does.
fn changed_name_servers(cluster: &Cluster, observer: &Task) -> Result<()> {
    let node = &cluster[0];
    let here = cluster.net().nodes().first().context("a node")?;
    let socket = here.run(|| UdpSocket::bind(("127.0.0.53", 53)))?.context("port 53 on the node")?;
    let _other = StubDns::serve(socket, OTHER)?;
    let _silent = here.run(|| UdpSocket::bind(("127.0.0.54", 53)))?.context("port 53 on the node")?;
    let folder = node.config().parent().context("the node's folder")?.to_owned();
    let write = |text: &str| -> Result<()> {
        std::fs::write(folder.join("other.conf"), text).context("the other file")?;
        std::os::unix::fs::symlink("other.conf", folder.join("link")).context("a link")?;
        std::fs::rename(folder.join("link"), folder.join("resolv.conf")).context("the link's place")
    };
    // What the servers of before said is forgotten.
    expect(observer, &["kept.example"], &[OUTSIDE.to_string()])?;
    write("nameserver 127.0.0.53\n")?;
    expect(observer, &["kept.example"], &[OTHER.to_string()])?;
    write("nameserver 127.0.0.54\nnameserver 127.0.0.55\nnameserver 127.0.0.53\n")?;
    expect(observer, &["failover.example"], &[OTHER.to_string()])
}
