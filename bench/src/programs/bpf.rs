//! The bpf(2) calls that test runs need, bare: programs of another process by their ids, and small ones made here.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::assemble::Instruction;

/// Commands, kinds and flags, from the kernel's `include/uapi/linux/bpf.h`.
mod numbers {
    pub const MAP_CREATE: libc::c_int = 0;
    pub const MAP_UPDATE: libc::c_int = 2;
    pub const PROG_LOAD: libc::c_int = 5;
    pub const PROG_TEST_RUN: libc::c_int = 10;
    pub const PROG_GET_FD_BY_ID: libc::c_int = 13;
    pub const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    pub const EXPECTED_XDP: u32 = 37;
}
use numbers::*;

/// A kind of program, by the kernel's `enum bpf_prog_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Tc = 3,
    /// `BPF_PROG_TYPE_XDP`.
    Xdp = 6,
}

/// A kind of map, by the kernel's `enum bpf_map_type`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PROG_ARRAY`.
    Programs = 3,
}

/// Fails with the kernel's error.
///
/// # Safety
/// `attr` must be the `repr(C)` head of `union bpf_attr` for `command`, and each pointer in it valid for what it does.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for `attr`; the size is its own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// # Safety
/// As for [`bpf`], and `command` must be one that returns a new descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for it; a new descriptor is owned by nobody else.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl From<OwnedFd> for Program {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

/// What one test run said.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The program's verdict.
    pub verdict: u32,
    /// Nanoseconds a run, by the kernel's measure.
    pub nanoseconds: u32,
    /// The packet's length after it.
    pub length: usize,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

impl Program {
    /// The program with that id.
    pub fn by_id(id: u32) -> io::Result<Self> {
        let mut attr = [id, 0, 0];
        // SAFETY: the attributes of BPF_PROG_GET_FD_BY_ID: id, next id, flags. It returns a descriptor.
        unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut attr) }.map(Self)
    }

    /// Loads a program made here.
    pub fn load(kind: Kind, instructions: &[Instruction]) -> io::Result<Self> {
        #[repr(C)]
        struct Load {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
            ifindex: u32,
            expected_attach_type: u32,
        }
        let mut log = vec![0u8; 64 << 10];
        let mut attr = Load {
            kind: kind as u32,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log: log.as_mut_ptr() as u64,
            kernel_version: 0,
            flags: 0,
            name: *b"mesh_bench\0\0\0\0\0\0",
            ifindex: 0,
            // Programs that call each other must agree in it.
            expected_attach_type: if kind == Kind::Xdp { EXPECTED_XDP } else { 0 },
        };
        // SAFETY: the attributes of BPF_PROG_LOAD; all that they point to outlives the call. It returns a descriptor.
        let loaded = unsafe { bpf_fd(PROG_LOAD, &mut attr) };
        loaded.map(Self).map_err(|error| {
            let log = String::from_utf8_lossy(&log);
            io::Error::new(error.kind(), format!("{error}: {}", log.trim_end_matches('\0').trim()))
        })
    }

    /// What maps of programs name it by.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Its name, cut to 15 bytes.
    pub fn name(&self) -> io::Result<String> {
        #[repr(C)]
        struct Info {
            program: u32,
            room: u32,
            info: u64,
        }
        // The head of `struct bpf_prog_info`, which ends with the name.
        const NAME: usize = 64;
        let mut info = [0u8; NAME + 16];
        let mut attr =
            Info { program: raw(&self.0), room: info.len() as u32, info: info.as_mut_ptr() as u64 };
        // SAFETY: the attributes of BPF_OBJ_GET_INFO_BY_FD; `info` has so much room. The pointers that the kernel finds
        // in it are null, so nothing else is written.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
        let name = info[NAME..].split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Runs it on `packet` so many times in a row. The packet is not put back in between. `ifindex` is the interface
    /// that a tc program finds in its context, one of the calling thread's namespace. `out` gets what came out, as far
    /// as it has room.
    pub fn run(&self, packet: &[u8], ifindex: Option<u32>, repeat: u32, out: &mut [u8]) -> io::Result<Run> {
        // `struct __sk_buff`, of which a test run takes this field.
        const IFINDEX: usize = 40;
        let context = ifindex.map(|ifindex| {
            let mut context = [0u8; 192];
            context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
            context
        });
        self.run_in(packet, context.as_ref().map_or(&[], |context| &context[..]), repeat, out)
    }

    /// The same for an XDP program and the interface by which the packet came in.
    pub fn run_received(&self, packet: &[u8], ifindex: Option<u32>, repeat: u32) -> io::Result<Run> {
        // `struct xdp_md`, of which a test run takes these fields.
        const DATA_END: usize = 4;
        const INGRESS: usize = 12;
        let context = ifindex.map(|ifindex| {
            let mut context = [0u8; 24];
            context[DATA_END..DATA_END + 4].copy_from_slice(&(packet.len() as u32).to_ne_bytes());
            context[INGRESS..INGRESS + 4].copy_from_slice(&ifindex.to_ne_bytes());
            context
        });
        self.run_in(packet, context.as_ref().map_or(&[], |context| &context[..]), repeat, &mut [])
    }

    fn run_in(&self, packet: &[u8], context: &[u8], repeat: u32, out: &mut [u8]) -> io::Result<Run> {
        let mut attr = TestRun {
            program: raw(&self.0),
            data_size_in: packet.len() as u32,
            data_size_out: out.len() as u32,
            data_in: packet.as_ptr() as u64,
            data_out: if out.is_empty() { 0 } else { out.as_mut_ptr() as u64 },
            repeat,
            ..TestRun::default()
        };
        if !context.is_empty() {
            (attr.ctx_in, attr.ctx_size_in) = (context.as_ptr() as u64, context.len() as u32);
        }
        // SAFETY: the attributes of BPF_PROG_TEST_RUN; every pointer comes with the length of what it points to, and
        // only `out` is written.
        match unsafe { bpf(PROG_TEST_RUN, &mut attr) } {
            // The output is cut then, and the real size is told.
            Err(error) if error.raw_os_error() != Some(libc::ENOSPC) => return Err(error),
            _ => {}
        }
        Ok(Run { verdict: attr.verdict, nanoseconds: attr.duration, length: attr.data_size_out as usize })
    }
}

/// A map.
#[derive(Debug)]
pub struct Map {
    descriptor: OwnedFd,
    value_size: usize,
}

impl Map {
    /// One with keys of four bytes.
    pub fn create(kind: MapKind, value_size: u32, entries: u32) -> io::Result<Self> {
        let mut attr = [kind as u32, 4, value_size, entries, 0];
        // SAFETY: the attributes of BPF_MAP_CREATE: kind, sizes of key and value, entries, flags. It returns a
        // descriptor.
        let descriptor = unsafe { bpf_fd(MAP_CREATE, &mut attr) }?;
        Ok(Self { descriptor, value_size: value_size as usize })
    }

    /// Sets an element; an array of programs takes a program's descriptor. `value` must be as long as the map's values.
    pub fn put(&self, index: u32, value: &[u8]) -> io::Result<()> {
        #[repr(C)]
        struct Update {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        if value.len() != self.value_size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (key, value) = (&raw const index as u64, value.as_ptr() as u64);
        let mut attr = Update { map: raw(&self.descriptor), padding: 0, key, value, flags: 0 };
        // SAFETY: the attributes of BPF_MAP_UPDATE_ELEM; the key has four bytes, as in every map made here, and the value
        // as many as the map's.
        unsafe { bpf(MAP_UPDATE, &mut attr) }.map(drop)
    }

    /// What instructions name it by.
    pub fn descriptor(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}
