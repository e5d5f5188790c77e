//! One manager's part in Raft.

mod formats;
mod members;
mod progress;
mod standing;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_store::{Command, Rejection, Response, State};
use mesh_types::NodeId;
use openraft::{
    Config, Raft, ReadPolicy, SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    vote::RaftLeaderId,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, timeout, timeout_at},
};

pub use members::Manager;
pub use progress::Progress;
pub use standing::Standing;

use crate::{
    HandleError, MembershipError, OpenError, ProposeError, RpcKind, Transport, TransportError, codec,
    disk::{self, Loaded},
    log::LogStore,
    machine::{self, Machine},
    network::{Addresses, Network, SNAPSHOT_TIMEOUT},
    types::{Member, Proposal, RaftId, Snapshot, SnapshotMeta, TypeConfig, Vote},
    vault::{Cipher, Vault},
    writer::Writer,
};

/// How long [`RaftNode::propose`] and [`RaftNode::linearizable`] wait for a leader and a majority.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a manager may take to carry out what it passed on to the leader, before it answers all the same.
const OWN_CHANGE: Duration = Duration::from_secs(3);
/// Pause before asking again while leaders change.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// A manager on its own leads before `open` returns; this only bounds a broken disk's time.
const SOLE_LEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries between snapshots.
const SNAPSHOT_EVERY: u64 = 5_000;
/// Entries kept behind a snapshot, for followers that are only a little late.
const KEEP_ENTRIES: u64 = 1_000;

/// How to open a [`RaftNode`].
#[derive(Clone)]
pub struct RaftOptions {
    /// The folder of `raft.redb`; it must exist.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Where other managers reach this one.
    pub advertise: SocketAddr,
    /// How messages get to the others.
    pub transport: Arc<dyn Transport>,
    /// What encrypts the state on the disk; none: it lies open there.
    pub cipher: Option<Arc<dyn Cipher>>,
    /// The newest format that is read and may be agreed on: [`mesh_store::NEWEST_FORMAT`], or an older one in tests, which then
    /// have a manager of the version before.
    pub newest_format: u8,
}

/// One manager's part in Raft. Clones are handles on the same one.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft<TypeConfig, Machine>,
    node: NodeId,
    advertise: SocketAddr,
    transport: Arc<dyn Transport>,
    writer: Writer,
    states: watch::Receiver<Arc<State>>,
    leaders: watch::Receiver<Option<(NodeId, SocketAddr)>>,
    follower: AbortHandle,
    newest_format: u8,
    /// Why it cannot follow the others: they write what it does not read.
    outdated: Mutex<Option<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// A leader's answer to a forwarded command, behind the index of the command's entry.
type Forwarded = Result<(u64, Result<Response, Rejection>), Refusal>;

/// Why the one asked did not answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Refusal {
    NotLeader,
    LeaderChanged,
    NoMajority,
    Stopped(String),
}

impl RaftNode {
    /// Whether `dir` holds the state of a manager.
    pub fn exists(dir: &Path) -> bool {
        disk::path(dir).exists()
    }

    /// Everything that `dir` holds, entries among it that are not known to be decided. For a manager that does not run.
    pub async fn read(dir: &Path, node: NodeId, cipher: Option<Arc<dyn Cipher>>) -> Result<State, OpenError> {
        let (dir, path) = (dir.to_owned(), disk::path(dir));
        let reading = tokio::task::spawn_blocking(move || {
            disk::open(&dir, node, &Vault(cipher)).map(|(_, loaded)| loaded)
        });
        let loaded = reading.await.map_err(|e| OpenError::Start(e.to_string()))??;
        machine::all_of(loaded).map_err(|error| snapshot_error(path, error))
    }

    /// Starts Raft from what `dir` holds; an empty folder gives a node that waits to be initialized or added.
    ///
    /// A manager that is the only voter leads, and has applied its whole log, when this returns; it may have come back
    /// under another address. One of several keeps the address that the others know.
    pub async fn open(options: RaftOptions) -> Result<Self, OpenError> {
        Self::open_with(options, config()).await
    }

