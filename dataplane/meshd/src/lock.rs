//! The lock of a manager: its state and its key lie encrypted on the disk, and it needs a key when it starts.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use mesh_agent::one_line;
use mesh_ca::{FoundKeyring, Identity, Keyring, UnlockKey};
use mesh_manager::Manager;
use mesh_types::Role;
use tokio::time::sleep;
use tonic::Status;
use tracing::{info, warn};

use crate::daemon::{Daemon, Member, managers_of};

/// How often the cluster's decision is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// Why a locked manager does nothing.
pub const LOCKED: &str = "this manager is locked; run `meshctl unlock` on it";

/// The keys that this node's files are encrypted with, while it is a manager.
pub struct Keys {
    state_dir: PathBuf,
    found: Mutex<Option<FoundKeyring>>,
}

impl Keys {
    /// Looks into the state folder.
    pub fn find(state_dir: &Path) -> Result<Arc<Self>> {
        let found = Mutex::new(Keyring::find(state_dir)?);
        Ok(Arc::new(Self { state_dir: state_dir.to_owned(), found }))
    }

    fn found(&self) -> MutexGuard<'_, Option<FoundKeyring>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they wait for the unlock key.
    pub fn is_locked(&self) -> bool {
        matches!(*self.found(), Some(FoundKeyring::Locked(_)))
    }

    /// For a manager: those that there are, or new ones.
    pub fn ring(&self) -> Result<Arc<Keyring>> {
        let mut found = self.found();
        match &*found {
            Some(FoundKeyring::Locked(_)) => bail!(LOCKED),
            // The folder is emptied when a node leaves, or when what it has begun fails.
            Some(FoundKeyring::Open(ring)) if ring.exists() => return Ok(ring.clone()),
            Some(FoundKeyring::Open(_)) | None => {}
        }
        let ring = Keyring::create(&self.state_dir)?;
        *found = Some(FoundKeyring::Open(ring.clone()));
        Ok(ring)
    }

    /// Those that there are and can be used.
    fn open(&self) -> Option<Arc<Keyring>> {
        match &*self.found() {
            Some(FoundKeyring::Open(ring)) if ring.exists() => Some(ring.clone()),
            _ => None,
        }
    }

    fn unlock(&self, key: &UnlockKey) -> Result<Arc<Keyring>> {
        let mut found = self.found();
        let ring = match &*found {
            Some(FoundKeyring::Locked(locked)) => locked.unlock(key)?,
            _ => bail!("this node is not locked"),
        };
        *found = Some(FoundKeyring::Open(ring.clone()));
        Ok(ring)
    }

    /// The node's identity from the state folder; locked if the keys are.
    pub fn identity(&self) -> Result<Identity> {
        let identity = Identity::load(&self.state_dir)?;
        match self.open() {
            Some(ring) if identity.is_locked() => Ok(identity.unlock(&ring)?),
            _ => Ok(identity),
        }
    }

    /// Keeps the node's identity, its key sealed if the manager is to be locked.
    pub fn save(&self, identity: &Identity) -> Result<()> {
        Ok(identity.save_by(&self.state_dir, self.open().as_deref())?)
    }

    /// For a node that is no manager any more.
    fn remove(&self, identity: &Identity) -> Result<()> {
        identity.save(&self.state_dir)?;
        Keyring::remove(&self.state_dir)?;
        *self.found() = None;
        Ok(())
    }
}

impl Member {
    /// This node's manager, or why there is none.
    pub fn manager(&self) -> Result<&Manager, Status> {
        self.manager_since("only managers change the cluster")
    }

    /// The same for what a worker is not asked to do for the reason given.
    pub fn manager_since(&self, reason: &str) -> Result<&Manager, Status> {
        if let Some(manager) = &self.manager {
            return Ok(manager);
        }
        let why = match (&self.manager_fault, self.membership.role) {
            (Some(fault), _) => fault.clone(),
            (None, Role::Manager) => "this node's manager does not run yet".to_owned(),
            (None, Role::Worker) => format!(
                "this node is a worker, and {reason}; run this on {}",
                managers_of(&self.agent.view())
            ),
        };
        Err(Status::failed_precondition(why))
    }
}

