//! Containers whose namespace is not there yet when Docker joins them to a network.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    book::KeptEndpoint,
    ipv6,
    plugin::{Plugin, PluginError, owner},
    protocol::EndpointOnly,
    wishes::Wishes,
};

/// How often the namespace is looked for. The runtime goes on for some tens of milliseconds after it has made it, before
/// the container's own process begins.
const LOOK: Duration = Duration::from_millis(2);
/// The same once a start takes long.
const LOOK_SLOWLY: Duration = Duration::from_millis(20);
/// What a start usually takes at most.
const USUAL: Duration = Duration::from_secs(5);
/// After this, nothing comes any more. Docker says so when a start fails; this is for when it is gone itself.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);
/// The same where a daemon before this one was joined: the runtime was at it before it ended.
const LONGEST_RESUMED: Duration = Duration::from_secs(10);
/// How long Docker may take to switch IPv6 off in a namespace that is there: it starts a program for it.
const SWITCHED_OFF: Duration = Duration::from_secs(20);
/// How long a daemon may take for a container, where very many start at once.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often an engine or a daemon that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Whether a namespace is at `path`: a file that Docker makes first, and then mounts the namespace on.
pub(crate) fn is_there(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|about| about.dev()).ok();
    match (device(path), path.parent().and_then(device)) {
        (Some(file), Some(folder)) => file != folder,
        _ => false,
    }
}

/// Whether it may go well a moment later: the engine starts anew, or the daemon has had much to do since `begin`.
fn is_passing(error: &PluginError, begin: Instant) -> bool {
    match error {
        PluginError::Engine(_) => true,
        PluginError::Refused(refusal) => refusal.is_of_the_moment() && begin.elapsed() < PATIENCE,
        _ => false,
    }
}

impl Plugin {
    /// Goes on with the joins that a daemon before this one answered and did not finish: Docker, which has its answer, would
    /// run their containers without a network.
    pub(crate) async fn resume(self) {
        let open = |kept: &KeptEndpoint| kept.sandbox.is_some() && !kept.settled;
        let half_done: Vec<String> = self.book.read(|pages| {
            pages.endpoints.iter().filter(|(_, kept)| open(kept)).map(|(id, _)| id.clone()).collect()
        });
        if half_done.is_empty() {
            return;
        }
        // A daemon that has just started may be in no cluster yet.
        while self.mesh.tasks().await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        for endpoint in half_done {
            // Docker may have asked anew, or ended it.
            let kept = self.book.read(|pages| pages.endpoints.get(&endpoint).cloned());
            let Some(kept) = kept.filter(|kept| open(kept) && !self.is_waiting(&endpoint)) else { continue };
            info!(endpoint, "goes on with a join that was cut off");
            let (plugin, id) = (self.clone(), endpoint.clone());
            self.go_on(&endpoint, async move { plugin.finish(id, kept).await });
        }
    }

