//! The main job, shown: three nodes, an overlay, a published service, seen by nginx, curl, dig and iperf3.

mod story;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use mesh_tests::{Binaries, Cluster, Lifetime, Prefix, interrupt};

use self::story::Stage;
use crate::{command, compile, findings::Findings, progress::step, setup};

/// How to show it.
#[derive(Args)]
pub struct Options {
    /// Leave the cluster up and print commands to play with it.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove what an earlier demo left, and do nothing else.
    #[arg(long)]
    down: bool,
}

/// Shows the main job; fails when anything shown was not so.
pub fn run(options: &Options) -> Result<()> {
    if !options.down {
        setup::run_quietly()?;
    }
    command::need_root("demo")?;
    let prefix = Prefix::fixed("demo");
    if options.down {
        return step("removing the demo's cluster", || mesh_tests::remove_all(&prefix));
    }
    let binaries = match Binaries::given()? {
        Some(binaries) => binaries,
        None => {
            compile::binaries(true)?;
            Binaries::present(&command::workspace().join("target/release"))?
        }
    };
    interrupt::catch()?;
    let start = Instant::now();
    step("removing what earlier demos left", || mesh_tests::remove_all(&prefix))?;
    let mut cluster = step("three nodes and a client: namespaces, a meshd on each node", || {
        Cluster::daemons(prefix, 3, binaries.clone(), Lifetime::Detached)
    })?;
    let mut findings = Findings::default();
    let shown = show(&mut cluster, &mut findings, options.keep);
    println!("\n{}", findings.table());
    println!("{:.0} s", start.elapsed().as_secs_f64());
    if options.keep && interrupt::check().is_ok() {
        cluster.keep();
        println!("\n{}", how_to_play(&cluster, &binaries));
    }
    shown.map_err(|error| cluster.explain(error))?;
    if !findings.all_so() {
        bail!(cluster.explain(anyhow::anyhow!("not all of it was so")));
    }
    Ok(())
}

fn show(cluster: &mut Cluster, findings: &mut Findings, keep: bool) -> Result<()> {
    let mut stage = Stage::set(cluster)?;
    if keep {
        stage.keep();
    }
    stage.play(cluster, findings)
}

fn how_to_play(cluster: &Cluster, binaries: &Binaries) -> String {
    let (first, second) = (&cluster[0], &cluster[1]);
    let folder = binaries.meshctl.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let prefix = cluster.net().prefix();
    format!(
        "The cluster stays up. To play with it, as root:

  export PATH={folder}:$PATH MESHCTL_SOCKET={socket}
  meshctl status
  meshctl service ps web
  nsenter --net=/run/netns/{client} curl http://{address}/
  nsenter --net=/run/netns/{n1} meshctl run --service tools -- dig +short tasks.web
  kill -9 {pid}    # meshd of n2: traffic goes on
  cargo xtask demo --down",
        socket = first.socket().display(),
        client = prefix.namespace("client"),
        address = second.address(),
        n1 = prefix.namespace("n1"),
        pid = second.pid().unwrap_or_default(),
    )
}
