//! Clusters of gossip cores in virtual time: the cores are meshd's own, the wire between them is simulated.
//!
//! - [`run`] plays a seed: what happens to a cluster, and what must hold meanwhile and afterwards ([`invariants`]).

pub mod invariants;
pub mod ledger;
pub mod names;
pub mod nemesis;
pub mod run;
pub mod scenario;
pub mod wire;
pub mod world;
