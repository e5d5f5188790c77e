//! What tcpdump sees of the packets that a node receives.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::netns::NetNs;

/// A tcpdump that listens already. It ends by itself, at the latest after a minute.
#[derive(Debug)]
pub struct Tcpdump {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Tcpdump {
    /// Begins to listen for the next `count` packets that come in by `eth0` of `namespace` and pass `filter`.
    pub fn start(namespace: &NetNs, count: u32, filter: &str) -> Result<Self> {
        let mut command = namespace.command("timeout")?;
        command.args([
            "60",
            "tcpdump",
            "-l",
            "-n",
            "-vv",
            "-i",
            "eth0",
            "-Q",
            "in",
            "-c",
            &count.to_string(),
        ]);
        command.arg(filter).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("tcpdump")?;
        let mut said = BufReader::new(child.stderr.take().context("tcpdump's standard error")?);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(said.read_line(&mut line).context("tcpdump")? > 0, "tcpdump does not listen");
        }
        Ok(Self { child, said })
    }

    /// Waits for the packets; what it prints of them.
    pub fn seen(self) -> Result<String> {
        let Self { child, mut said } = self;
        let output = child.wait_with_output().context("tcpdump")?;
        let mut errors = String::new();
        let _ = std::io::Read::read_to_string(&mut said, &mut errors);
        ensure!(output.status.success(), "tcpdump: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
