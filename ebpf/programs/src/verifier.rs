//! Help for the kernel's verifier, which walks every path through a program on its own.

/// The same number, of which the verifier knows nothing any more: paths that differ only in it are walked once.
#[inline(always)]
pub fn forget(number: u32) -> u32 {
    #[repr(C, align(8))]
    struct Slot(u32, u32);
    let mut slot = Slot(0, 0);
    // SAFETY: a local variable. Volatile, so that it is in memory, and in the second half of a word, where the verifier
    // does not follow values.
    unsafe {
        core::ptr::write_volatile(&raw mut slot.1, number);
        core::ptr::read_volatile(&raw const slot.1)
    }
}
