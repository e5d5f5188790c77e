//! The Raft log: read from memory, written to the disk.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};

use crate::{
    codec,
    types::{Entry, LogId, TypeConfig, Vote, format_of},
    writer::{Write, Writer},
};

/// A handle; clones share the log. Snapshots bound its length, so that all of it fits into memory.
#[derive(Clone)]
pub(crate) struct LogStore {
    memory: Arc<RwLock<Memory>>,
    writer: Writer,
}

struct Memory {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl LogStore {
    /// The log as it was read from the disk.
    pub(crate) fn new(
        entries: BTreeMap<u64, Entry>,
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        writer: Writer,
    ) -> Self {
        Self { memory: Arc::new(RwLock::new(Memory { entries, vote, committed, purged })), writer }
    }

    // Nothing that holds the lock can panic half-way through a change.
    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let memory = self.read();
        let wanted = memory.entries.range(from..).map(|(_, entry)| entry);
        Ok(wanted.take_while(|entry| range.contains(&entry.log_id.index)).cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.read();
        let last = memory.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = codec::encode(vote)?;
        self.writer.write_through(|done| Write::Vote { vote: bytes, done }).await?;
        self.change().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.change().committed = committed;
        match committed {
            Some(id) => self.writer.write(Write::Committed { id: codec::encode(&id)? }).await,
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let rows =
            entries.iter().map(|entry| Ok((entry.log_id.index, codec::encode_as(format_of(entry), entry)?)));
        let rows = rows.collect::<io::Result<Vec<_>>>()?;
        self.change().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        let done = Box::new(|result| callback.io_completed(result));
        self.writer.write(Write::Append { rows, done }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.change().entries.split_off(&from);
        self.writer.write_through(|done| Write::Truncate { from, done }).await
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        let bytes = codec::encode(&id)?;
        {
            let mut memory = self.change();
            memory.entries = memory.entries.split_off(&(id.index + 1));
            memory.purged = Some(id);
        }
        self.writer.write(Write::Purge { upto: id.index, id: bytes }).await
    }
}

#[cfg(test)]
mod tests;
