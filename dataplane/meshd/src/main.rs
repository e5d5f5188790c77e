//! `meshd`: the daemon of every node.
//!
//! It serves `meshctl` on a unix socket, runs the agent once the node is in a cluster, and the manager where its role
//! says so. Stopping it, or killing it, leaves the data path in place; the next start adopts it.

#![forbid(unsafe_code)]

mod address;
mod cluster;
mod config;
mod control;
mod daemon;
mod gossip;
mod identity;
mod join;
mod local;
mod local_access;
mod lock;
mod membership;
mod roles;
mod reach;
mod socket;
mod state_dir;
mod tasks;

use std::{io::IsTerminal, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{Config, Flags},
    daemon::Daemon,
};

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let root = nix::unistd::geteuid().is_root();
            eprintln!("meshd: {error:#}{}", if root { "" } else { " (meshd needs root)" });
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    let config = Config::load(flags)?;
    if flags.check_config {
        println!("{}", config.to_toml()?);
        return Ok(());
    }
    start_log(&config)?;
    // Few threads: the daemon only decides and programs; packets never pass through it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served
}

async fn serve(config: Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let _lock = socket::lock_state(&config.state_dir)?;
    let listener = socket::listen(&config.run_dir)?;
    if !nix::unistd::geteuid().is_root() {
        warn!("meshd does not run as root; it will hardly be allowed to make links and load programs");
    }
    let daemon = Arc::new(Daemon::open(config).await?);
    // The agent has taken those that it needs; in no cluster there is no agent.
    mesh_agent::KeptSockets::from_environment().forget_rest();
    let server = tokio::spawn(socket::serve(daemon.clone(), listener));
    tokio::spawn(roles::follow(daemon.clone()));
    tokio::spawn(lock::follow(daemon.clone()));
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
    Ok(())
}

/// To journald where systemd started us with it, to standard error otherwise.
fn start_log(config: &Config) -> Result<()> {
    // What the filter says of these comes later and wins. Their `info` and `warn` are of their own workings.
    let directives = format!("openraft=warn,netlink_proto=error,{}", config.log);
    let filter = EnvFilter::try_new(directives).with_context(|| format!("log filter {:?}", config.log))?;
    let registry = tracing_subscriber::registry().with(filter);
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journald {
        Some(layer) => registry.with(layer).try_init()?,
        None => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init()?,
    }
    Ok(())
}
