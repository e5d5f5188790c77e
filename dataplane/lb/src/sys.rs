//! The bpf(2) calls that aya lacks: links of any kind by file descriptor, map operations in batches ([`map`]), and runs by hand of
//! what the VXLAN device has opened ([`tunneled`]).

pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod tunneled;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Gives memory that is not in use back to the kernel; other C libraries than GNU's do by themselves.
pub(crate) fn give_back_memory() {
    // SAFETY: a call without memory of ours.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Commands of bpf(2), from the kernel's `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy)]
enum Cmd {
    MapCreate = 0,
    MapLookupElem = 1,
    MapUpdateElem = 2,
    MapDeleteElem = 3,
    MapGetNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ObjGetInfoByFd = 15,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
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
    Xdp = 37,
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

/// From the kernel's `include/uapi/linux/if_link.h`.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to an interface of the calling thread's namespace (for tc behind those already there; for XDP it
/// must be the only one, and runs in the driver or not at all), or to a cgroup (beside those already there).
pub(crate) fn link_create(program: impl AsFd, target: u32, attach_type: AttachType) -> io::Result<OwnedFd> {
    let prog_fd = program.as_fd().as_raw_fd() as u32;
    let flags = if attach_type == AttachType::Xdp { XDP_FLAGS_DRV_MODE } else { 0 };
    let mut attr = LinkCreateAttr { prog_fd, target, attach_type: attach_type as u32, flags };
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
    /// An interface index for tcx and XDP (0 once the interface is gone), half of the cgroup's id for cgroups.
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
