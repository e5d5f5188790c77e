//! What a node counts, as Prometheus reads it.
//!
//! [`text`] writes both text formats, [`catalogue`] names every metric, [`node`] makes the text of a node's
//! [`mesh_agent::Snapshot`]: pure. [`http`] serves it. How many series there are has a bound ([`bounded`]), whatever runs on
//! the node.

#![forbid(unsafe_code)]

pub mod http;
pub mod text;
