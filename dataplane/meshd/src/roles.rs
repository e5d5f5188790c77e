//! The node's role as the managers decide it: a promoted node starts its manager, a demoted one stops it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use mesh_agent::one_line;
use mesh_manager::Manager;
use mesh_types::{NodeId, Role};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::{
    daemon::{Daemon, Member, manager_options, watch_of},
    dashboard,
};

/// How often the role is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Pauses after failures.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long a manager that has just joined may take to catch up before `join` returns all the same.
const CATCH_UP: Duration = Duration::from_secs(20);

/// How this node's manager is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Runs,
    /// It could not be started, or has stopped by itself.
    Failed,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Nothing,
    /// Starts the manager.
    Start,
    /// Stops the manager, once the others have taken it out, and forgets its state.
    Stop,
    /// Forgets the state of a manager that does not run.
    Forget,
}

fn action(decided: Option<Role>, part: Part, state_here: bool) -> Action {
    match (decided, part) {
        (Some(Role::Manager), Part::None | Part::Failed) => Action::Start,
        (Some(Role::Worker), Part::Runs) => Action::Stop,
        (Some(Role::Worker), Part::None | Part::Failed) if state_here => Action::Forget,
        _ => Action::Nothing,
    }
}

/// Follows the decided role for as long as the daemon runs.
pub async fn follow(daemon: Arc<Daemon>) {
    let mut pause = MIN_PAUSE;
    loop {
        sleep(LOOK).await;
        match daemon.follow_address().await.and(daemon.follow_role().await) {
            Ok(()) => pause = MIN_PAUSE,
            Err(error) => {
                warn!(error = one_line(error.as_ref()), "this node's part as a manager");
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Waits until a manager that has joined votes; whether it does.
pub async fn votes(manager: &Manager) -> bool {
    let deadline = Instant::now() + CATCH_UP;
    while !manager.votes() && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    manager.votes()
}

impl Member {
    fn part(&self) -> Part {
        match &self.manager {
            Some(manager) if manager.failure().is_none() => Part::Runs,
            Some(_) => Part::Failed,
            None if self.manager_fault.is_some() => Part::Failed,
            None => Part::None,
        }
    }

    /// Why this node's manager does not work.
    pub fn manager_warnings(&self) -> impl Iterator<Item = String> {
        let stopped = self.manager.as_ref().and_then(Manager::failure);
        let fault = stopped.or_else(|| self.manager_fault.clone());
        let mend =
            "(if its state is lost, `meshctl node demote` and then `node promote` it from another manager)";
        let outdated = self.manager.as_ref().and_then(Manager::outdated);
        let outdated = outdated.map(|why| format!("this node's manager cannot follow the others: {why}"));
        fault
            .map(|fault| format!("this node's manager does not work: {fault} {mend}"))
            .into_iter()
            .chain(outdated)
    }

    /// The managers as this node was last told.
    pub fn managers(&self) -> Vec<(NodeId, IpAddr)> {
        let view = self.agent.view();
        let managers = view.nodes.values().filter(|node| node.role == Role::Manager);
        managers.map(|node| (node.id, node.advertise_addr)).collect()
    }
}

impl Daemon {
    /// Notes where others reach this node now. A manager tells the others by itself: while it is not where they look for it,
    /// the session may not find one that reaches the leader.
    async fn follow_address(&self) -> Result<()> {
        let noted = |member: &Member| member.agent.advertise_addr() == member.membership.advertise_addr;
        if !self.member.read().await.as_ref().is_none_or(noted)
            && let Some(member) = self.member.write().await.as_mut()
        {
            member.membership.advertise_addr = member.agent.advertise_addr();
            member.membership.save(&self.config.state_dir)?;
        }
        let guard = self.member.read().await;
        let Some(member) = guard.as_ref() else { return Ok(()) };
        let now = member.agent.advertise_addr();
        let manager = member.manager.as_ref().filter(|manager| manager.failure().is_none());
        let Some(manager) = manager else { return Ok(()) };
        let told = manager.follow_address(now).await;
        told.map_err(|status| anyhow::anyhow!("tell the managers of {now}: {}", status.message()))
    }

    /// One look at the role, and what follows from it.
    async fn follow_role(&self) -> Result<()> {
        if self.keys.is_locked() {
            return Ok(());
        }
        let (action, renewal, identity) = {
            let guard = self.member.read().await;
            let Some(member) = guard.as_ref() else { return Ok(()) };
            let decided = member.agent.view().nodes.get(&member.membership.node).map(|node| node.role);
            let action = action(decided, member.part(), Manager::has_state(&self.config.state_dir));
            if action == Action::Stop
                && let Some(manager) = &member.manager
                && !manager.is_out(&member.managers()).await
            {
                return Ok(());
            }
            (action, member.renewal.clone(), member.identity.clone())
        };
        match action {
            Action::Nothing => Ok(()),
            Action::Start => {
                // The view may be old; a certificate says what is decided now.
                if identity.current().own().role != Role::Manager
                    && renewal.renew_now().await?.role != Role::Manager
                {
                    return Ok(());
                }
                self.start_manager().await
            }
            Action::Stop => {
                if let Some(member) = self.member.write().await.as_mut()
                    && let Some(manager) = member.manager.take()
                {
                    manager.shutdown().await;
                }
                // It is out. What is left is for `Forget`, now or after whatever goes wrong here.
                Box::pin(self.forget_manager(&renewal)).await
            }
            Action::Forget => self.forget_manager(&renewal).await,
        }
    }

    /// Starts this node's manager with the state that it has, or without any.
    pub(crate) async fn start_manager(&self) -> Result<()> {
        let mut guard = self.member.write().await;
        let Some(member) = guard.as_mut() else { return Ok(()) };
        if let Some(failed) = member.manager.take() {
            member.manager_fault = failed.failure();
            failed.shutdown().await;
        }
        let membership = &member.membership;
        let options = manager_options(
            &self.config,
            membership.advertise_addr,
            membership.listen_addr,
            &watch_of(&member.agent),
            &self.keys,
        )?;
        let identity = member.identity.clone();
        let started = match Manager::has_state(&self.config.state_dir) {
            true => Manager::open(options, identity).await,
            false => Manager::join(options, identity).await,
        };
        match started {
            Ok(manager) => {
                member.manager = Some(manager);
                member.manager_fault = None;
            }
            Err(error) => {
                member.manager_fault = Some(one_line(&error));
                return Err(error).context("start this node's manager");
            }
        }
        info!("this node is a manager");
        self.note_role(member, Role::Manager)
    }

    async fn forget_manager(&self, renewal: &crate::identity::Renewal) -> Result<()> {
        if renewal.renew_now().await?.role != Role::Worker {
            return Ok(());
        }
        let mut guard = self.member.write().await;
        let Some(member) = guard.as_mut() else { return Ok(()) };
        if member.part() == Part::Runs {
            return Ok(());
        }
        if let Some(failed) = member.manager.take() {
            failed.shutdown().await;
        }
        dashboard::close(&self.dashboard).await;
        // Noted first: a start in between finds a worker, with state that it forgets.
        self.note_role(member, Role::Worker)?;
        Manager::forget(&self.config.state_dir)?;
        member.manager_fault = None;
        info!("this node is a worker");
        Ok(())
    }

    fn note_role(&self, member: &mut Member, role: Role) -> Result<()> {
        if member.membership.role != role {
            member.membership.role = role;
            member.membership.save(&self.config.state_dir)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decided_role_starts_and_stops_the_manager() {
        let (manager, worker) = (Some(Role::Manager), Some(Role::Worker));
        assert_eq!(action(manager, Part::None, false), Action::Start);
        assert_eq!(action(manager, Part::None, true), Action::Start);
        assert_eq!(action(manager, Part::Runs, true), Action::Nothing);
        assert_eq!(action(manager, Part::Failed, true), Action::Start);
        assert_eq!(action(worker, Part::Runs, true), Action::Stop);
        assert_eq!(action(worker, Part::Failed, true), Action::Forget);
        assert_eq!(
            action(worker, Part::None, true),
            Action::Forget,
            "left over from a stop that was cut off"
        );
        assert_eq!(action(worker, Part::None, false), Action::Nothing);
        for part in [Part::None, Part::Runs, Part::Failed] {
            assert_eq!(action(None, part, true), Action::Nothing, "nothing is known");
        }
    }
}
