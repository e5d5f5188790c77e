//! The data path's programs, one entry point each.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod affinity;
mod arp;
mod ask;
mod atomic;
mod choose;
mod conntrack;
mod decap;
mod deliver;
mod echo;
mod encap;
mod events;
mod family;
mod fragment;
mod hash;
mod header;
mod host;
mod icmp_error;
mod ingress;
mod key;
mod maps;
mod neighbour;
mod parse;
mod passing;
mod recent;
mod reset;
mod reverse;
mod skb;
mod skb_next_hop;
mod stage;
mod task;
mod too_big;
mod traffic;
mod translate;
mod verdict;
mod verifier;
mod xdp;
mod xdp_frame;
mod xdp_next_hop;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};
use mesh_abi::{EntryPoint, Sight};

use crate::{
    skb::Skb,
    verdict::{at_egress, at_ingress},
    xdp_frame::Xdp,
};

/// tc ingress of each task's host-side veth: what tasks send.
#[classifier]
fn from_task(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    events::seen(skb, Sight::FromTask, EntryPoint::FromTask as u32, skb.ifindex());
    at_ingress(skb, EntryPoint::FromTask, task::sent(skb))
}

/// tc egress of each task's host-side veth: what the node's stack sends to tasks.
#[classifier]
fn to_task(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    at_egress(skb, EntryPoint::ToTask, task::received(skb))
}

/// tc ingress of the uplink: VXLAN packets of the fast path and clients of published ports.
#[classifier]
fn uplink(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    at_ingress(skb, EntryPoint::Uplink, ingress::from_uplink(skb))
}

/// XDP on the uplink, in front of `uplink`: what leaves the node again at once.
#[xdp]
fn uplink_xdp(ctx: XdpContext) -> u32 {
    xdp::from_uplink(Xdp::of(&ctx))
}

/// tc ingress of the VXLAN device: VXLAN packets of the general path.
#[classifier]
fn vxlan(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    at_ingress(skb, EntryPoint::Vxlan, decap::general(skb))
}

/// tc egress of the host link: the node's own sockets talking to published ports.
#[classifier]
fn from_host(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    at_egress(skb, EntryPoint::FromHost, ingress::from_host(skb))
}

/// A host socket connects, IPv4.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let _ = host::redirect4(&ctx);
    host::ALLOW
}

/// A host socket connects, IPv6: also to IPv4-mapped addresses.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let _ = host::redirect6(&ctx, host::Call::Connect);
    host::ALLOW
}

/// An unconnected host socket sends, IPv6.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let _ = host::redirect6(&ctx, host::Call::Send);
    host::ALLOW
}

/// An unconnected host socket sends, IPv4 (and IPv4-mapped, which the kernel hands on).
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let _ = host::redirect4(&ctx);
    host::ALLOW
}

/// A host socket asks where a datagram came from, IPv4.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    let _ = host::restore4(&ctx);
    host::ALLOW
}

/// A host socket asks where a datagram came from, IPv6.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    let _ = host::restore6(&ctx);
    host::ALLOW
}

/// A host socket asks for its peer's address, IPv4.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    let _ = host::restore4(&ctx);
    host::ALLOW
}

/// A host socket asks for its peer's address, IPv6.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    let _ = host::restore6(&ctx);
    host::ALLOW
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never linked in: the verifier would refuse the loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
