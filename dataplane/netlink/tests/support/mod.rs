//! Namespaces without names for the tests: nothing is left behind, however a test ends.

use std::{
    os::fd::{AsFd, AsRawFd},
    process::Command,
};

use mesh_netlink::NetNs;

/// Runs an async test body on a thread of its own inside the namespace.
pub fn inside<T: Send, F: Future<Output = T>>(ns: &NetNs, body: impl FnOnce() -> F + Send) -> T {
    ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body())
    })
    .unwrap()
}

/// The path by which other processes open the namespace while this process holds it.
pub fn path_of(ns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd())
}

/// Runs a shell line inside the namespace and returns what it printed; it must succeed.
pub fn sh(ns: &NetNs, line: &str) -> String {
    let (ok, text) = try_sh(ns, line);
    assert!(ok, "{line}: {text}");
    text
}

/// Runs a shell line inside the namespace.
pub fn try_sh(ns: &NetNs, line: &str) -> (bool, String) {
    let net = format!("--net={}", path_of(ns));
    let output = Command::new("nsenter").args([&net, "sh", "-c", line]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Everything one can see of a namespace's network, for before and after.
pub fn state(ns: &NetNs) -> String {
    // The kernel settles carriers in its own time.
    sh(
        ns,
        "(ip -d link; ip addr; ip route show table all; ip -6 route show table all; ip neigh; nft list ruleset) \
         | sed -E 's/NO-CARRIER,|,LOWER_UP| linkdown//g; s/ state [A-Z]+//; /^multicast ff00/d'",
    )
}
