//! A set of networks that many may hold at once: what a member wants is kept of each one by each one.

use std::{collections::BTreeSet, fmt, sync::Arc};

use mesh_types::NetworkId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Networks in order, each once. A copy shares them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkSet(Arc<[NetworkId]>);

impl NetworkSet {
    /// Whether `network` is among them.
    pub fn contains(&self, network: NetworkId) -> bool {
        self.0.binary_search(&network).is_ok()
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, NetworkId> {
        self.0.iter()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for NetworkSet {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl fmt::Debug for NetworkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<NetworkId> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = NetworkId>>(networks: I) -> Self {
        networks.into_iter().collect::<BTreeSet<_>>().into()
    }
}

impl From<BTreeSet<NetworkId>> for NetworkSet {
    fn from(networks: BTreeSet<NetworkId>) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl<const N: usize> From<[NetworkId; N]> for NetworkSet {
    fn from(networks: [NetworkId; N]) -> Self {
        networks.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a NetworkSet {
    type Item = &'a NetworkId;
    type IntoIter = std::slice::Iter<'a, NetworkId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// As a set of the standard library is written.
impl Serialize for NetworkSet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for NetworkSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BTreeSet::deserialize(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_written_as_a_set_is(numbers in proptest::collection::vec(0u128..20, 0..12)) {
            let set: BTreeSet<NetworkId> = numbers.into_iter().map(NetworkId::from_u128).collect();
            let networks = NetworkSet::from(set.clone());
            let bytes = postcard::to_stdvec(&networks).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_stdvec(&set).unwrap());
            prop_assert_eq!(postcard::from_bytes::<NetworkSet>(&bytes).unwrap(), networks.clone());
            prop_assert!(networks.iter().eq(&set) && networks.len() == set.len());
            prop_assert!((0..20).map(NetworkId::from_u128).all(|n| networks.contains(n) == set.contains(&n)));
        }
    }
}