impl Daemon {
    /// Unlocks this node's manager and starts it.
    pub async fn unlock(&self, key: &str) -> Result<()> {
        let key: UnlockKey = key.parse()?;
        {
            let mut guard = self.member.write().await;
            let Some(member) = guard.as_mut() else { bail!("this node is in no cluster") };
            let ring = self.keys.unlock(&key)?;
            let identity = member.identity.current().unlock(&ring)?;
            member.identity.replace(identity)?;
            info!("unlocked");
        }
        self.start_manager().await
    }

    /// One look at what the cluster has decided, and what follows from it.
    async fn follow_lock(&self, tidy: &mut bool) -> Result<()> {
        let guard = self.member.read().await;
        let Some(member) = guard.as_ref() else { return Ok(()) };
        let Some(manager) = &member.manager else {
            if member.membership.role == Role::Worker
                && !Manager::has_state(&self.config.state_dir)
                && self.keys.open().is_some()
            {
                let _one = member.renewal.pause().await;
                self.keys.remove(&member.identity.current())?;
            }
            return Ok(());
        };
        let ring = self.keys.ring()?;
        // Raft has sealed everything anew when it was opened; only what comes below makes further keys.
        if !*tidy {
            let _one = member.renewal.pause().await;
            self.keys.save(&member.identity.current())?;
            ring.forget_earlier()?;
            *tidy = true;
        }
        let decided = {
            let state = manager.state();
            let state = state.borrow();
            // A manager that was told nothing yet must not lie open for that.
            if state.cluster().is_none() {
                return Ok(());
            }
            state.unlock_key().map(|key| UnlockKey::from_bytes(*key))
        };
        if ring.lock() != decided {
            let locked = decided.is_some();
            let _one = member.renewal.pause().await;
            ring.lock_by(decided).context("the manager's keys")?;
            self.keys.save(&member.identity.current()).context("the manager's certificate")?;
            info!(locked, "this manager's lock follows the cluster's");
        }
        Ok(())
    }
}

/// Follows the cluster's decision whether managers are locked, and by which key, for as long as the daemon runs.
pub async fn follow(daemon: Arc<Daemon>) {
    let mut tidy = false;
    loop {
        sleep(LOOK).await;
        if let Err(error) = daemon.follow_lock(&mut tidy).await {
            warn!(error = one_line(error.as_ref()), "this manager's lock");
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use mesh_ca::{DEFAULT_VALIDITY, RootCa};
    use mesh_types::{ClusterId, NodeId};

    use super::*;

    fn identity() -> Identity {
        let now = SystemTime::now();
        let ca = RootCa::generate(ClusterId::from_u128(1), now).unwrap();
        let (key, csr) = Identity::request().unwrap();
        let chain = ca.issue(&csr, NodeId::from_u128(1), Role::Manager, now, DEFAULT_VALIDITY).unwrap();
        Identity::new(key, chain).unwrap()
    }

    #[test]
    fn a_locked_manager_is_unlocked_by_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::find(dir.path()).unwrap();
        let key = UnlockKey::random();
        let own = identity();
        keys.ring().unwrap().lock_by(Some(key.clone())).unwrap();
        keys.save(&own).unwrap();

        let again = Keys::find(dir.path()).unwrap();
        assert!(again.is_locked() && again.identity().unwrap().is_locked());
        assert!(again.ring().unwrap_err().to_string().contains("meshctl unlock"));
        assert!(again.unlock(&UnlockKey::random()).is_err() && again.is_locked());
        again.unlock(&key).unwrap();
        assert!(!again.identity().unwrap().is_locked());
        again.save(&own).unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_locked(), "still sealed on disk");

        again.remove(&own).unwrap();
        let worker = Keys::find(dir.path()).unwrap();
        assert!(!worker.is_locked() && !worker.identity().unwrap().is_locked());
    }

    #[test]
    fn an_emptied_folder_gets_new_keys() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::find(dir.path()).unwrap();
        let first = keys.ring().unwrap().seal(b"x", b"y").unwrap();
        assert!(keys.ring().unwrap().open(b"x", &first).is_ok(), "the same ones");
        for entry in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert!(keys.ring().unwrap().open(b"x", &first).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
