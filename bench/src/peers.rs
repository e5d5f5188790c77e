//! What people use where there is no meshd, set up by hand on machines without it.

mod dnat;
mod haproxy;
mod machine;
pub mod route;
mod vxlan_bridge;

pub use dnat::translate;
pub use haproxy::Haproxy;
pub use machine::Machine;
pub use vxlan_bridge::{VxlanBridge, plain_bridges};
