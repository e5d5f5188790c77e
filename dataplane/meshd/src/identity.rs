//! This node's certificate: renewed before it ends, when its role changes, and when the cluster's CA does.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail};
use mesh_agent::{Agent, one_line};
use mesh_api::{
    transport,
    v1::{self, identity_client::IdentityClient},
};
use mesh_ca::{CertificateDer, Identity, IdentityCell, PeerIdentity};
use mesh_types::Role;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tonic::transport::Channel;
use tracing::{info, warn};

use crate::lock::Keys;

/// How often is looked whether a renewal is due. Clocks jump, so no timer is set for the moment itself.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for a manager's answer, an election among the managers included.
const CALL: Duration = Duration::from_secs(10);
/// Pauses after failures.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the certificate fresh until it is dropped. Clones are handles on the same one.
#[derive(Clone)]
pub struct Renewal {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Shared {
    cell: Arc<IdentityCell>,
    keys: Arc<Keys>,
    agent: Agent,
    /// Whether the managers know which certificate is in use here. One renewal at a time.
    confirmed: Mutex<bool>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Renewal {
    /// Starts to look after the certificate in `cell`, which is kept with `keys`.
    pub fn start(cell: Arc<IdentityCell>, keys: Arc<Keys>, agent: Agent) -> Self {
        let shared = Arc::new(Shared { cell, keys, agent, confirmed: Mutex::new(false) });
        let task = tokio::spawn(look_after(shared.clone()));
        Self { shared, _task: Arc::new(Task(task.abort_handle())) }
    }

    /// Gets a new certificate now, keeps it and uses it for every connection from now on; connections go on. The role in
    /// it is the one that the managers have decided, and is in what this returns. On an error the one before stays in
    /// use.
    pub async fn renew_now(&self) -> Result<PeerIdentity> {
        self.shared.renew().await
    }
}

impl Renewal {
    /// No renewal happens for as long as the result lives.
    pub async fn pause(&self) -> MutexGuard<'_, bool> {
        self.shared.confirmed.lock().await
    }
}

/// Why a new certificate is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Age,
    Role,
    Authority,
}

/// Whether, and why. `decided` is the node's role in the decided state, `generation` the CA's; 0 stands for unknown.
fn due(
    own: PeerIdentity,
    renew_at: SystemTime,
    now: SystemTime,
    decided: Option<Role>,
    generation: u64,
) -> Option<Due> {
    // A manager that is demoted needs its old certificate until the others have taken it out: `roles` renews it then.
    if decided == Some(Role::Manager) && own.role == Role::Worker {
        return Some(Due::Role);
    }
    // More than what is known: the view is behind.
    if generation > own.generation {
        return Some(Due::Authority);
    }
    (now >= renew_at).then_some(Due::Age)
}

/// What is wrong with a node whose certificate is not valid by its own clock.
pub fn clock_warning(identity: &Identity) -> Option<String> {
    let wrong = identity.check_time(SystemTime::now()).err()?;
    Some(format!("this node listens to no manager, and none to it: {wrong}; see that the clock is right"))
}

