//! The eBPF programs, compiled by `build.rs`.

use sha2::{Digest, Sha256};

/// The ELF object with every program and map of the data path, aligned as its parser needs it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-ebpf"));

/// Tells this object from those of other versions: the first half of its SHA-256, in hexadecimal digits.
pub(crate) fn digest() -> String {
    Sha256::digest(OBJECT).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
