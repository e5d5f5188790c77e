//! At most one manager leads a term.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use mesh_types::NodeId;

/// Who led which term.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<u64, NodeId>);

impl Leaders {
    /// `node` leads `term`.
    pub fn leads(&mut self, term: u64, node: NodeId) -> Result<()> {
        let leader = *self.0.entry(term).or_insert(node);
        ensure!(leader == node, "term {term} has two leaders: {leader} and {node}");
        Ok(())
    }

    /// How many terms had a leader.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