    pub(crate) async fn open_with(options: RaftOptions, config: Config) -> Result<Self, OpenError> {
        let (dir, node) = (options.dir.clone(), options.node);
        let vault = Vault(options.cipher.clone());
        let sealing = vault.clone();
        let opening = tokio::task::spawn_blocking(move || disk::open(&dir, node, &vault));
        let (database, loaded) = opening.await.map_err(|e| OpenError::Start(e.to_string()))??;
        let path = disk::path(&options.dir);
        let writer = Writer::start(database, path.clone(), sealing)
            .map_err(|source| OpenError::Io { path, source })?;
        Self::start(options, config, loaded, writer).await
    }

    /// Starts Raft from what was read and goes on to write by `writer`.
    pub(crate) async fn start(
        options: RaftOptions,
        config: Config,
        loaded: Loaded,
        writer: Writer,
    ) -> Result<Self, OpenError> {
        let RaftOptions { dir, node, advertise, transport, cipher: _, newest_format } = options;
        if let Err(what) = formats::check_loaded(&loaded, newest_format) {
            writer.close().await;
            return Err(OpenError::Format { path: disk::path(&dir), what });
        }
        let failed = |error: String| OpenError::Start(error);
        let log = LogStore::new(loaded.log, loaded.vote, loaded.committed, loaded.purged, writer.clone());
        let (machine, states) = match Machine::new(loaded.snapshot, writer.clone()) {
            Ok(machine) => machine,
            Err(error) => {
                writer.close().await;
                return Err(snapshot_error(disk::path(&dir), error));
            }
        };
        // See `stand_for_election`.
        let config = Config { enable_elect: false, ..config };
        let config = Arc::new(config.validate().map_err(|e| failed(e.to_string()))?);
        let addresses = Addresses::default();
        let network = Network { transport: transport.clone(), addresses: addresses.clone() };
        let raft = Raft::new(RaftId(node), config, network, log, machine)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let (leaders, follower) = follow_leader(&raft, addresses);
        let inner = Inner {
            raft,
            node,
            advertise,
            transport,
            writer,
            states,
            leaders,
            follower: follower.abort_handle(),
            newest_format,
            outdated: Mutex::default(),
        };
        let this = Self { inner: Arc::new(inner) };
        if let Err(error) = this.stand_for_election().await {
            this.shutdown().await;
            return Err(error);
        }
        Ok(this)
    }

    /// Lets this manager be elected, unless it may still be on its way into a cluster: then the leader says when ([`RaftNode::promote`]).
    ///
    /// Whoever is brought the log from its beginning has, for a moment, the members of that time: the first manager, which
    /// was demoted and comes back with an empty disk, finds itself the only voter and would lead at once, with hardly
    /// anything of what was decided.
    async fn stand_for_election(&self) -> Result<(), OpenError> {
        let me = RaftId(self.inner.node);
        let standing = self.inner.raft.with_raft_state(move |raft| {
            let voters: Vec<_> = raft.membership_state.effective().voter_ids().collect();
            // The only voter has elected itself, in a term after the first, 0, which is what nobody has voted in. Whoever is
            // brought a log has the vote of whoever brings it.
            let vote = raft.vote_ref().leader_id();
            let elected = vote.term() > 0 && vote.node_id() == &me;
            (voters.is_empty() || voters == [me]) && !elected
        });
        let on_its_way = standing.await.map_err(|e| OpenError::Start(e.to_string()))?;
        if on_its_way {
            return Ok(());
        }
        self.inner.raft.runtime_config().elect(true);
        self.lead_alone().await
    }

    /// Makes a new cluster with this manager as its only voter, which leads it when this returns.
    /// Refused if the node is part of a cluster.
    pub async fn initialize(&self) -> Result<(), MembershipError> {
        let inner = &self.inner;
        let member = Member { addr: inner.advertise };
        let begun = inner.raft.initialize(BTreeMap::from([(RaftId(inner.node), member)])).await;
        begun.map_err(|error| match error {
            RaftError::APIError(error) => MembershipError::Refused { reason: error.to_string() },
            RaftError::Fatal(error) => MembershipError::Stopped { reason: error.to_string() },
        })?;
        inner.raft.runtime_config().elect(true);
        self.lead_alone().await.map_err(|error| MembershipError::Refused { reason: error.to_string() })
    }

