//! SIGHUP: the configuration is read again, and what a running daemon can follow of it is followed.

use std::sync::Arc;

use anyhow::Result;
use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

use crate::{
    config::{Change, Config, Flags},
    daemon::Daemon,
};

/// Follows the file at each hangup. What is wrong with it is logged, and changes nothing.
pub async fn follow(daemon: Arc<Daemon>, flags: Flags, mut now: Config, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        // systemd takes a reload for done when it is told that we are ready again, whatever came of it.
        let begun = NotifyState::monotonic_usec_now().map(|at| vec![NotifyState::Reloading, at]);
        tell(&begun.unwrap_or_else(|_| vec![NotifyState::Reloading]));
        match reload(&daemon, &flags, &mut now).await {
            Ok(Change { followed, restart }) => {
                info!(followed = followed.join(" "), "configuration read again");
                if !restart.is_empty() {
                    warn!(keys = restart.join(" "), "changed keys that need a restart of meshd");
                }
            }
            Err(wrong) => {
                error!(error = format!("{wrong:#}"), "configuration not read again; all stays as it was")
            }
        }
        tell(&[NotifyState::Ready]);
    }
}

async fn reload(daemon: &Daemon, flags: &Flags, now: &mut Config) -> Result<Change> {
    let next = Config::load(flags)?;
    let change = Change::between(now, &next);
    daemon.log.configure(&next.log)?;
    daemon.follow_config(&next).await;
    now.follow(&next);
    Ok(change)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "tell systemd of the reload");
    }
}
