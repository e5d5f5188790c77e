//! The Debian package in a clean Debian: it installs, a node is upgraded in place while packets flow, removal takes the
//! data path down and purging leaves nothing; and the archive's installer does the same without dpkg.
//!
//! The daemon runs with just the capabilities that its unit has. There is no systemd here: a script starts and stops
//! the daemon when the package's scripts ask for it, as `systemctl` would have it done. `systemd.rs` has the real one.
//!
//! With `MESHD_BINARIES=target/static/x86_64-unknown-linux-musl/release` all of it is done with the static programs that
//! `cargo xtask package` has built.

#[path = "package/busybox.rs"]
mod busybox;
#[path = "package/machine.rs"]
mod machine;
#[path = "package/pings.rs"]
mod pings;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Packages, TaskSpec, clean_root, run, wait};

use self::{machine::Machine, pings::Pings};

const SOON: Duration = Duration::from_secs(10);
/// A daemon may take as long on a busy machine until it answers.
const START: Duration = Duration::from_secs(60);

/// What the package brings, besides pages and completions.
const FILES: [&str; 10] = [
    "/usr/sbin/meshd",
    "/usr/bin/meshctl",
    "/usr/lib/cni/mesh-cni",
    "/lib/systemd/system/meshd.service",
    "/etc/meshd/meshd.toml",
    "/usr/lib/sysusers.d/meshd.conf",
    "/usr/lib/tmpfiles.d/meshd.conf",
    "/usr/share/zsh/site-functions/_meshctl",
    "/usr/share/fish/vendor_completions.d/meshctl.fish",
    "/usr/share/doc/meshd/copyright",
];

