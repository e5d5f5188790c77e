//! The packet in the kernel's hands: checked reads and writes by offset.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_proto,
        bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use mesh_abi::DropReason;

use crate::{
    family::Family,
    header::Header,
    parse::{Frame, Packet},
    verdict::{self, FAILED},
    verifier::alone,
};

/// Length of an Ethernet header, and so the offset of the IP header.
pub const ETHERNET: u32 = 14;
/// Headers end far below: outer headers, and four extension headers of the greatest length.
const MOST_OFFSET: u32 = 0x3fff;
/// `PACKET_HOST` of linux/if_packet.h.
const PACKET_HOST: u32 = 0;

/// A packet that a tc program was called for.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

impl Skb {
    /// The packet.
    #[inline(always)]
    pub fn of(context: &TcContext) -> Self {
        Self(context.skb.skb)
    }

    /// The packet behind the kernel's own pointer.
    #[inline(always)]
    pub fn new(raw: *mut __sk_buff) -> Self {
        Self(raw)
    }

    /// The kernel's own pointer, for helpers.
    #[inline(always)]
    pub fn raw(self) -> *mut __sk_buff {
        self.0
    }

    /// The interface that the program is attached to.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs, here and below.
        unsafe { (*self.0).ifindex }
    }

    /// `SO_MARK`, or what netfilter has set.
    #[inline(always)]
    pub fn mark(self) -> u32 {
        // SAFETY: see `ifindex`.
        unsafe { (*self.0).mark }
    }

    /// Payload bytes of each segment of a packet that is still to be segmented; 0 for others.
    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        // SAFETY: see `ifindex`.
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    fn peek<T: Header>(self, offset: u32) -> Option<T> {
        // SAFETY: see `ifindex`.
        let (start, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        // The mask changes nothing; it bounds offsets that the verifier has lost sight of.
        let at = start + (offset & MOST_OFFSET) as usize;
        if at + size_of::<T>() > end {
            return None;
        }
        // SAFETY: within the packet, as the verifier proves. Its alignment is the machine's business, as with every
        // header in the kernel; BPF has no other way to read a word at once.
        Some(unsafe { *(at as *const T) })
    }

    /// Overwrites bytes with a header.
    #[inline(always)]
    pub fn store<T: Header>(self, offset: u32, header: &T) -> Result<(), DropReason> {
        let from = core::ptr::from_ref(header).cast();
        // SAFETY: the helper reads as many bytes as the header has.
        done(unsafe { bpf_skb_store_bytes(self.0, offset, from, size_of::<T>() as u32, 0) })
    }

    /// Marks the packet as meant for this machine, whatever its Ethernet address says.
    #[inline(always)]
    pub fn for_this_host(self) -> Result<(), DropReason> {
        // SAFETY: see `ifindex`.
        if unsafe { (*self.0).pkt_type } == PACKET_HOST {
            return Ok(());
        }
        // SAFETY: plain helper call.
        done(unsafe { bpf_skb_change_type(self.0, PACKET_HOST) })
    }

    /// Overwrites bytes that no checksum makes up for, and keeps the sum over the packet right that a NIC has given.
    #[inline(always)]
    pub fn store_summed<T: Header>(self, offset: u32, header: &T) -> Result<(), DropReason> {
        let from = core::ptr::from_ref(header).cast();
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: the helper reads as many bytes as the header has.
        done(unsafe { bpf_skb_store_bytes(self.0, offset, from, size_of::<T>() as u32, flags) })
    }

    /// Cuts the packet off, or lengthens it by zeros, so that it is that long.
    #[inline(always)]
    pub fn resize(self, len: u32) -> Result<(), DropReason> {
        // SAFETY: plain helper call; no pointer into the packet is kept anywhere.
        done(unsafe { bpf_skb_change_tail(self.0, len, 0) })
    }

    /// Makes the packet one of the other family, whose header is twenty bytes longer or shorter.
    #[inline(always)]
    pub fn change_protocol(self, ethertype: [u8; 2]) -> Result<(), DropReason> {
        // SAFETY: plain helper call; no pointer into the packet is kept anywhere.
        done(unsafe { bpf_skb_change_proto(self.0, u16::from_ne_bytes(ethertype), 0) })
    }

    /// Inserts (or, when negative, removes) bytes behind the Ethernet header.
    #[inline(always)]
    pub fn adjust_room(self, by: i32, flags: u64) -> Result<(), DropReason> {
        // SAFETY: plain helper call; no pointer into the packet is kept anywhere.
        done(unsafe { bpf_skb_adjust_room(self.0, by, BPF_ADJ_ROOM_MAC, flags) })
    }

    /// Corrects an IPv4 header's checksum for four bytes that change.
    #[inline(always)]
    pub fn fix_ip_checksum(self, offset: u32, from: [u8; 4], to: [u8; 4]) -> Result<(), DropReason> {
        let (from, to) = (u64::from(u32::from_ne_bytes(from)), u64::from(u32::from_ne_bytes(to)));
        // SAFETY: plain helper call.
        done(unsafe { bpf_l3_csum_replace(self.0, offset, from, to, 4) })
    }

    /// Corrects a transport checksum for a difference between sums, in which the pseudo header's part is known.
    #[inline(always)]
    pub fn fix_by_difference(
        self,
        offset: u32,
        difference: u32,
        zero_is_none: bool,
    ) -> Result<(), DropReason> {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | mangled(zero_is_none);
        // SAFETY: plain helper call.
        done(unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference), flags) })
    }

    /// Corrects a checksum for a difference between sums of what it covers within the packet.
    #[inline(always)]
    pub fn fix_within(self, offset: u32, difference: u32, zero_is_none: bool) -> Result<(), DropReason> {
        // SAFETY: plain helper call.
        done(unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference), mangled(zero_is_none)) })
    }

    /// Corrects a transport checksum for an address of the pseudo header that changes.
    #[inline(always)]
    pub fn fix_pseudo_checksum(
        self,
        offset: u32,
        from: [u8; 4],
        to: [u8; 4],
        zero_is_none: bool,
    ) -> Result<(), DropReason> {
        let (from, to) = (u64::from(u32::from_ne_bytes(from)), u64::from(u32::from_ne_bytes(to)));
        let flags = u64::from(BPF_F_PSEUDO_HDR) | mangled(zero_is_none) | 4;
        // SAFETY: plain helper call.
        done(unsafe { bpf_l4_csum_replace(self.0, offset, from, to, flags) })
    }

    /// Corrects a transport checksum for two bytes of its own that change.
    #[inline(always)]
    pub fn fix_checksum(
        self,
        offset: u32,
        from: [u8; 2],
        to: [u8; 2],
        zero_is_none: bool,
    ) -> Result<(), DropReason> {
        let (from, to) = (u64::from(u16::from_ne_bytes(from)), u64::from(u16::from_ne_bytes(to)));
        // SAFETY: plain helper call.
        done(unsafe { bpf_l4_csum_replace(self.0, offset, from, to, mangled(zero_is_none) | 2) })
    }
}

