//! The one thread that writes the file. What has piled up while the disk was busy is written by one commit.

use std::{io, path::PathBuf, sync::Arc, thread};

use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::disk::{COMMITTED, LOG, META, PURGED, SNAPSHOT, VOTE};

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
    pub(crate) fn start(database: Database, path: PathBuf) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        thread::Builder::new().name("raft-disk".to_owned()).spawn(move || run(database, path, queue))?;
        Ok(Self { jobs })
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

fn run(database: Database, path: PathBuf, mut queue: mpsc::Receiver<Job>) {
    let mut waiting = Vec::new();
    let mut failure: Option<Arc<str>> = None;
    let mut close = None;
    while close.is_none() {
        let mut next = queue.blocking_recv();
        let end = next.is_none();
        while let Some(job) = next {
            match job {
                Job::Write(write) => waiting.push(write),
                Job::Close(told) => close = Some(told),
            }
            next = queue.try_recv().ok();
        }
        if close.is_none() && !end && waiting.iter().all(|write| done_of(write).is_none()) {
            continue;
        }
        if failure.is_none() && !waiting.is_empty() {
            failure = commit(&database, &waiting).err().map(|reason| {
                error!(file = %path.display(), %reason, "raft store cannot be written");
                format!("cannot write {}: {reason}", path.display()).into()
            });
        }
        for write in waiting.drain(..) {
            if let Some(done) = into_done(write) {
                // After one failure memory is ahead of the disk: nothing later may succeed.
                done(failure.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.to_string()))));
            }
        }
        if end {
            break;
        }
    }
    drop((database, queue));
    if let Some(told) = close {
        told.send(()).ok();
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

fn commit(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let mut log = txn.open_table(LOG)?;
        let mut meta = txn.open_table(META)?;
        for write in writes {
            match write {
                Write::Append { rows, .. } => {
                    for (index, row) in rows {
                        log.insert(index, row.as_slice())?;
                    }
                }
                Write::Truncate { from, .. } => log.retain_in(*from.., |_, _| false)?,
                Write::Purge { upto, id } => {
                    log.retain_in(..=*upto, |_, _| false)?;
                    meta.insert(PURGED, id.as_slice())?;
                }
                Write::Vote { vote, .. } => drop(meta.insert(VOTE, vote.as_slice())?),
                Write::Committed { id } => drop(meta.insert(COMMITTED, id.as_slice())?),
                Write::Snapshot { snapshot, .. } => drop(meta.insert(SNAPSHOT, snapshot.as_slice())?),
            }
        }
    }
    txn.commit()?;
    Ok(())
}
