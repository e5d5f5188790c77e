//! Machines that lack something: the doctor on a node whose kernel, mounts, settings or programs say so, in a mount namespace
//! of its own.

use std::process::Command;

use anyhow::{Result, ensure};
use mesh_tests::{Node, run};

use super::{findings, well};

/// Before a fault's own lines: a folder for files.
const SCRATCH: &str = "set -e
mount -t tmpfs own /mnt
";

/// A fault, as lines of shell, and what the doctor has to say of it in one line.
const FAULTS: [(&str, &[&str]); 11] = [
    (
        "echo 5.15.0-91-generic > /mnt/release
        mount --bind /mnt/release /proc/sys/kernel/osrelease",
        &["kernel: ", "5.15.0-91-generic is older than 6.1", "boot a newer one"],
    ),
    ("mount -t tmpfs own /sys/kernel/btf", &["BTF: ", "CONFIG_DEBUG_INFO_BTF"]),
    (
        "awk '$3 == \"cgroup2\" { print $2 }' /proc/self/mounts | while read -r at; do umount --lazy $at; done",
        &["cgroup v2: not mounted", "mount -t cgroup2"],
    ),
    (
        "awk '$3 == \"bpf\" { print $2 }' /proc/self/mounts | while read -r at; do umount --lazy $at; done",
        &["bpffs: not mounted", "mount -t bpf bpf /sys/fs/bpf"],
    ),
    // A kernel without VXLAN, whose other parts are built in.
    (
        "mount -t tmpfs own /sys/module
        for part in VETH NET_SCH_INGRESS NET_CLS_BPF NF_TABLES NFT_NAT NFT_MASQ NFT_CT; do
            echo CONFIG_$part=y
        done > /mnt/config
        echo '# CONFIG_VXLAN is not set' >> /mnt/config
        mount -t tmpfs own /boot
        cp /mnt/config /boot/config-$(uname -r)
        gzip /mnt/config
        [ ! -e /proc/config.gz ] || mount --bind /mnt/config.gz /proc/config.gz
        [ ! -d /lib/modules ] || mount -t tmpfs own /lib/modules",
        &[
            "module vxlan: ",
            "was built without vxlan (CONFIG_VXLAN)",
            "traffic between nodes",
            "boot a kernel",
        ],
    ),
    // Modules that are there; one of them is forbidden.
    (
        "mount -t tmpfs own /sys/module
        mkdir /mnt/upper /mnt/work
        : > /mnt/config
        gzip /mnt/config
        [ ! -e /proc/config.gz ] || mount --bind /mnt/config.gz /proc/config.gz
        mount -t tmpfs own /boot
        mount -t overlay -o lowerdir=/usr/lib,upperdir=/mnt/upper,workdir=/mnt/work own /usr/lib
        mkdir -p /usr/lib/modules /usr/lib/modprobe.d
        mount -t tmpfs own /usr/lib/modules
        mkdir /usr/lib/modules/$(uname -r)
        for part in veth vxlan sch_ingress cls_bpf nf_tables nft_chain_nat nft_masq nft_ct; do
            echo kernel/$part.ko.xz:
        done > /usr/lib/modules/$(uname -r)/modules.dep
        echo 'install nft_masq /bin/false' > /usr/lib/modprobe.d/hardened.conf",
        &["module nft_masq: ", "`install nft_masq /bin/false` in /", "hardened.conf", "modprobe nft_masq"],
    ),
    (
        "echo 95 > /mnt/count
        echo 100 > /mnt/most
        mount --bind /mnt/count /proc/sys/net/netfilter/nf_conntrack_count
        mount --bind /mnt/most /proc/sys/net/netfilter/nf_conntrack_max",
        &["conntrack: ", "95 of at most 100 connections", "nf_conntrack_max=200"],
    ),
    (
        "trap 'echo 1 > /proc/sys/net/ipv4/ip_forward' EXIT
        echo 0 > /proc/sys/net/ipv4/ip_forward",
        &["ip_forward: ", "tasks have no way out", "sysctl -w net.ipv4.ip_forward=1"],
    ),
    (
        "for link in eth0 all; do echo 1 > /proc/sys/net/ipv4/conf/$link/rp_filter; done",
        &["rp_filter: strict on eth0, one of 2 uplinks", "net.ipv4.conf.eth0.rp_filter=2"],
    ),
    // A card of VMware's, as ethtool tells of it.
    (
        "cat > /mnt/ethtool <<'END'
#!/bin/sh
case $1 in
    -i) echo 'driver: vmxnet3' ;;
    -k) printf 'Features for %s:\\ntx-udp_tnl-segmentation: on\\n' $2 ;;
esac
END
        chmod 0755 /mnt/ethtool
        PATH=/mnt:$PATH",
        &["offloads eth0: vmxnet3", "TCP hangs", "ethtool -K eth0 tx-udp_tnl-segmentation off"],
    ),
    (
        "ip link add vx0 type vxlan id 7 dstport 4789 dev lo
        trap 'ip link del vx0' EXIT",
        &["VXLAN port: vx0 uses 4789/udp too", "ip link del vx0"],
    ),
];

#[test]
fn what_a_machine_lacks_is_found_by_name() -> Result<()> {
    run(1, |cluster| {
        super::keep_state_private(cluster)?;
        let node = &cluster[0];
        // A second uplink, for what matters to several.
        cluster.net().nodes()[0].ip("link add eth1 type veth peer name far1\n\
             addr add 192.168.78.11/24 dev eth1\n\
             link set eth1 up\nlink set far1 up")?;
        well(node)?;
        for (fault, wanted) in FAULTS {
            let lines = findings(&mut with(node, fault)?)?.0;
            let found = lines.iter().any(|line| wanted.iter().all(|word| line.contains(word)));
            ensure!(found, "no line with all of {wanted:?} in {lines:#?} after {fault}");
        }
        // Only the machine's first network namespace has this setting.
        let fault = "echo 0 > /mnt/jit\nmount --bind /mnt/jit /proc/sys/net/core/bpf_jit_enable";
        let mut doctor = Command::new("unshare");
        let lines = findings(shell(&mut doctor, node, fault)?)?.0;
        let found = lines.iter().any(|l| l.contains("bpf_jit_enable is 0") && l.contains("bpf_jit_enable=1"));
        ensure!(found, "{lines:#?}");
        Ok(())
    })
}

/// The doctor on the node, where it is as `fault` makes it.
fn with(node: &Node, fault: &str) -> Result<Command> {
    let mut command = node.command("unshare")?;
    shell(&mut command, node, fault)?;
    Ok(command)
}

fn shell<'a>(command: &'a mut Command, node: &Node, fault: &str) -> Result<&'a mut Command> {
    let doctor = node.meshctl()?;
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("{SCRATCH}{fault}\nset +e\n\"$@\"\n")).arg("doctor");
    Ok(command.arg(doctor.get_program()).args(doctor.get_args()))
}
