//! A change that was acknowledged is there for ever: in every read that is to see all that was decided, and in every
//! manager's state at the end, whatever crashed meanwhile.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use mesh_store::State;
use mesh_types::NodeId;

/// Marks that clients set and that nobody takes away: labels of one node.
#[derive(Debug, Default)]
pub struct Marks(BTreeSet<String>);

impl Marks {
    /// The client was told that the mark is set.
    pub fn acknowledged(&mut self, mark: String) {
        self.0.insert(mark);
    }

    /// Those acknowledged so far; what is read from now on must have them.
    pub fn so_far(&self) -> BTreeSet<String> {
        self.0.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Whether `state` has all of `marks` on `node`.
pub fn check(marks: &BTreeSet<String>, state: &State, node: NodeId, whose: &str) -> Result<()> {
    let labels = state.node(node).map(|node| &node.labels);
    let lost = marks.iter().find(|mark| labels.is_none_or(|labels| !labels.contains_key(*mark)));
    match lost {
        Some(mark) => bail!("{whose} lacks the acknowledged change {mark}"),
        None => Ok(()),
    }
}
