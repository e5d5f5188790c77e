//! Addresses and ports rewritten in place, checksums with them.

use mesh_abi::DropReason;

use crate::{
    family::{Family, V4},
    parse::{Packet, SCTP, TCP, Tuple, UDP},
    skb::{self, Skb},
    verdict::{self, FAILED},
    verifier::alone,
};

/// Offset of the checksum in the IPv4 header (RFC 791).
pub const CHECKSUM: u32 = 10;

/// Where a transport header keeps what is rewritten, as offsets from its start. Each value means something without the
/// others: the verifier refuses code that reads what only an enum's tag makes valid.
#[derive(Clone, Copy)]
struct Layout {
    /// Zero when there is none.
    checksum: u32,
    source_port: u32,
    destination_port: u32,
    /// The checksum covers the addresses.
    pseudo: bool,
}

/// Makes the packet's addresses and ports those of `new`.
#[inline(always)]
pub fn translate<F: Family>(skb: Skb, packet: &mut Packet<F>, new: &Tuple<F>) -> Result<(), DropReason> {
    verdict::ok(apart(skb, packet, new))
}

alone! {
    /// In a stack frame of its own.
    fn apart[translated4, translated6]<F>(skb: Skb, packet: &mut Packet<F>, new: &Tuple<F>) -> u64, or FAILED; {
        verdict::code(in_place(skb, packet, new))
    }
}

#[inline(always)]
fn in_place<F: Family>(skb: Skb, packet: &mut Packet<F>, new: &Tuple<F>) -> Result<(), DropReason> {
    let layout = layout(packet);
    let old = packet.tuple;
    if !F::same(&old.source, &new.source) {
        address(skb, packet, layout, F::SOURCE, (&old.source, &new.source))?;
    }
    if !F::same(&old.destination, &new.destination) {
        let at = F::SOURCE + size_of::<F::Address>() as u32;
        address(skb, packet, layout, at, (&old.destination, &new.destination))?;
    }
    if !packet.later_fragment {
        if old.source_port != new.source_port {
            port(skb, packet, layout, layout.source_port, (old.source_port, new.source_port))?;
        }
        if old.destination_port != new.destination_port {
            let change = (old.destination_port, new.destination_port);
            port(skb, packet, layout, layout.destination_port, change)?;
        }
    }
    packet.before = old;
    packet.tuple = *new;
    Ok(())
}

#[inline(always)]
fn layout<F: Family>(packet: &Packet<F>) -> Layout {
    let none = Layout { checksum: 0, source_port: 0, destination_port: 2, pseudo: true };
    if packet.later_fragment {
        return none;
    }
    match packet.protocol {
        TCP => Layout { checksum: 16, ..none },
        UDP => Layout { checksum: 6, ..none },
        // An echo has one identifier, kept as the port of the side that asks.
        p if p == F::ICMP => Layout { checksum: 2, source_port: 4, destination_port: 4, pseudo: F::V6 },
        _ => none,
    }
}

#[inline(always)]
fn address<F: Family>(
    skb: Skb,
    packet: &Packet<F>,
    layout: Layout,
    at: u32,
    (old, new): (&F::Address, &F::Address),
) -> Result<(), DropReason> {
    let checksum = packet.l4 + layout.checksum;
    let covered = layout.checksum != 0 && layout.pseudo;
    if F::V6 {
        // Nothing in the IPv6 header makes up for the change: the transport's checksum does, as far as the packet's sum
        // goes that a NIC has given. The helper takes the address for IPv4's and changes that sum, storing changes it back.
        if covered {
            let difference = skb::difference(Some(old), new, 0);
            skb.fix_by_difference(checksum, difference, packet.protocol == UDP)?;
        }
        return skb.store_summed(packet.l3 + at, new);
    }
    let (old, new) = (V4::of(&F::mapped(old)), V4::of(&F::mapped(new)));
    if covered {
        skb.fix_pseudo_checksum(checksum, old, new, packet.protocol == UDP)?;
    }
    skb.fix_ip_checksum(packet.l3 + CHECKSUM, old, new)?;
    skb.store(packet.l3 + at, &new)
}

#[inline(always)]
fn port<F: Family>(
    skb: Skb,
    packet: &Packet<F>,
    layout: Layout,
    at: u32,
    (old, new): ([u8; 2], [u8; 2]),
) -> Result<(), DropReason> {
    if layout.checksum == 0 {
        // SCTP's checksum covers its ports and is not to be corrected by differences.
        let reason = if packet.protocol == SCTP { DropReason::NoFreePort } else { DropReason::Unsupported };
        return Err(reason);
    }
    skb.fix_checksum(packet.l4 + layout.checksum, old, new, packet.protocol == UDP)?;
    skb.store(packet.l4 + at, &new)
}