#[test]
fn a_node_is_installed_upgraded_under_traffic_and_removed() -> Result<()> {
    let root = clean_root()?;
    let packages = Packages::make(["0.1.0~before", "0.1.0~after"])?;
    run(2, |cluster| {
        cluster[0].ctl(&["network", "create", "--attachable", "prod"])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
        cluster[0].ctl(&["publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let node = &cluster[1];
        // From here on the node's daemon is the package's, in a Debian of its own.
        node.ctl(&["leave"])?;
        node.stop()?;
        let machine = Machine::boot(&root, node)?;
        installs(&machine, &packages.debs()[0])?;
        cluster.join(1)?;
        works(&machine, cluster)?;
        upgrades(&machine, cluster, &packages.debs()[1])?;
        goes(&machine, cluster)?;
        installs_without_dpkg(&machine, packages.tarball())
    })
}

fn installs(machine: &Machine, deb: &Path) -> Result<()> {
    machine.bring(deb, "/tmp/meshd.deb")?;
    machine.run(&["dpkg", "--install", "/tmp/meshd.deb"])?;
    for file in FILES {
        machine.run(&["test", "-s", file]).with_context(|| format!("{file} was not installed"))?;
    }
    ensure!(machine.run(&["getent", "group", "mesh"])?.starts_with("mesh:"), "there is no group mesh");
    let checked = machine.run(&["meshd", "--check-config"])?;
    ensure!(checked.contains("state_dir = \"/var/lib/meshd\""), "--check-config prints: {checked}");
    let completed = machine.run(&[
        "bash",
        "-c",
        ". /usr/share/bash-completion/bash_completion; _completion_loader meshctl; complete -p meshctl",
    ])?;
    ensure!(completed.contains("meshctl"), "bash knows no completion for meshctl: {completed}");
    for page in ["meshd", "meshctl", "mesh-cni"] {
        let text = machine.run(&["sh", "-c", &format!("man --warnings {page} 2>&1 | col -b")])?;
        ensure!(text.contains("NAME") && !text.contains("warning"), "man {page}: {text}");
    }
    // What the unit says is known to systemd, and its exposure (0 to 10, less is better) stays low.
    machine.run(&["systemd-analyze", "verify", "/lib/systemd/system/meshd.service"])?;
    machine.run(&["systemd-analyze", "security", "--offline=true", "--threshold=50", "meshd.service"])?;
    wait("the package's daemon to answer", START, || machine.run(&["meshctl", "status"]).map(drop))
}

/// The daemon does with its unit's capabilities what a node does: attaches, serves ports and names, has checks run.
fn works(machine: &Machine, cluster: &Cluster) -> Result<()> {
    cluster.wait_for_members(2)?;
    let node = &cluster[1];
    let web = node.run_nginx(&TaskSpec {
        name: "web1",
        network: "prod",
        service: Some("web"),
        ..TaskSpec::default()
    })?;
    let port = std::net::SocketAddr::from((cluster[0].address(), 8080));
    let client = cluster.net().client();
    wait("the published port", SOON, || client.run(|| mesh_tests::get(port, SOON))?.map(drop))?;
    let here = node.command("curl")?;
    ensure!(mesh_tests::curl(here, "http://localhost:8080/")?.starts_with("web1 "), "localhost on the node");
    ensure!(web.task.dig(&["web"])?.len() == 1, "the name server in the task");
    // A reload of the configuration lets commands be run.
    machine.run(&[
        "sed",
        "-i",
        "s/^#health_commands = false/health_commands = true/",
        "/etc/meshd/meshd.toml",
    ])?;
    machine.run(&["systemctl", "reload", "meshd"])?;
    cluster[0].ctl(&["service", "update", "--health", "cmd:true", "--health-interval", "1s", "web"])?;
    wait("a check by command", SOON, || {
        let task = node.ctl_json(&["task", "inspect", "web1"])?.to_string();
        ensure!(task.contains("\"healthy\""), "{task}");
        Ok(())
    })
}

fn upgrades(machine: &Machine, cluster: &Cluster, deb: &Path) -> Result<()> {
    let (there, here) = (
        cluster[0].run_idle(&TaskSpec { name: "there", network: "prod", ..TaskSpec::default() })?,
        cluster[1].run_idle(&TaskSpec { name: "here", network: "prod", ..TaskSpec::default() })?,
    );
    let address = here.address()?;
    wait("the first packet", SOON, || {
        mesh_tests::succeed(there.command("ping")?.args(["-n", "-c1", "-W1", &address.to_string()]))
    })?;
    let pings = Pings::start(&there, address)?;
    let before = machine.daemon()?;
    machine.bring(deb, "/tmp/meshd.deb")?;
    // Somebody's change of the configuration is kept without a question.
    machine.run(&["dpkg", "--install", "/tmp/meshd.deb"])?;
    ensure!(
        machine.run(&["dpkg-query", "-W", "-f", "${Version}", "meshd"])? == "0.1.0~after",
        "not upgraded"
    );
    wait("the new daemon to answer", START, || {
        ensure!(machine.daemon()? != before, "the old daemon still runs");
        machine.run(&["meshctl", "status"]).map(drop)
    })?;
    let kept = machine.run(&["cat", "/etc/meshd/meshd.toml"])?;
    ensure!(kept.contains("\nhealth_commands = true\n"), "the configuration was replaced: {kept}");
    cluster.wait_for_members(2)?;
    let lost = pings.lost()?;
    ensure!(lost == 0, "{lost} packets were lost by the upgrade");
    Ok(())
}

fn goes(machine: &Machine, cluster: &Cluster) -> Result<()> {
    let node = &cluster[1];
    machine.run(&["dpkg", "--remove", "meshd"])?;
    ensure!(machine.daemon().is_err(), "a daemon still runs");
    ensure!(node.pins().is_empty(), "pins are left: {:?}", node.pins());
    let ours = |name: &String| name.starts_with("mesh-") || name.starts_with("msh");
    let links: Vec<_> = node.links()?.into_iter().filter(ours).collect();
    ensure!(links.is_empty(), "links are left: {links:?}");
    machine.run(&["test", "-s", "/var/lib/meshd/membership"]).context("removal took the state")?;
    machine.run(&["dpkg", "--purge", "meshd"])?;
    for gone in
        ["/etc/meshd", "/var/lib/meshd/membership", "/var/lib/meshd/identity.pem", "/usr/share/doc/meshd"]
    {
        machine.run(&["test", "!", "-e", gone]).with_context(|| format!("{gone} is left"))?;
    }
    ensure!(machine.run(&["getent", "group", "mesh"]).is_err(), "the group mesh is left");
    Ok(())
}

/// What people of other distributions do, with the archive's installer.
fn installs_without_dpkg(machine: &Machine, archive: &Path) -> Result<()> {
    machine.bring(archive, "/tmp/meshd.tar.gz")?;
    machine.run(&["mkdir", "/tmp/meshd"])?;
    machine.run(&["tar", "-C", "/tmp/meshd", "--strip-components=1", "-xf", "/tmp/meshd.tar.gz"])?;
    let install = |words: &[&str]| machine.run(&[&["/tmp/meshd/install.sh"], words].concat());

    machine.run(&["sh", "-c", "cp /tmp/meshd/meshd.toml /tmp/kept && echo >> /tmp/meshd/meshd.toml"])?;
    let refused = install(&[]).map_or_else(|error| format!("{error:#}"), |_| String::new());
    ensure!(
        refused.contains("meshd.toml: FAILED") && refused.contains("fetch the archive again"),
        "{refused}"
    );
    machine.run(&["mv", "/tmp/kept", "/tmp/meshd/meshd.toml"])?;

    install(&[])?;
    wait("the installed daemon to answer", START, || machine.run(&["meshctl", "status"]).map(drop))?;
    let before = machine.daemon()?;
    install(&[]).context("installing once more, as an upgrade")?;
    ensure!(machine.daemon()? != before, "the old daemon still runs");
    let said = machine.run(&["/usr/local/sbin/meshd", "--check-config"])?;
    ensure!(said.contains("log = \"info\""), "{said}");

    install(&["--uninstall", "--purge"])?;
    ensure!(machine.daemon().is_err(), "a daemon still runs");
    let left = machine.run(&[
        "sh",
        "-c",
        "find / -xdev -name '*mesh*' -not -path '/tmp/*' -not -path '/var/cache/*'",
    ])?;
    ensure!(left.trim().is_empty(), "left: {left}");
    Ok(())
}
