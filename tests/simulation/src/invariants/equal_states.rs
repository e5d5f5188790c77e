//! Managers that have made equally many changes have equal states, whenever each of them got there.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use mesh_store::State;
use mesh_types::NodeId;

/// The states seen, by version.
#[derive(Debug, Default)]
pub struct States(BTreeMap<u64, (blake3::Hash, NodeId)>);

impl States {
    /// `node` has come to `state`.
    pub fn seen(&mut self, node: NodeId, state: &State) -> Result<()> {
        let version = state.version();
        let hash = blake3::hash(&state.encode());
        let (known, first) = *self.0.entry(version).or_insert((hash, node));
        ensure!(known == hash, "states of version {version} differ between {first} and {node}");
        Ok(())
    }

    /// How many versions were compared or noted.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
