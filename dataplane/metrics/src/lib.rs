//! What a node counts, as Prometheus reads it.
//!
//! [`catalogue`] names every metric; [`Metrics`] makes the text of a node's [`mesh_agent::Snapshot`], which is pure; [`text`]
//! writes both formats; [`http`] serves them. However much runs on the node, there are no more series than the
//! configuration allows ([`bounded`]).

#![forbid(unsafe_code)]

pub mod bounded;
pub mod catalogue;
pub mod http;
mod node;
mod process;
pub mod text;

pub use node::{Facts, Limits, Manager, Member, Metrics, frontend_text};
pub use process::Process;
