//! Who is to hear of what: the members that are there, and which of them want which tables. Kept up to date one by one, so that a
//! change among thousands of members costs no look at each.

use std::collections::BTreeMap;

use mesh_types::{NetworkId, NodeId};
use rand::{Rng, seq::index};

use crate::{Interest, Table};

/// Nodes in order.
#[derive(Debug, Default)]
struct Nodes(Vec<NodeId>);

impl Nodes {
    fn set(&mut self, node: NodeId, is_in: bool) {
        match self.0.binary_search(&node) {
            Err(place) if is_in => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(self.0.len() / 8 + 2);
                }
                self.0.insert(place, node);
            }
            Ok(place) if !is_in => drop(self.0.remove(place)),
            _ => {}
        }
    }
}

/// The other members that are there.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    everybody: Nodes,
    /// Those that want all tables, and those that want one.
    of_all: Nodes,
    of_one: BTreeMap<NetworkId, Nodes>,
}

/// The members that a table's changes are told to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience<'a> {
    first: &'a [NodeId],
    second: &'a [NodeId],
}

impl<'a> Audience<'a> {
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = NodeId> + use<'a> {
        self.first.iter().chain(self.second).copied()
    }

    /// So many of them at most, by chance.
    pub(crate) fn choose(&self, count: usize, rng: &mut impl Rng) -> Vec<NodeId> {
        let chosen = index::sample(rng, self.len(), count.min(self.len()));
        let at = |place: usize| match place.checked_sub(self.first.len()) {
            None => self.first.get(place).copied(),
            Some(place) => self.second.get(place).copied(),
        };
        chosen.into_iter().filter_map(at).collect()
    }
}

impl Audiences {
    /// A member is there, or is not any more.
    pub(super) fn set_live(&mut self, node: NodeId, is_live: bool) {
        self.everybody.set(node, is_live);
    }

    /// A member that is there wants that, or does not any more.
    pub(super) fn set_interest(&mut self, node: NodeId, interest: &Interest, wants: bool) {
        match interest {
            Interest::All => self.of_all.set(node, wants),
            Interest::Networks(networks) => {
                for network in networks {
                    let of_one = self.of_one.entry(*network).or_default();
                    of_one.set(node, wants);
                    if of_one.0.is_empty() {
                        self.of_one.remove(network);
                    }
                }
            }
        }
    }

    pub(super) fn of(&self, table: Table) -> Audience<'_> {
        match table {
            Table::Interests => Audience { first: &self.everybody.0, second: &[] },
            Table::Endpoints(network) => Audience {
                first: &self.of_all.0,
                second: self.of_one.get(&network).map_or(&[], |nodes| &nodes.0),
            },
        }
    }
}
