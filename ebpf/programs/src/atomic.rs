//! Words that several CPUs write. Each of these instructions (RFC 9669, section 5.3) is in order with all reads and writes
//! before and after it. The compiler's own atomics are not there for this target; elsewhere, where only lints look at these
//! programs, they are.

#[cfg(target_arch = "bpf")]
use core::arch::asm;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Writes `new` if the word is `old`; returns what it was.
///
/// # Safety
///
/// `word` is aligned to eight, in a map's value.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let seen;
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => seen,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    let seen = match unsafe { AtomicU64::from_ptr(word) }.compare_exchange(old, new, SeqCst, SeqCst) {
        Ok(seen) | Err(seen) => seen,
    };
    seen
}

/// Writes `new`; returns what the word was.
///
/// # Safety
///
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let seen;
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!("{new} = xchg_64({word} + 0, {new})", word = in(reg) word, new = inout(reg) new => seen)
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    let seen = unsafe { AtomicU64::from_ptr(word) }.swap(new, SeqCst);
    seen
}

/// Adds to the word; returns what it was.
///
/// # Safety
///
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let seen;
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({word} + 0), {number})",
            word = in(reg) word,
            number = inout(reg) number => seen,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    let seen = unsafe { AtomicU64::from_ptr(word) }.fetch_add(number, SeqCst);
    seen
}
