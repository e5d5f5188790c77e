//! The state machine: `mesh_store::State` in memory, its snapshots on disk.

use std::{io, sync::Arc};

use futures::{Stream, TryStreamExt};
use mesh_store::{OLDEST_FORMAT, State};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::{Mutex, watch};

use crate::{
    codec,
    disk::Loaded,
    types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
    writer::{Write, Writer},
};

/// What has been applied.
#[derive(Clone, Default)]
struct Applied {
    state: Arc<State>,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Applied {
    fn from_snapshot(snapshot: &Snapshot) -> Result<Self, mesh_store::DecodeError> {
        Ok(Self {
            state: Arc::new(State::decode(&snapshot.snapshot)?),
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership.clone(),
        })
    }
}

/// The state of the snapshot with the whole log applied.
pub(crate) fn all_of(loaded: Loaded) -> Result<State, mesh_store::DecodeError> {
    let snapshot = loaded.snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot });
    let applied = snapshot.as_ref().map(Applied::from_snapshot).transpose()?.unwrap_or_default();
    let mut state = Arc::unwrap_or_clone(applied.state);
    for entry in loaded.log.into_values().filter(|entry| Some(entry.log_id) > applied.last) {
        if let EntryPayload::Normal(proposal) = entry.payload {
            // Whether it was refused does not matter any more.
            let _ = state.apply(proposal.0);
        }
    }
    Ok(state)
}

/// The format of a state's bytes.
pub(crate) fn state_format(snapshot: &[u8]) -> u8 {
    snapshot.first().copied().unwrap_or(OLDEST_FORMAT)
}

/// Applies entries and publishes what comes out.
pub(crate) struct Machine {
    applied: Applied,
    kept: Kept,
    states: watch::Sender<Arc<State>>,
}

impl Machine {
    /// The machine as its last snapshot left it; openraft applies the rest of the log.
    pub(crate) fn new(
        snapshot: Option<(SnapshotMeta, Vec<u8>)>,
        writer: Writer,
    ) -> Result<(Self, watch::Receiver<Arc<State>>), mesh_store::DecodeError> {
        let snapshot = snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot });
        let applied = snapshot.as_ref().map(Applied::from_snapshot).transpose()?.unwrap_or_default();
        let (states, watcher) = watch::channel(applied.state.clone());
        let kept = Kept { snapshot: Arc::new(Mutex::new(snapshot)), writer };
        Ok((Self { applied, kept, states }, watcher))
    }

    fn publish(&self) {
        self.states.send_replace(self.applied.state.clone());
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let mut changed = false;
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Membership(membership) => {
                    self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
                EntryPayload::Normal(proposal) => {
                    changed = true;
                    Some(Arc::make_mut(&mut self.applied.state).apply(proposal.0))
                }
            };
            self.applied.last = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        // Whoever gets an answer finds its effect in the published state.
        if changed {
            self.publish();
        }
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { applied: self.applied.clone(), kept: self.kept.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let snapshot = Snapshot { meta: meta.clone(), snapshot };
        let applied = Applied::from_snapshot(&snapshot)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.kept.keep(snapshot).await?;
        self.applied = applied;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.kept.snapshot.lock().await.clone())
    }
}

/// Makes a snapshot of a moment, beside the machine's further work.
pub(crate) struct Builder {
    applied: Applied,
    kept: Kept,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let Applied { state, last, membership } = &self.applied;
        let meta = SnapshotMeta { last_log_id: *last, last_membership: membership.clone() };
        let snapshot = Snapshot { meta, snapshot: state.encode() };
        self.kept.keep(snapshot.clone()).await?;
        Ok(snapshot)
    }
}

/// The current snapshot: the one on disk.
#[derive(Clone)]
struct Kept {
    snapshot: Arc<Mutex<Option<Snapshot>>>,
    writer: Writer,
}

impl Kept {
    /// Keeps `snapshot`, unless a later one was installed while it was made.
    async fn keep(&self, snapshot: Snapshot) -> io::Result<()> {
        let mut current = self.snapshot.lock().await;
        if current.as_ref().is_some_and(|c| c.meta.last_log_id > snapshot.meta.last_log_id) {
            return Ok(());
        }
        let format = state_format(&snapshot.snapshot);
        let bytes = codec::encode_as(format, &(&snapshot.meta, &snapshot.snapshot))?;
        self.writer.write_through(|done| Write::Snapshot { snapshot: bytes, done }).await?;
        *current = Some(snapshot);
        Ok(())
    }
}
