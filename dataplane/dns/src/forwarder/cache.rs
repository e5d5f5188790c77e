//! Answers of name servers, as long as they are right: pure.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::wire::{Answer, Key};

/// Nothing is kept for longer; what says that it is right for days is asked for again after that.
const LONGEST: Duration = Duration::from_secs(3600);
/// Nor is it kept for longer that something does not exist: somebody may be waiting for it.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(300);

/// A bounded cache in two halves: what is new, and what was asked for again since the halves changed places last. Of what
/// nobody asks for, nothing is left after both are full.
#[derive(Debug)]
pub(super) struct Cache {
    young: Half,
    old: Half,
    limit: usize,
}

#[derive(Debug, Default)]
struct Half {
    entries: HashMap<Key, Entry>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    answer: Arc<Answer>,
    came: Instant,
    until: Instant,
}

impl Cache {
    /// One of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { young: Half::default(), old: Half::default(), limit }
    }

    /// An answer that is right at `now`, and its age in seconds.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<(Arc<Answer>, u32)> {
        if !self.young.entries.contains_key(key) {
            let entry = self.old.take(key)?;
            self.put(key.clone(), entry);
        }
        let entry = self.young.entries.get(key)?;
        if entry.until <= now {
            self.young.take(key);
            return None;
        }
        let age = now.saturating_duration_since(entry.came).as_secs();
        Some((Arc::clone(&entry.answer), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps an answer that came at `now`, if it is one to keep.
    pub(super) fn keep(&mut self, key: Key, answer: &Arc<Answer>, now: Instant) {
        let Some(lifetime) = answer.lifetime() else { return };
        let most = if answer.is_negative() { LONGEST_NEGATIVE } else { LONGEST };
        let until = now + Duration::from_secs(lifetime.into()).min(most);
        self.young.take(&key);
        self.old.take(&key);
        self.put(key, Entry { answer: Arc::clone(answer), came: now, until });
    }

    fn put(&mut self, key: Key, entry: Entry) {
        let size = size(&key, &entry);
        if size > self.limit / 8 {
            return;
        }
        if self.young.bytes + size > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += size;
        self.young.entries.insert(key, entry);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        (self.young, self.old) = (Half::default(), Half::default());
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }
}

impl Half {
    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= size(key, &entry);
        Some(entry)
    }
}

fn size(key: &Key, entry: &Entry) -> usize {
    key.size() + entry.answer.size() + size_of::<Entry>()
}

#[cfg(test)]
mod tests;
