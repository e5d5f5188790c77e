//! What the daemon itself takes, by /proc.

use std::{
    fs,
    time::{Duration, SystemTime},
};

/// The daemon's process at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// When it started.
    pub start: SystemTime,
    /// Time that its threads have run.
    pub cpu: Duration,
    /// Memory in RAM, in bytes.
    pub resident: u64,
    /// Open descriptors.
    pub open: u64,
    /// Most descriptors that it may have open.
    pub most: u64,
}

impl Process {
    /// Looks at this process, which started at `start`. None if /proc does not tell.
    pub fn look(start: SystemTime) -> Option<Self> {
        let read = |file| fs::read_to_string(format!("/proc/self/{file}")).ok();
        let open = fs::metadata("/proc/self/fd").ok()?.len();
        Some(Self {
            start,
            cpu: cpu(&read("stat")?)?,
            resident: resident(&read("status")?)?,
            // Kernels before 6.2 do not say; there are not so many then that counting them takes long.
            open: if open > 0 { open } else { fs::read_dir("/proc/self/fd").ok()?.count() as u64 },
            most: most(&read("limits")?)?,
        })
    }
}

/// Fields 14 and 15 of `stat`, in hundredths of a second (`USER_HZ`). The name before them may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn most(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_understood() {
        let stat = "7 (a) R 1 (x) S 1 7 7 0 -1 4194560 9 0 0 0 1203 317 0 0 20 0 5 0 99 1 2";
        assert_eq!(cpu(stat), Some(Duration::from_millis(15_200)));
        assert_eq!(cpu("7 (a"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12_288));
        assert_eq!(most("Limit\nMax open files            1024                 524288               files\n"), Some(1024));
        assert_eq!(most("Max open files unlimited"), None);
    }

    #[test]
    fn this_process_is_there() {
        let process = Process::look(SystemTime::UNIX_EPOCH).unwrap();
        assert!(process.resident > 0 && process.open > 2 && process.most >= process.open, "{process:?}");
    }
}
