//! Containers of real Docker engines on two nodes: names, addresses, ports, and nothing left of them.

#[path = "docker/compose.rs"]
mod compose;
#[path = "docker/dual_stack.rs"]
mod dual_stack;
#[path = "docker/just_made.rs"]
mod just_made;
#[path = "docker/kills.rs"]
mod kills;

use std::{net::UdpSocket, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Busybox, Cluster, Docker, GATEWAY, NetNs, Node, OUTSIDE, StubDns, UdpEcho, output, run, wait,
};

/// What a container needs to come or go, on a machine with much to do.
const SOON: Duration = Duration::from_secs(60);

const SLEEP: &[&str] = &["sleep", "1000000"];
const WEB: &[&str] = &["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"];

/// A network prod with a service web, and as many engines as nodes that know prod.
fn engines(cluster: &Cluster, docker_words: &[&str]) -> Result<Vec<Docker>> {
    let engines = bare_engines(cluster)?;
    for engine in &engines {
        engine.run(&[&["network", "create", "--driver", "mesh"], docker_words, &["prod"]].concat())?;
    }
    Ok(engines)
}

/// The same, but the engines know nothing of prod yet.
fn bare_engines(cluster: &Cluster) -> Result<Vec<Docker>> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    cluster.wait_for_view()?;
    let image = Busybox::make(&cluster.net().prefix().folder())?;
    cluster.nodes().iter().map(|node| Docker::start(node, &image)).collect()
}

const ADDRESSED: &[&str] = &["--opt", "network=prod", "--ipam-driver", "mesh", "--ipam-opt", "network=prod"];

/// What a container's program is told for a name.
fn look_up(engine: &Docker, container: &str, name: &str) -> Result<Vec<String>> {
    let told = engine.exec(container, &["nslookup", "-type=a", name])?;
    let answers = told.split("Name:").skip(1);
    let mut found: Vec<String> =
        answers.filter_map(|part| Some(part.split("Address:").nth(1)?.trim().to_owned())).collect();
    found.sort();
    Ok(found)
}

fn shown_address(engine: &Docker, container: &str) -> Result<String> {
    let format = "{{.NetworkSettings.Networks.prod.IPAddress}}";
    engine.run(&["inspect", "--format", format, container])
}

fn curl(from: &NetNs, url: &str) -> Result<String> {
    Ok(output(from.command("curl")?.args(["-gsS", "--max-time", "3", url]))?.trim().to_owned())
}

