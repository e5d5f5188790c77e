//! Next hops of packets that tc programs send out of the node, remembered for a moment.
//!
//! `bpf_redirect_neigh` looks up the route of every packet. What the kernel says of a destination is remembered as it is for
//! XDP ([`crate::xdp_next_hop`]), and packets get their Ethernet addresses here. The packet for which the kernel was asked
//! goes its way, by its neighbour entry: so entries that grow stale are confirmed, and what is not known is found, as if
//! nothing were remembered.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};

use mesh_abi::Address;

use crate::{
    conntrack,
    family::{Family, V4, V6},
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame},
    skb::{ETHERNET, Skb},
    verifier::alone,
    xdp_next_hop::{self as next_hop, Hop, ToClient},
};

/// The kernel verdict that sends a packet out of an interface.
#[inline(always)]
pub fn out(skb: Skb, ifindex: u32) -> i32 {
    if addressed(skb, ifindex) == WRITTEN {
        // SAFETY: plain helper call.
        return unsafe { bpf_redirect(ifindex, 0) as i32 };
    }
    // SAFETY: plain helper call; a null parameter lets the kernel's routing choose the next hop.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// The next hop towards a node, if it is remembered.
#[inline(always)]
pub fn known(to: &Address, ifindex: u32) -> Option<&'static Hop> {
    let (slot, known) = ToClient::at(to, ifindex, conntrack::now())?;
    if !known {
        return None;
    }
    slot.hop().filter(|hop| hop.ifindex == ifindex).map(|hop| &*hop)
}

const WRITTEN: u32 = 1;

alone! {
    /// [`WRITTEN`] when the packet has the Ethernet addresses that it needs.
    fn addressed[next_hop_written](skb: Skb, ifindex: u32) -> u32, or 0; {
        let written = match skb.load::<[u8; 2]>(12) {
            Ok(ETHERTYPE_IPV4) => write::<V4>(skb, ifindex),
            Ok(ETHERTYPE_IPV6) => write::<V6>(skb, ifindex),
            _ => false,
        };
        if written { WRITTEN } else { 0 }
    }
}

#[inline(always)]
fn write<F: Family>(skb: Skb, ifindex: u32) -> bool {
    let Ok(to) = skb.load::<F::Address>(ETHERNET + F::SOURCE + size_of::<F::Address>() as u32) else {
        return false;
    };
    let now = conntrack::now();
    let to = F::mapped(&to);
    let Some((slot, known)) = ToClient::at(&to, ifindex, now) else { return false };
    if known {
        return match slot.hop() {
            Some(hop) if hop.ifindex == ifindex => skb.store(0, &hop.bytes()).is_ok(),
            _ => false,
        };
    }
    let Ok(from) = skb.load::<F::Address>(ETHERNET + F::SOURCE) else { return false };
    slot.begin(&to, ifindex);
    let failed = next_hop::ask(skb.raw().cast(), &F::mapped(&from), &to, ifindex, &mut slot.hop);
    slot.end(failed, now);
    false
}
