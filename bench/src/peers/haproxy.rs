//! The peer: haproxy on the machine that the client speaks to, in TCP mode.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_tests::{Lifetime, Prefix, Process, lines_of, wait};

use super::Machine;
use crate::{load::need, path::Ports, pinning};

const START: Duration = Duration::from_secs(5);

/// A running haproxy, ended on drop.
pub struct Haproxy(#[expect(dead_code, reason = "held for its drop")] Process);

impl Haproxy {
    /// Starts one on a machine that leads the TCP ports `from` to `to` of a server, by one thread.
    pub fn start(
        prefix: &Prefix,
        machine: &Machine,
        server: Ipv4Addr,
        (from, to): (Ports, Ports),
        processor: usize,
    ) -> Result<Self> {
        need("haproxy")?;
        let config = prefix.folder().join("haproxy.cfg");
        std::fs::write(&config, text(server, from, to))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = machine.namespace.command("haproxy")?;
        command.arg("-db").arg("-f").arg(&config);
        let log = prefix.folder().join("haproxy.log");
        let process = Process::start(command, Lifetime::Owner, &log, &prefix.folder().join("pids"))?;
        pinning::pin_process(process.pid(), processor)?;
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, from.http)).map(drop);
        wait("haproxy to listen", START, || Ok(machine.namespace.run(connect)??))
            .with_context(|| lines_of(&log, 10))?;
        Ok(Self(process))
    }
}

fn text(server: Ipv4Addr, from: Ports, to: Ports) -> String {
    let mut text = "global\n  maxconn 2000\n  nbthread 1\n".to_owned();
    text += "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n";
    for (from, to, _) in from.pairs(to).into_iter().filter(|(_, _, protocol)| *protocol == "tcp") {
        let to = SocketAddrV4::new(server, to);
        // Writing to a string does not fail.
        let _ = writeln!(text, "listen port{from}\n  bind :{from}\n  server task {to}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::{TestNet, get};

    use crate::load::Server;

    #[test]
    fn it_leads_to_the_server() {
        let net = TestNet::create(Prefix::unique(), 1).unwrap();
        let (prefix, node) = (net.prefix(), &net.nodes()[0]);
        let machine = Machine::plug(&net, 1).unwrap();
        let (from, to) = (Ports::from(15000), Ports::from(16000));
        let _server = Server::start(prefix, "behind", &node.path(), to.http, 0).unwrap();
        let _haproxy = Haproxy::start(prefix, &machine, net.address(0), (from, to), 0).unwrap();
        let ask = || get((machine.address, from.http).into(), Duration::from_secs(1));
        let said = wait("haproxy", Duration::from_secs(5), || net.client().run(ask)?);
        assert_eq!(said.unwrap(), "behind");
    }
}