async fn look_after(shared: Arc<Shared>) {
    let mut pause = MIN_PAUSE;
    loop {
        sleep(LOOK).await;
        let due = shared.due();
        let done = match due {
            Some(due) => shared.renew().await.map(|own| {
                info!(?due, role = %own.role, generation = own.generation, "certificate renewed");
            }),
            None => shared.confirm_once().await,
        };
        match done {
            // A new one that is old already, and would be renewed at once again.
            Ok(()) if due == Some(Due::Age) && shared.due() == due => {
                warn!("this node's clock is far ahead of that of the manager that made its new certificate");
                sleep(MAX_PAUSE).await;
            }
            Ok(()) => pause = MIN_PAUSE,
            Err(error) => {
                warn!(error = one_line(error.as_ref()), "this node's certificate");
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

impl Shared {
    fn due(&self) -> Option<Due> {
        let identity = self.cell.current();
        if identity.is_locked() {
            return None;
        }
        let view = self.agent.view();
        let role = view.nodes.get(&identity.own().node).map(|node| node.role);
        due(identity.own(), identity.renew_at(), SystemTime::now(), role, view.ca_generation)
    }

    async fn renew(&self) -> Result<PeerIdentity> {
        let mut confirmed = self.confirmed.lock().await;
        let (key, csr) = Identity::request()?;
        let request = v1::RenewRequest { csr };
        let answer = self.ask(|mut client| {
            let request = request.clone();
            async move { client.renew(request).await }
        });
        let answer = answer.await?;
        let chain = answer.certificates.into_iter().map(CertificateDer::from).collect();
        let fresh = Identity::new(key, chain).context("the managers' answer")?;
        let (old, new) = (self.cell.current().own(), fresh.own());
        if (new.node, new.cluster) != (old.node, old.cluster) {
            bail!("the managers answered with a certificate for node {}", new.node);
        }
        if new.generation < old.generation {
            bail!("the manager that answered does not know the cluster's present CA yet");
        }
        // With it nobody who has the right time would listen to this node.
        fresh.check_time(SystemTime::now()).context("the manager's clock or this node's is wrong")?;
        // Kept before it is used: after it is confirmed, the managers may drop what the old one needs.
        self.keys.save(&fresh)?;
        self.cell.replace(fresh)?;
        *confirmed = false;
        if let Err(error) = self.confirm().await {
            warn!(error = one_line(error.as_ref()), "tell the managers of the new certificate");
        } else {
            *confirmed = true;
        }
        Ok(new)
    }

    async fn confirm_once(&self) -> Result<()> {
        let mut confirmed = self.confirmed.lock().await;
        if !*confirmed && !self.cell.current().is_locked() {
            self.confirm().await?;
            *confirmed = true;
        }
        Ok(())
    }

    /// Shows the managers the certificate in use, by a new connection.
    async fn confirm(&self) -> Result<()> {
        let shown = self.ask(|mut client| async move { client.confirm(v1::ConfirmRequest {}).await });
        shown.await.map(drop)
    }

    /// Asks the managers, one after the other, until one does what it is asked.
    async fn ask<T, F>(&self, call: impl Fn(IdentityClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut failed = Vec::new();
        for manager in self.agent.managers() {
            let answer = async {
                let client = self.connect(manager).await?;
                call(client).await.map_err(|status| anyhow!("{}", status.message().to_owned()))
            };
            match timeout(CALL, answer).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(error)) => failed.push(format!("{manager}: {}", one_line(error.as_ref()))),
                Err(_) => failed.push(format!("{manager}: no answer within {} s", CALL.as_secs())),
            }
        }
        bail!("no manager answered: {}", failed.join("; "))
    }

    async fn connect(&self, manager: SocketAddr) -> Result<IdentityClient<Channel>> {
        let tls = mesh_ca::client_config(self.cell.clone())?;
        let channel = transport::connect(manager, mesh_ca::server_name(Role::Manager), tls).await?;
        Ok(IdentityClient::new(channel))
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::{ClusterId, NodeId};

    use super::*;

    #[test]
    fn age_role_and_authority_make_it_due() {
        let now = SystemTime::now();
        let (later, own) = (
            now + Duration::from_secs(1),
            PeerIdentity {
                node: NodeId::from_u128(1),
                role: Role::Worker,
                cluster: ClusterId::from_u128(1),
                generation: 3,
            },
        );
        let worker = Some(Role::Worker);
        assert_eq!(due(own, later, now, worker, 3), None);
        assert_eq!(due(own, later, now, None, 0), None, "nothing is known yet");
        assert_eq!(due(own, later, now, worker, 2), None, "the view is behind");
        assert_eq!(due(own, now, later, worker, 3), Some(Due::Age));
        assert_eq!(due(own, later, now, worker, 4), Some(Due::Authority));
        assert_eq!(due(own, later, now, Some(Role::Manager), 3), Some(Due::Role));
    }
}
