//! Outer headers: written here (fast path), or left to the VXLAN device (general path).

use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
    },
    helpers::generated::bpf_skb_set_tunnel_key,
};
use mesh_abi::{Address, Counter, DropReason, NodeConfig, VXLAN_OVERHEAD_V4, node_flags, v4_of};

use crate::{
    hash,
    header::{Ethernet, Macs, Outer, VNI_VALID, Vxlan},
    key::zero,
    parse::{ETHERTYPE_IPV4, Packet, UDP},
    skb::{ETHERNET, Skb},
    verdict::{Outcome, Verdict, count},
};

const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
const IPV4_HEADER: u32 = 20;
/// First of the dynamic ports (RFC 6335), which RFC 7348 wants for the outer source port.
const FIRST_SOURCE_PORT: u32 = 49152;

const ROOM_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | ((ETHERNET as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT);

/// What the outer headers say.
pub struct Envelope {
    /// The receiving node.
    pub vtep: Address,
    /// Network or purpose.
    pub vni: [u8; 4],
    /// Inner Ethernet destination and source.
    pub macs: Macs,
}

/// Sends the packet to another node.
#[inline(always)]
pub fn send(skb: Skb, node: &NodeConfig, packet: &Packet, envelope: &Envelope) -> Outcome {
    fits(skb, node, packet)?;
    if node.flags & node_flags::FAST_PATH != 0 {
        wrap(skb, node, packet, envelope)?;
        count(Counter::FastSent);
        Ok(Verdict::Out(node.uplink_ifindex))
    } else {
        tag(skb, node, envelope)?;
        count(Counter::GeneralSent);
        Ok(Verdict::Tunnel(node.vxlan_ifindex))
    }
}

/// The underlay must carry each packet whole: outer packets are never fragmented (RFC 7348, section 4.3).
#[inline(always)]
fn fits(skb: Skb, node: &NodeConfig, packet: &Packet) -> Result<(), DropReason> {
    let segment = skb.gso_size();
    let largest = if segment == 0 { packet.total_len } else { packet.header_len + segment };
    if largest > node.inner_mtu { Err(DropReason::TooBig) } else { Ok(()) }
}

#[inline(always)]
fn wrap(skb: Skb, node: &NodeConfig, packet: &Packet, envelope: &Envelope) -> Result<(), DropReason> {
    let total = skb.len() - ETHERNET + VXLAN_OVERHEAD_V4;
    if total > 0xffff {
        return Err(DropReason::TooBig);
    }
    skb.adjust_room(VXLAN_OVERHEAD_V4 as i32, ROOM_FLAGS)?;
    skb.store(ETHERNET, &outer(node, packet, envelope, total))
}

/// Outer IPv4 (RFC 791), UDP (RFC 768), VXLAN (RFC 7348) and the inner Ethernet header.
#[inline(always)]
pub fn outer(node: &NodeConfig, packet: &Packet, envelope: &Envelope, total: u32) -> Outer {
    let (source, destination) = (v4_of(&node.vtep), v4_of(&envelope.vtep));
    let [len_hi, len_lo] = (total as u16).to_be_bytes();
    let [udp_hi, udp_lo] = ((total - IPV4_HEADER) as u16).to_be_bytes();
    let [sum_hi, sum_lo] = ip_checksum(total, source, destination);
    let t = &packet.tuple;
    let entropy =
        hash::entropy(t.source, t.destination, (t.source_port, t.destination_port), packet.protocol);
    let [sp_hi, sp_lo] = ((FIRST_SOURCE_PORT + (entropy & 0x3fff)) as u16).to_be_bytes();
    let [dp_hi, dp_lo] = node.vxlan_port;
    let [_, a, b, c] = envelope.vni;
    Outer {
        ip: [0x45, 0, len_hi, len_lo, 0, 0, DONT_FRAGMENT, 0, TTL, UDP, sum_hi, sum_lo],
        source,
        destination,
        udp: [sp_hi, sp_lo, dp_hi, dp_lo, udp_hi, udp_lo, 0, 0],
        vxlan: Vxlan { flags: VNI_VALID, reserved: [0; 3], vni: [a, b, c], reserved2: 0 },
        ethernet: Ethernet { to: envelope.macs.to, from: envelope.macs.from, kind: ETHERTYPE_IPV4 },
    }
}

/// Checksum of the outer IPv4 header (RFC 1071), whose other words never change.
#[inline(always)]
fn ip_checksum(total: u32, from: [u8; 4], to: [u8; 4]) -> [u8; 2] {
    let word = |a: u8, b: u8| u32::from(u16::from_be_bytes([a, b]));
    let mut sum = 0x4500 + total + 0x4000 + word(TTL, UDP);
    sum += word(from[0], from[1]) + word(from[2], from[3]) + word(to[0], to[1]) + word(to[2], to[3]);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

/// Tells the VXLAN device what to write; the packet's own Ethernet header becomes the inner one.
#[inline(always)]
fn tag(skb: Skb, node: &NodeConfig, envelope: &Envelope) -> Result<(), DropReason> {
    let mut words = [zero(); size_of::<bpf_tunnel_key>() / 4];
    // SAFETY: as large, and made of integers and unions of integers, for all of which zero is a value.
    let key = unsafe { &mut *words.as_mut_ptr().cast::<bpf_tunnel_key>() };
    key.tunnel_id = u32::from_be_bytes(envelope.vni);
    key.tunnel_ttl = TTL;
    key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(v4_of(&envelope.vtep));
    key.__bindgen_anon_3.local_ipv4 = u32::from_be_bytes(v4_of(&node.vtep));
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the helper reads `size` bytes of the key.
    let failed = unsafe { bpf_skb_set_tunnel_key(skb.raw(), key, size, u64::from(BPF_F_ZERO_CSUM_TX)) };
    if failed != 0 {
        return Err(DropReason::HelperFailed);
    }
    skb.store(0, &envelope.macs)
}
