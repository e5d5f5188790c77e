//! The file: made whole or not at all, checked and read completely when it is opened.

use std::{
    any::Any,
    collections::BTreeMap,
    fs::{self, File},
    io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use mesh_types::NodeId;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;

use crate::{
    OpenError,
    codec::{self, DecodeError},
    types::{Entry, LogId, SnapshotMeta, Vote},
    vault::{self, Vault},
};

/// Entries by index.
pub(crate) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Everything else by name.
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(crate) const NODE: &str = "node";
pub(crate) const VOTE: &str = "vote";
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const PURGED: &str = "purged";
pub(crate) const SNAPSHOT: &str = "snapshot";

const FILE: &str = "raft.redb";
/// All reading is done when the file is opened, so that redb's cache has little to do.
const CACHE: usize = 2 << 20;

/// What the file holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Loaded {
    pub log: BTreeMap<u64, Entry>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

/// The file in `dir`.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Opens the file in `dir` for `node`, or makes it if there is none.
pub(crate) fn open(dir: &Path, node: NodeId, vault: &Vault) -> Result<(Database, Loaded), OpenError> {
    let path = path(dir);
    let there = path.try_exists().map_err(|source| OpenError::Io { path: path.clone(), source })?;
    if !there {
        create(dir, &path, node).map_err(|fault| fault.at(&path))?;
    }
    load(|| Ok(builder().open(&path)?), node, vault).map_err(|fault| fault.at(&path))
}

/// redb promises errors for damaged files; should it panic over one all the same, that is one more kind of damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|payload| Err(Fault::Damaged(message(&*payload))))
}

/// The error without the file's name.
enum Fault {
    Io(io::Error),
    InUse,
    Damaged(String),
    Format(String),
    WrongNode { found: NodeId, expected: NodeId },
}

impl Fault {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Fault::Io(source) => OpenError::Io { path, source },
            Fault::InUse => OpenError::InUse { path },
            Fault::Damaged(reason) => OpenError::Damaged { path, reason },
            Fault::Format(what) => OpenError::Format { path, what },
            Fault::WrongNode { found, expected } => OpenError::WrongNode { path, found, expected },
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Fault::InUse,
            // What redb calls an I/O error may be the file's own fault: those come without an OS error.
            redb::Error::Io(e) if e.raw_os_error().is_some() => Fault::Io(e),
            other => Fault::Damaged(other.to_string()),
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Makes the file under another name first, so that a crash leaves no half of one.
fn create(dir: &Path, path: &Path, node: NodeId) -> Result<(), Fault> {
    let fresh = dir.join(format!("{FILE}.new"));
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Fault::Io(e)),
        _ => {}
    }
    found(builder().create(&fresh)?, node)?;
    fs::rename(&fresh, path).and_then(|()| File::open(dir)?.sync_all()).map_err(Fault::Io)
}

/// The last entry's index, and its bytes as they stand in the file.
pub(crate) fn last_entry(path: &Path) -> Result<Option<(u64, Vec<u8>)>, OpenError> {
    let read = || -> Result<_, Fault> {
        let database = builder().open(path)?;
        let log = database.begin_read()?.open_table(LOG)?;
        let last = log.last()?.map(|(index, entry)| (index.value(), entry.value().to_vec()));
        Ok(last)
    };
    read().map_err(|fault| fault.at(path))
}

/// Changes one bit in the middle of the last entry. The file's checksums fit again.
pub(crate) fn change_last_entry(path: &Path) -> Result<(), OpenError> {
    let Some((index, mut entry)) = last_entry(path)? else { return Ok(()) };
    let middle = entry.len() / 2;
    entry.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
    let write = || -> Result<(), Fault> {
        let database = builder().open(path)?;
        let txn = database.begin_write()?;
        txn.open_table(LOG)?.insert(index, entry.as_slice())?;
        Ok(txn.commit()?)
    };
    write().map_err(|fault| fault.at(path))
}

/// The first content.
fn found(database: Database, node: NodeId) -> Result<(), Fault> {
    let txn = database.begin_write()?;
    txn.open_table(LOG)?;
    txn.open_table(META)?.insert(NODE, codec::encode(&node).map_err(Fault::Io)?.as_slice())?;
    Ok(txn.commit()?)
}

/// Makes the file of `node` on a simulated disk.
pub(crate) fn create_on(backend: impl StorageBackend, path: &Path, node: NodeId) -> Result<(), OpenError> {
    let made = builder().create_with_backend(backend).map_err(Fault::from);
    made.and_then(|database| found(database, node)).map_err(|fault| fault.at(path))
}

/// Opens the file on a simulated disk.
pub(crate) fn open_on(
    backend: impl StorageBackend,
    path: &Path,
    node: NodeId,
    vault: &Vault,
) -> Result<(Database, Loaded), OpenError> {
    let open = || Ok(builder().create_with_backend(backend)?);
    load(open, node, vault).map_err(|fault| fault.at(path))
}

