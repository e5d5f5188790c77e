//! Sockets of the node itself that connect to published ports, by `localhost` or an address of the node: they are given
//! [`HOST_SERVICE_ADDRESS`], which is routed over the host link, and are told the address that they asked for.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use mesh_abi::{
    Address, HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6, HostAddressKey, NodeConfig, ServiceValue,
    SocketKey, SocketValue, node_flags, v4_of,
};

use crate::{
    deliver,
    family::{Family, V4, V6},
    key,
    maps::{HOST_ADDRESSES, SERVICES, SOCKETS, node},
    skb::Skb,
};

/// Third word of a mapped IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// The kernel's answer: go on. These programs never refuse a call.
pub const ALLOW: i32 = 1;

/// What a socket does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Connects.
    Connect,
    /// Sends without being connected.
    Send,
}

/// Gives a socket that asks for an IPv4 address of the node the host link's.
#[inline(always)]
pub fn redirect4(context: &SockAddrContext) -> Option<()> {
    let call = context.sock_addr;
    // SAFETY: the context is valid for as long as the program runs, here and below.
    let asked = key::mapped(unsafe { (*call).user_ip4 }.to_ne_bytes());
    let node = asking(context, &asked)?;
    if is_bound_to_loopback4(call) {
        return None;
    }
    published::<V4>(node, call, &asked)?;
    remember(context, &asked)?;
    // SAFETY: see above.
    unsafe { (*call).user_ip4 = u32::from_ne_bytes(HOST_SERVICE_ADDRESS) };
    Some(())
}

/// The same for IPv6 sockets: `::1`, the node's IPv6 addresses, and addresses mapped from IPv4.
///
/// A port that is published for IPv4 alone is reached by `::1` as well, as services are that listen on both; but a socket
/// that is not connected cannot be led to IPv4, nor can one that was made for IPv6 only.
#[inline(always)]
pub fn redirect6(context: &SockAddrContext, what: Call) -> Option<()> {
    let call = context.sock_addr;
    let words = asked6(call);
    let asked = key::bytes(words);
    let node = asking(context, &asked)?;
    if is_bound_to_loopback6(call) {
        return None;
    }
    let for_v4 = words[0] | words[1] == 0 && words[2] == MAPPED;
    let to = if !for_v4 && published::<V6>(node, call, &asked).is_some_and(|service| service.table_len != 0) {
        key::constant(&HOST_SERVICE_ADDRESS6)
    } else if for_v4 || what == Call::Connect {
        published::<V4>(node, call, &asked)?;
        HOST_SERVICE_MAPPED
    } else {
        return None;
    };
    remember(context, &asked)?;
    set6(call, to);
    Some(())
}

/// [`HOST_SERVICE_ADDRESS`] as IPv6 sockets see it.
const HOST_SERVICE_MAPPED: [u32; 4] = [0, 0, MAPPED, u32::from_ne_bytes(HOST_SERVICE_ADDRESS)];

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
    let seen = asked6(context.sock_addr);
    if seen != HOST_SERVICE_MAPPED && seen != key::constant(&HOST_SERVICE_ADDRESS6) {
        return None;
    }
    set6(context.sock_addr, key::words(&recall(context)?.address));
    Some(())
}

/// The node, if a socket of its own asks for an address of its own.
#[inline(always)]
fn asking(context: &SockAddrContext, asked: &Address) -> Option<&'static NodeConfig> {
    let node = node()?;
    if !is_own(asked) {
        return None;
    }
    // SAFETY: plain helper call. Sockets of tasks and of other nodes' namespaces are in the same cgroups.
    if unsafe { bpf_get_netns_cookie(context.as_ptr()) } == node.netns_cookie { Some(node) } else { None }
}

/// The service that publishes the port that a socket asks for.
#[inline(always)]
fn published<F: Family>(
    node: &NodeConfig,
    call: *mut bpf_sock_addr,
    asked: &Address,
) -> Option<&'static ServiceValue> {
    // SAFETY: see `redirect4`.
    let protocol = unsafe { (*call).protocol } as u8;
    deliver::published::<F>(port(call), protocol)
        .or_else(|| at_one_address(node, asked, port(call), protocol))
}

/// The service that publishes a port at one address only.
#[inline(always)]
fn at_one_address(
    node: &NodeConfig,
    address: &Address,
    port: [u8; 2],
    protocol: u8,
) -> Option<&'static ServiceValue> {
    if node.flags & node_flags::ADDRESSED_PORTS == 0 {
        return None;
    }
    let address = key::bytes(key::words(address));
    // SAFETY: values of maps without preallocation stay as they were until the program ends.
    unsafe { SERVICES.get(key::published(address, port, protocol)) }
}

/// The service at one address that the socket asked for that sent a packet into the host link, where the packet itself
/// names none.
#[inline(never)]
pub fn service_of_socket(
    skb: Skb,
    node: &NodeConfig,
    port: u32,
    protocol: u32,
) -> Option<&'static ServiceValue> {
    if node.flags & node_flags::ADDRESSED_PORTS == 0 {
        return None;
    }
    let port = (port as u16).to_ne_bytes();
    // SAFETY: plain helper call.
    let cookie = unsafe { bpf_get_socket_cookie(skb.raw().cast()) };
    // SAFETY: an entry that is evicted meanwhile names another service to one packet, which has no such flow.
    let asked = unsafe { SOCKETS.get(SocketKey { cookie, port, reserved: [0; 6] }) }?;
    at_one_address(node, &asked.address, port, protocol as u8)
}

/// Whether a socket has asked for a loopback address as its own: packets from there cannot leave by the host link, so that
/// such a socket is let alone.
#[inline(always)]
fn is_bound_to_loopback4(call: *mut bpf_sock_addr) -> bool {
    // SAFETY: see `redirect4`; the kernel's pointer is to a socket that is there.
    let source = unsafe {
        let socket = (*call).__bindgen_anon_1.sk;
        if socket.is_null() { 0 } else { read_volatile(&raw const (*socket).src_ip4) }
    };
    source.to_ne_bytes()[0] == 127
}

#[inline(always)]
fn is_bound_to_loopback6(call: *mut bpf_sock_addr) -> bool {
    // SAFETY: see `is_bound_to_loopback4`; word by word, as the verifier wants it.
    unsafe {
        let socket = (*call).__bindgen_anon_1.sk;
        if socket.is_null() {
            return false;
        }
        let words = (&raw const (*socket).src_ip6).cast::<u32>();
        let (a, b) = (read_volatile(words), read_volatile(words.add(1)));
        let (c, d) = (read_volatile(words.add(2)), read_volatile(words.add(3)));
        a | b == 0 && (c == 0 && d == LOOPBACK_END || c == MAPPED && d.to_ne_bytes()[0] == 127)
    }
}

/// Last word of `::1`.
const LOOPBACK_END: u32 = u32::from_ne_bytes([0, 0, 0, 1]);

/// Notes what the socket asked for.
#[inline(always)]
fn remember(context: &SockAddrContext, asked: &Address) -> Option<()> {
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
    let loopback6 = a == 0 && b == 0 && c == 0 && d == LOOPBACK_END;
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
