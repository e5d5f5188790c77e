//! A packet in the driver's hands: checked reads and writes by offset.

use aya_ebpf::{
    bindings::{xdp_action::XDP_TX, xdp_md},
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head},
    programs::XdpContext,
};
use mesh_abi::DropReason;

use crate::{header::Header, parse::Frame};

/// A packet that an XDP program was called for.
#[derive(Clone, Copy)]
pub struct Xdp(*mut xdp_md);

impl Xdp {
    /// The packet.
    #[inline(always)]
    pub fn of(context: &XdpContext) -> Self {
        Self(context.ctx)
    }

    /// The packet behind the kernel's own pointer.
    #[inline(always)]
    pub fn new(raw: *mut xdp_md) -> Self {
        Self(raw)
    }

    /// The kernel's own pointer, for helpers.
    #[inline(always)]
    pub fn raw(self) -> *mut xdp_md {
        self.0
    }

    /// The interface that it came by.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs, here and below.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Makes room in front; whether it worked. A failure changes nothing.
    #[inline(always)]
    pub fn grow(self, by: u32) -> bool {
        self.move_start(-(by as i32))
    }

    /// Takes bytes off in front; whether it worked. A failure changes nothing.
    #[inline(always)]
    pub fn shrink(self, by: u32) -> bool {
        self.move_start(by as i32)
    }

    /// Overwrites bytes with a header; false when the packet ends before.
    #[inline(always)]
    pub fn store<T: Header>(self, offset: u32, header: &T) -> bool {
        let (start, end) = self.bounds();
        let at = start + offset as usize;
        if at + size_of::<T>() > end {
            return false;
        }
        // SAFETY: within the packet, as the verifier proves; its alignment is the machine's business.
        unsafe { *(at as *mut T) = *header };
        true
    }

    /// The action that sends the packet out of an interface.
    #[inline(always)]
    pub fn out(self, ifindex: u32) -> u32 {
        if ifindex == self.ifindex() {
            return XDP_TX;
        }
        // SAFETY: plain helper call.
        unsafe { bpf_redirect(ifindex, 0) as u32 }
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: see `ifindex`.
        unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn move_start(self, by: i32) -> bool {
        // SAFETY: plain helper call; no pointer into the packet is kept anywhere.
        unsafe { bpf_xdp_adjust_head(self.0, by) == 0 }
    }
}

impl Frame for Xdp {
    #[inline(always)]
    fn load<T: Header>(self, offset: u32) -> Result<T, DropReason> {
        let (start, end) = self.bounds();
        let at = start + offset as usize;
        if at + size_of::<T>() > end {
            return Err(DropReason::Malformed);
        }
        // SAFETY: see `store`.
        Ok(unsafe { *(at as *const T) })
    }

    #[inline(always)]
    fn len(self) -> u32 {
        let (start, end) = self.bounds();
        (end - start) as u32
    }
}