fn load(
    open: impl FnOnce() -> Result<Database, Fault>,
    node: NodeId,
    vault: &Vault,
) -> Result<(Database, Loaded), Fault> {
    let mut database = guarded(open)?;
    match guarded(|| read(&mut database, node, vault)) {
        Ok(loaded) => Ok((database, loaded)),
        Err(fault) => {
            // Closing a damaged file may panic too; the first fault is the one to tell.
            let _ = guarded(|| {
                drop(database);
                Ok(())
            });
            Err(fault)
        }
    }
}

fn read(database: &mut Database, node: NodeId, vault: &Vault) -> Result<Loaded, Fault> {
    // "Repaired" means rolled back to an earlier commit. A manager that forgets what it voted for or accepted can make
    // the cluster decide twice, so this is damage too. (What a crash leaves behind has been put right by `open`.)
    if !database.check_integrity()? {
        return Err(Fault::Damaged("checksums do not match".to_owned()));
    }
    let txn = database.begin_read()?;
    let meta = txn.open_table(META)?;
    let found: NodeId = value(&meta, NODE)?.ok_or_else(|| Fault::Damaged("it names no node".to_owned()))?;
    if found != node {
        return Err(Fault::WrongNode { found, expected: node });
    }
    let mut loaded = Loaded {
        log: BTreeMap::new(),
        vote: value(&meta, VOTE)?,
        committed: value(&meta, COMMITTED)?,
        purged: value(&meta, PURGED)?,
        snapshot: None,
    };
    let mut stale = Vec::new();
    if let Some(sealed) = meta.get(SNAPSHOT)? {
        loaded.snapshot = Some(decode(SNAPSHOT, &unseal(vault, vault::SNAPSHOT, SNAPSHOT, sealed.value())?)?);
        if !vault.is_current(sealed.value()) {
            stale.push(Row::Snapshot);
        }
    }
    for row in txn.open_table(LOG)?.iter()? {
        let (index, bytes) = row?;
        let (index, what) = (index.value(), format!("log entry {}", index.value()));
        let entry: Entry = decode(&what, &unseal(vault, &vault::entry(index), &what, bytes.value())?)?;
        if !vault.is_current(bytes.value()) {
            stale.push(Row::Entry(index));
        }
        loaded.log.insert(index, entry);
    }
    let first = loaded.purged.map_or(0, |id| id.index + 1);
    for (expected, (index, entry)) in (first..).zip(&loaded.log) {
        if *index != expected || entry.log_id.index != expected {
            return Err(Fault::Damaged(format!("log entry {expected} is missing")));
        }
    }
    drop((meta, txn));
    // Some damage shows only when room is looked for: better now than at the first change.
    let txn = database.begin_write()?;
    txn.open_table(META)?.insert(NODE, codec::encode(&node).map_err(Fault::Io)?.as_slice())?;
    for row in &stale {
        seal_anew(&txn, vault, row)?;
    }
    txn.commit()?;
    Ok(loaded)
}

/// A row that is sealed by an earlier key.
enum Row {
    Entry(u64),
    Snapshot,
}

fn seal_anew(txn: &WriteTransaction, vault: &Vault, row: &Row) -> Result<(), Fault> {
    let again = |what: &[u8], sealed: &[u8]| {
        vault.open(what, sealed).and_then(|plain| vault.seal(what, &plain)).map_err(Fault::Io)
    };
    match row {
        Row::Entry(index) => {
            let mut log = txn.open_table(LOG)?;
            let sealed = log.get(index)?.map(|row| again(&vault::entry(*index), row.value())).transpose()?;
            if let Some(sealed) = sealed {
                log.insert(index, sealed.as_slice())?;
            }
        }
        Row::Snapshot => {
            let mut meta = txn.open_table(META)?;
            let sealed = meta.get(SNAPSHOT)?.map(|row| again(vault::SNAPSHOT, row.value())).transpose()?;
            if let Some(sealed) = sealed {
                meta.insert(SNAPSHOT, sealed.as_slice())?;
            }
        }
    }
    Ok(())
}

fn unseal(vault: &Vault, place: &[u8], what: &str, sealed: &[u8]) -> Result<Vec<u8>, Fault> {
    vault.open(place, sealed).map_err(|error| Fault::Damaged(format!("{what} cannot be decrypted: {error}")))
}

fn value<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<T>, Fault> {
    meta.get(name)?.map(|bytes| decode(name, bytes.value())).transpose()
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Fault> {
    codec::decode(bytes).map_err(|error| match error {
        DecodeError::Format { .. } => Fault::Format(format!("{what}: {error}")),
        DecodeError::Damaged => Fault::Damaged(format!("{what} cannot be read")),
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it cannot be read").to_owned()
}

#[cfg(test)]
mod tests;
