//! What the kernel offers of what the data path needs.

use std::{fmt, fs, io, os::fd::AsRawFd, path::PathBuf};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, socket},
    utsname::uname,
};

/// The oldest kernel that the data path is tried on.
const MINIMUM: (u32, u32) = (6, 1);
/// The first kernel with links for tc.
const TCX: (u32, u32) = (6, 6);

/// One thing that the kernel has or lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// Whether there is no data path without it.
    pub needed: bool,
    /// Whether it is there.
    pub present: bool,
    /// What is lost without it.
    pub without: &'static str,
}

/// Everything the data path uses of the kernel. Displayed, one line for each thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// The running kernel's release.
    pub kernel: String,
    /// All that was looked for.
    pub all: Vec<Feature>,
}

impl Features {
    /// Whether a data path can be opened.
    pub fn usable(&self) -> bool {
        self.all.iter().all(|f| f.present || !f.needed)
    }

    /// What is not there.
    pub fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.all.iter().filter(|f| !f.present)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.needed { "needed" } else { "optional" };
        write!(f, "{} ({weight}): without it {}", self.name, self.without)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for feature in self.missing() {
            writeln!(f, "kernel {} lacks {feature}", self.kernel)?;
        }
        Ok(())
    }
}

pub(crate) fn probe() -> Features {
    let kernel = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let version = version(&kernel);
    let need = |name, present, without| Feature { name, needed: true, present, without };
    let wish = |name, present, without| Feature { name, needed: false, present, without };
    let nothing = "there is no data path";
    let Ok(tc_programs) = is_program_supported(ProgramType::SchedClassifier) else {
        // Nothing else can be found out then.
        let all = vec![need("permission for bpf(2)", false, "nothing can be loaded; run as root")];
        return Features { kernel, all };
    };
    let helper = |program, helper| is_helper_supported(program, helper).unwrap_or(false);
    let tc = |id| helper(ProgramType::SchedClassifier, id);
    let sockets = "published ports do not answer on localhost";
    let all = vec![
        need("version 6.1", version >= MINIMUM, "the programs may be refused"),
        need("tc programs", tc_programs, nothing),
        need("LRU hash maps", is_map_supported(MapType::LruHash).unwrap_or(false), nothing),
        need("per-CPU array maps", is_map_supported(MapType::PerCpuArray).unwrap_or(false), nothing),
        need("bpf_redirect_peer", tc(BpfHelper::BPF_FUNC_redirect_peer), nothing),
        need("bpf_redirect_neigh", tc(BpfHelper::BPF_FUNC_redirect_neigh), nothing),
        need("bpf_skb_adjust_room", tc(BpfHelper::BPF_FUNC_skb_adjust_room), nothing),
        need("bpf_skb_set_tunnel_key", tc(BpfHelper::BPF_FUNC_skb_set_tunnel_key), nothing),
        wish("links for tc", version >= TCX, "filters on clsact are used, which other tools may remove"),
        wish(
            "cgroup socket address programs",
            is_program_supported(ProgramType::CgroupSockAddr).unwrap_or(false),
            sockets,
        ),
        wish(
            "bpf_get_netns_cookie",
            helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_netns_cookie),
            sockets,
        ),
        wish("a mounted cgroup v2 hierarchy", cgroup2_root().is_some(), sockets),
        wish(
            "a compiler for eBPF in use (net.core.bpf_jit_enable)",
            jit(),
            "programs are interpreted, many times slower",
        ),
    ];
    Features { kernel, all }
}

/// Major and minor version; zero for what is no number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A kernel that cannot do without has no such file, or forbids 0.
fn jit() -> bool {
    fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").map_or(true, |text| text.trim() != "0")
}

/// Where the cgroup v2 hierarchy is mounted.
pub(crate) fn cgroup2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").ok()?;
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find_map(|fields| (fields.get(2) == Some(&"cgroup2")).then(|| fields.get(1).map(PathBuf::from))?)
}

/// Cookie of the calling thread's network namespace, by which the cgroup programs know the node's own sockets.
pub fn netns_cookie() -> io::Result<u64> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option's value is a `u64`, for which there is room; both pointers are to live variables.
    let result = unsafe {
        libc::getsockopt(
            any.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// From the kernel's `include/uapi/asm-generic/socket.h`.
const SO_NETNS_COOKIE: libc::c_int = 71;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(version("6.1.0-13-cloud-amd64"), (6, 1));
        assert_eq!(version("7"), (7, 0));
        assert_eq!(version("odd"), (0, 0));
        assert!((6, 18) > TCX && (6, 1) >= MINIMUM && (5, 15) < MINIMUM);
    }

    #[test]
    fn one_line_for_each_that_is_missing() {
        let feature = |needed, present| Feature { name: "flying", needed, present, without: "we walk" };
        let features = |all| Features { kernel: "6.1".to_owned(), all };
        let some = features(vec![feature(true, true), feature(false, false)]);
        assert!(some.usable());
        assert_eq!(some.to_string(), "kernel 6.1 lacks flying (optional): without it we walk\n");
        assert!(!features(vec![feature(true, false)]).usable());
    }
}
