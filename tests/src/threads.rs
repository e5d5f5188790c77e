//! Where the kernel holds the threads of a process: what to ask when something does not come about.

use std::{fs, path::Path};

/// Where threads rest that have nothing to do, by the kernel function that they wait in.
const RESTS: [&str; 7] = [
    "futex_wait",
    "epoll_wait",
    "do_poll",
    "do_wait",
    "hrtimer_nanosleep",
    "do_sigtimedwait",
    "wait_for_more_packets",
];
/// As much of a stack as tells what it is.
const FRAMES: usize = 8;

/// One line for each thread of `pid` that runs or that the kernel lets wait for something of its own; nothing for those at rest.
pub(crate) fn held(pid: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| line(pid, &task.path())).collect()
}

fn line(pid: u32, task: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
    let stack = read("stack");
    let frames: Vec<&str> = stack.lines().filter_map(function).take(FRAMES).collect();
    if frames.is_empty() || frames.iter().any(|frame| RESTS.iter().any(|rest| frame.contains(rest))) {
        return None;
    }
    Some(format!("{pid} {}: {}\n", read("comm").trim(), frames.join(" < ")))
}

/// The function of `[<0>] futex_wait_queue+0x63/0x90`.
fn function(frame: &str) -> Option<&str> {
    frame.split_once("] ")?.1.split('+').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        assert_eq!(function("[<0>] ep_poll+0x33a/0x390"), Some("ep_poll"));
        assert_eq!(function(""), None);
    }
}