    /// Has `command` decided and carried out, on any manager: it is passed on to the leader. When this returns, the
    /// effect is in this manager's state, unless it is seconds behind the leader; on others it may follow a moment later.
    pub async fn propose(&self, command: Command) -> Result<Response, ProposeError> {
        self.check_agreed(&command)?;
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        loop {
            match self.propose_here(&command, deadline).await {
                Ok((_, result)) => return Ok(result?),
                Err(Refusal::NotLeader) => {}
                Err(refusal) => return Err(refusal.into()),
            }
            let message = codec::encode_as(command.format(), &command).map_err(stopped)?;
            let Some(answer) = self.ask_leader(RpcKind::Propose, message, deadline).await? else { continue };
            match codec::decode::<Forwarded>(&answer).map_err(stopped)? {
                Ok((index, result)) => {
                    self.follow(index).await;
                    return Ok(result?);
                }
                Err(Refusal::NotLeader) => sleep(LEADER_PAUSE).await,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Waits until this manager has carried out what it passed on: whoever asks here next, by the name of what was made, is
    /// to find it.
    async fn follow(&self, index: u64) {
        let applied = self.inner.raft.wait(Some(OWN_CHANGE));
        if let Err(error) = applied.applied_index_at_least(Some(index), "own change").await {
            tracing::warn!(%error, index, "this manager is behind a change that it passed on");
        }
    }

    /// Asks another manager that leads, as far as this one knows. No answer means that nothing was asked, after a pause.
    async fn ask_leader(
        &self,
        kind: RpcKind,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, ProposeError> {
        let (leader, addr) = self.wait_for_leader(deadline).await?;
        if leader != self.inner.node {
            let mut leaders = self.inner.leaders.clone();
            let deposed = leaders.wait_for(|now| now.is_some_and(|(node, _)| node != leader));
            let answer = tokio::select! {
                answer = timeout_at(deadline, self.inner.transport.call(leader, addr, kind, message)) => answer,
                // A leader that does not answer because it hangs or is cut off; what it was told may still count.
                _ = deposed => return Err(ProposeError::LeaderChanged),
            };
            match answer.map_err(|_| ProposeError::NoMajority)? {
                Ok(answer) => return Ok(Some(answer)),
                // Until the others have elected one, the leader that is gone is the one known.
                Err(TransportError::Unreachable { .. }) => {}
                Err(source) => return Err(ProposeError::Leader { leader, source }),
            }
        }
        if Instant::now() >= deadline {
            return Err(ProposeError::NoLeader);
        }
        sleep(LEADER_PAUSE).await;
        Ok(None)
    }

    /// Waits until this manager's state holds everything that was decided before the call, by anyone.
    pub async fn linearizable(&self) -> Result<Arc<State>, ProposeError> {
        self.linearizable_within(PROPOSE_TIMEOUT).await
    }

    /// As [`RaftNode::linearizable`], for so long at most.
    pub async fn linearizable_within(&self, limit: Duration) -> Result<Arc<State>, ProposeError> {
        let deadline = Instant::now() + limit;
        let index = loop {
            match self.read_index(deadline).await {
                Ok(index) => break index,
                Err(Refusal::NotLeader) => {}
                Err(refusal) => return Err(refusal.into()),
            }
            let answer = match self.ask_leader(RpcKind::ReadIndex, Vec::new(), deadline).await {
                Ok(Some(answer)) => answer,
                // Reading twice does no harm.
                Ok(None) | Err(ProposeError::LeaderChanged) => continue,
                Err(error) => return Err(error),
            };
            match codec::decode::<Result<Option<u64>, Refusal>>(&answer).map_err(stopped)? {
                Ok(index) => break index,
                Err(Refusal::NotLeader) => sleep(LEADER_PAUSE).await,
                Err(refusal) => return Err(refusal.into()),
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let applied = self.inner.raft.wait(Some(left)).applied_index_at_least(index, "read barrier").await;
        applied.map_err(|_| ProposeError::NoMajority)?;
        Ok(self.state())
    }

    /// The state as this manager has applied it, now.
    pub fn state(&self) -> Arc<State> {
        self.inner.states.borrow().clone()
    }

    /// Follows the state. Changes in quick succession may be seen as one.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.inner.states.clone()
    }

    /// Who leads, as far as this manager knows.
    pub fn leader(&self) -> Option<(NodeId, SocketAddr)> {
        *self.inner.leaders.borrow()
    }

    /// Follows who leads.
    pub fn watch_leader(&self) -> watch::Receiver<Option<(NodeId, SocketAddr)>> {
        self.inner.leaders.clone()
    }

    /// Whether this manager leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leader().is_some_and(|(node, _)| node == self.inner.node)
    }

    /// Why Raft has stopped by itself, mostly a disk that cannot be written; none while it runs.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let state = metrics.borrow_watched().running_state.clone();
        state.err().map(|fatal| fatal.to_string())
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Answers a message that another manager sent by its [`Transport`]. Who sent it must have been checked before.
    pub async fn handle(&self, kind: RpcKind, message: &[u8]) -> Result<Vec<u8>, HandleError> {
        self.check_readable(kind, message)?;
        let raft = &self.inner.raft;
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        Ok(match kind {
            RpcKind::Append => codec::encode(&raft.append_entries(codec::decode(message)?).await?)?,
            RpcKind::Vote => codec::encode(&raft.vote(codec::decode(message)?).await?)?,
            RpcKind::PreVote => codec::encode(&raft.pre_vote(codec::decode(message)?).await?)?,
            RpcKind::Snapshot => {
                let (vote, meta, snapshot): (Vote, SnapshotMeta, Vec<u8>) = codec::decode(message)?;
                let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
                codec::encode(&installed.map_err(RaftError::Fatal)?)?
            }
            RpcKind::TransferLeader => {
                let answer = raft.handle_transfer_leader(codec::decode(message)?).await;
                codec::encode(&answer.map_err(RaftError::Fatal)?)?
            }
            RpcKind::Propose => {
                let command = codec::decode(message)?;
                self.check_agreed(&command)?;
                codec::encode::<Forwarded>(&self.propose_here(&command, deadline).await)?
            }
            RpcKind::ReadIndex => codec::encode(&self.read_index(deadline).await)?,
            RpcKind::Formats => codec::encode(&self.inner.newest_format)?,
            RpcKind::Stand => {
                self.stand(codec::decode(message)?).await?;
                Vec::new()
            }
            RpcKind::Members => {
                let answer: standing::Answer = match (self.read_index(deadline).await, self.standings()) {
                    (Ok(_), Some(standings)) => Ok(standings),
                    (Ok(_), None) => Err(Refusal::NotLeader),
                    (Err(refusal), _) => Err(refusal),
                };
                codec::encode(&answer)?
            }
        })
    }

    /// Stops Raft and closes the file; when this returns it can be opened again.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop in order");
        }
        self.inner.writer.close().await;
    }

    pub(crate) fn raft(&self) -> &Raft<TypeConfig, Machine> {
        &self.inner.raft
    }

    /// If this is the only voter: leads at once instead of after the election timeout, and waits for it.
    async fn lead_alone(&self) -> Result<(), OpenError> {
        let inner = &self.inner;
        let me = RaftId(inner.node);
        let failed = |error: String| OpenError::Start(error);
        // Not from the metrics: they are still empty when Raft has just started.
        let voters = inner
            .raft
            .with_raft_state(|raft| raft.membership_state.effective().voter_ids().collect::<Vec<_>>());
        if voters.await.map_err(|e| failed(e.to_string()))? != [me] {
            return Ok(());
        }
        inner.raft.trigger().elect(false).await.map_err(|e| failed(e.to_string()))?;
        let waiting = inner.raft.wait(Some(SOLE_LEADER_TIMEOUT));
        let leads = waiting.metrics(|m| m.state.is_leader() && m.current_leader == Some(me), "to lead alone");
        leads.await.map_err(|e| failed(e.to_string()))?;
        // The leader's first own entry stands behind everything from before.
        let barrier =
            timeout(SOLE_LEADER_TIMEOUT, inner.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        barrier.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        self.readvertise().await.map_err(|e| failed(e.to_string()))?;
        let leads = Some((inner.node, inner.advertise));
        inner.leaders.clone().wait_for(|leader| *leader == leads).await.ok();
        Ok(())
    }

    async fn wait_for_leader(&self, deadline: Instant) -> Result<(NodeId, SocketAddr), ProposeError> {
        let mut leaders = self.inner.leaders.clone();
        let found = timeout_at(deadline, leaders.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(leader)) => leader.ok_or(ProposeError::NoLeader),
            Ok(Err(_)) => Err(ProposeError::Stopped { reason: "shut down".to_owned() }),
            Err(_) => Err(ProposeError::NoLeader),
        }
    }

    async fn propose_here(&self, command: &Command, deadline: Instant) -> Forwarded {
        let write = self.inner.raft.client_write(Proposal(command.clone()));
        match timeout_at(deadline, write).await {
            Ok(Ok(written)) => {
                let outcome = written.data.ok_or_else(|| Refusal::Stopped("no answer".to_owned()))?;
                Ok((written.log_id.index, outcome))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Err(Refusal::LeaderChanged)
            }
            Ok(Err(RaftError::APIError(_))) => Err(Refusal::NotLeader),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Refusal::Stopped(fatal.to_string())),
            Err(_) => Err(Refusal::NoMajority),
        }
    }

    /// As the leader: how far the log must be applied to hold everything decided until now.
    async fn read_index(&self, deadline: Instant) -> Result<Option<u64>, Refusal> {
        let read = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match timeout_at(deadline, read).await {
            Ok(Ok(linearizer)) => Ok(Some(linearizer.read_log_id().index())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                Err(Refusal::NotLeader)
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(Refusal::NoMajority)
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(Refusal::Stopped(fatal.to_string())),
        }
    }
}

/// The timing of production.
pub(crate) fn config() -> Config {
    Config {
        cluster_name: "meshd".to_owned(),
        heartbeat_interval: 250,
        // A voter waits for the leader's lease, which is the maximum, and then for a time between the two: another leads
        // 1.7 to 2.2 s after the last heartbeat.
        election_timeout_min: 600,
        election_timeout_max: 1_100,
        install_snapshot_timeout: u64::try_from(SNAPSHOT_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_ENTRIES,
        // More than a snapshot's distance, or a snapshot would not help a late follower.
        replication_lag_threshold: SNAPSHOT_EVERY + KEEP_ENTRIES,
        purge_batch_size: 256,
        enable_pre_vote: Some(true),
        // The state machine is in memory: a restarted leader must be elected before it may answer.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}

fn follow_leader(
    raft: &Raft<TypeConfig, Machine>,
    addresses: Addresses,
) -> (watch::Receiver<Option<(NodeId, SocketAddr)>>, JoinHandle<()>) {
    let mut metrics = raft.server_metrics();
    let (leaders, watcher) = watch::channel(None);
    let following = tokio::spawn(async move {
        loop {
            let leader = {
                let metrics = metrics.borrow_watched();
                let members = metrics.membership_config.nodes();
                addresses.set(members.map(|(id, member)| (id.0, member.addr)).collect());
                let member = |id| metrics.membership_config.get_node(&id).map(|m| (id.0, m.addr));
                metrics.current_leader.and_then(member)
            };
            leaders.send_if_modified(|known| std::mem::replace(known, leader) != leader);
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
    (watcher, following)
}

fn snapshot_error(path: PathBuf, error: mesh_store::DecodeError) -> OpenError {
    match error {
        mesh_store::DecodeError::Newer { .. } => OpenError::Format { path, what: error.to_string() },
        other => OpenError::Damaged { path, reason: other.to_string() },
    }
}

fn stopped(error: impl std::fmt::Display) -> ProposeError {
    ProposeError::Stopped { reason: error.to_string() }
}

impl From<Refusal> for ProposeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader => Self::NoLeader,
            Refusal::LeaderChanged => Self::LeaderChanged,
            Refusal::NoMajority => Self::NoMajority,
            Refusal::Stopped(reason) => Self::Stopped { reason },
        }
    }
}

impl From<RaftError<TypeConfig>> for HandleError {
    fn from(error: RaftError<TypeConfig>) -> Self {
        Self::Stopped { reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests;
