//! Map operations on bytes: one entry, or many in one call.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Cmd, bpf};

/// A map and the sizes of its keys and values in bytes, as the kernel told them.
#[derive(Clone, Copy)]
pub(crate) struct RawMap<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) key_size: usize,
    pub(crate) value_size: usize,
}

/// How far a call with many entries came before it failed.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// Entries that are done.
    pub(crate) done: usize,
    /// Why it stopped there.
    pub(crate) error: io::Error,
}

/// Where a walk through a hash map goes on: a bucket's number, whatever the keys are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position(Option<u32>);

impl Position {
    /// Whether nothing has been read yet, or everything has.
    pub(crate) fn at_start(self) -> bool {
        self.0.is_none()
    }
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// The value, or where the next key goes.
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `BPF_NOEXIST`: only if there is no such entry.
const NO_EXIST: u64 = 1;

impl RawMap<'_> {
    /// Reads one entry; false when there is none.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        check(key.len() == self.key_size && value.len() == self.value_size)?;
        let mut attr = self.elem(key.as_ptr() as u64, value.as_mut_ptr() as u64);
        // SAFETY: the attributes of BPF_MAP_LOOKUP_ELEM; key and value have the map's sizes.
        found(unsafe { bpf(Cmd::MapLookupElem, &mut attr) })
    }

    /// Writes one entry.
    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.write(key, value, 0)
    }

    /// Adds one entry; false when there is one already, which stays.
    pub(crate) fn add(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        match self.write(key, value, NO_EXIST) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn write(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        check(key.len() == self.key_size && value.len() == self.value_size)?;
        let mut attr = ElemAttr { flags, ..self.elem(key.as_ptr() as u64, value.as_ptr() as u64) };
        // SAFETY: the attributes of BPF_MAP_UPDATE_ELEM; key and value have the map's sizes.
        unsafe { bpf(Cmd::MapUpdateElem, &mut attr) }.map(drop)
    }

    /// Deletes one entry; false when there was none.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        check(key.len() == self.key_size)?;
        let mut attr = self.elem(key.as_ptr() as u64, 0);
        // SAFETY: the attributes of BPF_MAP_DELETE_ELEM; the key has the map's size.
        found(unsafe { bpf(Cmd::MapDeleteElem, &mut attr) })
    }

    /// Writes entries that lie one behind the other in `keys` and `values`.
    pub(crate) fn update_all(&self, keys: &[u8], values: &[u8]) -> Result<(), Stopped> {
        let count = keys.len() / self.key_size;
        let whole = keys.len() == count * self.key_size && values.len() == count * self.value_size;
        check(whole).map_err(|error| Stopped { done: 0, error })?;
        let mut attr = self.batch(keys.as_ptr() as u64, values.as_ptr() as u64, count);
        // SAFETY: the attributes of BPF_MAP_UPDATE_BATCH; both slices hold `count` elements of the map's sizes.
        match unsafe { bpf(Cmd::MapUpdateBatch, &mut attr) } {
            Ok(_) => Ok(()),
            Err(error) if !no_batches(&error) => Err(Stopped { done: attr.count as usize, error }),
            Err(_) => {
                let entries = keys.chunks_exact(self.key_size).zip(values.chunks_exact(self.value_size));
                one_by_one(entries.map(|(key, value)| self.update(key, value)))
            }
        }
    }

    /// Deletes entries whose keys lie one behind the other. What is not there counts as deleted.
    pub(crate) fn delete_all(&self, keys: &[u8]) -> Result<(), Stopped> {
        check(keys.len().is_multiple_of(self.key_size)).map_err(|error| Stopped { done: 0, error })?;
        let mut done = 0;
        loop {
            let rest = keys.get(done * self.key_size..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            let mut attr = self.batch(rest.as_ptr() as u64, 0, rest.len() / self.key_size);
            // SAFETY: the attributes of BPF_MAP_DELETE_BATCH; `rest` holds `count` keys of the map's size.
            match unsafe { bpf(Cmd::MapDeleteBatch, &mut attr) } {
                Ok(_) => return Ok(()),
                // The kernel stops at a key that is not there.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => done += attr.count as usize + 1,
                Err(error) if !no_batches(&error) => {
                    return Err(Stopped { done: done + attr.count as usize, error });
                }
                Err(_) => {
                    return one_by_one(rest.chunks_exact(self.key_size).map(|k| self.delete(k).map(drop)))
                        .map_err(|stopped| Stopped { done: done + stopped.done, ..stopped });
                }
            }
        }
    }

    /// Reads up to about `at_most` entries of a hash map from `position` on, calls `each` with every key and value, and
    /// moves `position` on: back to the start when all have been read. Concurrent writes may hide or repeat entries.
    pub(crate) fn walk(
        &self,
        position: &mut Position,
        at_most: usize,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<usize> {
        let mut room = at_most.clamp(BUCKET, SCAN);
        loop {
            let mut keys = vec![0u8; room * self.key_size];
            let mut values = vec![0u8; room * self.value_size];
            let mut next = 0u32;
            let from = position.0;
            let mut attr = BatchAttr {
                in_batch: from.as_ref().map_or(0, |from| &raw const *from as u64),
                out_batch: &raw mut next as u64,
                ..self.batch(keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, room)
            };
            // SAFETY: the attributes of BPF_MAP_LOOKUP_BATCH; positions are four bytes for hash maps, and the buffers
            // hold `count` keys and values of the map's sizes.
            let result = unsafe { bpf(Cmd::MapLookupBatch, &mut attr) };
            match result {
                Ok(_) => position.0 = Some(next),
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => position.0 = None,
                // One bucket alone has more than there is room for.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && attr.count == 0 => {
                    room *= 2;
                    continue;
                }
                Err(e) if no_batches(&e) && from.is_none() => return self.walk_one_by_one(each),
                Err(e) => return Err(e),
            }
            let entries = keys.chunks_exact(self.key_size).zip(values.chunks_exact(self.value_size));
            entries.take(attr.count as usize).for_each(|(key, value)| each(key, value));
            return Ok(attr.count as usize);
        }
    }

    fn walk_one_by_one(&self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<usize> {
        let (mut key, mut next) = (Vec::new(), vec![0u8; self.key_size]);
        let mut value = vec![0u8; self.value_size];
        let mut seen = 0;
        loop {
            let before = if key.is_empty() { 0 } else { key.as_ptr() as u64 };
            let mut attr = self.elem(before, next.as_mut_ptr() as u64);
            // SAFETY: the attributes of BPF_MAP_GET_NEXT_KEY; both keys have the map's size, none for the first.
            if !found(unsafe { bpf(Cmd::MapGetNextKey, &mut attr) })? {
                return Ok(seen);
            }
            if self.lookup(&next, &mut value)? {
                each(&next, &value);
                seen += 1;
            }
            key.clone_from(&next);
        }
    }

    fn elem(&self, key: u64, value: u64) -> ElemAttr {
        ElemAttr { map_fd: self.fd.as_raw_fd() as u32, pad: 0, key, value, flags: 0 }
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: count as u32,
            map_fd: self.fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        }
    }
}

