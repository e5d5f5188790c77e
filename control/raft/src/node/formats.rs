//! Managers of neighbouring versions: nothing is written that one of them cannot read.
//!
//! A format is a number for what commands and the state can say. Each manager reads all up to its newest. Whoever leads asks
//! the others for theirs, and when all of them read a newer one it is agreed on by a command, for ever: from then on
//! commands of that format may be proposed. A manager that does not read it is refused nothing by the others, but can follow
//! them no longer, and says so.

use std::sync::PoisonError;

use mesh_store::Command;
use openraft::EntryPayload;
use tokio::time::{Duration, timeout};

use super::RaftNode;
use crate::{
    DecodeError, HandleError, ProposeError, RpcKind, codec, disk::Loaded, machine::state_format,
    types::format_of,
};

/// How long a manager may take to say what it reads.
const ASK: Duration = Duration::from_secs(3);

impl RaftNode {
    /// As the leader: has the newest format agreed on that all managers read, learners too. One that does not answer, or
    /// does not know the question, reads only what is agreed already. Whether something was agreed.
    pub async fn raise_format(&self) -> Result<bool, ProposeError> {
        let (agreed, mut format) = (self.state().format(), self.inner.newest_format);
        if format <= agreed || !self.is_leader() {
            return Ok(false);
        }
        for manager in self.managers().into_iter().filter(|manager| manager.node != self.inner.node) {
            let asked = self.inner.transport.call(manager.node, manager.addr, RpcKind::Formats, Vec::new());
            let Ok(Ok(answer)) = timeout(ASK, asked).await else { return Ok(false) };
            let Ok(newest) = codec::decode::<u8>(&answer) else { return Ok(false) };
            format = format.min(newest);
        }
        if format <= agreed {
            return Ok(false);
        }
        self.propose(Command::RaiseFormat { format }).await.map(|_| true)
    }

    /// Why this manager cannot follow the others any more; none while it can.
    pub fn outdated(&self) -> Option<String> {
        self.inner.outdated.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses a command that a manager might not read.
    pub(super) fn check_agreed(&self, command: &Command) -> Result<(), ProposeError> {
        let may = match command {
            Command::RaiseFormat { .. } => self.inner.newest_format,
            _ => self.state().format().min(self.inner.newest_format),
        };
        if command.format() <= may { Ok(()) } else { Err(ProposeError::NotAgreed) }
    }

    /// Refuses a message of a format that this manager does not read, and notes it if that is what the others decide.
    pub(super) fn check_readable(&self, kind: RpcKind, message: &[u8]) -> Result<(), DecodeError> {
        let what = match kind {
            // Their messages are empty.
            RpcKind::ReadIndex | RpcKind::Members | RpcKind::Formats => return Ok(()),
            RpcKind::Append => "a change",
            RpcKind::Snapshot => "the state",
            _ => return codec::check(message, self.inner.newest_format),
        };
        let checked = codec::check(message, self.inner.newest_format);
        let outdated = checked.as_ref().err().map(|error| format!("{what} of the other managers: {error}"));
        *self.inner.outdated.lock().unwrap_or_else(PoisonError::into_inner) = outdated;
        checked
    }
}

impl From<ProposeError> for HandleError {
    fn from(error: ProposeError) -> Self {
        Self::NotAgreed(Box::new(error))
    }
}

/// Refuses what was read from the disk if only a newer meshd than one that reads `newest` may go on with it.
pub(super) fn check_loaded(loaded: &Loaded, newest: u8) -> Result<(), String> {
    let state = loaded.snapshot.iter().map(|(_, state)| ("the state".to_owned(), state_format(state)));
    let commands = loaded.log.iter().filter(|(_, entry)| matches!(entry.payload, EntryPayload::Normal(_)));
    let commands = commands.map(|(index, entry)| (format!("log entry {index}"), format_of(entry)));
    match state.chain(commands).find(|(_, format)| *format > newest) {
        Some((what, found)) => Err(format!("{what}: {}", DecodeError::Format { found, newest })),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
