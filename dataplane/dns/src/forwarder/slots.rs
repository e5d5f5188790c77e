//! Who may have how many questions under way, so that one task's flood leaves room for the others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Questions under way at once, for all tasks of the node: each takes a socket or three.
const MOST: usize = 1024;
/// A task with fewer under way may always ask.
const ALWAYS: usize = 4;

/// The node's room. A task may have as many questions under way as are free for all: one that floods gets half of the room,
/// two of them a third each, and there is always as much left for one more (the dynamic threshold of Choudhury and Hahne).
#[derive(Debug, Default)]
pub(super) struct Room {
    used: AtomicUsize,
}

/// One task's part of it.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    own: Arc<AtomicUsize>,
}

/// Room for one question, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    room: Arc<Room>,
    own: Arc<AtomicUsize>,
}

impl Share {
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), own: Arc::default() }
    }

    /// Room for one more question, unless the task has its share.
    pub(super) fn take(&self) -> Option<Slot> {
        // Counted first, so that two at once see each other.
        let slot = Slot { room: Arc::clone(&self.room), own: Arc::clone(&self.own) };
        let own = self.own.fetch_add(1, Ordering::Relaxed);
        let used = self.room.used.fetch_add(1, Ordering::Relaxed);
        (own < ALWAYS || own < MOST.saturating_sub(used)).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.room.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(share: &Share) -> Vec<Slot> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn floods_share_and_leave_room() {
        let room = Arc::default();
        let [first, second, third] = [(); 3].map(|()| Share::new(&room));
        let flood = take_all(&first);
        assert_eq!(flood.len(), MOST / 2);
        let other = take_all(&second);
        assert_eq!(other.len(), MOST / 4);
        assert!(!take_all(&third).is_empty());
        drop(flood);
        // What one gives back is there for the others.
        assert!(!take_all(&second).is_empty());
        drop(other);
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nobody_is_left_without() {
        let room = Arc::default();
        let floods: Vec<_> = (0..500).map(|_| take_all(&Share::new(&room))).collect();
        assert!(floods.iter().all(|slots| slots.len() >= ALWAYS));
        assert!(Share::new(&room).take().is_some());
    }
}
