//! Hashes of flows. The same on every node and every machine: no seed, one byte order.
//!
//! See [`mesh_abi::flow_hash`].

pub use mesh_abi::flow_hash as flow;
use mesh_abi::{double, finish, ports, times};

use crate::{family::Family, parse::Tuple};

/// Hash of a client's address alone.
#[inline(always)]
pub fn client(address: &[u8; 16]) -> u32 {
    finish(times(0, double(address, 0)).wrapping_add(times(1, double(address, 8))))
}

/// Hash for the outer UDP source port: spreads flows over paths, nothing depends on its value.
#[inline(always)]
pub fn entropy<F: Family>(t: &Tuple<F>, protocol: u8) -> u32 {
    let addresses = u64::from(F::digest(&t.source)) << 32 | u64::from(F::digest(&t.destination));
    finish(times(0, addresses).wrapping_add(times(4, ports(t.source_port, t.destination_port, protocol))))
}

/// The same for the flow that packets with these addresses and ports answer.
#[inline(always)]
pub fn entropy_back<F: Family>(t: &Tuple<F>, protocol: u8) -> u32 {
    let back = Tuple::<F> {
        source: t.destination,
        destination: t.source,
        source_port: t.destination_port,
        destination_port: t.source_port,
    };
    entropy(&back, protocol)
}

/// Another number out of one.
#[inline(always)]
pub fn again(n: u32) -> u32 {
    finish(times(2, u64::from(n)))
}
