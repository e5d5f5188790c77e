//! SWARM's acceptance 5: a service's name gives one VIP, `tasks.` all tasks; aliases, PTR, empty answers for other
//! families, TCP, and forwarding of what is not ours. The VIP leads to every task.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, GATEWAY, OUTSIDE, StubDns, Tally, Task, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(5);

fn expect(task: &Task, words: &[&str], expected: &[String]) -> Result<()> {
    wait("the answer", SOON, || {
        let found = task.dig(words)?;
        let mut expected = expected.to_vec();
        expected.sort();
        ensure!(found == expected, "{}: dig {words:?} finds {found:?}, not {expected:?}", task.name());
        Ok(())
    })
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

#[test]
fn other_names_are_forwarded() -> Result<()> {
    run(1, |cluster| {
        create(cluster)?;
        let spec = TaskSpec { name: "observer", network: "prod", ..TaskSpec::default() };
        let observer = cluster[0].run_idle(&spec)?;
        let status = observer.dig_status(&["outside.example"])?;
        ensure!(status == "SERVFAIL", "with no resolver to ask, a foreign name is {status}");
        let socket = cluster.net().hub().run(|| UdpSocket::bind((GATEWAY, 53)))?.context("port 53")?;
        let _stub = StubDns::serve(socket, OUTSIDE)?;
        expect(&observer, &["outside.example"], &[OUTSIDE.to_string()])?;
        expect(&observer, &["observer"], &[observer.address()?.to_string()])?;
        // What belongs to our networks is never asked elsewhere: the stub knows every name.
        ensure!(observer.dig_status(&["nothing.prod"])? == "NXDOMAIN", "an internal name was asked outside");
        Ok(())
    })
}
