//! Next hops of packets that the kernel's stack does not see, remembered for a moment.
//!
//! The kernel is asked at most once in [`TRUST_NS`] for each destination and CPU, so a route or an Ethernet address that
//! changes is followed without the daemon. A neighbour that the kernel does not know is left to the tc program, for which
//! the kernel finds it.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup},
    helpers::generated::bpf_fib_lookup as fib_lookup,
};
use mesh_abi::{Address, NodeConfig};

use crate::{
    encap, key,
    maps::{BACKENDS, NEXT_HOPS, ROADS},
    verifier::alone,
    xdp_frame::Xdp,
};

/// How long an answer is believed. A backend that is gone, too, is noticed so much later: short.
const TRUST_NS: u64 = 50_000_000;
/// Length of `NEXT_HOPS` and `ROADS`.
pub const SLOTS: u32 = 1024;

/// Spreads destinations over slots: 2^32 by the golden ratio.
const GOLDEN: u32 = 0x9e37_79b1;
/// Third word of a mapped IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Where a packet leaves, and the Ethernet addresses that it needs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hop {
    /// Destination and source address, in the order of an Ethernet header.
    pub macs: (u64, u32),
    pub ifindex: u32,
}

impl Hop {
    /// Writes the Ethernet addresses; whether there was room.
    #[inline(always)]
    pub fn store(&self, frame: Xdp) -> bool {
        frame.store(0, &self.macs.0) && frame.store(8, &self.macs.1)
    }

    /// The Ethernet addresses as they are in a header.
    #[inline(always)]
    pub fn bytes(&self) -> [u32; 3] {
        let first = self.macs.0.to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = first;
        [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), self.macs.1]
    }
}

/// Element of `NEXT_HOPS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ToClient {
    /// When the kernel was asked.
    asked: u64,
    /// Without an interface when it had no answer.
    pub hop: Hop,
    destination: [u32; 4],
    /// The interface that was asked for.
    by: u32,
    reserved: u32,
}

/// Element of `ROADS`: what is needed of a backend on another node, and the next hop to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ToBackend {
    /// When the kernel was asked; 0 when it had no answer.
    asked: u64,
    pub hop: Hop,
    vtep: [u32; 4],
    /// Key into `BACKENDS`.
    id: u32,
    /// See [`mesh_abi::BackendValue`].
    pub endpoint: u32,
    pub generation: u32,
    reserved: u32,
}

impl ToBackend {
    /// The backend's node.
    #[inline(always)]
    pub fn vtep(&self) -> Address {
        key::bytes(self.vtep)
    }
}

impl ToClient {
    /// The place for the next hop towards an address, out of an interface, and whether what it says is of that and may be
    /// believed.
    #[inline(always)]
    pub fn at(to: &Address, by: u32, now: u64) -> Option<(&'static mut Self, bool)> {
        let [a, b, c, d] = key::words(to);
        let slot = NEXT_HOPS.get_ptr_mut(((a ^ b ^ c ^ d).wrapping_mul(GOLDEN) >> 16) % SLOTS)?;
        // SAFETY: this CPU's own slot.
        let slot = unsafe { &mut *slot };
        let [e, f, g, h] = slot.destination;
        let differs = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (slot.by ^ by);
        let known = differs == 0 && now.wrapping_sub(slot.asked) <= TRUST_NS;
        Some((slot, known))
    }

    /// Notes of which way something is to be said.
    #[inline(always)]
    pub fn begin(&mut self, to: &Address, by: u32) {
        self.asked = 0;
        self.destination = key::words(to);
        self.by = by;
    }

    /// Notes what the kernel has said just now: `failed` is other than 0 when that is nothing.
    #[inline(always)]
    pub fn end(&mut self, failed: i64, now: u64) {
        if failed != 0 {
            self.hop.ifindex = 0;
        }
        self.asked = now;
    }

    /// What the kernel has said, if it was anything.
    #[inline(always)]
    pub fn hop(&mut self) -> Option<&mut Hop> {
        if self.hop.ifindex == 0 { None } else { Some(&mut self.hop) }
    }
}

/// The next hop towards an address, out of an interface.
#[inline(always)]
pub fn to_client(frame: Xdp, (from, to): (&Address, &Address), by: u32, now: u64) -> Option<&'static Hop> {
    let (slot, known) = ToClient::at(to, by, now)?;
    if !known {
        slot.begin(to, by);
        let failed = asked(frame, from, to, by, &mut slot.hop);
        slot.end(failed, now);
    }
    slot.hop().map(|hop| &*hop)
}

/// The way to a backend; nothing when it is gone, on this node, or not to be reached.
#[inline(always)]
pub fn to_backend(frame: Xdp, node: &NodeConfig, id: u32, now: u64) -> Option<&'static ToBackend> {
    let slot = ROADS.get_ptr_mut(id % SLOTS)?;
    // SAFETY: this CPU's own slot.
    let slot = unsafe { &mut *slot };
    if slot.id != id || now.wrapping_sub(slot.asked) > TRUST_NS {
        slot.asked = 0;
        if find(frame, node, id, slot) != 0 {
            return None;
        }
        slot.asked = now;
    }
    Some(slot)
}

alone! {
    /// Other than 0 when there is no way.
    fn find[road_found](frame: Xdp, node: &NodeConfig, id: u32, slot: &mut ToBackend) -> i64, or -1; {
        // SAFETY: values of a map without preallocation stay as they were until the program ends.
        let Some(backend) = (unsafe { BACKENDS.get(id) }) else { return -1 };
        if backend.ifindex != 0 {
            return -1;
        }
        slot.id = id;
        key::copy(&mut slot.vtep, &key::words(&backend.vtep));
        slot.endpoint = backend.endpoint;
        slot.generation = backend.generation.into();
        let uplink = encap::uplink_towards(node, &backend.vtep);
        ask(frame.raw().cast(), &node.vtep, &backend.vtep, uplink, &mut slot.hop)
    }
}

#[inline(never)]
fn asked(frame: Xdp, from: &Address, to: &Address, by: u32, hop: &mut Hop) -> i64 {
    ask(frame.raw().cast(), from, to, by, hop)
}

/// Asks the kernel; other than 0 when it has no answer. Part of each function that does: its caller leaves little of the stack.
#[inline(always)]
pub fn ask(context: *mut c_void, from: &Address, to: &Address, by: u32, hop: &mut Hop) -> i64 {
    let (from, to) = (key::words(from), key::words(to));
    let mut words = [key::zero(); size_of::<bpf_fib_lookup>() / 4];
    // SAFETY: as large, and made of integers and unions of integers, for all of which zero is a value.
    let question = unsafe { &mut *words.as_mut_ptr().cast::<bpf_fib_lookup>() };
    question.ifindex = by;
    if to[0] | to[1] == 0 && to[2] == MAPPED {
        question.family = AF_INET;
        question.__bindgen_anon_3.ipv4_src = from[3];
        question.__bindgen_anon_4.ipv4_dst = to[3];
    } else {
        question.family = AF_INET6;
        question.__bindgen_anon_3.ipv6_src = from;
        question.__bindgen_anon_4.ipv6_dst = to;
    }
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: the helper reads and writes `size` bytes of the question.
    let failed = unsafe { fib_lookup(context, question, size, BPF_FIB_LOOKUP_OUTPUT) };
    if failed == 0 {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (question.dmac, question.smac);
        let macs = (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u32::from_ne_bytes([i, j, k, l]));
        *hop = Hop { macs, ifindex: question.ifindex };
    }
    failed
}
