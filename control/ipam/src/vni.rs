//! VXLAN network identifiers.

use std::collections::BTreeSet;

use mesh_types::Vni;
use serde::{Deserialize, Serialize};

use crate::number::in_turn;

/// The identifiers of the cluster's networks, from [`Vni::FIRST`] up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VniPool {
    held: BTreeSet<Vni>,
    last: Option<Vni>,
}

impl VniPool {
    /// The next free identifier, if there is one. Changes nothing.
    pub fn pick(&self) -> Option<Vni> {
        let range = u128::from(Vni::FIRST.get())..=u128::from(Vni::LAST.get());
        in_turn(range, self.last.map(|vni| u128::from(vni.get())))
            .filter_map(|number| Vni::new(u32::try_from(number).ok()?).ok())
            .find(|vni| !self.held.contains(vni))
    }

    /// Takes an identifier that was picked; the next pick goes on behind it.
    pub fn take(&mut self, vni: Vni) {
        self.held.insert(vni);
        self.last = Some(vni);
    }

    /// Frees an identifier.
    pub fn release(&mut self, vni: Vni) {
        self.held.remove(&vni);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_4096_up_and_freed_ones_rest() {
        let mut p = VniPool::default();
        for number in [4096, 4097] {
            let vni = p.pick().unwrap();
            assert_eq!(vni.get(), number);
            p.take(vni);
        }
        p.release(Vni::FIRST);
        assert_eq!(p.pick().unwrap().get(), 4098);
        p.take(Vni::LAST);
        assert_eq!(p.pick(), Some(Vni::FIRST));
    }
}