fn tasks(node: &Node) -> Result<Vec<String>> {
    let tasks = node.ctl_json(&["task", "ls"])?;
    let names = tasks.as_array().into_iter().flatten().filter_map(|t| t["name"].as_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

fn wait_for_tasks(node: &Node, names: &[&str]) -> Result<()> {
    wait("the tasks", SOON, || {
        let there = tasks(node)?;
        ensure!(there == names, "there are {there:?}, not {names:?}");
        Ok(())
    })
}

#[test]
fn containers_of_two_engines() -> Result<()> {
    run(2, |cluster| {
        // Docker lets people choose addresses where it was told of a subnet.
        let engines = engines(cluster, &[ADDRESSED, &["--subnet", "10.10.3.0/24"]].concat())?;
        let (one, two) = (&engines[0], &engines[1]);
        let before = kernel(cluster)?;

        let web = ["--network", "prod", "--label", "mesh.service=web", "--label", "mesh.publish=8080:80"];
        let ports = ["--publish", "9090:80", "--publish", "127.0.0.1:9091:80", "--publish", "9053:53/udp"];
        one.container("web1", &[&web[..], &ports].concat(), WEB)?;
        two.container("web2", &["--network", "prod", "--label", "mesh.service=web"], WEB)?;
        two.container("client", &["--network", "prod", "--network-alias", "buddy"], SLEEP)?;
        wait_for_tasks(&cluster[0], &["client", "web1", "web2"])?;

        // One address, whoever is asked: Docker, the container, the mesh and its names.
        for (engine, name) in [(one, "web1"), (two, "web2"), (two, "client")] {
            let shown = shown_address(engine, name)?;
            let inside = engine.exec(name, &["ip", "-4", "addr", "show", "mesh0"])?;
            ensure!(inside.contains(&format!("{shown}/24")), "Docker shows {shown}, inside is {inside}");
            wait("the container's name", SOON, || {
                let found = look_up(two, "client", name)?;
                ensure!(found == [shown.clone()], "{name} is {found:?}, not {shown}");
                Ok(())
            })?;
        }
        let mut both = vec![shown_address(one, "web1")?, shown_address(two, "web2")?];
        both.sort();
        wait("all tasks of the service", SOON, || {
            let found = look_up(one, "web1", "tasks.web")?;
            ensure!(found == both, "tasks.web is {found:?}, not {both:?}");
            Ok(())
        })?;
        wait("an alias that Docker told after the start", SOON, || {
            let found = look_up(one, "web1", "buddy")?;
            ensure!(found == [shown_address(two, "client")?], "buddy is {found:?}");
            Ok(())
        })?;

        let pinned = ["--network", "name=prod,driver-opt=mesh.alias=pinned", "--ip", "10.10.3.77"];
        two.container("fixed", &[&pinned[..], &["--mac-address", "02:00:00:00:00:77"]].concat(), SLEEP)?;
        wait("the chosen address by an option's name", SOON, || {
            let found = look_up(one, "web1", "pinned")?;
            ensure!(found == ["10.10.3.77"], "pinned is {found:?}");
            Ok(())
        })?;
        let inside = two.exec("fixed", &["ip", "addr", "show", "mesh0"])?;
        ensure!(inside.contains("10.10.3.77/24") && inside.contains("02:00:00:00:00:77"), "{inside}");
        two.run(&["rm", "--force", "fixed"])?;

        // The service's address from a container, its port on every node, and the port of one host.
        let vip = look_up(two, "client", "web")?.first().context("web has no address")?.clone();
        let inside = two.namespace("client")?;
        let answers = |from: &Path, url: &str| -> Result<String> {
            let mut curl = NetNs::command_at(from, "curl")?;
            Ok(output(curl.args(["-sS", "--max-time", "3", url]))?.trim().to_owned())
        };
        wait("the service by its address", SOON, || answers(&inside, &format!("http://{vip}/")))?;
        let host = |name: &str| engines[usize::from(name == "web2")].exec(name, &["hostname"]);
        let names = [host("web1")?, host("web2")?];
        for node in cluster.nodes() {
            wait("the published port", SOON, || {
                let who = curl(cluster.net().client(), &format!("http://{}:8080/", node.address()))?;
                ensure!(names.contains(&who), "{who} answers");
                Ok(())
            })?;
        }
        wait("the port of one host", SOON, || {
            let who = curl(cluster.net().client(), &format!("http://{}:9090/", cluster[0].address()))?;
            ensure!(who == names[0], "{who} answers");
            Ok(())
        })?;
        ensure!(
            curl(cluster.net().client(), &format!("http://{}:9090/", cluster[1].address())).is_err(),
            "a port of one host is open on the other"
        );

        // A name server of a container's own, beside the mesh's at 127.0.0.11.
        let (inside, own) = (one.namespace("web1")?, shown_address(one, "web1")?);
        let socket = NetNs::run_at(&inside, || UdpSocket::bind((own.as_str(), 53)))?;
        let echo = UdpEcho::serve(socket.context("port 53 in the container")?, "web1")?;
        let (who, seen) = wait("a datagram to come back", SOON, || {
            let socket = cluster.net().client().run(|| UdpSocket::bind("0.0.0.0:0"))??;
            UdpEcho::ask(&socket, (cluster[0].address(), 9053).into(), "hello")
        })?;
        ensure!(who == "web1" && seen == cluster.net().client_address(), "{who} answers, who saw {seen}");
        drop(echo);

        // For programs of the host alone, beside one of its own at another address.
        let own = cluster[0].address();
        wait("the port of localhost", SOON, || {
            let who = curl(&cluster.net().nodes()[0], "http://127.0.0.1:9091/")?;
            ensure!(who == names[0], "{who} answers");
            Ok(())
        })?;
        for from in [cluster.net().client(), &cluster.net().nodes()[0], &cluster.net().nodes()[1]] {
            ensure!(
                curl(from, &format!("http://{own}:9091/")).is_err(),
                "a port of localhost is open outside"
            );
        }
        ensure!(
            curl(&cluster.net().nodes()[1], "http://127.0.0.1:9091/").is_err(),
            "it is open on the other node"
        );

        // However it ends, and how often it begins.
        one.run(&["restart", "--time", "1", "web1"])?;
        wait_for_tasks(&cluster[0], &["client", "web1", "web2"])?;
        one.run(&["kill", "web1"])?;
        wait_for_tasks(&cluster[0], &["client", "web2"])?;
        one.run(&["start", "web1"])?;
        wait_for_tasks(&cluster[0], &["client", "web1", "web2"])?;
        wait("the container to serve again", SOON, || {
            curl(cluster.net().client(), &format!("http://{}:9090/", cluster[0].address()))
        })?;
        two.run(&["stop", "--time", "1", "web2", "client"])?;
        one.run(&["rm", "--force", "web1"])?;
        two.run(&["rm", "web2", "client"])?;
        cluster[0].ctl(&["unpublish", "8080", "web"])?;
        wait_for_tasks(&cluster[0], &[])?;
        nothing_is_left(cluster, &before)
    })
}

/// Links and routes of each node. (Docker's rules count packets, so that they never stay as they are.)
fn kernel(cluster: &Cluster) -> Result<Vec<[Vec<String>; 2]>> {
    let of = |node: &Node| {
        let mut links = node.links()?;
        let routes = output(node.command("ip")?.args(["-4", "route", "show", "table", "all"]))?;
        let mut routes: Vec<String> = routes.lines().map(|line| line.trim().to_owned()).collect();
        links.sort();
        routes.sort();
        Ok([links, routes])
    };
    cluster.nodes().iter().map(of).collect()
}

/// Links and routes are as they were, and no address is kept for anybody.
fn nothing_is_left(cluster: &Cluster, before: &[[Vec<String>; 2]]) -> Result<()> {
    wait("nothing to be left", SOON, || {
        let now = kernel(cluster)?;
        ensure!(before == now, "before {before:?}, now {now:?}");
        Ok(())
    })
}

#[test]
fn names_of_docker_and_ours_in_one_container() -> Result<()> {
    run(1, |cluster| {
        let engines = engines(cluster, &["--opt", "network=prod"])?;
        let engine = &engines[0];
        let socket = cluster.net().hub().run(|| UdpSocket::bind((GATEWAY, 53)))?.context("port 53")?;
        let stub = StubDns::serve(socket, OUTSIDE)?;
        engine.run(&["network", "create", "back"])?;
        engine.container("db", &["--network", "back"], SLEEP)?;
        engine.container("both", &["--network", "back"], SLEEP)?;
        engine.container("far", &["--network", "prod"], SLEEP)?;
        wait_for_tasks(&cluster[0], &["far"])?;
        // Whom nobody here knows is asked for outside, where every name has one answer.
        let nobody = vec![OUTSIDE.to_string()];
        ensure!(look_up(engine, "both", "far")? == nobody, "far is known where it is not");

        engine.run(&["network", "connect", "--alias", "pal", "prod", "both"])?;
        wait_for_tasks(&cluster[0], &["both", "far"])?;
        let far = engine.exec("far", &["ip", "-4", "addr", "show", "mesh0"])?;
        let found = look_up(engine, "both", "far")?;
        ensure!(
            found.len() == 1 && far.contains(&format!("{}/24", found[0])),
            "far is {found:?}, inside {far}"
        );
        // Docker's own network, by Docker's own name server behind ours.
        let db =
            engine.run(&["inspect", "--format", "{{.NetworkSettings.Networks.back.IPAddress}}", "db"])?;
        ensure!(look_up(engine, "both", "db")? == [db.clone()], "db is not {db}");
        wait("the alias", SOON, || {
            let found = look_up(engine, "far", "pal")?;
            ensure!(found.len() == 1 && found != nobody, "pal is {found:?}");
            Ok(())
        })?;
        // And what neither knows.
        let outside = look_up(engine, "both", "www.example.test")?;
        ensure!(outside == [OUTSIDE.to_string()], "outside is {outside:?}; asked for: {:?}", stub.heard());

        engine.run(&["network", "disconnect", "prod", "both"])?;
        wait_for_tasks(&cluster[0], &["far"])?;
        ensure!(look_up(engine, "both", "db")? == [db], "Docker's names are gone with ours");
        ensure!(look_up(engine, "both", "far")? == nobody, "far is known where it is not any more");
        engine.run(&["network", "connect", "prod", "both"])?;
        engine.run(&["network", "disconnect", "back", "both"])?;
        ensure!(look_up(engine, "both", "far")? == found, "far is not known again");
        Ok(())
    })
}

#[test]
fn what_is_wrong_is_told_to_dockers_user() -> Result<()> {
    run(1, |cluster| {
        let engines = engines(cluster, ADDRESSED)?;
        let engine = &engines[0];
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.4.0/29", "--attachable", "small"])?;
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.5.0/24", "closed"])?;
        cluster.wait_for_view()?;
        let before = cluster[0].links()?;
        let create = ["network", "create", "--driver", "mesh"];
        for (words, said) in [
            (&[][..], "-o network=NAME"),
            (&["--opt", "network=nope"], "no network nope"),
            (&["--opt", "network=prod", "--opt", "mtu=9000"], "option mtu"),
            (&["--opt", "network=prod", "--internal"], "has a way out"),
            (&["--opt", "network=prod", "--ipam-driver", "mesh"], "--ipam-opt network=NAME"),
            (
                &["--opt", "network=prod", "--ipam-driver", "mesh", "--ipam-opt", "network=small"],
                "two networks",
            ),
        ] {
            let refusal = engine.refused(&[&create[..], words, &["bad"]].concat())?;
            ensure!(refusal.message.contains(said), "{words:?}: {}", refusal.message);
        }
        engine.run(&[&create[..], &["--opt", "network=closed", "closed"]].concat())?;
        let small =
            ["--opt", "network=small", "--ipam-driver", "mesh", "--ipam-opt", "network=small", "small"];
        engine.run(&[&create[..], &small].concat())?;
        for (words, said) in [
            (
                &["--network", "prod", "--label", "mesh.service=shop"][..],
                "meshctl service create --network prod shop",
            ),
            (&["--network", "prod", "--label", "mesh.servise=web"], "mesh.servise"),
            (&["--network", "prod", "--label", "mesh.publish=80:80"], "mesh.service"),
            (&["--network", "prod", "--publish", "80"], "-p PORT:80"),
            (&["--network", "prod", "--publish", "[::1]:80:80"], "no IPv6 subnet"),
            (&["--network", "prod", "--publish", "192.0.2.9:80:80"], "no address 192.0.2.9"),
            (&["--network", "prod", "--publish", "2377:80"], "uses it for its managers"),
            (&["--network", "prod", "--mac-address", "01:00:00:00:00:01"], "it is a group's"),
            (&["--network", "closed"], "not attachable"),
        ] {
            let run = ["run", "--detach", "--name", "bad"];
            let refusal = engine.refused(&[&run[..], words, &[Busybox::NAME], SLEEP].concat())?;
            ensure!(refusal.message.contains(said), "{words:?}: {}", refusal.message);
            engine.run(&["rm", "--force", "bad"])?;
        }
        let availability = |word: &str| -> Result<()> {
            cluster[0].ctl(&["node", "update", "--availability", word, &cluster[0].name()])?;
            cluster.wait_for_view()
        };
        availability("drain")?;
        let run = ["run", "--detach", "--name", "bad", "--network", "prod", Busybox::NAME];
        let refusal = engine.refused(&[&run[..], SLEEP].concat())?;
        ensure!(refusal.message.contains("--availability active"), "{}", refusal.message);
        engine.run(&["rm", "--force", "bad"])?;
        availability("active")?;
        // A /29 has room for five: two ends, and the gateway.
        let mut full = None;
        for number in 0..8 {
            let name = format!("s{number}");
            if engine.container(&name, &["--network", "small"], SLEEP).is_err() {
                full = Some(name);
                break;
            }
        }
        let name = full.context("a network of five addresses took eight containers")?;
        let refusal = engine.refused(&["start", &name])?;
        ensure!(refusal.message.contains("small"), "{}", refusal.message);
        let all = engine.run(&["ps", "--all", "--quiet"])?;
        let all: Vec<&str> = all.split_whitespace().collect();
        engine.run(&[&["rm", "--force"], &all[..]].concat())?;
        wait("nothing to be left", SOON, || {
            ensure!(cluster[0].links()? == before, "links are left");
            ensure!(tasks(&cluster[0])?.is_empty(), "tasks are left");
            Ok(())
        })
    })
}

#[test]
fn daemons_come_back_in_either_order() -> Result<()> {
    run(1, |cluster| {
        let mut engines = engines(cluster, ADDRESSED)?;
        let engine = engines.first_mut().context("an engine")?;
        let node = &cluster[0];
        let before = kernel(cluster)?;
        let always = ["--network", "prod", "--restart", "always", "--label", "mesh.service=web"];
        engine.container("kept", &always, WEB)?;
        engine.container("lost", &["--network", "prod"], SLEEP)?;
        wait_for_tasks(node, &["kept", "lost"])?;

        // meshd alone: containers go on, and end while nobody listens.
        node.kill()?;
        engine.run(&["kill", "lost"])?;
        engine.start_meshd(node)?;
        wait_for_tasks(node, &["kept"])?;
        // Docker alone: it starts what is to be always there, before it answers anybody.
        engine.kill()?;
        engine.begin()?;
        wait_for_tasks(node, &["kept"])?;
        wait("the container's address", SOON, || {
            let shown = shown_address(engine, "kept")?;
            let inside = engine.exec("kept", &["ip", "-4", "addr", "show", "mesh0"])?;
            ensure!(inside.contains(&format!("{shown}/24")), "Docker shows {shown}, inside is {inside}");
            Ok(())
        })?;
        // Both, the engine first to come back.
        engine.kill()?;
        node.kill()?;
        engine.start_meshd(node)?;
        engine.begin()?;
        wait_for_tasks(node, &["kept"])?;
        engine.stop()?;
        wait_for_tasks(node, &[])?;
        engine.begin()?;
        wait_for_tasks(node, &["kept"])?;
        engine.run(&["rm", "--force", "kept", "lost"])?;
        wait_for_tasks(node, &[])?;
        nothing_is_left(cluster, &before)?;
        engine.run(&["network", "rm", "prod"])?;
        node.ctl(&["service", "rm", "web"])?;
        node.ctl(&["network", "rm", "prod"]).map(drop)
    })
}
