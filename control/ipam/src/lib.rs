//! Pure pools of what a cluster gives out: subnets, VXLAN network identifiers, addresses of a network, published
//! ports.
//!
//! A pool never gives a thing twice. All but subnets are given out in turn (next fit), so that a freed one rests as long as
//! possible: caches of its last use have time to go. Choosing (`pick`) is apart from taking (`take`), so that a caller
//! who needs several things can choose them all before it changes anything.

mod address;
mod number;
mod port;
mod subnet;
mod vni;

pub use address::{AddressError, AddressPool, RangeError};
pub use port::{AUTOMATIC_PORTS, PortPool};
pub use subnet::{CUT_PREFIX, CUT_PREFIX6, SubnetPool};
pub use vni::VniPool;
