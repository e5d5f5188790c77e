//! A name server under test.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use mesh_tests::output;

/// See the module.
pub trait Subject {
    /// For people.
    fn name(&self) -> &'static str;
    /// The network namespaces that ask it, by their files.
    fn askers(&self) -> &[PathBuf];
    /// Whom they ask.
    fn server(&self) -> SocketAddr;
    /// The process that answers.
    fn pid(&self) -> u32;

    /// Seconds of processor time that it has used.
    fn cpu(&self) -> Result<f64> {
        crate::idle::processor_time(self.pid())
    }

    /// Keeps all its threads on one processor, or lets them go.
    fn pin(&self, processor: Option<usize>) -> Result<()> {
        let all = || -> Result<String> {
            let count = std::thread::available_parallelism().context("how many processors there are")?;
            Ok(format!("0-{}", count.get() - 1))
        };
        let list = processor.map_or_else(all, |one| Ok(one.to_string()))?;
        let said =
            output(std::process::Command::new("taskset").args(["-apc", &list, &self.pid().to_string()]))?;
        ensure!(!said.is_empty(), "taskset says nothing");
        Ok(())
    }
}

/// Port 53 of 127.0.0.11, where tasks and containers ask.
pub fn embedded() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 11], 53))
}
