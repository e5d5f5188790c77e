//! Clusters of gossip cores in virtual time: the cores are meshd's own, the wire between them is simulated.
//!
//! - [`run`] plays a seed: what happens to a cluster, and what must hold meanwhile and afterwards ([`invariants`]).
//! - [`convergence`] and [`scale`] measure how long a change takes until all know it, and what it costs; [`measure`]
//!   collects that, [`plot`] draws it.

pub mod convergence;
pub mod invariants;
pub mod ledger;
pub mod measure;
pub mod names;
pub mod nemesis;
pub mod plot;
pub mod run;
pub mod scale;
pub mod scenario;
pub mod wire;
pub mod world;
