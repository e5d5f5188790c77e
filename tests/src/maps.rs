//! Counting the entries of pinned maps, by bare system calls: of maps whose entries people decide on, which hash
//! maps and tries are. LRU maps fill and empty by themselves, arrays are always full.

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_GET: libc::c_int = 7;

/// `BPF_MAP_TYPE_` HASH, PERCPU_HASH, LPM_TRIE and HASH_OF_MAPS.
const COUNTED: [u32; 4] = [1, 5, 11, 13];

/// The part of `union bpf_attr` for BPF_OBJ_GET, as bpf(2) has it.
#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for BPF_MAP_GET_NEXT_KEY.
#[repr(C)]
struct NextKey {
    map: u32,
    padding: u32,
    key: u64,
    next: u64,
    flags: u64,
}

/// How many entries the map pinned at `path` has; none for what is not such a map.
pub fn entries(path: &Path) -> Option<usize> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut get = ObjectGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut get)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    let map = unsafe { OwnedFd::from_raw_fd(fd) };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.trim().parse::<u32>().ok()
    };
    if !COUNTED.contains(&field("map_type")?) {
        return None;
    }
    let size = usize::try_from(field("key_size")?).ok()?;
    let (mut key, mut next) = (vec![0; size], vec![0; size]);
    let mut count = 0;
    loop {
        let first: *const u8 = if count == 0 { std::ptr::null() } else { key.as_ptr() };
        let mut step = NextKey {
            map: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: first as u64,
            next: next.as_mut_ptr() as u64,
            flags: 0,
        };
        if bpf(BPF_MAP_GET_NEXT_KEY, &mut step).is_none() {
            return Some(count);
        }
        count += 1;
        std::mem::swap(&mut key, &mut next);
    }
}

/// The result of bpf(2), none when it fails.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Option<libc::c_int> {
    // SAFETY: `attributes` is the head of `union bpf_attr`, valid for its size; pointers inside are of live buffers
    // as long as the command reads or writes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    libc::c_int::try_from(result).ok().filter(|&result| result >= 0)
}
