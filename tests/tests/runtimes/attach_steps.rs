//! The daemon is killed at each step of an attach and of a detach: after its next start nothing of the half-made task is
//! left on the node, and the same request by the same owner succeeds.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_api::v1;
use mesh_tests::{Cluster, Inventory, NetNs, Node, output, run, wait};

use crate::local_api::{Local, request};

const SOON: Duration = Duration::from_secs(30);
const OWNER: &str = "cni:prod/1/eth0";
const ATTACH: [&str; 8] =
    ["addresses", "way out", "link", "name server", "maps", "programs", "announced", "kept"];
const DETACH: [&str; 5] = ["withdrawn", "unplanned", "unhooked", "unlinked", "forgotten"];

/// The daemon's command line, with the file that says where it is to end.
fn daemon(node: &Node, step: &Path) -> Result<Command> {
    let mut command = node.meshd()?;
    command.env("MESHD_KILL_AT", step);
    Ok(command)
}

fn wish(path: &str) -> v1::AttachRequest {
    v1::AttachRequest {
        name: "box".to_owned(),
        addresses: vec!["10.10.3.77".to_owned()],
        ..request(path, "prod", OWNER)
    }
}

/// What the daemon keeps on disk, by name.
fn kept_files(node: &Node) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(node.state_folder()).context("the state folder")?;
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

struct Before {
    inventory: Inventory,
    files: Vec<String>,
    inside: String,
}

impl Before {
    fn of(cluster: &Cluster, namespace: &NetNs) -> Result<Self> {
        let inventory = Inventory::settled(cluster)?.into_iter().next().context("a node")?;
        Ok(Self { inventory, files: kept_files(&cluster[0])?, inside: inside(namespace)? })
    }

    /// Waits until all is as it was.
    fn again(&self, node: &Node, namespace: &NetNs, step: &str) -> Result<()> {
        let what = format!("the node to be as before the daemon ended at {step:?}");
        wait(&what, SOON, || {
            let difference = self.inventory.difference(&Inventory::of(node)?);
            ensure!(difference.is_empty(), "{difference}");
            let now = inside(namespace)?;
            ensure!(now == self.inside, "in the namespace: {now}");
            let files = kept_files(node)?;
            ensure!(files == self.files, "files: {files:?}, before: {:?}", self.files);
            Ok(())
        })
    }
}

fn inside(namespace: &NetNs) -> Result<String> {
    output(namespace.command("sh")?.args(["-c", "ip -br link | grep -v '^lo ' || true"]))
}

/// Has `call` end the daemon at `step`, and starts it again.
fn killed_at<T: std::fmt::Debug>(
    node: &Node,
    file: &Path,
    step: &str,
    call: impl FnOnce(&mut Local) -> Result<T, tonic::Status>,
) -> Result<()> {
    let mut local = Local::of(node)?;
    std::fs::write(file, step).context("the step's file")?;
    let answer = call(&mut local);
    ensure!(answer.is_err(), "the daemon did not end at {step:?}: {answer:?}");
    std::fs::remove_file(file).context("the step's file")?;
    node.kill()?;
    node.start_as(daemon(node, file)?)
}

#[test]
fn a_daemon_that_ends_at_any_step_leaves_nothing() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let create =
            ["network", "create", "--driver", "overlay", "--subnet", "10.10.3.0/24", "--attachable", "prod"];
        node.ctl(&create)?;
        let namespace = NetNs::create(&cluster.net().prefix().namespace("box"))?;
        let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
        let file = node.run_folder().join("step");
        node.kill()?;
        node.start_as(daemon(node, &file)?)?;
        // Once through, so that what is made with the first task is there.
        let mut local = Local::of(node)?;
        local.attach(wish(&path))?;
        local.detach(OWNER)?;
        let before = Before::of(cluster, &namespace)?;

        for step in ATTACH {
            killed_at(node, &file, step, |local| local.attach(wish(&path)))?;
            let mut local = Local::of(node)?;
            if step != "kept" {
                before.again(node, &namespace, step)?;
                ensure!(local.list()?.local.is_empty(), "a half-made task is there after {step:?}");
            }
            let made =
                local.attach(wish(&path)).with_context(|| format!("the same attach after {step:?}"))?;
            ensure!(made.interfaces[0].addresses == ["10.10.3.77/24"], "{made:?}");
            local.detach(OWNER)?;
            before.again(node, &namespace, step)?;
        }
        for step in DETACH {
            Local::of(node)?.attach(wish(&path)).with_context(|| format!("the attach before {step:?}"))?;
            killed_at(node, &file, step, |local| local.detach(OWNER))?;
            // As a runtime does that got no answer.
            Local::of(node)?.detach(OWNER).with_context(|| format!("the same detach after {step:?}"))?;
            before.again(node, &namespace, step)?;
            ensure!(Local::of(node)?.list()?.local.is_empty(), "the task is there after {step:?}");
        }
        Ok(())
    })
}
