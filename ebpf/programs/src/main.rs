//! The data path's programs, one entry point each.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};

/// tc ingress of each task's host-side veth: what tasks send.
#[classifier]
fn from_task(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// tc egress of each task's host-side veth: what the node's stack sends to tasks.
#[classifier]
fn to_task(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// tc ingress of the uplink: VXLAN packets of the fast path and clients of published ports.
#[classifier]
fn uplink(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// tc ingress of the VXLAN device: VXLAN packets of the general path.
#[classifier]
fn vxlan(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// tc egress of the host link: the node's own sockets talking to published ports.
#[classifier]
fn from_host(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// A host socket connects, IPv4.
#[cgroup_sock_addr(connect4)]
fn connect4(_ctx: SockAddrContext) -> i32 {
    1
}

/// A host socket connects, IPv6: `::1` and IPv4-mapped addresses.
#[cgroup_sock_addr(connect6)]
fn connect6(_ctx: SockAddrContext) -> i32 {
    1
}

/// An unconnected host socket sends, IPv4 (and IPv4-mapped, which the kernel hands on).
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(_ctx: SockAddrContext) -> i32 {
    1
}

/// A host socket asks where a datagram came from, IPv4.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(_ctx: SockAddrContext) -> i32 {
    1
}

/// A host socket asks where a datagram came from, IPv6.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(_ctx: SockAddrContext) -> i32 {
    1
}

/// A host socket asks for its peer's address, IPv4.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(_ctx: SockAddrContext) -> i32 {
    1
}

/// A host socket asks for its peer's address, IPv6.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(_ctx: SockAddrContext) -> i32 {
    1
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never linked in: the verifier would refuse the loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
