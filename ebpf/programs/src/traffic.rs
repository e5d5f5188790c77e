//! Counts what each endpoint of this node and each service sends and gets, per CPU. Index 0 takes what belongs to nobody, so
//! that nothing need be asked first.

use aya_ebpf::maps::PerCpuArray;
use mesh_abi::TrafficValue;

use crate::{
    maps::{ENDPOINT_TRAFFIC, SERVICE_TRAFFIC},
    parse::Frame,
    skb::Skb,
};

/// A packet that a task sent, as it came.
#[inline(always)]
pub fn from_task(skb: Skb, id: u32) {
    if let Some(traffic) = of(&ENDPOINT_TRAFFIC, id) {
        traffic.packets_out += packets(skb);
        traffic.bytes_out += u64::from(skb.len());
    }
}

/// A packet that goes into a task, as it comes there.
#[inline(always)]
pub fn to_task(skb: Skb, id: u32) {
    if let Some(traffic) = of(&ENDPOINT_TRAFFIC, id) {
        traffic.packets_in += packets(skb);
        traffic.bytes_in += u64::from(skb.len());
    }
}

/// A flow towards a task has begun.
#[inline(always)]
pub fn flow_to_task(id: u32) {
    if let Some(traffic) = of(&ENDPOINT_TRAFFIC, id) {
        traffic.new_flows += 1;
    }
}

/// A packet from a task ends here.
#[inline(always)]
pub fn dropped_from_task(id: u32) {
    if let Some(traffic) = of(&ENDPOINT_TRAFFIC, id) {
        traffic.drops_out += 1;
    }
}

/// A packet towards a task ends here.
#[inline(always)]
pub fn dropped_on_its_way_to_task(id: u32) {
    if let Some(traffic) = of(&ENDPOINT_TRAFFIC, id) {
        traffic.drops_in += 1;
    }
}

/// A packet of a service's client, without outer headers.
#[inline(always)]
pub fn from_client(skb: Skb, service: u32) {
    if let Some(traffic) = of(&SERVICE_TRAFFIC, service) {
        traffic.packets_in += packets(skb);
        traffic.bytes_in += u64::from(skb.len());
    }
}

/// The same of a frame that is one packet.
#[inline(always)]
pub fn frame_from_client(service: u32, len: u32) {
    if let Some(traffic) = of(&SERVICE_TRAFFIC, service) {
        traffic.packets_in += 1;
        traffic.bytes_in += u64::from(len);
    }
}

/// A packet to a service's client, without outer headers.
#[inline(always)]
pub fn to_client(skb: Skb, service: u32) {
    if let Some(traffic) = of(&SERVICE_TRAFFIC, service) {
        traffic.packets_out += packets(skb);
        traffic.bytes_out += u64::from(skb.len());
    }
}

/// The same of a frame that is one packet.
#[inline(always)]
pub fn frame_to_client(service: u32, len: u32) {
    if let Some(traffic) = of(&SERVICE_TRAFFIC, service) {
        traffic.packets_out += 1;
        traffic.bytes_out += u64::from(len);
    }
}

/// A flow of a service's client has begun.
#[inline(always)]
pub fn flow_to_service(service: u32) {
    if let Some(traffic) = of(&SERVICE_TRAFFIC, service) {
        traffic.new_flows += 1;
    }
}

/// There is no task for a packet of a service's client.
#[inline(always)]
pub fn without_task(service: u32) {
    if let Some(traffic) = of(&SERVICE_TRAFFIC, service) {
        traffic.drops_in += 1;
    }
}

#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "each CPU has a value of its own, and one program at a time")]
fn of(map: &'static PerCpuArray<TrafficValue>, index: u32) -> Option<&'static mut TrafficValue> {
    if cfg!(feature = "uncounted") {
        return None;
    }
    let traffic = map.get_ptr_mut(index)?;
    // SAFETY: this CPU's own slot, held for no longer than one addition after the other.
    Some(unsafe { &mut *traffic })
}

/// How many packets it will be on a wire, or nearly: headers may make it one more. The kernel forgets the number when outer
/// headers are taken off.
#[inline(always)]
fn packets(skb: Skb) -> u64 {
    let segment = u64::from(skb.gso_size());
    u64::from(skb.len()).checked_div(segment).map_or(1, |segments| segments.max(1))
}
