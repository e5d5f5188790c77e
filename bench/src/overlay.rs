//! TCP throughput and round trips over the overlay, beside the bare underlay and a Linux bridge with VXLAN.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use mesh_tests::{Cluster, NetNs, TaskSpec, iperf3};

use crate::{
    ping_pong,
    pinning::{self, Processors},
    stats::{median, median_ratio},
    vxlan_bridge::VxlanBridge,
};

const NETWORK: &str = "bench";

/// How much to measure.
#[derive(Args)]
pub struct Options {
    /// Rounds; each measures every path once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each throughput run.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Round trips of each latency run.
    #[arg(long, default_value_t = 20_000)]
    round_trips: usize,
    /// Pin only client and server; let packets be received on whichever processor sent them.
    #[arg(long)]
    unsteered: bool,
}

/// A way from one namespace to another.
struct Path {
    name: &'static str,
    from: PathBuf,
    to: PathBuf,
    address: Ipv4Addr,
    throughput: Vec<f64>,
    udp: Vec<f64>,
    tcp: Vec<f64>,
}

impl Path {
    fn new(name: &'static str, from: PathBuf, to: PathBuf, address: Ipv4Addr) -> Self {
        Self { name, from, to, address, throughput: vec![], udp: vec![], tcp: vec![] }
    }

    fn round(&mut self, options: &Options, processors: Processors) -> Result<()> {
        let pinned = Some((processors.client, processors.server));
        self.throughput.push(iperf3(&self.from, &self.to, self.address, options.seconds, pinned)?);
        let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let server = NetNs::run_at(&self.to, bind)?.context("a socket for the server")?;
        let client = NetNs::run_at(&self.from, bind)?.context("a socket for the client")?;
        let to = SocketAddr::from((self.address, server.local_addr().context("the server's port")?.port()));
        self.udp.push(ping_pong::udp(&client, &server, to, options.round_trips, processors)?);
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0));
        let server = NetNs::run_at(&self.to, listen)?.context("a socket for the server")?;
        let to = SocketAddr::from((self.address, server.local_addr().context("the server's port")?.port()));
        let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(2));
        let client = NetNs::run_at(&self.from, connect)?.with_context(|| format!("connecting to {to}"))?;
        self.tcp.push(ping_pong::tcp(client, &server, options.round_trips, processors)?);
        Ok(())
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let processors = Processors::pick()?;
    let cluster = Cluster::start(2)?;
    let mut paths = Vec::new();
    let nodes = cluster.net().nodes();
    paths.push(Path::new("underlay", nodes[0].path(), nodes[1].path(), cluster.net().address(1)));
    for (node, processor) in [(0, processors.client), (1, processors.server)] {
        if !options.unsteered {
            pinning::receive_on(&nodes[node].path(), processor)?;
        }
    }
    cluster[0].ctl(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--subnet",
        "10.10.3.0/24",
        "--attachable",
        NETWORK,
    ])?;
    cluster.wait_for_view()?;
    let first = cluster[0].run_idle(&TaskSpec { name: "first", network: NETWORK, ..TaskSpec::default() })?;
    let second =
        cluster[1].run_idle(&TaskSpec { name: "second", network: NETWORK, ..TaskSpec::default() })?;
    paths.push(Path::new("meshd overlay", first.namespace(), second.namespace(), second.address()?));
    let peer = VxlanBridge::create(cluster.net(), cluster.net().prefix())?;
    let (from, to) = (peer.first.path(), peer.second.path());
    paths.push(Path::new("Linux bridge + VXLAN", from, to, VxlanBridge::SECOND));
    for round in 1..=options.rounds {
        for path in &mut paths {
            eprintln!("round {round} of {}: {}", options.rounds, path.name);
            path.round(options, processors).with_context(|| path.name).map_err(|e| cluster.explain(e))?;
        }
    }
    print(&paths);
    Ok(())
}

fn print(paths: &[Path]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["path", "TCP Gbit/s", "ratio", "64 B UDP p50 us", "ratio", "64 B TCP p50 us", "ratio"]);
    let Some(base) = paths.first() else { return };
    for path in paths {
        let mut row = vec![path.name.to_owned()];
        for (values, base) in
            [(&path.throughput, &base.throughput), (&path.udp, &base.udp), (&path.tcp, &base.tcp)]
        {
            row.push(format!("{:.2}", median(values)));
            row.push(format!("{:.2}", median_ratio(values, base)));
        }
        table.add_row(row);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::{Prefix, TestNet};

    #[test]
    fn underlay_and_peer_are_measured() {
        let net = TestNet::create(Prefix::unique(), 2).unwrap();
        let peer = VxlanBridge::create(&net, net.prefix()).unwrap();
        let (first, second) = (net.nodes()[0].path(), net.nodes()[1].path());
        let mut underlay = Path::new("underlay", first, second, net.address(1));
        let mut bridge = Path::new("bridge", peer.first.path(), peer.second.path(), VxlanBridge::SECOND);
        let options = Options { rounds: 1, seconds: 1, round_trips: 200, unsteered: true };
        for path in [&mut underlay, &mut bridge] {
            path.round(&options, Processors::pick().unwrap()).unwrap();
            for values in [&path.throughput, &path.udp, &path.tcp] {
                assert!(values[0] > 0.0, "{}: {values:?}", path.name);
            }
        }
        print(&[underlay, bridge]);
    }
}
