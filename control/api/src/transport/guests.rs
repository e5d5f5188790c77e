//! How many may be there at once, in all and from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts guests by their address; clones count together.
#[derive(Debug, Clone)]
pub(super) struct Guests {
    most: usize,
    most_of_one: usize,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One that is inside until it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    address: IpAddr,
    guests: Guests,
}

impl Guests {
    /// Lets in so many, and so many of one address.
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, inside: Arc::default() }
    }

    /// Lets one in, if there is room.
    pub fn enter(&self, address: IpAddr) -> Option<Guest> {
        let mut inside = self.inside();
        let of_one = inside.by_address.get(&address).copied().unwrap_or(0);
        if inside.all >= self.most || of_one >= self.most_of_one {
            return None;
        }
        inside.all += 1;
        inside.by_address.insert(address, of_one + 1);
        drop(inside);
        Some(Guest { address, guests: self.clone() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = self.guests.inside();
        inside.all = inside.all.saturating_sub(1);
        if let Some(count) = inside.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inside.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_for_others_and_comes_back() {
        let guests = Guests::new(3, 2);
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let (one, two) = (guests.enter(address(1)), guests.enter(address(1)));
        assert!(one.is_some() && two.is_some());
        assert!(guests.enter(address(1)).is_none(), "no third of one");
        let other = guests.enter(address(2));
        assert!(other.is_some());
        assert!(guests.enter(address(3)).is_none(), "no fourth at all");
        drop(one);
        assert!(guests.enter(address(3)).is_some());
        drop((two, other));
        assert!(guests.inside().by_address.is_empty() && guests.inside().all == 0, "nothing is kept");
    }
}
