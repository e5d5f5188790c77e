//! Map keys, put together word by word.
//!
//! Runs of constant zeros become calls of `memset`, a byte loop that the verifier walks through again and again; zeros
//! whose value the compiler cannot see become plain stores.

use mesh_abi::{Address, EndpointKey, FlowKey, HostAddressKey, NetworkKey, PUBLISHED, PeerKey, ServiceKey};

use crate::{
    family::Family,
    parse::{Packet, Tuple},
};

/// Zero, unknown to the compiler.
#[inline(always)]
pub fn zero() -> u32 {
    let zero = 0;
    // SAFETY: a local variable.
    unsafe { core::ptr::read_volatile(&raw const zero) }
}

/// The mapped form of an IPv4 address, as [`mesh_abi::v4_mapped`] makes it.
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> Address {
    bytes([zero(), zero(), u32::from_ne_bytes([0, 0, 0xff, 0xff]), u32::from_ne_bytes(address)])
}

/// An address from its words.
#[inline(always)]
pub fn bytes(words: [u32; 4]) -> Address {
    // SAFETY: the same size, and every pattern of bits is an address.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}

/// The words of an address that is aligned to four: within a map's key or value, or made here.
#[inline(always)]
pub fn words(a: &Address) -> [u32; 4] {
    // SAFETY: the same size; aligned, as every address in a struct of the ABI is.
    unsafe { core::ptr::from_ref(a).cast::<[u32; 4]>().read() }
}

/// Makes `to` what `from` is, word by word; both are aligned to four, as all in a struct of the ABI is. Where the two might
/// be one, the compiler makes of an assignment a call of `memmove`, a loop over bytes. The words are as long as the type
/// allows: a processor waits for a word that was written in parts.
#[inline(always)]
pub fn copy<T: Copy>(to: &mut T, from: &T) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let (to, from) = (core::ptr::from_mut(to), core::ptr::from_ref(from));
    if align_of::<T>() == 8 {
        let (to, from) = (to.cast::<u64>(), from.cast::<u64>());
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: within both, and aligned as they are.
            unsafe { to.add(word).write(unseen(from.add(word).read())) };
        }
    } else {
        let (to, from) = (to.cast::<u32>(), from.cast::<u32>());
        for word in 0..size_of::<T>() / 4 {
            // SAFETY: as above.
            unsafe { to.add(word).write(unseen(from.add(word).read().into()) as u32) };
        }
    }
}

/// The same word, of which the compiler does not know where it comes from.
#[inline(always)]
fn unseen(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut register = word;
        // SAFETY: changes nothing. Without an instruction two of the lines that debuggers are told of would be one.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) register, options(pure, nomem, nostack)) };
        register
    }
    #[cfg(not(target_arch = "bpf"))]
    word
}

/// The words of an address that is known when this is compiled.
#[inline(always)]
pub const fn constant(a: &Address) -> [u32; 4] {
    [
        u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
    ]
}

/// An address that is known when this is compiled, with its zeros hidden.
#[inline(always)]
pub fn known(a: &Address) -> Address {
    let [a, b, c, d] = constant(a);
    bytes([a | zero(), b | zero(), c | zero(), d | zero()])
}

/// Whether two addresses in structs of the ABI are the same.
#[inline(always)]
pub fn same(a: &Address, b: &Address) -> bool {
    let (a, b) = (words(a), words(b));
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

/// Whether two keys are of one flow.
#[inline(always)]
pub fn same_flow(a: &FlowKey, b: &FlowKey) -> bool {
    // SAFETY: the same size; aligned to four, as every key is.
    let (a, b) = unsafe {
        (core::ptr::from_ref(a).cast::<[u32; 11]>().read(), core::ptr::from_ref(b).cast::<[u32; 11]>().read())
    };
    // Without a branch for each word.
    let mut differs = 0;
    for i in 0..a.len() {
        differs |= a[i] ^ b[i];
    }
    differs == 0
}

#[inline(always)]
pub fn endpoint(vni: [u8; 4], address: Address) -> EndpointKey {
    EndpointKey { vni, address }
}

#[inline(always)]
pub fn network(vni: [u8; 4]) -> NetworkKey {
    NetworkKey { vni }
}

#[inline(always)]
pub fn peer(vtep: Address) -> PeerKey {
    PeerKey { vtep }
}

#[inline(always)]
pub fn host_address(address: Address) -> HostAddressKey {
    HostAddressKey { address }
}

/// Every port of a VIP.
#[inline(always)]
pub fn vip(vni: [u8; 4], address: Address) -> ServiceKey {
    ServiceKey { vni, address, port: [0; 2], protocol: 0, reserved: 0 }
}

/// A published port, at one address or one that stands for all.
#[inline(always)]
pub fn published(address: Address, port: [u8; 2], protocol: u8) -> ServiceKey {
    ServiceKey { vni: zero().to_ne_bytes(), address, port, protocol, reserved: 0 }
}

/// The flow that a packet belongs to as it looks now.
#[inline(always)]
pub fn flow<F: Family>(packet: &Packet<F>, scope: [u8; 4]) -> FlowKey {
    forward(&packet.tuple, packet.protocol, scope)
}

/// The flow of packets with these addresses and ports.
#[inline(always)]
pub fn forward<F: Family>(t: &Tuple<F>, protocol: u8, scope: [u8; 4]) -> FlowKey {
    flow_of(
        F::mapped(&t.source),
        F::mapped(&t.destination),
        scope,
        (t.source_port, t.destination_port),
        protocol,
    )
}

/// The flow that packets with these addresses and ports answer.
#[inline(always)]
pub fn backward<F: Family>(t: &Tuple<F>, protocol: u8, scope: [u8; 4]) -> FlowKey {
    flow_of(
        F::mapped(&t.destination),
        F::mapped(&t.source),
        scope,
        (t.destination_port, t.source_port),
        protocol,
    )
}

/// A flow's key. Written by whole words, as its hash reads it: a processor waits for a word that was written in parts.
#[inline(always)]
pub fn flow_of(
    source: Address,
    destination: Address,
    scope: [u8; 4],
    (from, to): ([u8; 2], [u8; 2]),
    protocol: u8,
) -> FlowKey {
    // SAFETY: the same size, and every pattern of bits is a value.
    let ([a, b, c, d], [e, f, g, h]) = unsafe {
        (
            core::mem::transmute::<Address, [u32; 4]>(source),
            core::mem::transmute::<Address, [u32; 4]>(destination),
        )
    };
    let ports = u32::from_ne_bytes([from[0], from[1], to[0], to[1]]);
    let last = u32::from_ne_bytes([protocol, 0, 0, 0]);
    let words = [a, b, c, d, e, f, g, h, u32::from_ne_bytes(scope), ports, last];
    // SAFETY: as above.
    unsafe { core::mem::transmute::<[u32; 11], FlowKey>(words) }
}

/// The flow to a published port that a packet, translated already, answers.
#[inline(always)]
pub fn asked<F: Family>(packet: &Packet<F>) -> FlowKey {
    backward(&packet.tuple, packet.protocol, PUBLISHED)
}
