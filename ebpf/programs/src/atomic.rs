//! Words that several CPUs write. Each of these instructions (RFC 9669, section 5.3) is in order with all reads and writes
//! before and after it. The compiler's own atomics are not there for this target.

use core::arch::asm;

/// Writes `new` if the word is `old`; returns what it was.
///
/// # Safety
///
/// `word` is aligned to eight, in a map's value.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let seen;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => seen,
        );
    }
    seen
}

/// Writes `new`; returns what the word was.
///
/// # Safety
///
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, new: u64) -> u64 {
    let seen;
    // SAFETY: the caller's promise.
    unsafe { asm!("{new} = xchg_64({word} + 0, {new})", word = in(reg) word, new = inout(reg) new => seen) };
    seen
}

/// Adds to the word; returns what it was.
///
/// # Safety
///
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, number: u64) -> u64 {
    let seen;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({word} + 0), {number})",
            word = in(reg) word,
            number = inout(reg) number => seen,
        );
    }
    seen
}
