//! Throughput by iperf3.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{netns::NetNs, process::output, wait::wait};

const PORT: &str = "5201";

/// Gbit/s that a receiver in the namespace at `to` saw on one TCP stream from the one at `from`, each end on a
/// processor of its own where some are given.
pub fn iperf3(
    from: &Path,
    to: &Path,
    address: Ipv4Addr,
    seconds: u32,
    processors: Option<(usize, usize)>,
) -> Result<f64> {
    let _server = Server::start(to, processors.map(|(_, server)| server))?;
    let (address, seconds) = (address.to_string(), seconds.to_string());
    // In JSON mode iperf3 ends well even when the server is not there yet.
    wait("iperf3", Duration::from_secs(3), || {
        let mut client = command(from, processors.map(|(client, _)| client))?;
        let words = ["-J", "-p", PORT, "-c", &address, "-t", &seconds, "-O", "0.5"];
        let report = output(client.args(words))?;
        let report: serde_json::Value = serde_json::from_str(&report).context("what iperf3 prints")?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.with_context(|| format!("iperf3 reports no throughput: {}", report["error"]))? / 1e9)
    })
}

/// An iperf3 that serves; killed on drop.
struct Server(Child);

impl Server {
    fn start(namespace: &Path, processor: Option<usize>) -> Result<Self> {
        let mut server = command(namespace, processor)?;
        server.args(["-s", "-p", PORT]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(server.spawn().context("cannot run iperf3")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(namespace: &Path, processor: Option<usize>) -> Result<Command> {
    let Some(processor) = processor else { return NetNs::command_at(namespace, "iperf3") };
    let mut command = NetNs::command_at(namespace, "taskset")?;
    command.args(["-c", &processor.to_string(), "iperf3"]);
    Ok(command)
}
