//! An array map's elements in this process's memory, where programs change them at the same time.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

/// The elements of a map that was made with `BPF_F_MMAPABLE`.
pub(crate) struct Memory {
    start: NonNull<u8>,
    /// Bytes of an element, a multiple of eight.
    stride: usize,
    len: u32,
}

// SAFETY: the memory is shared with the kernel anyway; all access is by whole atomic words.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

const WORD: usize = size_of::<u64>();

impl Memory {
    /// Maps `len` elements of `stride` bytes.
    pub(crate) fn map(fd: BorrowedFd<'_>, stride: usize, len: u32) -> io::Result<Self> {
        if !stride.is_multiple_of(WORD) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let size = bytes(stride, len);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, read_write, shared, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, stride, len })
    }

    /// How many elements there are.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The words of an element; none when there is no such element.
    pub(crate) fn words(&self, index: u32) -> &[AtomicU64] {
        if index >= self.len {
            return &[];
        }
        // SAFETY: within the mapping, which lives as long as this; aligned, since it begins on a page and elements are
        // whole words. Words are read and written at once by everybody.
        unsafe {
            let at = self.start.as_ptr().add(index as usize * self.stride);
            std::slice::from_raw_parts(at.cast::<AtomicU64>(), self.stride / WORD)
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: what `map` has mapped; nothing borrows it any more. It cannot fail then.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), bytes(self.stride, self.len)) };
    }
}

fn bytes(stride: usize, len: u32) -> usize {
    stride * len as usize
}

/// Copies words out, one by one.
pub(crate) fn read<const N: usize>(words: &[AtomicU64]) -> Option<[u64; N]> {
    let words: &[AtomicU64; N] = words.first_chunk()?;
    Some(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
}

/// Writes words, one by one.
pub(crate) fn write(words: &[AtomicU64], values: &[u64]) {
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}
