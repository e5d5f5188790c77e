//! What cannot be done is refused with an error that names the thing and an exit code, and changes nothing.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Binaries, Cluster, Inventory, Lifetime, Node, Prefix, TaskSpec, run, wait};

const CREATE: [&str; 4] = ["network", "create", "--driver", "overlay"];

/// Words for meshctl, and what its message has to contain.
type Case<'a> = (&'a [&'a str], &'a [&'a str]);

fn refuse(node: &Node, cases: &[Case<'_>]) -> Result<()> {
    for (words, parts) in cases {
        let refusal = node.refused(words)?;
        let message = refusal.message.to_lowercase();
        for part in *parts {
            let named = message.contains(&part.to_lowercase());
            ensure!(named, "`meshctl {}` does not say {part:?}: {}", words.join(" "), refusal.message);
        }
        let noise = ["status:", "details:", "panicked", "Os {"]
            .iter()
            .find(|noise| refusal.message.contains(**noise));
        ensure!(noise.is_none(), "`meshctl {}` says: {}", words.join(" "), refusal.message);
    }
    Ok(())
}

#[test]
fn requests_that_cannot_be() -> Result<()> {
    run(2, |cluster| {
        let [manager, worker] = cluster.nodes() else { bail!("two nodes were asked for") };
        manager.ctl(&[&CREATE[..], &["--subnet", "10.10.3.0/24", "--attachable", "prod"]].concat())?;
        manager.ctl(&["service", "create", "--network", "prod", "web"])?;
        manager.ctl(&["service", "create", "--network", "prod", "other"])?;
        manager.ctl(&["publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let _web = manager.run_idle(&TaskSpec { name: "web1", network: "prod", ..TaskSpec::default() })?;
        let before = Inventory::settled(cluster)?;
        let view = manager.ctl_json(&["network", "ls"])?;

        refuse(
            manager,
            &[
                (&[&CREATE[..], &["--subnet", "10.10.3.0/33", "bad"]].concat(), &["10.10.3.0/33"]),
                (&[&CREATE[..], &["--subnet", "nonsense", "bad"]].concat(), &["nonsense"]),
                (&[&CREATE[..], &["--subnet", "10.10.3.7/24", "bad"]].concat(), &["10.10.3.7/24"]),
                (
                    &[&CREATE[..], &["--subnet", "10.10.9.0/24", "--subnet", "10.10.9.128/25", "bad"]]
                        .concat(),
                    &["10.10.9.128/25", "one IPv4 subnet"],
                ),
                (
                    &[&CREATE[..], &["--subnet", "10.10.9.0/24", "--gateway", "10.10.8.1", "bad"]].concat(),
                    &["10.10.8.1"],
                ),
                (&[&CREATE[..], &["--subnet", "10.10.9.0/24", "prod"]].concat(), &["prod", "taken"]),
                (&[&CREATE[..], &["--subnet", "10.10.9.0/24", "-bad-"]].concat(), &["-bad-"]),
                (&["network", "rm", "nowhere"], &["nowhere"]),
                (&["network", "rm", "prod"], &["prod", "use", "web"]),
                (&["network", "inspect", "nowhere"], &["nowhere"]),
                (&["service", "create", "--network", "nowhere", "bad"], &["nowhere"]),
                (&["service", "create", "--network", "prod", "web"], &["web", "taken"]),
                (&["service", "rm", "nobody"], &["nobody"]),
                (&["publish", "8080:80", "other"], &["8080", "web"]),
                (&["publish", "80:80", "nobody"], &["nobody"]),
                (&["publish", "0:80", "other"], &["0"]),
                (&["publish", "80:99999", "other"], &["99999"]),
                (&["publish", "eighty", "other"], &["eighty"]),
                (&["unpublish", "9999", "web"], &["9999"]),
                (&["detach", "nobody"], &["nobody"]),
                (
                    &["attach", "--network", "prod", "--name", "bad", "/run/netns/nowhere"],
                    &["/run/netns/nowhere"],
                ),
                (&["attach", "--network", "prod", "--name", "bad", "/etc/passwd"], &["/etc/passwd"]),
                (&["run", "--network", "nowhere", "--name", "bad", "--", "true"], &["nowhere"]),
                (
                    &["run", "--network", "prod", "--name", "bad", "--", "/no/such/program"],
                    &["/no/such/program"],
                ),
                (&["run", "--network", "prod", "--name", "web1", "--", "true"], &["web1"]),
                (&["run", "--network", "prod", "--alias", "a..b", "--", "true"], &["--alias", "\"a..b\""]),
                (&["service", "update", "--alias-add", "a-.b", "web"], &["\"a-.b\""]),
                (
                    &["run", "--network", "prod", "--name", "bad", "--ip", "10.10.3.1", "--", "true"],
                    &["10.10.3.1"],
                ),
                (
                    &["run", "--network", "prod", "--name", "bad", "--ip", "10.10.4.1", "--", "true"],
                    &["10.10.4.1"],
                ),
                (&["init", "--advertise-addr", "192.168.77.11"], &["cluster"]),
                (&["leave"], &["--force"]),
                (&["no-such-verb"], &["no-such-verb"]),
            ],
        )?;
        let address = manager.address().to_string();
        refuse(
            worker,
            &[
                (&[&CREATE[..], &["--subnet", "10.10.9.0/24", "bad"]].concat(), &["manager", &address]),
                (&["publish", "80:80", "web"], &["manager", &address]),
                (&["connectivity", "test"], &["makes a network", "run this on n1", &address]),
            ],
        )?;
        let socket = manager.refused(&["--socket", "/nowhere/meshd.sock", "status"])?;
        ensure!(socket.message.contains("/nowhere/meshd.sock") && socket.code == 69, "{socket:?}");

        ensure!(manager.ctl_json(&["network", "ls"])? == view, "a refused request changed the networks");
        wait("nothing to be left of refused requests", Duration::from_secs(5), || {
            for (node, before) in cluster.nodes().iter().zip(&before) {
                let difference = before.difference(&Inventory::of(node)?);
                ensure!(difference.is_empty(), "{}: {difference}", node.name());
            }
            Ok(())
        })
    })
}

#[test]
fn joining_with_what_is_no_token() -> Result<()> {
    let cluster = Cluster::daemons(Prefix::unique(), 2, Binaries::find()?, Lifetime::Owner)?;
    let story = || -> Result<()> {
        cluster.init()?;
        let good = cluster.worker_token()?;
        let node = &cluster[1];
        let manager = format!("{}:2377", cluster[0].address());
        let own = node.address().to_string();
        let last = if good.ends_with('0') { "1" } else { "0" };
        let mangled = format!("{}{last}", &good[..good.len() - 1]);
        // Another digest of the CA, the secret as it is.
        let fields: Vec<&str> = good.split('-').collect();
        let [head, version, digest, secret] = fields[..] else { bail!("a token of another form: {good}") };
        let other: String = digest.chars().map(|c| if c == '1' { '2' } else { '1' }).collect();
        let wrong_ca = [head, version, &other, secret].join("-");
        for token in ["", "nonsense", "MESHTKN-1-abc", &good[..good.len() - 5], &mangled, &wrong_ca] {
            let refusal = node.refused(&["join", "--token", token, "--advertise-addr", &own, &manager])?;
            ensure!(refusal.message.to_lowercase().contains("token"), "token {token:?}: {}", refusal.message);
            ensure!(secret.is_empty() || !refusal.message.contains(secret), "the error shows the secret");
        }
        let words = ["join", "--token", &good, "--advertise-addr", &own, "192.168.77.99:2377"];
        let refusal = node.refused(&words)?;
        ensure!(refusal.message.contains("192.168.77.99"), "{}", refusal.message);
        let words = ["join", "--token", &good, "--advertise-addr", "192.0.2.77", &manager];
        let refusal = node.refused(&words)?;
        ensure!(refusal.message.contains("192.0.2.77"), "{}", refusal.message);
        // Nothing of it stuck.
        cluster.join(1)?;
        cluster.wait_for_members(2)
    };
    story().map_err(|error| cluster.explain(error))
}

/// Runs a daemon that has to give up, and returns what it said.
fn gives_up(mut meshd: Command) -> Result<String> {
    let mut child =
        meshd.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let ended = wait("meshd to give up", Duration::from_secs(10), || child.try_wait()?.context("it runs on"));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(ended.is_ok(), "meshd runs on: {said}");
    ensure!(!output.status.success(), "meshd ends as if all were well: {said}");
    ensure!(!said.contains("panicked"), "meshd panicked: {said}");
    Ok(said)
}

#[test]
fn a_second_daemon_gives_up() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let said = gives_up(node.meshd()?)?;
        let folders = [node.state_folder(), node.run_folder()];
        let named = folders.iter().any(|folder| said.contains(&folder.display().to_string()));
        ensure!(named && said.contains("another meshd"), "it says: {said}");
        node.ctl(&["status"]).map(drop)
    })
}

#[test]
fn a_state_cut_short_is_named_and_kept() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        node.ctl(&[&CREATE[..], &["--subnet", "10.10.3.0/24", "--attachable", "prod"]].concat())?;
        node.stop()?;
        for file in files(&node.state_folder())? {
            let whole = std::fs::read(&file)?;
            if whole.len() < 2 {
                continue;
            }
            std::fs::write(&file, &whole[..whole.len() / 2])?;
            let said = gives_up(node.meshd()?).with_context(|| format!("with half of {}", file.display()))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ensure!(said.contains(&name), "with half of {}: {said}", file.display());
            std::fs::write(&file, &whole)?;
        }
        node.start()?;
        let networks = node.ctl(&["network", "ls"])?;
        ensure!(networks.contains("prod"), "the whole state is not read again: {networks}");
        Ok(())
    })
}

/// The regular files below a folder.
fn files(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn configuration_that_cannot_be() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        node.stop()?;
        let file = node.run_folder().join("bad.toml");
        std::fs::write(&file, "no-such-key = 1\n")?;
        for (option, value, named) in [
            ("--config", file.as_path(), "no-such-key"),
            ("--config", std::path::Path::new("/nowhere.toml"), "/nowhere.toml"),
            ("--bpf-dir", std::path::Path::new("/proc/nowhere"), "/proc/nowhere"),
        ] {
            let mut meshd = node.command(&Binaries::find()?.meshd)?;
            meshd.arg("--state-dir").arg(node.state_folder()).arg("--run-dir").arg(node.run_folder());
            if option != "--bpf-dir" {
                meshd.arg("--bpf-dir").arg(node.bpf_folder());
            }
            let said = gives_up({
                meshd.arg(option).arg(value);
                meshd
            })?;
            ensure!(said.contains(named), "{option} {}: {said}", value.display());
        }
        node.start()?;
        node.ping(Ipv4Addr::LOCALHOST)
    })
}
