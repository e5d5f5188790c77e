//! Sockets of the node itself that connect to published ports, by `localhost` or an address of the node: they are given
//! [`HOST_SERVICE_ADDRESS`], which is routed over the host link, and are told the address that they asked for.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use mesh_abi::{Address, HOST_SERVICE_ADDRESS, HostAddressKey, SocketKey, SocketValue, v4_of};

use crate::{
    deliver,
    family::V4,
    key,
    maps::{HOST_ADDRESSES, SOCKETS, node},
};

/// Third word of a mapped IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// The kernel's answer: go on. These programs never refuse a call.
pub const ALLOW: i32 = 1;

/// Gives a socket that asks for an IPv4 address of the node the host link's.
#[inline(always)]
pub fn redirect4(context: &SockAddrContext) -> Option<()> {
    let call = context.sock_addr;
    // SAFETY: the context is valid for as long as the program runs, here and below.
    let asked = key::mapped(unsafe { (*call).user_ip4 }.to_ne_bytes());
    remember(context, &asked)?;
    // SAFETY: see above.
    unsafe { (*call).user_ip4 = u32::from_ne_bytes(HOST_SERVICE_ADDRESS) };
    Some(())
}

/// The same for IPv6 sockets: `::1`, and addresses mapped from IPv4.
#[inline(always)]
pub fn redirect6(context: &SockAddrContext) -> Option<()> {
    let asked = key::bytes(asked6(context.sock_addr));
    remember(context, &asked)?;
    set6(context.sock_addr, [0, 0, MAPPED, u32::from_ne_bytes(HOST_SERVICE_ADDRESS)]);
    Some(())
}

/// Tells an IPv4 socket the address that it asked for.
#[inline(always)]
pub fn restore4(context: &SockAddrContext) -> Option<()> {
    let call = context.sock_addr;
    // SAFETY: see `redirect4`.
    if unsafe { (*call).user_ip4 }.to_ne_bytes() != HOST_SERVICE_ADDRESS {
        return None;
    }
    let asked = v4_of(&recall(context)?.address);
    // SAFETY: see `redirect4`.
    unsafe { (*call).user_ip4 = u32::from_ne_bytes(asked) };
    Some(())
}

/// The same for IPv6 sockets.
#[inline(always)]
pub fn restore6(context: &SockAddrContext) -> Option<()> {
    if asked6(context.sock_addr) != [0, 0, MAPPED, u32::from_ne_bytes(HOST_SERVICE_ADDRESS)] {
        return None;
    }
    set6(context.sock_addr, key::words(&recall(context)?.address));
    Some(())
}

/// Notes what the socket asked for, if it is a published port of this node.
#[inline(always)]
fn remember(context: &SockAddrContext, asked: &Address) -> Option<()> {
    let node = node()?;
    // SAFETY: see `redirect4`.
    let protocol = unsafe { (*context.sock_addr).protocol } as u8;
    let port = port(context.sock_addr);
    deliver::published::<V4>(port, protocol)?;
    if !is_own(asked) {
        return None;
    }
    // SAFETY: plain helper call. Sockets of tasks and of other nodes' namespaces are in the same cgroups.
    if unsafe { bpf_get_netns_cookie(context.as_ptr()) } != node.netns_cookie {
        return None;
    }
    SOCKETS.insert(socket(context), SocketValue { address: *asked }, u64::from(BPF_ANY)).ok()
}

#[inline(always)]
fn recall(context: &SockAddrContext) -> Option<&'static SocketValue> {
    // SAFETY: an entry that is evicted meanwhile gives a wrong name for the peer, and nothing worse.
    unsafe { SOCKETS.get(socket(context)) }
}

#[inline(always)]
fn is_own(address: &Address) -> bool {
    let [a, b, c, d] = key::words(address);
    let loopback4 = a == 0 && b == 0 && c == MAPPED && d.to_ne_bytes()[0] == 127;
    let loopback6 = a == 0 && b == 0 && c == 0 && d == u32::from_ne_bytes([0, 0, 0, 1]);
    // SAFETY: values of maps without preallocation stay as they were until the program ends.
    loopback4 || loopback6 || unsafe { HOST_ADDRESSES.get(HostAddressKey { address: *address }) }.is_some()
}

#[inline(always)]
fn socket(context: &SockAddrContext) -> SocketKey {
    // SAFETY: plain helper call.
    let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    SocketKey { cookie, port: port(context.sock_addr), reserved: [0; 6] }
}

#[inline(always)]
fn port(call: *mut bpf_sock_addr) -> [u8; 2] {
    // SAFETY: see `redirect4`. The kernel keeps the port in network order in the low half.
    (unsafe { (*call).user_port } as u16).to_ne_bytes()
}

#[inline(always)]
fn asked6(call: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: see `redirect4`. Word by word and volatile: the verifier takes no wider access to the context.
    unsafe {
        let words = (&raw const (*call).user_ip6).cast::<u32>();
        [
            read_volatile(words),
            read_volatile(words.add(1)),
            read_volatile(words.add(2)),
            read_volatile(words.add(3)),
        ]
    }
}

#[inline(always)]
fn set6(call: *mut bpf_sock_addr, [a, b, c, d]: [u32; 4]) {
    // SAFETY: see `asked6`.
    unsafe {
        let words = (&raw mut (*call).user_ip6).cast::<u32>();
        write_volatile(words, a);
        write_volatile(words.add(1), b);
        write_volatile(words.add(2), c);
        write_volatile(words.add(3), d);
    }
}
