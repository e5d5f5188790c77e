//! `meshd`: the daemon of every node.
//!
//! It serves `meshctl` on a unix socket, runs the agent once the node is in a cluster, and the manager where its role
//! says so. Stopping it, or killing it, leaves the data path in place; the next start adopts it.

#![forbid(unsafe_code)]

mod address;
mod cluster;
mod config;
mod connectivity;
mod control;
mod daemon;
mod dashboard;
mod docker;
mod flows;
mod gossip;
mod identity;
mod join;
mod local;
mod local_access;
mod lock;
mod log;
mod membership;
mod metrics;
mod packet_trace;
mod progress;
mod reach;
mod reload;
mod roles;
mod snapshot;
mod socket;
mod state_dir;
mod tasks;
mod traces;
mod watch;
mod watched;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{
    config::{Config, Findings, Flags},
    daemon::Daemon,
    log::Log,
};

fn main() -> ExitCode {
    if let Some(code) = connectivity::helper_of_process() {
        return code;
    }
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let may_need_root = !nix::unistd::geteuid().is_root() && !error.is::<Findings>();
            eprintln!("meshd: {error:#}{}", if may_need_root { " (meshd needs root)" } else { "" });
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    let config = Config::load(flags)?;
    if flags.check_only() {
        print!("{}", config.to_toml()?);
        return Ok(());
    }
    let log = Log::start(&config.log, config.log_format)?;
    // Few threads: the daemon only decides and programs; packets never pass through it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = match flags.take_down {
        true => runtime.block_on(take_down(&config)),
        false => runtime.block_on(serve(config, flags, log)),
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served
}

async fn serve(config: Config, flags: &Flags, log: Log) -> Result<()> {
    // Before anything else: a hangup that comes early must not end the daemon.
    let hangup = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let _lock = socket::lock_state(&config.state_dir)?;
    let listener = socket::listen(&config.run_dir)?;
    if !nix::unistd::geteuid().is_root() {
        warn!("meshd does not run as root; it will hardly be allowed to make links and load programs");
    }
    let spans = traces::start(&config)?;
    let daemon = Arc::new(Daemon::open(config.clone(), log).await?);
    // The agent has taken those that it needs; in no cluster there is no agent.
    mesh_agent::KeptSockets::from_environment().forget_rest();
    let server = tokio::spawn(socket::serve(daemon.clone(), listener));
    tokio::spawn(roles::follow(daemon.clone()));
    tokio::spawn(lock::follow(daemon.clone()));
    tokio::spawn(docker::follow(config.clone()));
    tokio::spawn(metrics::follow(daemon.clone(), daemon.metrics.subscribe()));
    tokio::spawn(reload::follow(daemon.clone(), flags.clone(), config, hangup));
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "tell systemd that meshd is ready");
    }
    info!(version = env!("CARGO_PKG_VERSION"), "meshd is ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = server => {
            return ended.context("the local socket's task")?.context("serve the local socket");
        }
    }
    info!("stopping; the data path stays");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
        warn!(%error, "tell systemd that meshd stops");
    }
    daemon.stop().await;
    if let Some(spans) = spans {
        spans.flush().await;
    }
    Ok(())
}

/// Leaves nothing in the kernel of what a daemon that runs no more has made.
async fn take_down(config: &Config) -> Result<()> {
    let _lock = socket::lock_state(&config.state_dir)?;
    let problems = mesh_agent::remove_from_node(&config.bpf_dir).await;
    if problems.is_empty() {
        return Ok(());
    }
    anyhow::bail!("the data path is removed, but: {}", problems.join("; "))
}
