//! dnsmasq with a hosts file, asked from its own namespace. It has one server for all who ask, so nothing keeps a flood
//! apart from the others; that part is left out.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use mesh_tests::{Lifetime, NetNs, Prefix, Process, resolve, wait};

use super::subject::Subject;

/// See the module.
pub struct Dnsmasq {
    askers: Vec<PathBuf>,
    process: Process,
    _namespace: NetNs,
}

impl Dnsmasq {
    /// With one address for each of `names`.
    pub fn start(prefix: &Prefix, names: &[String]) -> Result<Self> {
        let folder = prefix.folder().join("dnsmasq");
        let records = folder.join("pids");
        std::fs::create_dir_all(&records).with_context(|| format!("cannot make {}", records.display()))?;
        let hosts = folder.join("hosts");
        let text: String = names.iter().map(|name| format!("10.10.3.2 {name}\n")).collect();
        std::fs::write(&hosts, text).with_context(|| format!("cannot write {}", hosts.display()))?;
        let namespace = NetNs::create(&prefix.namespace("dnsmasq"))?;
        let mut command = namespace.command("dnsmasq")?;
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
        ]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file"]);
        command.arg(format!("--addn-hosts={}", hosts.display()));
        let log = folder.join("log");
        let process =
            Process::start(command, Lifetime::Owner, &log, &records).context("dnsmasq (`setup --peers`)")?;
        let subject = Self { askers: vec![namespace.path()], process, _namespace: namespace };
        let first = names.first().context("no names")?;
        let known = || resolve(subject.server(), first, Duration::from_secs(1)).map(drop);
        wait("dnsmasq to answer", Duration::from_secs(10), || NetNs::run_at(&subject.askers[0], known)?)
            .with_context(|| mesh_tests::lines_of(&log, 10))?;
        Ok(subject)
    }
}

impl Subject for Dnsmasq {
    fn name(&self) -> &'static str {
        "dnsmasq"
    }

    fn askers(&self) -> &[PathBuf] {
        &self.askers
    }

    fn server(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 53))
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }
}