impl Frame for Skb {
    #[inline(always)]
    fn len(self) -> u32 {
        // SAFETY: see `ifindex`.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn load<T: Header>(self, offset: u32) -> Result<T, DropReason> {
        if let Some(header) = self.peek(offset) {
            return Ok(header);
        }
        // The header lies in a fragment of the buffer. No more than is needed is pulled: a large TCP packet has just its
        // headers in front, and payload pulled there would have to be copied.
        // SAFETY: plain helper call. When it fails, the packet is shorter.
        let _ = unsafe { bpf_skb_pull_data(self.0, offset + size_of::<T>() as u32) };
        self.peek(offset).ok_or(DropReason::Malformed)
    }
}

/// Reads the headers at `l3` into a packet that is new. Paths through the program, one for each kind of packet, meet here.
#[inline(always)]
pub fn parse<F: Family>(skb: Skb, l3: u32, packet: &mut Packet<F>) -> Result<(), DropReason> {
    verdict::ok(filled(skb, l3, packet))
}

alone! {
    fn filled[packet4_filled, packet6_filled]<F>(skb: Skb, l3: u32, packet: &mut Packet<F>) -> u64, or FAILED; {
        verdict::code(packet.fill(skb, l3))
    }
}

/// What is to be added to the Internet checksum's sum (RFC 1071) of `from` for that of `to`; sizes are multiples of four.
#[inline(always)]
pub fn difference<A, B>(from: Option<&A>, to: &B, seed: u32) -> u32 {
    let (from, len) = match from {
        Some(from) => (core::ptr::from_ref(from).cast_mut().cast(), size_of::<A>() as u32),
        None => (core::ptr::null_mut(), 0),
    };
    let to = core::ptr::from_ref(to).cast_mut().cast();
    // SAFETY: the helper reads as many bytes as both have.
    unsafe { bpf_csum_diff(from, len, to, size_of::<B>() as u32, seed) as u32 }
}

/// The checksum of an ICMPv6 message that is `message` as a whole (RFC 4443, section 2.3), its own field being zero.
#[inline(always)]
pub fn checksum6<T: Header>(source: &[u32; 4], destination: &[u32; 4], message: &T) -> [u8; 2] {
    checksum6_on(source, destination, message, (size_of::<T>() as u32, 0))
}

/// The same for a message of which the sum over all but its beginning is known.
#[inline(always)]
pub fn checksum6_on<T: Header>(
    source: &[u32; 4],
    destination: &[u32; 4],
    beginning: &T,
    (len, sum): (u32, u32),
) -> [u8; 2] {
    #[repr(C, align(4))]
    struct Rest([u8; 4], [u8; 4]);
    let rest = Rest(len.to_be_bytes(), [0, 0, 0, 58]);
    let sum = difference::<(), _>(None, source, sum);
    let sum = difference::<(), _>(None, destination, sum);
    let sum = difference::<(), _>(None, &rest, sum);
    folded(difference::<(), _>(None, beginning, sum))
}

/// The checksum for a sum.
#[inline(always)]
pub fn folded(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_ne_bytes()
}

/// UDP's checksum of zero means none (RFC 768) and must stay so.
#[inline(always)]
fn mangled(zero_is_none: bool) -> u64 {
    if zero_is_none { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}

#[inline(always)]
fn done(code: i64) -> Result<(), DropReason> {
    if code == 0 { Ok(()) } else { Err(DropReason::HelperFailed) }
}
