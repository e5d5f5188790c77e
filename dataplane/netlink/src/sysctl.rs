//! Kernel settings of the calling thread's network namespace.

use std::fs;

use crate::{Error, Result};

/// Lets the kernel forward IPv4 packets (`net.ipv4.ip_forward`) in the namespace of the calling thread.
///
/// Written only where it is off: the write also resets the per-link settings.
pub fn enable_forwarding() -> Result<()> {
    set("ipv4/ip_forward", "1")
}

/// Sets `/proc/sys/net/<key>` unless it has the value already.
pub(crate) fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    let failed = |source| Error::Sysctl { path: path.clone(), source };
    if fs::read_to_string(&path).map_err(failed)?.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(failed)
}
