//! How a node leaves its cluster.

use std::time::Duration;

use anyhow::Result;
use mesh_agent::SessionError;
use mesh_api::v1::{self, control_server::Control};
use mesh_manager::Manager;
use mesh_types::Role;
use tokio::time::{Instant, sleep};
use tonic::Request;
use tracing::{info, warn};

use super::{Daemon, Member};
use crate::{dashboard, state_dir};

/// How long the others may take to let this manager go.
const STEP_DOWN: Duration = Duration::from_secs(15);

impl Daemon {
    /// Leaves the cluster, removing everything of it from this node.
    pub async fn leave(&self, force: bool) -> Result<()> {
        let mut guard = self.member.write().await;
        let Some(member) = guard.as_ref() else { anyhow::bail!("this node is in no cluster") };
        refuse_leave(member, force)?;
        // The only manager tells nobody: with it the cluster ends.
        let told = match &member.manager {
            Some(_) if member.managers().len() < 2 => Ok(()),
            Some(manager) => match step_down(member, manager, force).await {
                Ok(()) => tell_managers(member).await,
                Err(error) if force => Err(SessionError::Failed(format!("{error:#}"))),
                Err(error) => return Err(error),
            },
            None => tell_managers(member).await,
        };
        if let (Err(error), false) = (&told, force) {
            let why = match error {
                SessionError::NoManager(why) => format!("no manager is reachable ({why})"),
                other => other.to_string(),
            };
            anyhow::bail!(
                "{why}; with --force this node leaves all the same, and a manager has to forget it with \
                 `meshctl node rm {}`",
                member.membership.name
            );
        }
        let Some(Member { agent, manager, membership, renewal, .. }) = guard.take() else { return Ok(()) };
        dashboard::close(&self.dashboard).await;
        drop(renewal);
        let mut problems = agent.leave().await;
        problems.extend(told.err().map(|e| e.to_string()));
        if let Some(manager) = manager {
            manager.shutdown().await;
        }
        problems.extend(state_dir::wipe(&self.config.state_dir).err().map(|e| format!("{e:#}")));
        info!(cluster = %membership.cluster, "left the cluster");
        for problem in &problems {
            warn!(problem, "while leaving");
        }
        if problems.is_empty() || force {
            return Ok(());
        }
        anyhow::bail!("this node has left the cluster, but: {}", problems.join("; "))
    }
}

fn refuse_leave(member: &Member, force: bool) -> Result<()> {
    if force {
        return Ok(());
    }
    if member.membership.role == Role::Manager && member.managers().len() < 2 {
        let others = member.agent.view().nodes.len().saturating_sub(1);
        anyhow::bail!(
            "this node is the only manager: when it leaves, the cluster ends (other nodes in it: {others}); \
             use --force if that is meant"
        );
    }
    let names: Vec<_> = member.agent.tasks().iter().map(|t| t.name.to_string()).collect();
    if !names.is_empty() {
        anyhow::bail!("tasks run on this node: {}; detach them first, or use --force", names.join(", "));
    }
    Ok(())
}

/// Has the other managers take this one out before it leaves.
async fn step_down(member: &Member, manager: &Manager, force: bool) -> Result<()> {
    let request = v1::SetRoleRequest {
        node: member.membership.node.to_string(),
        role: v1::Role::Worker.into(),
        force,
        expected_version: None,
    };
    let demoted = manager.control().set_role(Request::new(request)).await;
    demoted.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let deadline = Instant::now() + STEP_DOWN;
    while !manager.is_out(&member.managers()).await {
        anyhow::ensure!(
            Instant::now() < deadline,
            "this node is a worker now, but the managers have not taken it out yet; try again"
        );
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Tells the managers that this node leaves; while the session moves to another one, that is waited for.
async fn tell_managers(member: &Member) -> Result<(), SessionError> {
    let deadline = Instant::now() + STEP_DOWN;
    let was_manager = member.manager.is_some();
    loop {
        match member.agent.tell_managers().await {
            Err(SessionError::NoManager(_)) if was_manager && Instant::now() < deadline => {
                sleep(Duration::from_millis(200)).await;
            }
            told => return told,
        }
    }
}
