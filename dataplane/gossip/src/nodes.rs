//! A map by node. What a member keeps of each other one decides how much memory a large cluster takes: entries lie side by side
//! in order, without the room that a tree leaves in its nodes, and a look at all of them passes over memory once.

use mesh_types::NodeId;

/// An ordered map by node. Looking one up takes the logarithm of their number, adding and removing one moves those after it,
/// which is less work among thousands than a packet's.
#[derive(Debug, Clone)]
pub(crate) struct NodeMap<T> {
    /// In order.
    nodes: Vec<NodeId>,
    /// In the same order.
    values: Vec<T>,
}

impl<T> Default for NodeMap<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), values: Vec::new() }
    }
}

impl<T> NodeMap<T> {
    pub(crate) fn get(&self, node: NodeId) -> Option<&T> {
        self.values.get(self.nodes.binary_search(&node).ok()?)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut T> {
        self.values.get_mut(self.nodes.binary_search(&node).ok()?)
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }

    /// Sets the value of `node`, and returns the one that it had.
    pub(crate) fn insert(&mut self, node: NodeId, value: T) -> Option<T> {
        match self.nodes.binary_search(&node) {
            Ok(place) => self.values.get_mut(place).map(|known| std::mem::replace(known, value)),
            Err(place) => {
                self.put(place, node, value);
                None
            }
        }
    }

    fn put(&mut self, place: usize, node: NodeId, value: T) {
        if self.nodes.len() == self.nodes.capacity() {
            // An eighth more, not twice as much.
            let more = self.nodes.len() / 8 + 2;
            self.nodes.reserve_exact(more);
            self.values.reserve_exact(more);
        }
        self.nodes.insert(place, node);
        self.values.insert(place, value);
    }

    pub(crate) fn remove(&mut self, node: NodeId) -> Option<T> {
        let place = self.nodes.binary_search(&node).ok()?;
        self.nodes.remove(place);
        Some(self.values.remove(place))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &T)> {
        self.nodes.iter().copied().zip(&self.values)
    }

    /// In order.
    pub(crate) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    #[cfg(test)]
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut()
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(NodeId, &T) -> bool) {
        let kept: Vec<bool> = self.iter().map(|(node, value)| keep(node, value)).collect();
        let (mut of_nodes, mut of_values) = (kept.iter(), kept.iter());
        self.nodes.retain(|_| of_nodes.next().copied().unwrap_or(true));
        self.values.retain(|_| of_values.next().copied().unwrap_or(true));
    }
}

impl<T: Default> NodeMap<T> {
    /// The value of `node`, made if there is none.
    pub(crate) fn or_default(&mut self, node: NodeId) -> &mut T {
        let place = match self.nodes.binary_search(&node) {
            Ok(place) => place,
            Err(place) => {
                self.put(place, node, T::default());
                place
            }
        };
        &mut self.values[place]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_u128(n.into())
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0u8..5, any::<u8>(), any::<u16>()), 0..300)) {
            let (mut map, mut model) = (NodeMap::default(), BTreeMap::new());
            for (what, n, value) in steps {
                let at = node(n);
                match what {
                    0 | 1 => prop_assert_eq!(map.insert(at, value), model.insert(at, value)),
                    2 => prop_assert_eq!(map.remove(at), model.remove(&at)),
                    3 => {
                        *map.or_default(at) ^= value;
                        *model.entry(at).or_default() ^= value;
                    }
                    _ => {
                        map.retain(|node, kept| node != at && kept % 5 != 0);
                        model.retain(|node, kept| *node != at && *kept % 5 != 0);
                    }
                }
                prop_assert_eq!(map.get(at), model.get(&at));
                prop_assert_eq!((map.len(), map.contains(at)), (model.len(), model.contains_key(&at)));
            }
            prop_assert!(map.iter().eq(model.iter().map(|(node, value)| (*node, value))));
            prop_assert!(map.nodes().iter().eq(model.keys()) && map.values().eq(model.values()));
        }
    }
}
