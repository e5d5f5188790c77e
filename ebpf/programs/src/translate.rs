//! Addresses and ports rewritten in place, checksums with them.

use mesh_abi::DropReason;

use crate::{
    parse::{ICMP, Packet, TCP, Tuple, UDP},
    skb::Skb,
};

/// Offsets in the IPv4 header (RFC 791).
const CHECKSUM: u32 = 10;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

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
pub fn translate(skb: Skb, packet: &mut Packet, new: &Tuple) -> Result<(), DropReason> {
    let layout = layout(packet);
    let old = packet.tuple;
    if old.source != new.source {
        address(skb, packet, layout, SOURCE, (old.source, new.source))?;
    }
    if old.destination != new.destination {
        address(skb, packet, layout, DESTINATION, (old.destination, new.destination))?;
    }
    if layout.checksum != 0 {
        if old.source_port != new.source_port {
            port(skb, packet, layout, layout.source_port, (old.source_port, new.source_port))?;
        }
        if old.destination_port != new.destination_port {
            let change = (old.destination_port, new.destination_port);
            port(skb, packet, layout, layout.destination_port, change)?;
        }
    }
    packet.tuple = *new;
    Ok(())
}

#[inline(always)]
fn layout(packet: &Packet) -> Layout {
    let none = Layout { checksum: 0, source_port: 0, destination_port: 2, pseudo: true };
    if packet.later_fragment {
        return none;
    }
    match packet.protocol {
        TCP => Layout { checksum: 16, ..none },
        UDP => Layout { checksum: 6, ..none },
        // An echo has one identifier, kept as the port of the side that asks.
        ICMP => Layout { checksum: 2, source_port: 4, destination_port: 4, pseudo: false },
        _ => none,
    }
}

#[inline(always)]
fn address(
    skb: Skb,
    packet: &Packet,
    layout: Layout,
    at: u32,
    (old, new): ([u8; 4], [u8; 4]),
) -> Result<(), DropReason> {
    if layout.checksum != 0 && layout.pseudo {
        skb.fix_pseudo_checksum(packet.l4 + layout.checksum, old, new, packet.protocol == UDP)?;
    }
    skb.fix_ip_checksum(packet.l3 + CHECKSUM, old, new)?;
    skb.store(packet.l3 + at, &new)
}

#[inline(always)]
fn port(
    skb: Skb,
    packet: &Packet,
    layout: Layout,
    at: u32,
    (old, new): ([u8; 2], [u8; 2]),
) -> Result<(), DropReason> {
    skb.fix_checksum(packet.l4 + layout.checksum, old, new, packet.protocol == UDP)?;
    skb.store(packet.l4 + at, &new)
}
