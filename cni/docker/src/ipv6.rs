//! IPv6 in namespaces that Docker is still busy with.
//!
//! Docker before 26 writes 1 to `net.ipv6.conf.all.disable_ipv6` once the runtime has made a container's namespace, and
//! switches IPv6 on again for the interfaces that it moves in by itself, which ours are not (libnetwork's
//! `osl/namespace_linux.go`, `GetSandboxForExternalKey`). The write takes every address of IPv6 that is there by then, and
//! an interface that is being made may fail on it. So a container of a network with IPv6 is attached as soon as there is a
//! namespace, and once more after the write: the daemon then puts back what is missing.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;
use tracing::debug;

const SWITCH: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
/// How often it is looked at: at the shortest, and once a start takes long.
const LOOK: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];

/// Waits until IPv6 is switched off in the namespace at `sandbox`; for `at_most`, and not where the kernel has none.
pub(crate) async fn switched_off(sandbox: &Path, at_most: Duration) -> io::Result<()> {
    let namespace = File::open(sandbox)?;
    let (done, end) = oneshot::channel::<io::Result<()>>();
    // A thread of its own, since only it enters. It ends soon after nobody waits for it any more.
    thread::Builder::new().name("ipv6".to_owned()).spawn(move || {
        let looked = watch(&namespace, at_most, || done.is_closed());
        let _ = done.send(looked);
    })?;
    end.await.unwrap_or_else(|_| Err(io::Error::other("the thread inside ended")))
}

fn watch(namespace: &File, at_most: Duration, in_vain: impl Fn() -> bool) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let begin = Instant::now();
    while !in_vain() {
        match fs::read_to_string(SWITCH) {
            Ok(text) if text.trim() == "1" => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        let waited = begin.elapsed();
        if waited > at_most {
            debug!(?waited, "Docker leaves IPv6 as it is");
            break;
        }
        thread::sleep((waited / 16).clamp(LOOK[0], LOOK[1]));
    }
    Ok(())
}
