//! The eBPF programs, compiled by `build.rs`.

/// The ELF object with every program and map of the data path, aligned as its parser needs it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-ebpf"));
