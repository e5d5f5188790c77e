//! The package under Debian's own systemd, which is the first process of a node that is a Debian of its own: the unit, with
//! all that it forbids the daemon; restarts, crashes and reloads under traffic; services that are put into networks; a
//! reboot.

#[path = "package/pings.rs"]
mod pings;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Booted, Cluster, NetNs, Packages, Task, TaskSpec, clean_root, resolve, run, wait};

use self::pings::Pings;

const SOON: Duration = Duration::from_secs(20);
/// All of a unit's restrictions together: 0 is none exposed, 100 all.
const EXPOSURE: &str = "--threshold=45";
/// A server as people have them: knows nothing of meshd, and is no root.
const SITE: &str = "[Unit]
Description=A site

[Service]
ExecStart=/usr/local/bin/busybox httpd -f -p 80 -h /srv
DynamicUser=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE

[Install]
WantedBy=multi-user.target
";
/// Where the name server of a task is asked.
const NAMES: ([u8; 4], u16) = ([127, 0, 0, 11], 53);

#[test]
fn the_unit_and_services_in_networks_under_systemd() -> Result<()> {
    let root = clean_root()?;
    let packages = Packages::make(["0.1.0~before", "0.1.0~after"])?;
    run(2, |cluster| {
        cluster[0].ctl(&["network", "create", "--attachable", "prod"])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--drain-timeout", "1s", "web"])?;
        cluster[0].ctl(&["publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let node = &cluster[1];
        node.ctl(&["leave"])?;
        node.stop()?;
        let mut machine = Booted::boot(&root, node)?;
        installs(&machine, &packages.debs()[0])?;
        is_hardened(&machine)?;
        cluster.join(1)?;
        cluster.wait_for_members(2)?;
        let there =
            cluster[0].run_idle(&TaskSpec { name: "there", network: "prod", ..TaskSpec::default() })?;
        puts_a_service_into_a_network(&machine, cluster, &there)?;
        logs(&machine, cluster)?;
        completes(&machine)?;
        reloads(&machine)?;
        restarts(&machine, &there)?;
        upgrades(&machine, &there, &packages.debs()[1])?;
        // At boot the service waits for its network, and that for the daemon.
        machine.reboot()?;
        cluster.wait_for_members(2)?;
        answers(&machine, cluster, &there).with_context(|| machine.log("meshd"))?;
        leaves_nothing(&machine, cluster, &there)
    })
}

/// The package has the daemon started; the unit is active when the daemon answers, not before.
fn installs(machine: &Booted<'_>, deb: &Path) -> Result<()> {
    machine.bring(deb, "/root/meshd.deb")?;
    machine.run(&["apt-get", "install", "--yes", "/root/meshd.deb"])?;
    machine.run(&["meshd", "--check-config"])?;
    machine.run(&["systemctl", "status", "--no-pager", "meshd"])?;
    machine.run(&["meshctl", "status"]).context("the unit is active, and the daemon does not answer")?;
    let state = ["ActiveState", "UnitFileState", "Type"].map(|name| machine.show("meshd", name));
    let state = state.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(state == ["active", "enabled", "notify"], "the unit is {state:?}");
    Ok(())
}

/// What the unit forbids is forbidden, by the kernel.
fn is_hardened(machine: &Booted<'_>) -> Result<()> {
    let pid = machine.show("meshd", "MainPID")?;
    let status = machine.run(&["cat", &format!("/proc/{pid}/status")])?;
    let field = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        found.map(str::to_owned).with_context(|| format!("no {name} in {status}"))
    };
    ensure!(field("NoNewPrivs")? == "1" && field("Seccomp")? == "2", "{status}");
    let bounds = u64::from_str_radix(&field("CapBnd")?, 16)?;
    // linux/capability.h: CAP_SYS_MODULE is 16, CAP_SYS_BOOT 22, CAP_NET_ADMIN 12.
    ensure!(bounds & (1 << 16 | 1 << 22) == 0 && bounds & (1 << 12) != 0, "CapBnd is {bounds:x}");
    let inside = |script: &str| machine.run(&["nsenter", "--target", &pid, "--mount", "sh", "-c", script]);
    inside("touch /run/meshd/file && rm /run/meshd/file").context("its own folder")?;
    for place in ["/usr/file", "/etc/file", "/root/file", "/sys/fs/cgroup/file"] {
        ensure!(inside(&format!("touch {place}")).is_err(), "{place} can be written");
    }
    let devices = inside("ls /dev")?;
    ensure!(!devices.lines().any(|name| name == "kmsg" || name.starts_with("vd")), "devices: {devices}");
    let exposure = ["systemd-analyze", "--no-pager", "security", EXPOSURE, "meshd"];
    let said = machine.run(&exposure)?;
    println!("{}", said.lines().last().unwrap_or_default());
    Ok(())
}

/// The service is not changed; it runs as a task of the mesh after its next start.
fn puts_a_service_into_a_network(machine: &Booted<'_>, cluster: &Cluster, there: &Task) -> Result<()> {
    machine.bring(Path::new("/bin/busybox"), "/usr/local/bin/busybox")?;
    machine.write("/srv/index.html", "the site")?;
    machine.write("/etc/systemd/system/site.service", SITE)?;
    machine.run(&["systemctl", "enable", "--now", "site"])?;
    // A name that was mistyped is told, and what was written for it goes again.
    let told = machine.run(&["sh", "-c", "meshctl systemd-attach --service web sight 2>&1"])?;
    ensure!(told.contains("systemd knows no unit sight.service"), "{told}");
    machine.run(&["meshctl", "systemd-detach", "sight"])?;
    machine.run(&["meshctl", "systemd-attach", "--service", "web", "--name", "web.1", "site"])?;
    machine.run(&["systemctl", "restart", "site"]).with_context(|| machine.log("meshd-netns-site"))?;
    answers(machine, cluster, there)?;
    let user = machine.run(&["sh", "-c", "stat -c %U /proc/$(systemctl show --value -p MainPID site)"])?;
    ensure!(user.trim() != "root", "the service became root");
    Ok(())
}

/// By its name in the network, by the port on the other node, and on the machine itself.
fn answers(machine: &Booted<'_>, cluster: &Cluster, there: &Task) -> Result<()> {
    let vip =
        cluster[0].ctl(&["service", "inspect", "--format", "{{index (index .Networks 0).VIPs 0}}", "web"])?;
    let vip: IpAddr = vip.trim().parse().context("a VIP")?;
    let published = SocketAddr::from((cluster[0].address(), 8080));
    let is_site = |body: String| {
        ensure!(body == "the site", "{body:?} answers");
        Ok(())
    };
    wait("the service in the network", SOON, || {
        is_site(there.inside(|| mesh_tests::get(SocketAddr::new(vip, 80), SOON))??)
    })?;
    let client = cluster.net().client();
    wait("the published port", SOON, || is_site(client.run(|| mesh_tests::get(published, SOON))??))?;
    let own = ["/usr/local/bin/busybox", "nc", "127.0.0.1", "8080"];
    wait("the port on the machine itself", SOON, || {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {}", own.join(" "));
        let said = machine.run(&["sh", "-c", &script])?;
        ensure!(said.ends_with("the site"), "{said}");
        Ok(())
    })
}

/// To journald, by fields that can be asked for.
fn logs(machine: &Booted<'_>, cluster: &Cluster) -> Result<()> {
    let journal = |words: &[&str]| machine.run(&[&["journalctl", "--no-pager"], words].concat());
    let id = cluster[1].ctl(&["status", "--format", "{{.NodeID}}"])?;
    for words in [["-u", "meshd", "TASK=web.1"].as_slice(), &[&format!("MESH_NODE={}", id.trim())]] {
        let told = journal(words)?;
        ensure!(told.contains("attached"), "{words:?}: {told}");
    }
    let warnings = journal(&["-u", "meshd", "NETWORK=prod", "-p", "warning"])?;
    ensure!(warnings.contains("No entries"), "{warnings}");
    let fields = journal(&["-u", "meshd", "-o", "verbose", "-n", "5"])?;
    for field in ["MESSAGE=", "PRIORITY=", "SYSLOG_IDENTIFIER=meshd", "CODE_FILE=", "MESH_NODE="] {
        ensure!(fields.contains(field), "no {field} in {fields}");
    }
    Ok(())
}

/// Names of the cluster in bash, as its completion is installed.
fn completes(machine: &Booted<'_>) -> Result<()> {
    const ASK: &str = r#"
. /usr/share/bash-completion/bash_completion
_completion_loader meshctl
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
$(complete -p meshctl | sed 's/.* -F \([^ ]*\).*/\1/') meshctl "${@: -1}" "${@: -2:1}"
echo "${COMPREPLY[@]}"
"#;
    for (typed, wanted) in [
        (["meshctl", "service", "inspect", "w"], "web"),
        (["meshctl", "network", "rm", "pr"], "prod"),
        (["meshctl", "run", "--network", "p"], "prod"),
        (["meshctl", "task", "drain", "web"], "web.1"),
    ] {
        let told = machine.run(&[["bash", "-c", ASK, "bash"].as_slice(), &typed].concat())?;
        ensure!(told.split_whitespace().any(|word| word == wanted), "{typed:?} is completed to {told:?}");
    }
    Ok(())
}

/// By SIGHUP, after the file was looked at: one that is wrong changes nothing.
fn reloads(machine: &Booted<'_>) -> Result<()> {
    let pid = machine.show("meshd", "MainPID")?;
    let set = |line: &str| {
        let change = format!("s/^#\\?log = .*/{line}/");
        machine.run(&["sed", "-i", &change, "/etc/meshd/meshd.toml"]).map(drop)
    };
    set("log = \"debug\"")?;
    machine.run(&["systemctl", "reload", "meshd"])?;
    let follows = |level: &str| {
        wait("the daemon to follow its file", SOON, || {
            let told = machine.run(&["meshctl", "log-level"])?;
            ensure!(told.contains(level), "{told}");
            Ok(())
        })
    };
    follows("debug")?;
    set("log = 7")?;
    let refused = machine.run(&["systemctl", "reload", "meshd"]);
    ensure!(refused.is_err(), "a wrong file was taken");
    let log = machine.log("meshd");
    ensure!(log.contains("log") && log.contains("meshd.toml"), "nobody says what is wrong: {log}");
    follows("debug")?;
    set("log = \"info\"")?;
    machine.run(&["systemctl", "reload", "meshd"])?;
    follows("info")?;
    ensure!(machine.show("meshd", "MainPID")? == pid, "the daemon was restarted");
    Ok(())
}

/// By request and by a crash: no packet is lost, and no question for a name.
fn restarts(machine: &Booted<'_>, there: &Task) -> Result<()> {
    let sockets = name_sockets(machine)?;
    ensure!(machine.show("meshd", "NFileDescriptorStore")? == "2", "the sockets of names are not kept");
    let pings = Pings::start(there, address(machine)?)?;
    let before = machine.show("meshd", "MainPID")?;
    machine.run(&["systemctl", "restart", "meshd"])?;
    machine.run(&["meshctl", "status"]).context("right after the restart")?;
    ensure!(name_sockets(machine)? == sockets, "the sockets of names were made anew");
    ensure!(resolves(machine)? == 1, "names after the restart");
    let killed = machine.show("meshd", "MainPID")?;
    ensure!(killed != before, "it was not restarted");
    machine.run(&["systemctl", "kill", "--signal", "KILL", "meshd"])?;
    // Asked while nobody listens, and answered when the next daemon does.
    ensure!(resolves(machine)? == 1, "names after the crash");
    ensure!(machine.show("meshd", "NRestarts")? == "1", "systemd did not start it again");
    ensure!(name_sockets(machine)? == sockets, "the sockets of names were made anew");
    wait("the unit to be active", SOON, || {
        ensure!(machine.show("meshd", "ActiveState")? == "active", "not yet");
        Ok(())
    })?;
    let lost = pings.lost()?;
    ensure!(lost == 0, "{lost} packets were lost by restarts");
    Ok(())
}

/// `dpkg` restarts the unit with the new program.
fn upgrades(machine: &Booted<'_>, there: &Task, deb: &Path) -> Result<()> {
    let pings = Pings::start(there, address(machine)?)?;
    let (before, site) = (machine.show("meshd", "MainPID")?, machine.show("site", "MainPID")?);
    machine.bring(deb, "/root/meshd.deb")?;
    machine.run(&["dpkg", "--install", "/root/meshd.deb"])?;
    machine.run(&["meshctl", "status"]).context("right after the upgrade")?;
    ensure!(machine.show("meshd", "MainPID")? != before, "the old daemon runs");
    ensure!(machine.show("site", "MainPID")? == site, "the service was restarted");
    let lost = pings.lost()?;
    ensure!(lost == 0, "{lost} packets were lost by the upgrade");
    Ok(())
}

/// The service out of its network, and the package gone.
fn leaves_nothing(machine: &Booted<'_>, cluster: &Cluster, there: &Task) -> Result<()> {
    machine.run(&["meshctl", "systemd-detach", "site"])?;
    answers(machine, cluster, there).context("it is detached at its next start, not before")?;
    machine.run(&["systemctl", "restart", "site"])?;
    let tasks = cluster[0].ctl(&["task", "ls", "--filter", "name=web.1", "-q"])?;
    ensure!(tasks.trim().is_empty(), "a task stays: {tasks}");
    let left = machine.run(&["sh", "-c", "ls /run/netns /run/meshd-netns"])?;
    ensure!(!left.contains("site"), "left: {left}");
    let outside = SocketAddr::from((cluster[1].address(), 80));
    let client = cluster.net().client();
    let body = wait("the service outside", SOON, || client.run(|| mesh_tests::get(outside, SOON))?)?;
    ensure!(body == "the site", "{body}");
    // Starting over, and then without it.
    machine.run(&["meshctl", "leave", "--force"])?;
    machine.run(&["systemctl", "disable", "--now", "meshd"])?;
    machine.run(&["rm", "-rf", "/var/lib/meshd", "/sys/fs/bpf/meshd"])?;
    let ours = |name: &String| name.starts_with("mesh-") || name.starts_with("msh");
    let links: Vec<_> = cluster[1].links()?.into_iter().filter(ours).collect();
    ensure!(links.is_empty(), "links are left: {links:?}");
    machine.run(&["systemctl", "enable", "--now", "meshd"])?;
    ensure!(machine.run(&["meshctl", "status"])?.contains("inactive"), "it is not as new");
    machine.run(&["apt-get", "purge", "--yes", "meshd"])?;
    ensure!(machine.show("meshd", "LoadState")? == "not-found", "the unit is left");
    for place in ["/sys/fs/bpf/meshd", "/var/lib/meshd", "/etc/meshd", "/run/meshd"] {
        machine.run(&["test", "!", "-e", place]).with_context(|| format!("{place} is left"))?;
    }
    ensure!(there.dig(&["there"])?.len() == 1, "the other node goes on");
    Ok(())
}

/// The service's address in its network.
fn address(machine: &Booted<'_>) -> Result<std::net::Ipv4Addr> {
    let told = machine.run(&[
        "meshctl",
        "task",
        "inspect",
        "--format",
        "{{index (index .Networks 0).Addresses 0}}",
        "web.1",
    ])?;
    told.trim().parse().with_context(|| format!("an address, not {told:?}"))
}

/// The sockets of the service's name server, by the numbers that the kernel has given them.
fn name_sockets(machine: &Booted<'_>) -> Result<Vec<String>> {
    let table =
        machine.run(&["nsenter", "--net=/run/netns/meshd-site", "cat", "/proc/net/udp", "/proc/net/tcp"])?;
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 127.0.0.11:53 as the kernel writes it; the inode is the tenth field.
    let ours = fields.filter(|words| words.get(1) == Some(&"0B00007F:0035"));
    let inodes: Vec<_> = ours.filter_map(|words| words.get(9).map(|&inode| inode.to_owned())).collect();
    ensure!(inodes.len() == 2, "not one for UDP and one for TCP: {table}");
    Ok(inodes)
}

/// How many addresses the service finds for its own name, asked once.
fn resolves(machine: &Booted<'_>) -> Result<usize> {
    let namespace = machine.inside("/run/netns/meshd-site")?;
    let ask = || resolve(SocketAddr::from(NAMES), "web", SOON);
    Ok(NetNs::run_at(&namespace, ask)??.len())
}
