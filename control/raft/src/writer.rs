//! The one thread that writes the file. What has piled up while the disk was busy is written by one commit.

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use redb::Database;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::error;

use crate::{
    disk::{COMMITTED, LOG, META, PURGED, SNAPSHOT, VOTE},
    vault::{self, Vault},
};

/// Jobs that may wait.
const QUEUE: usize = 1024;

/// Told when a write is durable, or that it failed.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A change of the file. Those without `done` ride along with the next one that has it.
pub(crate) enum Write {
    /// Adds entries.
    Append { rows: Vec<(u64, Vec<u8>)>, done: Done },
    /// Removes the entries from this index on.
    Truncate { from: u64, done: Done },
    /// Removes the entries up to this index.
    Purge { upto: u64, id: Vec<u8> },
    /// Sets the vote.
    Vote { vote: Vec<u8>, done: Done },
    /// Sets how far the log is known to be committed: spares a restarted manager some waiting, nothing else.
    Committed { id: Vec<u8> },
    /// Sets the snapshot.
    Snapshot { snapshot: Vec<u8>, done: Done },
}

enum Job {
    Write(Write),
    Close(oneshot::Sender<()>),
}

/// Hands writes to the thread, in order.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(database: Database, path: PathBuf, vault: Vault) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let file = Open::new(database, path, vault);
        thread::Builder::new().name("raft-disk".to_owned()).spawn(move || run(file, queue))?;
        Ok(Self { jobs })
    }

    /// The same as a task, for simulations: each commit takes as long as `pace` says, half of it before and half of it
    /// after the moment when it becomes durable.
    pub(crate) fn start_task(
        database: Database,
        path: PathBuf,
        vault: Vault,
        pace: impl FnMut() -> Duration + Send + 'static,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run_paced(Open::new(database, path, vault), queue, pace));
        Self { jobs }
    }

    /// Queues a write.
    pub(crate) async fn write(&self, write: Write) -> io::Result<()> {
        self.jobs.send(Job::Write(write)).await.map_err(|_| closed())
    }

    /// Queues the write that `make` gives and waits until it is durable.
    pub(crate) async fn write_through(&self, make: impl FnOnce(Done) -> Write) -> io::Result<()> {
        let (told, durable) = oneshot::channel();
        self.write(make(Box::new(move |result| drop(told.send(result))))).await?;
        durable.await.map_err(|_| closed())?
    }

    /// Writes what is queued and closes the file.
    pub(crate) async fn close(&self) {
        let (told, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(told)).await.is_ok() {
            closed.await.ok();
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the raft store is closed")
}

fn run(mut file: Open, mut queue: mpsc::Receiver<Job>) {
    let mut waiting = Waiting::default();
    while waiting.go_on() {
        waiting.gather(queue.blocking_recv(), &mut queue);
        if waiting.due() {
            file.commit(&waiting.writes);
            file.tell(waiting.writes.drain(..));
        }
    }
    drop((file, queue));
    waiting.closed();
}

async fn run_paced(mut file: Open, mut queue: mpsc::Receiver<Job>, mut pace: impl FnMut() -> Duration) {
    let mut waiting = Waiting::default();
    while waiting.go_on() {
        waiting.gather(queue.recv().await, &mut queue);
        if waiting.due() {
            let half = pace() / 2;
            sleep(half).await;
            file.commit(&waiting.writes);
            sleep(half).await;
            file.tell(waiting.writes.drain(..));
        }
    }
    drop((file, queue));
    waiting.closed();
}

/// What has piled up.
#[derive(Default)]
struct Waiting {
    writes: Vec<Write>,
    close: Option<oneshot::Sender<()>>,
    abandoned: bool,
}

impl Waiting {
    /// Takes `next` (none: nobody can send any more) and all that is queued behind it.
    fn gather(&mut self, mut next: Option<Job>, queue: &mut mpsc::Receiver<Job>) {
        self.abandoned = next.is_none();
        while let Some(job) = next {
            match job {
                Job::Write(write) => self.writes.push(write),
                Job::Close(told) => self.close = Some(told),
            }
            next = queue.try_recv().ok();
        }
    }

    fn go_on(&self) -> bool {
        self.close.is_none() && !self.abandoned
    }

    /// Whether somebody waits for what is there, or nothing more will come.
    fn due(&self) -> bool {
        !self.go_on() || self.writes.iter().any(|write| done_of(write).is_some())
    }

    fn closed(self) {
        if let Some(told) = self.close {
            told.send(()).ok();
        }
    }
}

/// The open file.
struct Open {
    database: Database,
    path: PathBuf,
    vault: Vault,
    failure: Option<Arc<str>>,
}

impl Open {
    fn new(database: Database, path: PathBuf, vault: Vault) -> Self {
        Self { database, path, vault, failure: None }
    }

    /// After one failure memory is ahead of the disk: nothing is written any more.
    fn commit(&mut self, writes: &[Write]) {
        if self.failure.is_none() && !writes.is_empty() {
            self.failure = commit(&self.database, &self.vault, writes).err().map(|reason| {
                error!(file = %self.path.display(), %reason, "raft store cannot be written");
                format!("cannot write {}: {reason}", self.path.display()).into()
            });
        }
    }

    /// Tells those who wait whether their write is durable.
    fn tell(&self, writes: impl Iterator<Item = Write>) {
        for done in writes.filter_map(into_done) {
            done(self.failure.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.to_string()))));
        }
    }
}

fn done_of(write: &Write) -> Option<&Done> {
    match write {
        Write::Append { done, .. }
        | Write::Truncate { done, .. }
        | Write::Vote { done, .. }
        | Write::Snapshot { done, .. } => Some(done),
        Write::Purge { .. } | Write::Committed { .. } => None,
    }
}

fn into_done(write: Write) -> Option<Done> {
    match write {
        Write::Append { done, .. }
        | Write::Truncate { done, .. }
        | Write::Vote { done, .. }
        | Write::Snapshot { done, .. } => Some(done),
        Write::Purge { .. } | Write::Committed { .. } => None,
    }
}

fn commit(database: &Database, vault: &Vault, writes: &[Write]) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let mut log = txn.open_table(LOG)?;
        let mut meta = txn.open_table(META)?;
        for write in writes {
            match write {
                Write::Append { rows, .. } => {
                    for (index, row) in rows {
                        log.insert(index, vault.seal(&vault::entry(*index), row)?.as_slice())?;
                    }
                }
                Write::Truncate { from, .. } => log.retain_in(*from.., |_, _| false)?,
                Write::Purge { upto, id } => {
                    log.retain_in(..=*upto, |_, _| false)?;
                    meta.insert(PURGED, id.as_slice())?;
                }
                Write::Vote { vote, .. } => drop(meta.insert(VOTE, vote.as_slice())?),
                Write::Committed { id } => drop(meta.insert(COMMITTED, id.as_slice())?),
                Write::Snapshot { snapshot, .. } => {
                    meta.insert(SNAPSHOT, vault.seal(vault::SNAPSHOT, snapshot)?.as_slice())?;
                }
            }
        }
    }
    txn.commit()?;
    Ok(())
}
