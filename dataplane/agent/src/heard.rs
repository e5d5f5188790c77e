//! What the others run, kept as it is heard: the next daemon knows all that this one had put into the data path.
//!
//! The file is a log: a header as the other kept files have it, then records, each a length, a SHA-256 digest and postcard
//! bytes with a few changes. Appending costs what changed; once the log is twice what it tells, it is written anew. A record
//! that a killed daemon did not finish was not applied either, and is left out.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_gossip::EndpointKey;
use mesh_types::{Endpoint, NetworkId, NodeId, TaskId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::{
    kept::{self, KeptError},
    state::Remote,
};

/// An endpoint's name in all tables.
pub(crate) type Told = (NetworkId, EndpointKey);

/// How an endpoint of another node is now, in the table of a network; none when it is gone.
pub(crate) type Heard = (Told, Option<Arc<Endpoint>>);

/// Most changes in a record.
const CHANGES: usize = 1024;
/// How much a log grows before it is written anew, however little it tells.
const SLACK: u64 = 256 * 1024;
const LENGTH: usize = 4;
const DIGEST: usize = 32;

#[derive(Debug, Serialize, Deserialize)]
enum Change {
    There { table: NetworkId, endpoint: Arc<Endpoint> },
    Gone { table: NetworkId, task: TaskId, network: NetworkId, node: NodeId },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct HeardLog {
    path: PathBuf,
    /// A file of an earlier version that the log stands for.
    replaces: PathBuf,
    open: Option<Open>,
    failing: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// In bytes.
    size: u64,
    /// What it was when it had been written anew.
    whole: u64,
}

impl HeardLog {
    /// Of the daemon that begins; the file is opened with the first change.
    pub(crate) fn new(path: PathBuf, replaces: PathBuf) -> Self {
        Self { path, replaces, open: None, failing: false }
    }

    /// What the log at `path` tells; `None` when there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Remote>, KeptError> {
        let Some(bytes) = kept::read(path)? else { return Ok(None) };
        let (_, mut rest) = kept::after_header(path, &bytes)?;
        let mut tables: BTreeMap<NetworkId, BTreeMap<EndpointKey, Arc<Endpoint>>> = BTreeMap::new();
        while let Some((changes, after)) = record(rest) {
            rest = after;
            for change in changes {
                match change {
                    Change::There { table, endpoint } => {
                        tables.entry(table).or_default().insert((&*endpoint).into(), endpoint);
                    }
                    Change::Gone { table, task, network, node } => {
                        if let Some(endpoints) = tables.get_mut(&table) {
                            endpoints.remove(&EndpointKey { task, network, node });
                        }
                    }
                }
            }
        }
        if !rest.is_empty() {
            warn!(path = %path.display(), bytes = rest.len(), "the end of what was heard of others cannot be read");
        }
        let tables = tables.into_iter().filter(|(_, endpoints)| !endpoints.is_empty());
        Ok(Some(tables.map(|(table, endpoints)| (table, endpoints.into_values().collect())).collect()))
    }

    /// Keeps `changes`, before they are applied. `all` is asked for everything, changes included, when the log is to be written
    /// anew. Where that fails, it is tried again with the next changes; the log tells of it once.
    pub(crate) fn note(&mut self, changes: &[Heard], all: impl FnOnce() -> Vec<Heard>) {
        if changes.is_empty() && !self.failing {
            return;
        }
        match self.write(changes, all) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // Behind half a record, nothing would be read.
                self.open = None;
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(path = %self.path.display(), %error, "keep what is heard of others");
                }
            }
        }
    }

    fn write(&mut self, changes: &[Heard], all: impl FnOnce() -> Vec<Heard>) -> io::Result<()> {
        if let Some(log) = self.open.as_mut().filter(|log| log.size <= 2 * log.whole + SLACK) {
            let bytes = records(changes)?;
            log.file.write_all(&bytes)?;
            log.size += bytes.len() as u64;
            return Ok(());
        }
        let mut bytes = kept::header();
        bytes.extend(records(&all())?);
        let beside = self.path.with_extension("new");
        fs::write(&beside, &bytes)?;
        let file = OpenOptions::new().append(true).open(&beside)?;
        fs::rename(&beside, &self.path)?;
        match fs::remove_file(&self.replaces) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let size = bytes.len() as u64;
        self.open = Some(Open { file, size, whole: size });
        Ok(())
    }
}

fn records(changes: &[Heard]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for changes in changes.chunks(CHANGES) {
        let changes = changes.iter().map(|((table, key), endpoint)| match endpoint {
            Some(endpoint) => Change::There { table: *table, endpoint: endpoint.clone() },
            None => Change::Gone { table: *table, task: key.task, network: key.network, node: key.node },
        });
        let payload = postcard::to_stdvec(&changes.collect::<Vec<_>>()).map_err(io::Error::other)?;
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(&payload));
        bytes.extend_from_slice(&payload);
    }
    Ok(bytes)
}

/// The first record and what follows it; none where it is not whole.
fn record(bytes: &[u8]) -> Option<(Vec<Change>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (digest, rest) = rest.split_first_chunk::<DIGEST>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if Sha256::digest(payload).as_slice() != digest {
        return None;
    }
    Some((postcard::from_bytes(payload).ok()?, rest))
}

#[cfg(test)]
mod tests;
