//! Outer headers: written here (fast path), or left to the VXLAN device (general path).

use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
    },
    helpers::generated::bpf_skb_set_tunnel_key,
};
use mesh_abi::{
    Address, Counter, DropReason, NodeConfig, Sight, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6, node_flags, v4_of,
};

use crate::{
    deliver::Way,
    events,
    family::{Family, V4, V6},
    hash,
    header::{Ethernet, Outer4, Outer6, VNI_VALID, Vxlan},
    key::{self, zero},
    maps::PEERS,
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Packet, UDP},
    skb::{ETHERNET, Skb},
    skb_next_hop,
    verdict::{Outcome, Verdict, count, pack, unpack},
    xdp_next_hop::Hop,
};

/// `GSO_BY_FRAGS` of linux/skbuff.h, in place of a size: a packet of several of SCTP's, each of which its sender has made as
/// large as the path carries.
const BY_FRAGMENTS: u32 = 0xffff;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
/// First of the dynamic ports (RFC 6335), which RFC 7348 wants for the outer source port.
const FIRST_SOURCE_PORT: u32 = 49152;

const ROOM_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | ((ETHERNET as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT);

/// Sends the packet to the node that `way` names.
#[inline(always)]
pub fn send<F: Family>(skb: Skb, node: &NodeConfig, packet: &Packet<F>, way: &Way) -> Outcome {
    let fits = fits(skb, node, packet);
    if !fits && packet.whole {
        return Err(DropReason::TooBig);
    }
    events::seen(skb, Sight::ToNode, events::ANY, skb.ifindex());
    // A packet that may be cut to pieces goes to the VXLAN device: the kernel cuts the outer packet, and puts it together
    // again at the other end. So do several of SCTP's in one, which no helper gives outer headers to.
    if !fits || skb.gso_size() == BY_FRAGMENTS || node.flags & node_flags::FAST_PATH == 0 {
        return unpack(tagged(skb, node, way));
    }
    let port = source_port(entropy(packet));
    unpack(if node.flags & node_flags::UNDERLAY_V6 != 0 {
        wrapped6(skb, node, way, port, F::V6.into())
    } else {
        wrapped4(skb, node, way, port, F::V6.into())
    })
}

/// The outer UDP source port.
#[inline(always)]
pub fn source_port(entropy: u32) -> u32 {
    FIRST_SOURCE_PORT + (entropy & 0x3fff)
}

/// What it follows from.
#[inline(always)]
pub fn entropy<F: Family>(packet: &Packet<F>) -> u32 {
    hash::entropy(&packet.tuple, packet.protocol)
}

/// Whether the underlay carries the packet whole: outer packets are never fragmented (RFC 7348, section 4.3).
#[inline(always)]
pub fn fits<F: Family>(skb: Skb, node: &NodeConfig, packet: &Packet<F>) -> bool {
    let segment = skb.gso_size();
    if segment == BY_FRAGMENTS {
        return true;
    }
    let largest = if segment == 0 { packet.total_len } else { packet.header_len + segment };
    largest <= node.inner_mtu
}

#[inline(never)]
fn wrapped4(skb: Skb, node: &NodeConfig, way: &Way, port: u32, v6: u32) -> u64 {
    pack(wrapped::<V4>(skb, node, way, port, v6 != 0))
}

#[inline(never)]
fn wrapped6(skb: Skb, node: &NodeConfig, way: &Way, port: u32, v6: u32) -> u64 {
    pack(wrapped::<V6>(skb, node, way, port, v6 != 0))
}

/// By the fast path, over an underlay of family `U`.
#[inline(always)]
fn wrapped<U: Family>(skb: Skb, node: &NodeConfig, way: &Way, port: u32, v6: bool) -> Outcome {
    let (overhead, family) = if U::V6 {
        (VXLAN_OVERHEAD_V6, u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
    } else {
        (VXLAN_OVERHEAD_V4, u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
    };
    let total = skb.len() - ETHERNET + overhead;
    if total > 0xffff {
        return Err(DropReason::TooBig);
    }
    skb.adjust_room(overhead as i32, ROOM_FLAGS | family)?;
    let uplink = uplink_towards(node, &way.vtep);
    if !U::V6
        && let Some(hop) = skb_next_hop::known(&way.vtep, uplink)
    {
        skb.store(0, &head4(hop, &outer4(node, way, port, v6, total)))?;
        count(Counter::FastSent);
        return Ok(Verdict::Addressed(uplink));
    }
    if U::V6 {
        skb.store(ETHERNET, &outer6(node, way, port, v6, total))?;
    } else {
        skb.store(ETHERNET, &outer4(node, way, port, v6, total))?;
    }
    if U::V6 != v6 {
        skb.store(ETHERTYPE, &U::ETHERTYPE)?;
    }
    count(Counter::FastSent);
    Ok(Verdict::Out(uplink))
}

/// Offset of the EtherType.
const ETHERTYPE: u32 = 12;

/// The interface by which another node is reached.
#[inline(always)]
pub fn uplink_towards(node: &NodeConfig, vtep: &Address) -> u32 {
    if node.flags & node_flags::MANY_UPLINKS != 0 {
        let key = key::peer(key::bytes(key::words(vtep)));
        // SAFETY: values of a map without preallocation stay as they were until the program ends.
        if let Some(peer) = unsafe { PEERS.get(key) }
            && peer.ifindex != 0
        {
            return peer.ifindex;
        }
    }
    node.uplink_ifindex
}

/// Outer IPv4 (RFC 791), UDP (RFC 768), VXLAN (RFC 7348) and the inner Ethernet header.
#[inline(always)]
pub fn outer4(node: &NodeConfig, way: &Way, port: u32, v6: bool, total: u32) -> Outer4 {
    let (source, destination) = (v4_of(&node.vtep), v4_of(&way.vtep));
    let [len_hi, len_lo] = (total as u16).to_be_bytes();
    let [sum_hi, sum_lo] = ip_checksum(total, source, destination);
    Outer4 {
        ip: [0x45, 0, len_hi, len_lo, 0, 0, DONT_FRAGMENT, 0, TTL, UDP, sum_hi, sum_lo],
        source,
        destination,
        udp: udp(node, port, total - V4::HEADER),
        vxlan: vxlan(way),
        ethernet: ethernet(way, v6),
    }
}

/// The same with outer IPv6 (RFC 8200). The UDP checksum is zero, as RFC 6935 allows for tunnels: what is inside has
/// checksums of its own (RFC 6936, section 4).
#[inline(always)]
pub fn outer6(node: &NodeConfig, way: &Way, port: u32, v6: bool, total: u32) -> Outer6 {
    let payload = total - V6::HEADER;
    let [len_hi, len_lo] = (payload as u16).to_be_bytes();
    Outer6 {
        ip: [0x60, 0, 0, 0, len_hi, len_lo, UDP, TTL],
        source: node.vtep,
        destination: way.vtep,
        udp: udp(node, port, payload),
        vxlan: vxlan(way),
        ethernet: ethernet(way, v6),
    }
}

/// The Ethernet header and the outer headers behind it, by whole words.
#[inline(always)]
pub fn head4(hop: &Hop, o: &Outer4) -> [u64; 8] {
    let (m, n) = hop.macs;
    let n = n.to_ne_bytes();
    let (ip, s, d, udp, v) = (&o.ip, o.source, o.destination, &o.udp, &o.vxlan);
    let (t, f, k) = (o.ethernet.to, o.ethernet.from, o.ethernet.kind);
    let [x, y] = ETHERTYPE_IPV4;
    [
        m,
        u64::from_ne_bytes([n[0], n[1], n[2], n[3], x, y, ip[0], ip[1]]),
        u64::from_ne_bytes([ip[2], ip[3], ip[4], ip[5], ip[6], ip[7], ip[8], ip[9]]),
        u64::from_ne_bytes([ip[10], ip[11], s[0], s[1], s[2], s[3], d[0], d[1]]),
        u64::from_ne_bytes([d[2], d[3], udp[0], udp[1], udp[2], udp[3], udp[4], udp[5]]),
        u64::from_ne_bytes([udp[6], udp[7], v.flags, 0, 0, 0, v.vni[0], v.vni[1]]),
        u64::from_ne_bytes([v.vni[2], 0, t[0], t[1], t[2], t[3], t[4], t[5]]),
        u64::from_ne_bytes([f[0], f[1], f[2], f[3], f[4], f[5], k[0], k[1]]),
    ]
}

#[inline(always)]
fn udp(node: &NodeConfig, port: u32, len: u32) -> [u8; 8] {
    let [len_hi, len_lo] = (len as u16).to_be_bytes();
    let [sp_hi, sp_lo] = (port as u16).to_be_bytes();
    let [dp_hi, dp_lo] = node.vxlan_port;
    [sp_hi, sp_lo, dp_hi, dp_lo, len_hi, len_lo, 0, 0]
}

#[inline(always)]
fn vxlan(way: &Way) -> Vxlan {
    let [_, a, b, c] = way.vni;
    Vxlan { flags: VNI_VALID, reserved: [0; 3], vni: [a, b, c], reserved2: 0 }
}

#[inline(always)]
fn ethernet(way: &Way, v6: bool) -> Ethernet {
    let kind = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    Ethernet { to: way.macs.to, from: way.macs.from, kind }
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

/// By the VXLAN device, which is told what to write; the packet's own Ethernet header becomes the inner one.
#[inline(never)]
fn tagged(skb: Skb, node: &NodeConfig, way: &Way) -> u64 {
    pack(tag(skb, node, way).map(|()| {
        count(Counter::GeneralSent);
        Verdict::Addressed(node.vxlan_ifindex)
    }))
}

#[inline(always)]
fn tag(skb: Skb, node: &NodeConfig, way: &Way) -> Result<(), DropReason> {
    let mut words = [zero(); size_of::<bpf_tunnel_key>() / 4];
    // SAFETY: as large, and made of integers and unions of integers, for all of which zero is a value.
    let key = unsafe { &mut *words.as_mut_ptr().cast::<bpf_tunnel_key>() };
    key.tunnel_id = u32::from_be_bytes(way.vni);
    key.tunnel_ttl = TTL;
    // Over IPv6 the kernel takes no packet without a checksum unless the receiving device says so.
    let flags = if node.flags & node_flags::UNDERLAY_V6 != 0 {
        key.__bindgen_anon_1.remote_ipv6 = key::words(&way.vtep);
        key.__bindgen_anon_3.local_ipv6 = key::words(&node.vtep);
        BPF_F_TUNINFO_IPV6
    } else {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(v4_of(&way.vtep));
        key.__bindgen_anon_3.local_ipv4 = u32::from_be_bytes(v4_of(&node.vtep));
        if node.flags & node_flags::OUTER_CHECKSUM != 0 { 0 } else { BPF_F_ZERO_CSUM_TX }
    };
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the helper reads `size` bytes of the key.
    if unsafe { bpf_skb_set_tunnel_key(skb.raw(), key, size, u64::from(flags)) } != 0 {
        return Err(DropReason::HelperFailed);
    }
    skb.store(0, &way.macs)
}
