//! An ordered map whose copies share what did not change between them.

use std::{borrow::Borrow, cmp::Ordering, fmt, marker::PhantomData, ops::RangeInclusive, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

/// Entries of a chunk at most; a full one is halved.
const CHUNK: usize = 128;
/// A chunk with fewer entries joins a neighbour that has room.
const SPARSE: usize = CHUNK / 4;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map. A copy costs next to nothing; a change after that copies one chunk of entries and the list of chunks;
/// and [`SharedMap::changes`] between two copies passes over the chunks that they share.
#[derive(Debug, Clone)]
pub struct SharedMap<K, V> {
    /// In order, none empty.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K, V> SharedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values by key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether both are copies of one another, without a look at the entries.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (chunk, place) = self.find(key)?;
        Some(&self.chunks.get(chunk)?.get(place.ok()?)?.1)
    }

    /// The value of the key that is borrowed as `key`, as text is of a string.
    pub fn get_by<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let starts_after = |chunk: &Chunk<K, V>| chunk.first().is_some_and(|(first, _)| first.borrow() > key);
        let after = self.chunks.partition_point(|chunk| !starts_after(chunk));
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        let place = chunk.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
        Some(&chunk.get(place)?.1)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// How many keys lie in `range`; looks at chunks, not at entries.
    pub fn count_in(&self, range: RangeInclusive<&K>) -> usize {
        let before = |key: &K, with: bool| {
            let Some((chunk, place)) = self.find(key) else { return 0 };
            let whole: usize = self.chunks.iter().take(chunk).map(|chunk| chunk.len()).sum();
            whole + place.map_or_else(|place| place, |place| place + usize::from(with))
        };
        before(range.end(), true).saturating_sub(before(range.start(), false))
    }

    /// The chunk that `key` is or belongs in, and its place there; none if there is no chunk.
    fn find(&self, key: &K) -> Option<(usize, Result<usize, usize>)> {
        let starts_after = |chunk: &Chunk<K, V>| chunk.first().is_some_and(|(first, _)| first > key);
        let chunk = self.chunks.partition_point(|chunk| !starts_after(chunk)).saturating_sub(1);
        Some((chunk, self.chunks.get(chunk)?.binary_search_by(|(k, _)| k.cmp(key))))
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of `key`, and returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let found = self.find(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some((at, place)) = found else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let is_last = at + 1 == chunks.len();
        let chunk = Arc::make_mut(chunks.get_mut(at)?);
        match place {
            Ok(place) => Some(std::mem::replace(&mut chunk.get_mut(place)?.1, value)),
            Err(place) => {
                self.len += 1;
                if chunk.len() < CHUNK {
                    chunk.insert(place, (key, value));
                } else if place == CHUNK && is_last {
                    // Keys that come in order leave full chunks behind.
                    chunks.push(Arc::new(vec![(key, value)]));
                } else {
                    // Halved before, not after: a chunk never has room for more than it may hold.
                    let mut second = chunk.split_off(CHUNK / 2);
                    match place.checked_sub(CHUNK / 2) {
                        Some(place) => second.insert(place, (key, value)),
                        None => chunk.insert(place, (key, value)),
                    }
                    chunks.insert(at + 1, Arc::new(second));
                }
                None
            }
        }
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (at, Ok(place)) = self.find(key)? else { return None };
        let chunk = Arc::make_mut(&mut self.chunks).get_mut(at)?;
        Some(&mut Arc::make_mut(chunk).get_mut(place)?.1)
    }

    /// Removes `key`, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (at, Ok(place)) = self.find(key)? else { return None };
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(at)?);
        let (_, value) = chunk.remove(place);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            chunks.remove(at);
        } else if left < SPARSE {
            join(chunks, at);
        }
        Some(value)
    }
}

/// Joins the sparse chunk at `at` with a neighbour, if one has room.
fn join<K: Clone, V: Clone>(chunks: &mut Vec<Chunk<K, V>>, at: usize) {
    let len = |at: usize| chunks.get(at).map_or(CHUNK, |chunk| chunk.len());
    let fits = |first: usize| len(first) + len(first + 1) <= CHUNK;
    let first = match at.checked_sub(1) {
        Some(before) if fits(before) => before,
        _ if fits(at) => at,
        _ => return,
    };
    let second = chunks.remove(first + 1);
    if let Some(first) = chunks.get_mut(first) {
        Arc::make_mut(first).extend(second.iter().cloned());
    }
}

impl<K, V> SharedMap<K, V> {
    /// What is otherwise in `newer`: each key with its value here and there, in order.
    pub fn changes<'a>(&'a self, newer: &'a Self) -> MapChanges<'a, K, V> {
        let same = self.is_copy_of(newer);
        let of = |map: &'a Self| Cursor { chunks: if same { &[] } else { &map.chunks }, place: 0 };
        MapChanges { old: of(self), new: of(newer) }
    }
}

/// See [`SharedMap::changes`].
#[derive(Debug)]
pub struct MapChanges<'a, K, V> {
    old: Cursor<'a, K, V>,
    new: Cursor<'a, K, V>,
}

impl<'a, K: Ord, V: PartialEq> Iterator for MapChanges<'a, K, V> {
    type Item = (&'a K, Option<&'a V>, Option<&'a V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Where both are at the start of a shared chunk, nothing in it differs. Since both go on by key, they get
            // there together at the first shared chunk after a difference.
            while let (Some(before), Some(after)) = (self.old.whole(), self.new.whole())
                && Arc::ptr_eq(before, after)
            {
                self.old.skip();
                self.new.skip();
            }
            let order = match (self.old.entry(), self.new.entry()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((before, _)), Some((after, _))) => before.cmp(after),
            };
            let before = if order.is_le() { self.old.take() } else { None };
            let after = if order.is_ge() { self.new.take() } else { None };
            match (before, after) {
                (Some((_, before)), Some((_, after))) if before == after => {}
                (before, after) => {
                    let (key, _) = before.or(after)?;
                    return Some((key, before.map(|(_, value)| value), after.map(|(_, value)| value)));
                }
            }
        }
    }
}

/// A place among the entries.
#[derive(Debug)]
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    place: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    /// The chunk that it is at the start of.
    fn whole(&self) -> Option<&'a Chunk<K, V>> {
        self.chunks.first().filter(|_| self.place == 0)
    }

    fn skip(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.place = 0;
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.chunks.first()?.get(self.place)
    }

    fn take(&mut self) -> Option<(&'a K, &'a V)> {
        let (key, value) = self.entry()?;
        self.place += 1;
        if self.entry().is_none() {
            self.skip();
        }
        Some((key, value))
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changes(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        Iter(Cursor { chunks: &self.chunks, place: 0 })
    }
}

/// The entries of a [`SharedMap`] by key.
#[derive(Debug)]
pub struct Iter<'a, K, V>(Cursor<'a, K, V>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

/// As the maps of the standard library are written: the same bytes.
impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // With its length: postcard writes no others.
        let mut map = serializer.serialize_map(Some(self.len()))?;
        self.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de, K, V> Deserialize<'de> for SharedMap<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Entries<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    type Value = SharedMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = SharedMap::default();
        while let Some((key, value)) = entries.next_entry()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

#[cfg(test)]
#[path = "shared_map/tests.rs"]
mod tests;
