//! Runs by hand of the program behind the VXLAN device. That asks the kernel who sent a packet, which a test run cannot say. So
//! a program made here stands in front of it: it notes the outer headers at the packet as a sender would
//! (`bpf_skb_set_tunnel_key`), with both ends exchanged, and jumps. Numbers are those of the kernel's
//! `include/uapi/linux/bpf.h`, instructions those of RFC 9669.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use super::{Cmd, bpf, bpf_fd};

const PROGRAMS: u32 = 3;
const SCHED_CLS: u32 = 3;
const TAIL_CALL: i32 = 12;
const SET_TUNNEL_KEY: i32 = 21;
const INFO_IPV6: i32 = 1;
/// No verdict of tc's: the program in front has not come so far as to jump.
const STUCK: i32 = 0x4d45;
/// `struct bpf_tunnel_key` in words, and where in it both ends are.
const KEY: usize = 11;
const REMOTE: usize = 1;
const LOCAL: usize = 7;

/// What the outer headers said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Who sent the packet.
    pub from: IpAddr,
    /// To which address of this node.
    pub to: IpAddr,
    /// The network.
    pub vni: u32,
}

/// What a run said.
pub(crate) struct Ran {
    pub(crate) verdict: i32,
    /// Of the packet after it.
    pub(crate) length: usize,
}

/// Runs a tc program once on the packet that was inside, in this `struct __sk_buff`; `out` gets what it made of it, as far as
/// it has room.
pub(crate) fn run(
    program: impl AsFd,
    outer: &Outer,
    packet: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> io::Result<Ran> {
    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        verdict: u32,
        sizes: [u32; 2],
        data: [u64; 2],
        repeat: u32,
        duration: u32,
        context_sizes: [u32; 2],
        contexts: [u64; 2],
        flags: u32,
        cpu: u32,
        batch: u32,
        padding: u32,
    }
    // Keys, values and entries of four bytes; no flags.
    let mut map = [PROGRAMS, 4, 4, 1, 0];
    // SAFETY: the attributes of BPF_MAP_CREATE, which returns a descriptor.
    let map = unsafe { bpf_fd(Cmd::MapCreate, &mut map) }?;
    put(map.as_fd(), program.as_fd())?;
    let front = load(&front(outer, map.as_fd()))?;
    let mut attr = TestRun {
        program: front.as_raw_fd().cast_unsigned(),
        sizes: [packet.len() as u32, out.len() as u32],
        data: [packet.as_ptr() as u64, out.as_mut_ptr() as u64],
        repeat: 1,
        context_sizes: [context.len() as u32, 0],
        contexts: [context.as_ptr() as u64, 0],
        ..TestRun::default()
    };
    // SAFETY: the attributes of BPF_PROG_TEST_RUN; each pointer comes with the length of what it points to, and only `out` is
    // written.
    unsafe { bpf(Cmd::ProgTestRun, &mut attr) }?;
    let verdict = attr.verdict.cast_signed();
    if verdict == STUCK {
        return Err(io::Error::other("the kernel refuses to note outer headers, or to jump"));
    }
    Ok(Ran { verdict, length: attr.sizes[1] as usize })
}

/// Makes a program the first of an array of programs.
fn put(map: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let (key, value) = (0u32, program.as_raw_fd());
    let (key, value) = (&raw const key as u64, &raw const value as u64);
    let mut attr = Update { map: map.as_raw_fd().cast_unsigned(), padding: 0, key, value, flags: 0 };
    // SAFETY: the attributes of BPF_MAP_UPDATE_ELEM; key and value are live and of four bytes, as the map's are.
    unsafe { bpf(Cmd::MapUpdateElem, &mut attr) }.map(drop)
}

/// Loads a tc program.
fn load(instructions: &[Instruction]) -> io::Result<std::os::fd::OwnedFd> {
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
        attach_type: u32,
    }
    let mut attr = Load {
        kind: SCHED_CLS,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"mesh_trial\0\0\0\0\0\0",
        ifindex: 0,
        attach_type: 0,
    };
    // SAFETY: the attributes of BPF_PROG_LOAD; all that they point to outlives the call. It returns a descriptor.
    unsafe { bpf_fd(Cmd::ProgLoad, &mut attr) }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The key that `bpf_skb_set_tunnel_key` takes: what it calls local is where the packet comes from.
fn key(outer: &Outer) -> [u32; KEY] {
    let mut key = [0; KEY];
    key[0] = outer.vni;
    for (at, address) in [(REMOTE, outer.to), (LOCAL, outer.from)] {
        match address {
            IpAddr::V4(v4) => key[at] = u32::from(v4),
            IpAddr::V6(v6) => {
                for (to, word) in key[at..].iter_mut().zip(v6.octets().as_chunks().0) {
                    *to = u32::from_ne_bytes(*word);
                }
            }
        }
    }
    key
}

/// The program in front.
fn front(outer: &Outer, map: BorrowedFd<'_>) -> Vec<Instruction> {
    // Destination and source, in the order of the machine's bit fields.
    let pair = |to: u8, from: u8| if cfg!(target_endian = "big") { to << 4 | from } else { to | from << 4 };
    let made = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    let set = |to, value| made(0xb7, pair(to, 0), 0, value);
    let copy = |to, from| made(0xbf, pair(to, from), 0, 0);
    let (context, frame) = (6, 10);
    let room = -4 * KEY as i16;
    let mut program = vec![copy(context, 1)];
    for (at, word) in key(outer).into_iter().enumerate() {
        program.push(made(0x62, pair(frame, 0), room + 4 * at as i16, word.cast_signed()));
    }
    let flags = if outer.from.is_ipv6() { INFO_IPV6 } else { 0 };
    program.extend([
        copy(1, context),
        copy(2, frame),
        made(0x07, pair(2, 0), 0, room.into()),
        set(3, 4 * KEY as i32),
        set(4, flags),
        made(0x85, 0, 0, SET_TUNNEL_KEY),
        // Past the jump, when it failed.
        made(0x55, pair(0, 0), 5, 0),
        copy(1, context),
        // A map takes two instructions.
        made(0x18, pair(2, 1), 0, map.as_raw_fd()),
        made(0, 0, 0, 0),
        set(3, 0),
        made(0x85, 0, 0, TAIL_CALL),
        set(0, STUCK),
        made(0x95, 0, 0, 0),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_where_the_kernel_looks_for_them() {
        let outer =
            |from: &str, to: &str| Outer { from: from.parse().unwrap(), to: to.parse().unwrap(), vni: 4097 };
        let v4 = key(&outer("192.0.2.1", "192.0.2.2"));
        assert_eq!((v4[0], v4[REMOTE], v4[LOCAL]), (4097, 0xc000_0202, 0xc000_0201));
        let v6 = key(&outer("2001:db8::1", "2001:db8::2"));
        let bytes = |at: usize| -> Vec<u8> { v6[at..at + 4].iter().flat_map(|w| w.to_ne_bytes()).collect() };
        assert_eq!(bytes(LOCAL), "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(bytes(REMOTE)[15], 2);
    }
}
