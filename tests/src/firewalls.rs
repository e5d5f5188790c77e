//! Debian's ufw and firewalld on a node, with rules of the node's own. Neither is installed on this machine, whose services and
//! rules they would be: their packages are unpacked beside it, and seen by what runs in the node's folders alone.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    containers::Folders,
    debian::unpacked,
    node::Node,
    process::{Process, lines_of, output, succeed},
    wait::wait,
};

/// How long firewalld may take until it answers.
const START: Duration = Duration::from_secs(40);

/// A bus for firewalld and who asks it. It starts nothing by itself, so that nobody but root is asked who may.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// As the packages are when they have just been installed, whatever this machine has of them.
const INSTALL: &str = r#"set -e
rm -rf /etc/ufw /etc/default/ufw /etc/firewalld
cp -a "$1/etc/." /etc/
mount -t overlay -o "lowerdir=$1/usr:/usr" usr /usr
mount -t tmpfs log /var/log
mkdir /run/dbus
"#;

/// One of them, on a node. What it runs is ended on drop; its rules end with the node.
#[derive(Debug)]
pub struct Firewall {
    // Dropped in this order: what runs with the folders, and the bus last of it.
    daemon: Option<Process>,
    bus: Option<Process>,
    folders: Folders,
}

impl Firewall {
    /// ufw, which is not enabled yet: `ufw --force enable`.
    pub fn ufw(node: &Node) -> Result<Self> {
        Self::installed(node)
    }

    fn installed(node: &Node) -> Result<Self> {
        let packages = unpacked("firewalls", &["ufw", "firewalld", "python3-firewall"], prepare)?;
        let folders = Folders::of(node)?;
        succeed(folders.command("sh")?.args(["-c", INSTALL, "install"]).arg(packages))?;
        Ok(Self { daemon: None, bus: None, folders })
    }

    /// firewalld as it starts after its installation: eth0 is in the zone `public`.
    pub fn firewalld(node: &Node) -> Result<Self> {
        let mut firewall = Self::installed(node)?;
        let folders = &firewall.folders;
        folders.write("/etc/bus.conf", BUS)?;
        let mut bus = folders.command("dbus-daemon")?;
        bus.args(["--config-file=/etc/bus.conf", "--nofork", "--nopidfile"]);
        firewall.bus = Some(folders.start(bus, "dbus.log")?);
        let socket = folders.path("/run/dbus/system_bus_socket");
        wait("a bus", START, || {
            ensure!(socket.exists(), "{}", lines_of(&folders.home().join("dbus.log"), 5));
            Ok(())
        })?;
        let mut daemon = folders.command("firewalld")?;
        daemon.args(["--nofork", "--nopid"]);
        let mut daemon = folders.start(daemon, "firewalld.log")?;
        let answers = wait("firewalld to answer", START, || {
            ensure!(daemon.ended()?.is_none(), "firewalld ended");
            succeed(folders.command("timeout")?.args(["10", "firewall-cmd", "--state"]))
        });
        answers.with_context(|| lines_of(&folders.home().join("firewalld.log"), 20))?;
        firewall.daemon = Some(daemon);
        Ok(firewall)
    }

    /// A command on the node that finds `ufw` and `firewall-cmd`.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.folders.command(program)
    }

    /// Runs a line of a shell there; what it prints.
    pub fn run(&self, line: &str) -> Result<String> {
        output(self.command("sh")?.args(["-ec", line]))
    }
}

/// What ufw's package does when it is installed, beside asking (its `postinst`); and what Python would do each time anew.
fn prepare(root: &Path) -> Result<()> {
    let script = "cd \"$1\"; cp -a lib/. usr/lib/; rm -r lib; \
                  cp usr/share/ufw/iptables/*.rules usr/share/ufw/*.init usr/share/ufw/ufw.conf etc/ufw/; \
                  /usr/bin/python3 -m compileall -q usr/lib/python3/dist-packages";
    succeed(Command::new("sh").args(["-ec", script, "prepare"]).arg(root))
}
