//! `meshctl doctor` and `ping` on nodes that are well, and on nodes with faults: each is found by name, with its cure.

#[path = "doctor/machine.rs"]
mod machine;

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Node, TaskSpec, Wire, run, run_on, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);

/// What is not well, as lines of check, what was seen, and cure; and whether the exit code says that something failed.
fn problems(node: &Node) -> Result<(Vec<String>, bool)> {
    findings(&mut node.meshctl()?)
}

/// As [`problems`], by a command that begins as `meshctl` does.
fn findings(meshctl: &mut Command) -> Result<(Vec<String>, bool)> {
    let output = meshctl.args(["--format", "json", "doctor", "--problems"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let findings: Value = serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = findings.as_array().context("a list")?.clone();
    let bad = findings.iter().filter(|finding| finding["level"] != "unchecked");
    let lines = bad.map(|finding| {
        format!("{}: {} -> {}", word(finding, "check"), word(finding, "what"), word(finding, "cure"))
    });
    let failed = findings.iter().any(|finding| finding["level"] == "failure");
    ensure!(output.status.code() == Some(i32::from(failed)), "exit code {:?}: {text}", output.status);
    Ok((lines.collect(), failed))
}

/// Waits until the doctor on `node` tells all of `wanted` in one line.
fn finds(node: &Node, wanted: &[&str]) -> Result<()> {
    wait("the doctor to find it", SOON, || {
        let (lines, _) = problems(node)?;
        ensure!(
            lines.iter().any(|line| wanted.iter().all(|word| line.contains(word))),
            "{}: no line with all of {wanted:?} in {lines:#?}",
            node.name()
        );
        Ok(())
    })
}

fn well(node: &Node) -> Result<()> {
    wait("nothing to find", SOON, || {
        let (lines, failed) = problems(node)?;
        ensure!(lines.is_empty() && !failed, "{}: {lines:#?}", node.name());
        Ok(())
    })
}

fn nft(node: &Node, rules: &str) -> Result<()> {
    let mut command: Command = node.command("nft")?;
    let done = command.arg(rules).output()?;
    ensure!(done.status.success(), "nft {rules}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn keep_state_private(cluster: &Cluster) -> Result<()> {
    // The harness makes it as any folder; packages do not.
    for node in cluster.nodes() {
        std::fs::set_permissions(node.state_folder(), std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[test]
fn a_well_cluster_has_no_finding_and_each_fault_is_found_by_name() -> Result<()> {
    run(3, |cluster| {
        keep_state_private(cluster)?;
        let (one, two, three) = (&cluster[0], &cluster[1], &cluster[2]);
        well(one)?;
        well(two)?;

        // A port that is closed by one node's own firewall, seen from both sides.
        nft(two, "add table inet closed")?;
        nft(two, "add chain inet closed in { type filter hook input priority 0; }")?;
        nft(two, "add rule inet closed in udp dport 7946 drop")?;
        finds(one, &["ports n2", "7946/udp of n2", "not reached from here"])?;
        finds(two, &["ports n1", "7946/udp of this node (n2)", "not reached from n1"])?;
        finds(
            two,
            &[
                "firewall",
                "chain in of nftables table inet closed",
                "7946/udp",
                "nft insert rule inet closed in",
            ],
        )?;
        nft(two, "delete table inet closed")?;

        // By the older iptables, whose rules nftables does not list; on a manager.
        let older = |action: &str| {
            let rule = ["INPUT", "-p", "tcp", "--dport", "2377", "-j", "DROP"];
            mesh_tests::succeed(one.command("iptables-legacy")?.arg(action).args(rule))
        };
        older("-A")?;
        finds(two, &["ports n1", "2377/tcp of n1", "not reached from here"])?;
        let cure = "iptables-legacy -t filter -I INPUT -p tcp --dport 2377 -j ACCEPT";
        finds(one, &["firewall", "chain INPUT of table filter (iptables-legacy) drops 2377/tcp", cure])?;
        older("-D")?;

        // By what is between them: the programs on the uplinks see such packets before any firewall of a node.
        for (port, protocol) in [(4789, "udp"), (7946, "tcp")] {
            let drop = format!(
                "add table bridge closed; add chain bridge closed forw {{ type filter hook forward priority 0; }}; \
                 add rule bridge closed forw ip saddr {} ip daddr {} {protocol} dport {port} drop",
                one.address(),
                two.address()
            );
            let hub = |rules: &str| mesh_tests::succeed(cluster.net().hub().command("nft")?.arg(rules));
            hub(&drop)?;
            let (there, back) =
                (format!("{port}/{protocol} of n2"), format!("{port}/{protocol} of this node (n2)"));
            match port {
                // What asks a data path cannot tell which way is closed; the other end can.
                4789 => finds(one, &["path n2", "does not answer", "let 4789/udp pass both ways"])?,
                _ => finds(one, &["ports n2", &there, "not reached from here", "what is between"])?,
            }
            finds(two, &["ports n1", &back, "not reached from n1"])?;
            hub("delete table bridge closed")?;
        }

        // The host has a route to what a network has.
        cluster.net().nodes()[0].ip("route add 10.0.0.128/25 via 192.168.77.1")?;
        finds(one, &["subnets", "10.0.0.128/25 by eth0", "--subnet"])?;
        cluster.net().nodes()[0].ip("route del 10.0.0.128/25")?;

        // A wire that carries less than its ends think.
        cluster.net().hub().ip("link set n2 mtu 1400")?;
        finds(one, &["path n2", "do not pass to n2", "MTU of 1500"])?;
        let large = one.meshctl()?.args(["ping", "-c", "2", "-i", "0.1", "-s", "1500", "n2"]).output()?;
        ensure!(large.status.code() == Some(1), "{}", String::from_utf8_lossy(&large.stdout));
        cluster.net().hub().ip("link set n2 mtu 1500")?;

        // A daemon that has gone: the others see it, and so does meshctl on the node itself.
        three.kill()?;
        finds(one, &["node n3", "its daemon does not answer", "systemctl start meshd"])?;
        finds(three, &["daemon", "systemctl start meshd"])?;
        let asked = one.ctl(&["ping", "-c", "2", "-i", "0.1", "n3"])?;
        ensure!(asked.contains("2 answered"), "a data path answers without its daemon: {asked}");
        three.start()?;
        cluster.wait_for_members(3)?;
        well(one)
    })
}

/// What is asked by IPv4 elsewhere: ports, paths, routes, and whether tasks reach each other.
#[test]
fn an_underlay_of_ipv6_alone_is_looked_at_as_well() -> Result<()> {
    run_on(Wire { v4: false, v6: true, ..Wire::default() }, 2, |cluster| {
        keep_state_private(cluster)?;
        let (one, two) = (&cluster[0], &cluster[1]);
        well(one)?;
        let told = one.ctl_json(&["connectivity", "test"])?;
        let cells = told["cells"].as_array().context("cells")?;
        let works = |cell: &Value| {
            let words = cell["worked"].as_array().into_iter().flatten();
            let ports = words.filter(|word| ["port", "port-udp"].iter().any(|port| *word == port));
            ports.count() == 2 && cell["failed"].as_array().is_some_and(Vec::is_empty)
        };
        ensure!(cells.len() == 4 && cells.iter().all(works), "{told}");
        let asked = one.ctl(&["ping", "-c", "2", "-i", "0.1", "-s", "1500", "n2"])?;
        ensure!(asked.contains("2 answered"), "{asked}");

        nft(two, "add table inet closed")?;
        nft(two, "add chain inet closed in { type filter hook input priority 0; }")?;
        nft(two, "add rule inet closed in tcp dport 7946 drop")?;
        finds(one, &["ports n2", "7946/tcp of n2", "not reached from here"])?;
        finds(two, &["firewall", "chain in of nftables table inet closed", "7946/tcp"])?;
        nft(two, "delete table inet closed")?;

        cluster.net().hub().ip("link set n2 mtu 1400")?;
        finds(one, &["path n2", "do not pass to n2", "MTU of 1500"])?;
        cluster.net().hub().ip("link set n2 mtu 1500")?;

        one.ctl(&["network", "create", "--subnet", "fd00:9::/64", "inner"])?;
        cluster.net().nodes()[0].ip("route add fd00:9::/80 dev eth0")?;
        finds(one, &["subnets", "network inner has fd00:9::/64", "fd00:9::/80 by eth0"])?;
        cluster.net().nodes()[0].ip("route del fd00:9::/80 dev eth0")?;
        well(one)
    })
}

#[test]
fn clocks_that_differ_are_told_with_how_far() -> Result<()> {
    /// Debian's libfaketime, which stands between a program and the clock.
    const OTHER_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    run(2, |cluster| {
        keep_state_private(cluster)?;
        let (one, two) = (&cluster[0], &cluster[1]);
        for (ahead, level, also) in [("+5", "warning", "ahead"), ("-90", "failure", "behind: certificates")] {
            two.stop()?;
            let mut command = two.meshd()?;
            command
                .env("LD_PRELOAD", OTHER_TIME)
                .env("FAKETIME", ahead)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            two.start_as(command)?;
            cluster.wait_for_members(2)?;
            finds(one, &["clock n2", "the clock of n2 is", also, "timedatectl set-ntp true"])?;
            let (_, failed) = problems(one)?;
            ensure!(failed == (level == "failure"), "{ahead} s is no {level}");
        }
        Ok(())
    })
}

/// A rule for a port that services publish: other machines pass it by, the node's own processes do not.
#[test]
fn rules_against_published_ports_are_told() -> Result<()> {
    run(2, |cluster| {
        keep_state_private(cluster)?;
        cluster[0].ctl(&["network", "create", "--attachable", "prod"])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let web = TaskSpec { name: "web1", network: "prod", service: Some("web"), ..TaskSpec::default() };
        let _web = cluster[1].run_nginx(&web)?;
        let node = &cluster[0];
        let port = SocketAddr::from((node.address(), 8080));
        let far = || mesh_tests::curl(cluster.net().client().command("curl")?, &format!("http://{port}/"));
        let near = || mesh_tests::curl(node.command("curl")?, "http://localhost:8080/");
        wait("the published port", SOON, || far().and_then(|_| near()))?;
        well(node)?;

        let rule = ["INPUT", "-p", "tcp", "--dport", "8080", "-j", "DROP"];
        let older =
            |action: &str| mesh_tests::succeed(node.command("iptables-legacy")?.arg(action).args(rule));
        older("-A")?;
        let chain = "chain INPUT of table filter (iptables-legacy) is to drop 8080/tcp, and does nothing";
        finds(node, &["firewall", chain, "meshctl unpublish 8080/tcp"])?;
        far().context("through the rule that does nothing")?;
        older("-D")?;

        nft(node, "add table ip closed")?;
        nft(node, "add chain ip closed out { type filter hook output priority 0; }")?;
        nft(node, "add rule ip closed out tcp dport 8080 drop")?;
        let drops =
            "chain out of nftables table ip closed (output) drops what this node's own processes send";
        let cure = "insert rule ip closed out oifname mesh-host accept";
        finds(node, &["firewall", drops, "8080/tcp", &format!("`nft {cure}`")])?;
        ensure!(near().is_err(), "the rule does not drop");
        far()?;
        nft(node, cure)?;
        near()?;
        well(node)
    })
}

#[test]
fn tasks_are_pinged_through_the_overlay() -> Result<()> {
    run(2, |cluster| {
        let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
        cluster[0].ctl(&[&["network", "create", "--attachable"], &subnets[..], &["prod"]].concat())?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
        cluster.wait_for_view()?;
        let spec = |name| TaskSpec { name, network: "prod", ..TaskSpec::default() };
        let _there = cluster[1].run_idle(&spec("there"))?;
        let _here = cluster[0].run_idle(&spec("here"))?;
        wait("the task to answer", SOON, || {
            let told = cluster[0].ctl_json(&["ping", "-c", "2", "-i", "0.1", "there"])?;
            ensure!(
                told["answered"] == 2 && told["path"].as_str().is_some_and(|p| p.contains("prod")),
                "{told}"
            );
            Ok(())
        })?;
        // As large as passes, and no larger.
        let largest = cluster[0].ctl_json(&["ping", "-c", "1", "-s", "1450", "there"])?;
        ensure!(largest["answered"] == 1, "{largest}");
        for (family, address) in [("-4", "10.10.3."), ("-6", "fd00:3::")] {
            let told = cluster[0].ctl_json(&["ping", family, "-c", "1", "there"])?;
            let at = told["address"].as_str().is_some_and(|at| at.starts_with(address));
            ensure!(told["answered"] == 1 && at, "{told}");
        }
        let refused = cluster[0].refused(&["ping", "-c", "1", "web"])?;
        ensure!(refused.message.contains("`meshctl service ps web`"), "{}", refused.message);
        let refused = cluster[0].refused(&["ping", "-c", "1", "nobody"])?;
        ensure!(refused.message.contains("no node nobody"), "{}", refused.message);
        let own = cluster[0].refused(&["ping", "-c", "1", "n1"])?;
        ensure!(own.message.contains("this node"), "{}", own.message);

        // The task has a way out, which the host's firewall closes.
        nft(&cluster[0], "add table ip closed")?;
        nft(&cluster[0], "add chain ip closed forw { type filter hook forward priority 0; policy drop; }")?;
        finds(&cluster[0], &["chain forw of nftables table ip closed", "nft insert rule ip closed forw"])
    })
}