    /// Does what is left of a join. A container that is attached was let in, and is used: what would be refused to it now, since
    /// the cluster has changed meanwhile, is no reason to stop it.
    async fn finish(self, endpoint: String, kept: KeptEndpoint) {
        let tasks = loop {
            match self.mesh.tasks().await {
                Ok(tasks) => break tasks,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let own = owner(&endpoint);
        let is_attached = tasks.local.iter().any(|task| {
            task.owners.contains(&own) && kept.sandbox.as_deref() == Some(Path::new(&task.namespace))
        });
        if is_attached {
            self.settle_attached(&endpoint, &kept).await;
        } else {
            self.attach_later(endpoint, kept, None, LONGEST_RESUMED).await;
        }
    }

    /// As [`Plugin::settle`], for a container of which nothing is known any more but that it is attached.
    async fn settle_attached(&self, endpoint: &str, kept: &KeptEndpoint) {
        let Some(sandbox) = &kept.sandbox else { return };
        let request = EndpointOnly { network: kept.network.clone(), endpoint: endpoint.to_owned() };
        let begin = Instant::now();
        let wishes = loop {
            match self.wishes_of_attached(&request, kept, sandbox).await {
                Err(error) if is_there(sandbox) && is_passing(&error, begin) => {
                    tokio::time::sleep(AGAIN).await;
                }
                wishes => break wishes,
            }
        };
        let wishes = match wishes {
            Ok(wishes) => wishes,
            Err(error) => {
                warn!(endpoint, %error, "read what a container asks for that is attached");
                return self.settled(endpoint);
            }
        };
        if wishes.has_ipv6()
            && let Err(error) = self.attach_patiently(endpoint, kept, &wishes, sandbox).await
        {
            warn!(endpoint, %error, "put back IPv6 that Docker has switched off");
        }
        self.settle(endpoint, &wishes).await;
    }

    /// Does what is left once a container is attached.
    pub(crate) async fn settle(&self, endpoint: &str, wishes: &Wishes) {
        self.tell_aliases(endpoint, wishes).await;
        self.settled(endpoint);
    }

    fn settled(&self, endpoint: &str) {
        let written = self.book.write(|pages| {
            if let Some(kept) = pages.endpoints.get_mut(endpoint) {
                kept.settled = true;
            }
        });
        if let Err(error) = written {
            warn!(endpoint, %error, "note the end of a join");
        }
    }

    /// As [`Plugin::attach_early`], for as long as a daemon with very much to do may need: Docker does not wait for it, and what
    /// was begun goes on there until the same call is answered.
    pub(crate) async fn attach_patiently(
        &self,
        endpoint: &str,
        kept: &KeptEndpoint,
        wishes: &Wishes,
        sandbox: &Path,
    ) -> Result<(), PluginError> {
        let begin = Instant::now();
        loop {
            match self.attach_early(endpoint, kept, wishes, sandbox).await {
                Err(error) if is_there(sandbox) && is_passing(&error, begin) => {
                    warn!(endpoint, %error, "a container waits for its network");
                    tokio::time::sleep(AGAIN).await;
                }
                attached => return attached,
            }
        }
    }

    /// Attaches a container whose namespace Docker is not done with: see [`ipv6`].
    async fn attach_early(
        &self,
        endpoint: &str,
        kept: &KeptEndpoint,
        wishes: &Wishes,
        sandbox: &Path,
    ) -> Result<(), PluginError> {
        let attached = self.attach(endpoint, kept, wishes).await;
        if !wishes.has_ipv6() {
            return attached;
        }
        match ipv6::switched_off(sandbox, SWITCHED_OFF).await {
            Ok(()) => self.attach(endpoint, kept, wishes).await,
            Err(error) => {
                warn!(endpoint, %error, "look whether Docker has switched IPv6 off");
                attached
            }
        }
    }

    /// Attaches an endpoint's container once its namespace is there; if that fails, the container is stopped: it would run
    /// without the network that it was started for.
    pub(crate) async fn attach_later(
        &self,
        endpoint: String,
        kept: KeptEndpoint,
        wishes: Option<Wishes>,
        at_most: Duration,
    ) {
        let Some(sandbox) = &kept.sandbox else { return };
        let begin = Instant::now();
        while !is_there(sandbox) {
            if begin.elapsed() > at_most {
                warn!(endpoint, sandbox = %sandbox.display(), "no namespace came for a container that Docker joined");
                return;
            }
            tokio::time::sleep(if begin.elapsed() < USUAL { LOOK } else { LOOK_SLOWLY }).await;
        }
        let request = EndpointOnly { network: kept.network.clone(), endpoint: endpoint.clone() };
        let asked = Instant::now();
        let wishes = match wishes {
            Some(wishes) => Ok(wishes),
            None => loop {
                match self.wishes(&request, &kept, sandbox).await {
                    Err(error) if is_there(sandbox) && is_passing(&error, asked) => {
                        tokio::time::sleep(AGAIN).await;
                    }
                    wishes => break wishes,
                }
            },
        };
        let attached = match &wishes {
            Ok(wishes) => {
                self.attach_patiently(&endpoint, &kept, wishes, sandbox).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match (attached, wishes) {
            (Ok(()), Ok(wishes)) => {
                info!(endpoint, container = wishes.container.id, took = ?begin.elapsed(), "attached");
                self.settle(&endpoint, &wishes).await;
            }
            // It ended before it began.
            (Err(_), _) if !is_there(sandbox) => {}
            (Err(error), wishes) => {
                let found = match wishes {
                    Ok(wishes) => Ok(wishes.container),
                    Err(_) => self.container_of(&request).await.map(|(_, container)| container),
                };
                let id = found.as_ref().ok().map(|container| &container.id);
                error!(endpoint, container = ?id, error, "a container cannot join its network and is stopped");
                let stopped = match found {
                    Ok(container) => self.engine.kill(&container.id).await.map_err(PluginError::from),
                    Err(error) => Err(error),
                };
                if let Err(error) = stopped {
                    error!(endpoint, %error, "stop a container");
                }
            }
            (Ok(()), Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_mount() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ns");
        assert!(!is_there(&file));
        std::fs::write(&file, "").unwrap();
        assert!(!is_there(&file));
        assert!(is_there(Path::new("/proc/self/ns/net")));
    }
}
