//! SWARM's acceptance 4: attaching to a network without `--attachable` is refused; so is an address that is taken;
//! neither leaves anything behind. An attached namespace is reached from the other nodes, and no more when detached.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Inventory, NetNs, TaskSpec, UdpEcho, output, run, wait};

const SOON: Duration = Duration::from_secs(5);
/// So many tasks are detached at the same time.
const AT_ONCE: usize = 24;

fn sandbox(cluster: &Cluster, name: &str) -> Result<(NetNs, String)> {
    let namespace = NetNs::create(&cluster.net().prefix().namespace(name))?;
    let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
    Ok((namespace, path))
}

fn links(namespace: &NetNs) -> Result<String> {
    output(namespace.command("ip")?.args(["-br", "link"]))
}

#[test]
fn attach_and_detach() -> Result<()> {
    run(2, |cluster| {
        let create = ["network", "create", "--driver", "overlay", "--subnet"];
        cluster[0].ctl(&[&create[..], &["10.10.3.0/24", "closed"]].concat())?;
        cluster[0].ctl(&[&create[..], &["10.10.4.0/24", "--attachable", "open"]].concat())?;
        cluster.wait_for_view()?;
        let spec = TaskSpec { name: "observer", network: "open", ..TaskSpec::default() };
        let observer = cluster[0].run_idle(&spec)?;
        let taken = observer.address()?.to_string();

        let (namespace, path) = sandbox(cluster, "guest")?;
        let (untouched, links_before) = (links(&namespace)?, cluster[1].links()?);
        let refusal = cluster[1].refused(&["attach", "--network", "closed", "--name", "guest", &path])?;
        ensure!(refusal.message.contains("closed") && refusal.message.contains("attachable"), "{refusal:?}");
        let words = ["attach", "--network", "open", "--name", "guest", "--ip", &taken, &path];
        let refusal = cluster[1].refused(&words)?;
        ensure!(refusal.message.contains(&taken), "{refusal:?}");
        ensure!(links(&namespace)? == untouched, "a refused attach left a link in the namespace");
        ensure!(cluster[1].links()? == links_before, "a refused attach left a link on the node");

        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)))?.context("port 9")?;
        let _echo = UdpEcho::serve(socket, "guest")?;
        let words = ["attach", "--network", "open", "--name", "guest", "--ip", "10.10.4.77", &path];
        cluster[1].ctl(&words)?;
        let address = wait("the guest's name", SOON, || {
            let found = observer.dig(&["guest"])?;
            found.first().context("no address")?.parse::<Ipv4Addr>().context("no address")
        })?;
        ensure!(address == Ipv4Addr::new(10, 10, 4, 77), "the guest has {address}");
        let ask = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
            UdpEcho::ask(&socket, (address, 9).into(), "hello")
        };
        let (who, _) = wait("the guest's answer", SOON, || observer.inside(ask)?)?;
        ensure!(who == "guest", "{who} answers");

        cluster[1].ctl(&["detach", "guest"])?;
        ensure!(links(&namespace)? == untouched, "detach left a link in the namespace");
        ensure!(cluster[1].links()? == links_before, "detach left a link on the node");
        wait("the guest's name to be gone", SOON, || {
            let found = observer.dig(&["guest"])?;
            ensure!(found.is_empty(), "still {found:?}");
            Ok(())
        })
    })
}

