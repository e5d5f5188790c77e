//! Randomness by seed, for everything in this process: hash maps, tokio's fairness, elections.
//!
//! What asks the system for random bytes does so by the C library's `getrandom`. This program has one of its own, which
//! the linker prefers.

use std::{
    ffi::{c_uint, c_void},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

static SEEDED: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);

/// From here on all randomness follows from `seed`; repeatable as long as one thread asks.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
    SEEDED.store(true, Ordering::Relaxed);
}

/// SplitMix64.
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut word = STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// getrandom(2).
///
/// # Safety
///
/// `buffer` must be valid for writes of `length` bytes, or `length` 0.
// SAFETY: the symbol's signature is that of getrandom(2), and it keeps its promise to fill the buffer.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !SEEDED.load(Ordering::Relaxed) {
        // SAFETY: the caller's promise is the system call's condition.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return got as isize;
    }
    if length > 0 {
        // SAFETY: the caller promises that so many bytes may be written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]));
    }
    length.cast_signed()
}
