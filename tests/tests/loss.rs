//! What is lost is no longer sent to: a node that dies leaves the others' tables within three seconds, a task whose
//! process dies or is ended within a fraction of one; the rest goes on. A node that was cut off comes back by itself.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Nginx, Task, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(5);
/// Default timing promises three seconds for a dead node, which gossip's simulation shows; the rest is for a busy machine.
const NODE: Duration = Duration::from_secs(10);

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
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    cluster[0].ctl(&["publish", "8080:80", "web"])?;
    cluster.wait_for_view()
}

fn nginx(cluster: &Cluster, node: usize, name: &str) -> Result<Nginx> {
    cluster[node].run_nginx(&TaskSpec { name, network: "prod", service: Some("web"), ..TaskSpec::default() })
}

fn observer(cluster: &Cluster, node: usize) -> Result<Task> {
    let name = format!("observer{node}");
    cluster[node].run_idle(&TaskSpec { name: &name, network: "prod", ..TaskSpec::default() })
}

/// Waits until `tasks.web` has `count` addresses. The node's data path follows before its names do.
fn tasks(observer: &Task, count: usize, at_most: Duration) -> Result<Duration> {
    let start = Instant::now();
    wait("the tasks of web", at_most, || {
        let found = observer.dig(&["tasks.web"])?;
        ensure!(found.len() == count, "{}: tasks.web is {found:?}, not {count}", observer.name());
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// One on each node, to see what it knows.
fn observers(cluster: &Cluster) -> Result<[Task; 3]> {
    Ok([observer(cluster, 0)?, observer(cluster, 1)?, observer(cluster, 2)?])
}

/// Every one of a hundred connections through the node is answered.
fn serves(cluster: &Cluster, node: usize) -> Result<()> {
    let server = SocketAddr::from((cluster[node].address(), 8080));
    cluster.net().client().run(|| {
        for n in 0..100 {
            get(server, SOON).with_context(|| format!("request {n}"))?;
        }
        Ok(())
    })?
}

#[test]
fn a_dead_node_is_forgotten_and_comes_back() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let (_first, _second, _third) =
            (nginx(cluster, 0, "web1")?, nginx(cluster, 1, "web2")?, nginx(cluster, 2, "web3")?);
        let observers = observers(cluster)?;
        for observer in &observers {
            tasks(observer, 3, SOON)?;
        }
        // Dead at once: no farewell, no answer.
        cluster.net().cut(2)?;
        cluster[2].kill()?;
        let start = Instant::now();
        for observer in &observers[..2] {
            tasks(observer, 2, NODE)?;
        }
        println!("known to be dead after {:?}", start.elapsed());
        serves(cluster, 0)?;
        serves(cluster, 1)?;

        cluster.net().heal(2)?;
        cluster[2].start()?;
        for observer in &observers {
            tasks(observer, 3, 4 * SOON)?;
        }
        for node in 0..3 {
            serves(cluster, node)?;
        }
        Ok(())
    })
}

#[test]
fn a_cut_off_node_is_healed_by_itself() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let _first = nginx(cluster, 0, "web1")?;
        let mut third = nginx(cluster, 2, "web3")?;
        let observers = observers(cluster)?;
        for observer in &observers {
            tasks(observer, 2, SOON)?;
        }
        cluster.net().cut(2)?;
        tasks(&observers[0], 1, NODE)?;
        // Both sides change while they are apart.
        let _second = nginx(cluster, 1, "web2")?;
        third.task.stop()?;
        let _fourth = nginx(cluster, 2, "web4")?;
        cluster.net().heal(2)?;
        for observer in &observers {
            tasks(observer, 3, 4 * SOON)?;
        }
        for node in 0..3 {
            serves(cluster, node)?;
        }
        Ok(())
    })
}

#[test]
fn an_ended_task_is_forgotten() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let _lasting = nginx(cluster, 0, "lasting")?;
        let observers = observers(cluster)?;
        let links = cluster[1].links()?;
        for (name, end) in [("killed", Task::kill as fn(&mut Task) -> Result<()>), ("stopped", Task::stop)] {
            let mut task = nginx(cluster, 1, name)?;
            for observer in &observers {
                tasks(observer, 2, SOON)?;
            }
            end(&mut task.task)?;
            // Until a node has heard, it sends the task new connections.
            for observer in &observers {
                let took = tasks(observer, 1, SOON).context(name)?;
                println!("{name}: {} has heard after {took:?}", observer.name());
            }
            for node in 0..3 {
                serves(cluster, node).context(name)?;
            }
            wait("the task's link to go", SOON, || {
                ensure!(cluster[1].links()? == links, "the link of the {name} task stays");
                Ok(())
            })?;
        }
        Ok(())
    })
}