/// Entries read by one call at most, and at least: a call returns whole buckets, which hold few entries each.
const SCAN: usize = 4096;
const BUCKET: usize = 64;

/// `u32` numbers in an array map, whose elements hold `block` of them each.
pub(crate) struct Numbers<'a> {
    pub(crate) map: BorrowedFd<'a>,
    pub(crate) block: u32,
}

impl Numbers<'_> {
    fn raw(&self) -> RawMap<'_> {
        RawMap { fd: self.map, key_size: 4, value_size: self.block as usize * 4 }
    }

    /// Writes whole blocks from the number at `base` on, which begins one.
    pub(crate) fn write(&self, base: u32, numbers: &[u32]) -> io::Result<()> {
        check(base.is_multiple_of(self.block) && numbers.len().is_multiple_of(self.block as usize))?;
        let blocks = numbers.len() / self.block as usize;
        let keys: Vec<u8> = (base / self.block..).take(blocks).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        self.raw().update_all(&keys, &values).map_err(|stopped| stopped.error)
    }

    /// Reads whole blocks from the number at `base` on, which begins one: `len` numbers.
    pub(crate) fn read(&self, base: u32, len: u32) -> io::Result<Vec<u32>> {
        check(base.is_multiple_of(self.block) && len.is_multiple_of(self.block))?;
        let blocks = array_read(self.raw(), base / self.block, (len / self.block) as usize)?;
        Ok(blocks.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).collect())
    }
}

/// Reads `len` elements of an array map from `first` on.
pub(crate) fn array_read(map: RawMap<'_>, first: u32, len: usize) -> io::Result<Vec<u8>> {
    let mut keys = vec![0u32; len];
    let mut values = vec![0u8; len * map.value_size];
    let (before, mut next) = (first.wrapping_sub(1), 0u32);
    let mut attr = BatchAttr {
        // The batch begins after this key; at the first one without.
        in_batch: if first == 0 { 0 } else { &raw const before as u64 },
        out_batch: &raw mut next as u64,
        ..map.batch(keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, len)
    };
    // SAFETY: the attributes of BPF_MAP_LOOKUP_BATCH; all pointers are to memory of the sizes that the kernel writes:
    // a key for each batch position, `count` keys of four bytes and values of the map's size.
    let result = unsafe { bpf(Cmd::MapLookupBatch, &mut attr) };
    // ENOENT means that the end of the map was reached.
    if let Err(error) = result
        && error.raw_os_error() != Some(libc::ENOENT)
    {
        return Err(error);
    }
    values.truncate(attr.count as usize * map.value_size);
    Ok(values)
}

fn check(right: bool) -> io::Result<()> {
    if right { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidInput)) }
}

/// Takes "no such entry" as an answer.
fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|_| true),
    }
}

/// The kernel's own "not supported", which no C library knows.
const ENOTSUPP: i32 = 524;

/// Whether the kernel has no calls with many entries for this kind of map. What is wrong with the entries themselves
/// shows again when they are tried one by one.
fn no_batches(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}

fn one_by_one(results: impl Iterator<Item = io::Result<()>>) -> Result<(), Stopped> {
    for (done, result) in results.enumerate() {
        result.map_err(|error| Stopped { done, error })?;
    }
    Ok(())
}
