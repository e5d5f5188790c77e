//! A disk in memory. What was not synced may be lost, in part and in any order, when the power goes.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_raft::simulation::StorageBackend;
use rand::{Rng, rngs::StdRng};
use tokio::sync::watch;

/// What is written at once or not at all.
const SECTOR: usize = 512;

/// A manager's disk; it outlives the manager. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// As the running manager sees it.
    seen: Vec<u8>,
    /// As it certainly is after a power cut.
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Counts power cuts: those who opened it before must not touch it any more.
    era: u64,
    eras: watch::Sender<u64>,
    /// The power goes before so many more changes and syncs.
    fuse: Option<u64>,
    /// Bytes that fit on it.
    room: u64,
    rng: StdRng,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Disk {
    /// An empty disk.
    pub fn new(rng: StdRng) -> Self {
        let (seen, durable, unsynced) = (Vec::new(), Vec::new(), Vec::new());
        let inner = Inner {
            seen,
            durable,
            unsynced,
            era: 0,
            eras: watch::Sender::new(0),
            fuse: None,
            room: u64::MAX,
            rng,
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Opens it, as of now.
    pub fn open(&self) -> OpenDisk {
        OpenDisk { disk: self.clone(), era: self.lock().era }
    }

    /// Counts power cuts.
    pub fn era(&self) -> u64 {
        self.lock().era
    }

    /// The power goes now.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// The power goes before so many more changes and syncs.
    pub fn cut_after(&self, changes: u64) {
        self.lock().fuse = Some(changes);
    }

    /// The power stays.
    pub fn defuse(&self) {
        self.lock().fuse = None;
    }

    /// It cannot grow any more, or it can again.
    pub fn set_full(&self, full: bool) {
        let mut inner = self.lock();
        inner.room = if full { inner.seen.len() as u64 } else { u64::MAX };
    }

    /// Whether nothing was ever written to it.
    pub fn is_empty(&self) -> bool {
        self.lock().seen.is_empty()
    }

    /// What was written is durable, as after a long time.
    pub fn settle(&self) {
        let mut inner = self.lock();
        inner.durable = inner.seen.clone();
        inner.unsynced.clear();
    }

    /// Waits until the power has gone since it was `era`.
    pub async fn lost_power(&self, era: u64) {
        let mut eras = self.lock().eras.subscribe();
        // The sender lives as long as the disk.
        let _ = eras.wait_for(|now| *now != era).await;
    }

    /// All of it is gone.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.cut();
        inner.seen.clear();
        inner.durable.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn cut(&mut self) {
        let mut image = std::mem::take(&mut self.durable);
        let changes = std::mem::take(&mut self.unsynced);
        // Nothing, all or some of it has reached the disk.
        let kept = [0.0, 1.0, 0.5, 0.9][self.rng.random_range(0..4)];
        for change in changes {
            match change {
                Change::Length(length) if self.rng.random_bool(kept) => image.resize(length, 0),
                Change::Length(_) => {}
                Change::Write(at, data) => {
                    for (sector, bytes) in data.chunks(SECTOR).enumerate() {
                        if self.rng.random_bool(kept) {
                            write(&mut image, at + sector * SECTOR, bytes);
                        }
                    }
                }
            }
        }
        self.seen = image.clone();
        self.durable = image;
        self.era += 1;
        self.eras.send_replace(self.era);
        self.fuse = None;
    }

    /// Burns the fuse.
    fn step(&mut self) -> io::Result<()> {
        match self.fuse {
            Some(0) => {
                self.cut();
                Err(gone())
            }
            Some(left) => {
                self.fuse = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn write(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn gone() -> io::Error {
    io::Error::other("the power went")
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

/// The disk as one manager has opened it.
#[derive(Debug)]
pub struct OpenDisk {
    disk: Disk,
    era: u64,
}

impl OpenDisk {
    fn lock(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        if inner.era == self.era { Ok(inner) } else { Err(gone()) }
    }
}

impl StorageBackend for OpenDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock()?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let there = inner.seen.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.lock()?;
        inner.step()?;
        if len > inner.room {
            return Err(full());
        }
        let length = usize::try_from(len).map_err(io::Error::other)?;
        inner.seen.resize(length, 0);
        inner.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.lock()?;
        inner.step()?;
        for change in std::mem::take(&mut inner.unsynced) {
            match change {
                Change::Length(length) => inner.durable.resize(length, 0),
                Change::Write(at, data) => write(&mut inner.durable, at, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.lock()?;
        inner.step()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        if offset + data.len() as u64 > inner.room {
            return Err(full());
        }
        write(&mut inner.seen, at, data);
        inner.unsynced.push(Change::Write(at, data.to_vec()));
        Ok(())
    }
}
