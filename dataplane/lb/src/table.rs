//! A typed hash map over raw calls, with many entries in each.

use std::{io, marker::PhantomData, mem::MaybeUninit, os::fd::AsFd};

use aya::{
    Pod,
    maps::{MapData, MapError},
    sys::SyscallError,
};

use crate::{
    error::Error,
    sys::map::{Position, RawMap, Stopped},
};

/// Entries in one call.
const BATCH: usize = 4096;

/// A hash map of the data path. The programs are loaded with its descriptor, so it stays open.
pub(crate) struct Table<K, V> {
    name: &'static str,
    data: MapData,
    capacity: u32,
    entry: PhantomData<(K, V)>,
}

/// What was done before a write failed.
pub(crate) struct Partly {
    /// Entries that are done.
    pub(crate) done: usize,
    /// Why the next one is not.
    pub(crate) error: Error,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Takes a map if its keys and values have the right sizes.
    pub(crate) fn new(name: &'static str, data: MapData) -> Result<Self, Error> {
        let capacity = check_shape::<K, V>(name, &data)?;
        Ok(Self { name, data, capacity, entry: PhantomData })
    }

    /// How many entries it has room for.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    fn raw(&self) -> RawMap<'_> {
        RawMap { fd: self.data.fd().as_fd(), key_size: size_of::<K>(), value_size: size_of::<V>() }
    }

    /// Every entry. Concurrent writes may hide or repeat some.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let mut all = Vec::new();
        self.for_each(|key, value| all.push((key, value)))?;
        Ok(all)
    }

    /// Calls `each` with every entry. Concurrent writes may hide or repeat some.
    pub(crate) fn for_each(&self, mut each: impl FnMut(K, V)) -> Result<(), Error> {
        let mut position = Position::default();
        loop {
            self.walk(&mut position, BATCH, &mut each)?;
            if position.at_start() {
                return Ok(());
            }
        }
    }

    /// Calls `each` with some entries from `position` on, which it moves; it is at the start again after the last ones.
    /// Returns how many there were.
    pub(crate) fn walk(
        &self,
        position: &mut Position,
        at_most: usize,
        mut each: impl FnMut(K, V),
    ) -> Result<usize, Error> {
        let raw = self.raw();
        let walked = raw.walk(position, at_most, |key, value| each(from_bytes(key), from_bytes(value)));
        walked.map_err(|e| refused("read", self.name, e))
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = vec![0u8; size_of::<V>()];
        let found = self.raw().lookup(bytes(std::slice::from_ref(key)), &mut value);
        let found = found.map_err(|e| refused("read", self.name, e))?;
        Ok(found.then(|| from_bytes(&value)))
    }

    /// Adds an entry unless there is one with the key; false when there is, or when there is no room.
    pub(crate) fn add(&self, key: &K, value: &V) -> Result<bool, Error> {
        let added = self.raw().add(bytes(std::slice::from_ref(key)), bytes(std::slice::from_ref(value)));
        match added {
            Err(e) if matches!(e.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM)) => Ok(false),
            other => other.map_err(|e| refused("write", self.name, e)),
        }
    }

    /// Writes entries in their order.
    pub(crate) fn put(&self, entries: impl Iterator<Item = (K, V)>) -> Result<(), Partly> {
        let (keys, values): (Vec<K>, Vec<V>) = entries.unzip();
        let mut done = 0;
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            self.raw()
                .update_all(bytes(keys), bytes(values))
                .map_err(|stopped| self.partly("write", done, stopped))?;
            done += keys.len();
        }
        Ok(())
    }

    /// Deletes entries in their order. What is not there counts as deleted.
    pub(crate) fn delete(&self, keys: impl Iterator<Item = K>) -> Result<(), Partly> {
        let keys: Vec<K> = keys.collect();
        let mut done = 0;
        for keys in keys.chunks(BATCH) {
            self.raw()
                .delete_all(bytes(keys))
                .map_err(|stopped| self.partly("delete from", done, stopped))?;
            done += keys.len();
        }
        Ok(())
    }

    fn partly(&self, action: &'static str, before: usize, stopped: Stopped) -> Partly {
        Partly { done: before + stopped.done, error: refused(action, self.name, stopped.error) }
    }
}

/// Fails unless the map's keys and values have these sizes; returns how many entries it has room for.
pub(crate) fn check_shape<K, V>(name: &'static str, data: &MapData) -> Result<u32, Error> {
    let info = data.info().map_err(|e| unusable(name, e))?;
    let check = |expected: usize, found: u32| {
        let size = found as usize;
        if size == expected { Ok(()) } else { Err(MapError::InvalidValueSize { size, expected }) }
    };
    check(size_of::<K>(), info.key_size()).map_err(|e| unusable(name, e))?;
    check(size_of::<V>(), info.value_size()).map_err(|e| unusable(name, e))?;
    Ok(info.max_entries())
}

pub(crate) fn unusable(map: &'static str, source: MapError) -> Error {
    Error::Map { map, source: Box::new(source) }
}

pub(crate) fn failed(action: &'static str, map: &'static str, source: MapError) -> Error {
    Error::Write { action, map, source: Box::new(source) }
}

pub(crate) fn refused(action: &'static str, map: &'static str, io_error: io::Error) -> Error {
    failed(action, map, MapError::SyscallError(SyscallError { call: "bpf", io_error }))
}

fn bytes<T: Pod>(items: &[T]) -> &[u8] {
    // SAFETY: `Pod` vouches that the items are bytes without padding; the slice covers exactly them.
    unsafe { std::slice::from_raw_parts(items.as_ptr().cast(), size_of_val(items)) }
}

/// The value that the bytes are; zeros stand for what they lack.
pub(crate) fn from_bytes<T: Pod>(bytes: &[u8]) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let len = bytes.len().min(size_of::<T>());
    // SAFETY: both have `len` bytes and do not overlap; `Pod` vouches that any bytes are a value of `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), len);
        value.assume_init()
    }
}
