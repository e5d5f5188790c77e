//! The bpf(2) calls that aya lacks: links of any kind by file descriptor, and map operations in batches.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Commands of bpf(2), from the kernel's `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy)]
enum Cmd {
    ObjPin = 6,
    ObjGet = 7,
    ObjGetInfoByFd = 15,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// Where a program is attached; the value is the kernel's `enum bpf_attach_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachType {
    Inet4Connect = 10,
    Inet6Connect = 11,
    Udp4Sendmsg = 14,
    Udp6Sendmsg = 15,
    Udp4Recvmsg = 19,
    Udp6Recvmsg = 20,
    Inet4GetPeername = 29,
    Inet6GetPeername = 30,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// The part of `union bpf_attr` that a command reads; the kernel takes what is beyond as zero.
///
/// # Safety
/// `attr` must be the `repr(C)` form of `cmd`'s attributes, and each pointer in it must be valid for what `cmd` does.
unsafe fn bpf<T>(cmd: Cmd, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for `attr`; the size is its own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_int, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Makes the result of a command own the descriptor that it is.
///
/// # Safety
/// As for [`bpf`], and `cmd` must be one that returns a new descriptor.
unsafe fn bpf_fd<T>(cmd: Cmd, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for it; a new descriptor is owned by nobody else.
    unsafe { bpf(cmd, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins an object to a path on a BPF file system.
pub(crate) fn obj_pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let bpf_fd = object.as_fd().as_raw_fd() as u32;
    let mut attr = ObjAttr { pathname: path.as_ptr() as u64, bpf_fd, file_flags: 0 };
    // SAFETY: the attributes of BPF_OBJ_PIN; the path lives until the call is over.
    unsafe { bpf(Cmd::ObjPin, &mut attr) }.map(drop)
}

/// Opens a pinned object.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { pathname: path.as_ptr() as u64, ..ObjAttr::default() };
    // SAFETY: the attributes of BPF_OBJ_GET, which returns a descriptor; the path lives until the call is over.
    unsafe { bpf_fd(Cmd::ObjGet, &mut attr) }
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to an interface of the calling thread's namespace (behind those already there), or to a cgroup
/// (beside those already there).
pub(crate) fn link_create(program: impl AsFd, target: u32, attach_type: AttachType) -> io::Result<OwnedFd> {
    let prog_fd = program.as_fd().as_raw_fd() as u32;
    let mut attr = LinkCreateAttr { prog_fd, target, attach_type: attach_type as u32, flags: 0 };
    // SAFETY: the attributes of BPF_LINK_CREATE, which returns a descriptor; no pointers.
    unsafe { bpf_fd(Cmd::LinkCreate, &mut attr) }
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program of a link at once.
pub(crate) fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let link_fd = link.as_fd().as_raw_fd() as u32;
    let new_prog_fd = program.as_fd().as_raw_fd() as u32;
    let mut attr = LinkUpdateAttr { link_fd, new_prog_fd, flags: 0, old_prog_fd: 0 };
    // SAFETY: the attributes of BPF_LINK_UPDATE; no pointers.
    unsafe { bpf(Cmd::LinkUpdate, &mut attr) }.map(drop)
}

/// Detaches a link now, whoever else still has it open.
pub(crate) fn link_detach(link: impl AsFd) -> io::Result<()> {
    let mut link_fd = link.as_fd().as_raw_fd() as u32;
    // SAFETY: the attributes of BPF_LINK_DETACH are the descriptor alone.
    unsafe { bpf(Cmd::LinkDetach, &mut link_fd) }.map(drop)
}

/// `struct bpf_link_info`, as far as it is used.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    kind: u32,
    id: u32,
    /// The attached program's id.
    pub(crate) program: u32,
    pad: u32,
    /// An interface index for tcx (0 once the interface is gone), half of the cgroup's id for cgroups.
    pub(crate) target: u32,
    target_high: u32,
    attach_type: u32,
    pad2: u32,
}

impl LinkInfo {
    /// Id of the cgroup of a cgroup's link.
    pub(crate) fn cgroup(&self) -> u64 {
        let [a, b, c, d] = self.target.to_ne_bytes();
        let [e, f, g, h] = self.target_high.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// What a link is attached to.
pub(crate) fn link_info(link: impl AsFd) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let bpf_fd = link.as_fd().as_raw_fd() as u32;
    let mut attr = InfoAttr { bpf_fd, info_len: size_of::<LinkInfo>() as u32, info: &raw mut info as u64 };
    // SAFETY: the attributes of BPF_OBJ_GET_INFO_BY_FD; `info` has room for `info_len` bytes of plain integers.
    unsafe { bpf(Cmd::ObjGetInfoByFd, &mut attr) }?;
    Ok(info)
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes `values` to an array map of `u32` from `base` on.
pub(crate) fn array_write(map: BorrowedFd<'_>, base: u32, values: &[u32]) -> io::Result<()> {
    let keys: Vec<u32> = (base..).take(values.len()).collect();
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: values.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes of BPF_MAP_UPDATE_BATCH; both slices hold `count` elements of the map's key and value
    // size, which are four bytes each.
    unsafe { bpf(Cmd::MapUpdateBatch, &mut attr) }.map(drop)
}

/// Reads `len` elements of an array map of `u32` from `base` on.
pub(crate) fn array_read(map: BorrowedFd<'_>, base: u32, len: u32) -> io::Result<Vec<u32>> {
    let mut keys = vec![0u32; len as usize];
    let mut values = vec![0u32; len as usize];
    let (before, mut next) = (base.wrapping_sub(1), 0u32);
    let mut attr = BatchAttr {
        // The batch begins after this key; at the first one without.
        in_batch: if base == 0 { 0 } else { &raw const before as u64 },
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: len,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes of BPF_MAP_LOOKUP_BATCH; all pointers are to memory of the sizes that the kernel writes:
    // a key for each batch position, `count` keys and values of four bytes.
    let result = unsafe { bpf(Cmd::MapLookupBatch, &mut attr) };
    // ENOENT means that the end of the map was reached.
    if let Err(error) = result
        && error.raw_os_error() != Some(libc::ENOENT)
    {
        return Err(error);
    }
    values.truncate(attr.count as usize);
    Ok(values)
}

/// Entries read by one call; more than the largest bucket of a hash map will ever hold.
const SCAN: u32 = 4096;

/// Calls `each` with every value of a hash map whose keys and values have these sizes. Concurrent writes may hide or
/// repeat entries.
pub(crate) fn hash_scan(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut keys = vec![0u8; SCAN as usize * key_size];
    // The kernel copies values in strides of eight bytes only for per-CPU maps; this is for others.
    let mut values = vec![0u8; SCAN as usize * value_size];
    // Hash maps have a `u32` bucket number as position, whatever their keys are.
    let (mut position, mut started) = (0u32, false);
    loop {
        let mut next = 0u32;
        let mut attr = BatchAttr {
            in_batch: if started { &raw const position as u64 } else { 0 },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: SCAN,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes of BPF_MAP_LOOKUP_BATCH; the positions are four bytes, and the buffers hold `count`
        // keys and values of the sizes that the caller has checked against the map's.
        let result = unsafe { bpf(Cmd::MapLookupBatch, &mut attr) };
        let done = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        values.chunks_exact(value_size).take(attr.count as usize).for_each(&mut each);
        if done {
            return Ok(());
        }
        (position, started) = (next, true);
    }
}
