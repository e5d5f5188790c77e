//! What figures depend on.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Release of its kernel.
    pub kernel: String,
    /// Such as `x86_64`.
    pub architecture: String,
    /// The processors' model; empty when the kernel does not tell.
    pub processor: String,
    /// How many of them this program may use.
    pub processors: usize,
    /// MiB of memory.
    pub memory_mib: u64,
    /// TCP's congestion control.
    pub congestion_control: String,
    /// Load average of the last minute when the run began: what else the machine did.
    pub load: f64,
}

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Result<Self> {
        let system = nix::sys::utsname::uname().context("uname")?;
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (info, memory, load) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/proc/loadavg"));
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name.trim());
        let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kilobytes = kilobytes.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(Self {
            kernel: system.release().to_string_lossy().into_owned(),
            architecture: system.machine().to_string_lossy().into_owned(),
            processor: model.to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kilobytes.unwrap_or_default() / 1024,
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            load: load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default(),
        })
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Self { kernel, architecture, processor, processors, memory_mib, congestion_control, load } = self;
        let model = if processor.is_empty() { architecture } else { processor };
        format!(
            "{processors} x {model}, {memory_mib} MiB, Linux {kernel}, {congestion_control}, load {load:.1} at the start"
        )
    }

    /// In what `other` is another machine, as far as figures depend on it.
    pub fn differs(&self, other: &Self) -> Vec<String> {
        let pairs = [
            ("kernel", self.kernel.clone(), other.kernel.clone()),
            ("processor", self.processor.clone(), other.processor.clone()),
            ("processors", self.processors.to_string(), other.processors.to_string()),
            ("congestion control", self.congestion_control.clone(), other.congestion_control.clone()),
        ];
        let different = pairs.into_iter().filter(|(_, one, two)| one != two);
        different.map(|(what, one, two)| format!("{what}: {one}, then {two}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_itself() {
        let this = Machine::this().unwrap();
        assert!(this.processors > 0 && this.memory_mib > 0 && !this.kernel.is_empty(), "{this:?}");
        assert!(this.differs(&this).is_empty());
        let other = Machine { kernel: "2.6.32".to_owned(), load: 99.0, ..this.clone() };
        assert_eq!(this.differs(&other).len(), 1);
        assert!(other.line().contains("Linux 2.6.32"), "{}", other.line());
    }
}
