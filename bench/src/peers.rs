//! What people use where there is no meshd, set up by hand on the same nodes. Their packets pass meshd's program on the
//! uplink, which costs them what `bench datapath programs` shows for a packet that is not for it.

mod dnat;
mod haproxy;
mod route;
mod vxlan_bridge;

pub use dnat::translate;
pub use haproxy::Haproxy;
pub use route::Route;
pub use vxlan_bridge::VxlanBridge;
