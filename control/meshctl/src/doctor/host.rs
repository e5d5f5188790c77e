//! What can be said of the machine by reading: kernel, mounts, settings, connection tracking.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
};

use mesh_types::{GOSSIP_PORT, MANAGER_PORT, VXLAN_PORT};
use nix::errno::Errno;

use super::Finding;

/// The oldest kernel that the programs are made for.
const OLDEST: (u32, u32) = (6, 1);
/// Part of the table of connections that may be in use.
const FULL: u64 = 90;

/// All of it.
pub fn check() -> Vec<Finding> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut findings = vec![kernel()];
    let needs = [
        (
            "cgroup2",
            "cgroup v2",
            "published ports on localhost need it: mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
        ("bpf", "bpffs", "programs and maps are pinned there: `mount -t bpf bpf /sys/fs/bpf`"),
    ];
    findings.extend(needs.map(|(kind, name, cure)| match mounted(&mounts, kind) {
        Some(at) => Finding::ok(name, format!("mounted at {at}")),
        None => Finding::failure(name, "not mounted", cure),
    }));
    findings.push(match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Finding::ok("BTF", "the kernel describes its types"),
        false => Finding::warning(
            "BTF",
            "the kernel has no BTF (/sys/kernel/btf/vmlinux)",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions' own have it",
        ),
    });
    findings.push(jit());
    findings.extend(conntrack());
    findings
}

/// Whether the ports are free, on a node that is in no cluster.
pub fn check_ports(findings: &mut Vec<Finding>) {
    let any = Ipv4Addr::UNSPECIFIED;
    let tried = [
        (format!("{MANAGER_PORT}/tcp"), TcpListener::bind((any, MANAGER_PORT)).err()),
        (format!("{GOSSIP_PORT}/tcp"), TcpListener::bind((any, GOSSIP_PORT)).err()),
        (format!("{GOSSIP_PORT}/udp"), UdpSocket::bind((any, GOSSIP_PORT)).err()),
        (format!("{VXLAN_PORT}/udp"), UdpSocket::bind((any, VXLAN_PORT)).err()),
    ];
    for (port, error) in tried {
        findings.push(match error {
            None => Finding::ok("ports", format!("{port} is free")),
            Some(error) if error.raw_os_error() == Some(Errno::EADDRINUSE as i32) => Finding::failure(
                "ports",
                format!("{port} is in use by something else"),
                format!(
                    "find it with `ss -lntup | grep {}` or `ip -d link show type vxlan`, and end it",
                    port.split('/').next().unwrap_or(&port)
                ),
            ),
            Some(error) => Finding::unchecked("ports", format!("{port}: {error}")),
        });
    }
}

/// Settings of the node's network, once it has tasks to forward for; `uplinks` are the interfaces by which packets come.
pub fn check_settings(uplinks: &[String], findings: &mut Vec<Finding>) {
    let forward = setting("ipv4/ip_forward");
    findings.push(match forward.as_deref() {
        Some("1") => Finding::ok("ip_forward", "the kernel forwards IPv4"),
        Some(_) => Finding::failure(
            "ip_forward",
            "net.ipv4.ip_forward is off: tasks have no way out",
            "`sysctl -w net.ipv4.ip_forward=1`, and look in /etc/sysctl.d for what turned it off",
        ),
        None => Finding::unchecked("ip_forward", "/proc/sys/net/ipv4/ip_forward cannot be read"),
    });
    let all = setting("ipv4/conf/all/rp_filter");
    let strict: Vec<&String> = uplinks
        .iter()
        .filter(|link| {
            let own = setting(&format!("ipv4/conf/{link}/rp_filter"));
            // The larger of both is in force (kernel's ip-sysctl documentation).
            [&all, &own].into_iter().filter_map(|value| value.as_deref()?.parse::<u32>().ok()).max()
                == Some(1)
        })
        .collect();
    findings.push(match (strict.first(), uplinks.len()) {
        (Some(link), 2..) => Finding::warning(
            "rp_filter",
            format!("strict on {link}, one of {} uplinks: what comes in by another way than answers leave is dropped", uplinks.len()),
            format!("`sysctl -w net.ipv4.conf.{link}.rp_filter=2 net.ipv4.conf.all.rp_filter=2`"),
        ),
        _ => Finding::ok("rp_filter", "does not drop packets of uplinks"),
    });
    if setting("bridge/bridge-nf-call-iptables").as_deref() == Some("1") {
        findings.push(Finding::ok(
            "bridge-nf-call",
            "bridged packets pass the firewall too; tasks have no bridge",
        ));
    }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(found) if found >= OLDEST => Finding::ok("kernel", release),
        Some(_) => Finding::failure(
            "kernel",
            format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1),
            "boot a newer one; Debian 12 and Ubuntu 24.04 have one",
        ),
        None => Finding::unchecked("kernel", format!("release {release:?} has no version")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn mounted<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&kind))
        .map(|words| words[1])
}

fn jit() -> Finding {
    match setting("core/bpf_jit_enable").as_deref() {
        Some("0") => Finding::warning(
            "bpf_jit",
            "net.core.bpf_jit_enable is 0: every packet's programs are interpreted",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Some(_) => Finding::ok("bpf_jit", "programs are compiled"),
        None => Finding::unchecked(
            "bpf_jit",
            "only the machine's first network namespace shows net.core.bpf_jit_enable",
        ),
    }
}

fn conntrack() -> Option<Finding> {
    let number = |key: &str| setting(&format!("netfilter/{key}"))?.parse::<u64>().ok();
    let (used, most) = (number("nf_conntrack_count")?, number("nf_conntrack_max")?);
    Some(match used * 100 >= most * FULL {
        true => Finding::warning(
            "conntrack",
            format!(
                "the kernel tracks {used} of at most {most} connections: new ones by the tasks' way out are dropped"
            ),
            format!("`sysctl -w net.netfilter.nf_conntrack_max={}`", most * 2),
        ),
        false => Finding::ok("conntrack", format!("{used} of {most} connections")),
    })
}

fn setting(key: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/net/{key}")).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kernels() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.167.4-microsoft"), Some((5, 15)));
        assert!(version("6.12+deb13").unwrap() > OLDEST);
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn mounts_by_kind() {
        let mounts = "bpf /sys/fs/bpf bpf rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mounted(mounts, "cgroup2"), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mounted(mounts, "bpf"), Some("/sys/fs/bpf"));
        assert_eq!(mounted("tmpfs /bpf tmpfs rw 0 0\n", "bpf"), None);
    }
}
