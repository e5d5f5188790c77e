//! The general path, through the kernel's VXLAN device, carries what the fast path does: a published port on a node
//! without a task, a VIP, and tasks that talk to each other.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use mesh_tests::{Cluster, TaskSpec, Tcpdump, curl, output, run, wait};

const SOON: Duration = Duration::from_secs(5);

fn choose_general_path(cluster: &Cluster) -> Result<()> {
    configure(cluster, "path = \"general\"")
}

fn configure(cluster: &Cluster, setting: &str) -> Result<()> {
    for node in cluster.nodes() {
        node.stop()?;
        let config = fs::read_to_string(node.config())?;
        let own = |line: &&str| !line.starts_with("path") && !line.starts_with("outer");
        let kept: Vec<&str> = config.lines().filter(own).collect();
        fs::write(node.config(), format!("{setting}\n{}\n", kept.join("\n")))?;
        node.start()?;
    }
    cluster.wait_for_members(2)?;
    cluster.wait_for_view()
}

#[test]
fn the_vxlan_device_carries_it_all() -> Result<()> {
    run(2, |cluster| {
        choose_general_path(cluster)?;
        cluster[0].ctl(&["network", "create", "--driver", "overlay", "--attachable", "prod"])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let spec = TaskSpec { name: "web1", network: "prod", service: Some("web"), ..TaskSpec::default() };
        let web = cluster[1].run_nginx(&spec)?;
        let asker =
            cluster[0].run_idle(&TaskSpec { name: "asker", network: "prod", ..TaskSpec::default() })?;

        let client = cluster.net().client_address();
        let url = format!("http://{}:8080/", cluster[0].address());
        let body = wait("the published port", SOON, || curl(cluster.net().client().command("curl")?, &url))?;
        ensure!(body == format!("web1 {client}"), "through the other node: {body}");
        let from = asker.address()?;
        let direct = format!("http://{}/", web.task.address()?);
        for url in ["http://web/", &direct] {
            let body = wait("the task", SOON, || curl(asker.command("curl")?, url))?;
            ensure!(body == format!("web1 {from}"), "{url}: {body}");
        }

        for node in cluster.nodes() {
            let status = node.ctl(&["status"])?;
            ensure!(status.contains("general (by configuration)"), "{}: {status}", node.name());
            ensure!(
                status.contains("general-sent") && !status.contains("fast-sent"),
                "{}: {status}",
                node.name()
            );
        }
        Ok(())
    })
}

#[test]
fn outer_checksums_are_there_when_asked_for() -> Result<()> {
    run(2, |cluster| {
        cluster[0].ctl(&["network", "create", "--driver", "overlay", "--attachable", "prod"])?;
        cluster.wait_for_view()?;
        for (setting, path, zero) in [
            ("", "fast", true),
            ("path = \"general\"", "general (by configuration)", true),
            ("outer_checksum = true", "general (outer checksums are asked for", false),
        ] {
            configure(cluster, setting)?;
            let idle = |node: usize, name| {
                cluster[node].run_idle(&TaskSpec { name, network: "prod", ..TaskSpec::default() })
            };
            let (asker, other) = (idle(0, "asker")?, idle(1, "other")?);
            let tcpdump = Tcpdump::start(&cluster.net().nodes()[1], 2, "udp port 4789")?;
            let address = other.address()?.to_string();
            let ping = || output(asker.command("ping")?.args(["-c4", "-i0.3", "-W1", "-q", &address]));
            wait("pings to pass", SOON, ping)?;
            let seen = tcpdump.seen()?;
            ensure!(seen.contains("VXLAN") && seen.contains("no cksum") == zero, "{setting:?}: {seen}");
            let status = cluster[0].ctl(&["status"])?;
            ensure!(status.contains(path), "{setting:?}: {status}");
        }
        Ok(())
    })
}
