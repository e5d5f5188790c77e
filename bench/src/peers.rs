//! What people use where there is no meshd, set up by hand on machines without it.

mod dnat;
mod docker;
mod haproxy;
pub mod ipvs;
mod machine;
pub mod route;
mod swarm;
mod vxlan_bridge;

pub use dnat::translate;
pub use docker::Engine;
pub use haproxy::Haproxy;
pub use machine::Machine;
pub use swarm::Swarm;
pub use vxlan_bridge::{VxlanBridge, plain_bridges};