/// What a manager was told is not yet known to another node: an attach there gives it the time to arrive.
#[test]
fn what_was_changed_a_moment_ago_counts() -> Result<()> {
    run(2, |cluster| {
        let create = ["network", "create", "--driver", "overlay", "--subnet"];
        cluster[0].ctl(&[&create[..], &["10.10.3.0/24", "front"]].concat())?;
        cluster[0].ctl(&[&create[..], &["10.10.4.0/24", "back"]].concat())?;
        cluster[0].ctl(&["service", "create", "--network", "front", "web"])?;
        let spec = TaskSpec { name: "late", network: "back", service: Some("web"), ..TaskSpec::default() };
        for round in 0..8 {
            cluster[0].ctl(&["node", "update", "n2", "--availability", "pause"])?;
            cluster.wait_for_view()?;
            cluster[0].ctl(&["service", "update", "--network-add", "back", "web"])?;
            cluster[0].ctl(&["node", "update", "n2", "--availability", "active"])?;
            let mut task = cluster[1].run_idle(&spec).with_context(|| format!("round {round}"))?;
            task.stop()?;
            cluster[0].ctl(&["service", "update", "--network-rm", "back", "web"])?;
        }
        Ok(())
    })
}

#[test]
fn a_namespace_that_disappears_is_detached() -> Result<()> {
    run(1, |cluster| {
        let create =
            ["network", "create", "--driver", "overlay", "--subnet", "10.10.4.0/24", "--attachable", "open"];
        cluster[0].ctl(&create)?;
        let before = cluster[0].links()?;
        let (namespace, path) = sandbox(cluster, "guest")?;
        cluster[0].ctl(&["attach", "--network", "open", "--name", "guest", &path])?;
        ensure!(cluster[0].links()? != before, "there is no link");
        drop(namespace);
        wait("the guest to be forgotten", SOON, || {
            ensure!(cluster[0].links()? == before, "its link stays");
            let tasks = cluster[0].ctl_json(&["task", "ls"])?;
            ensure!(tasks.as_array().is_some_and(Vec::is_empty), "still listed: {tasks}");
            Ok(())
        })
    })
}

/// What a manager has decided is usable on every node at once, though the news is still on its way.
#[test]
fn a_worker_attaches_to_what_was_just_created() -> Result<()> {
    run(2, |cluster| {
        for turn in 0..10 {
            let (network, service) = (format!("net{turn}"), format!("svc{turn}"));
            cluster[0].ctl(&["network", "create", "--driver", "overlay", &network])?;
            cluster[0].ctl(&["service", "create", "--network", &network, &service])?;
            let (_namespace, path) = sandbox(cluster, &format!("new{turn}"))?;
            cluster[1].ctl(&["attach", "--service", &service, &path])?;
            cluster[1].ctl(&["detach", "--force", &path])?;
        }
        Ok(())
    })
}

/// They are ended together; each caller hears of its own task, and those that stay are as before.
#[test]
fn tasks_that_are_detached_at_once_leave_nothing() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        node.ctl(&["network", "create", "--subnet", "10.10.4.0/24", "--attachable", "open"])?;
        let (_stays, path) = sandbox(cluster, "stays")?;
        node.ctl(&["attach", "--network", "open", "--name", "stays", &path])?;
        let before = Inventory::settled(cluster)?;
        let guests =
            (0..AT_ONCE).map(|n| sandbox(cluster, &format!("guest{n}"))).collect::<Result<Vec<_>>>()?;
        let untouched = links(&guests[0].0)?;
        for (_, path) in &guests {
            node.ctl(&["attach", "--network", "open", path])?;
        }
        std::thread::scope(|scope| {
            let detach = |path| scope.spawn(move || node.ctl(&["detach", path]).map(drop));
            let ends: Vec<_> = guests.iter().map(|(_, path)| detach(path.as_str())).collect();
            let ended = |end: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                end.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
            };
            ends.into_iter().try_for_each(ended)
        })?;
        for (guest, path) in &guests {
            ensure!(links(guest)? == untouched, "detach left a link in {path}");
            let refusal = node.refused(&["detach", path])?;
            ensure!(refusal.message.contains(path), "detached twice: {refusal:?}");
        }
        wait("everything to be as before", SOON, || {
            let difference = before[0].difference(&Inventory::of(node)?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })?;
        let tasks = node.ctl_json(&["task", "ls"])?;
        ensure!(tasks.as_array().is_some_and(|all| all.len() == 1), "other tasks are left: {tasks}");
        Ok(())
    })
}
