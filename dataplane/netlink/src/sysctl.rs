//! Kernel settings of the calling thread's network namespace.

use std::{fs, io, path::Path};

use crate::{Error, Result};

const ROOT: &str = "/proc/sys/net";

/// Lets the kernel forward IPv4 packets (`net.ipv4.ip_forward`) in the namespace of the calling thread.
///
/// Written only where it is off: the write also resets the per-link settings.
pub fn enable_forwarding() -> Result<()> {
    set("ipv4/ip_forward", "1")
}

/// Lets the kernel forward IPv6 packets (`net.ipv6.conf.all.forwarding`) in the namespace of the calling thread.
///
/// A host that forwards ignores router advertisements, and drops the default route that came from one, unless
/// `accept_ra` is 2 (kernel's ip-sysctl documentation). So links that heed them now, and those that are made later, get
/// 2 first: whatever the host learns by itself it goes on learning.
pub fn enable_forwarding6() -> Result<()> {
    if !has_ipv6() {
        return Err(Error::NoIpv6);
    }
    if get("ipv6/conf/all/forwarding")? == "1" {
        return Ok(());
    }
    let folder = format!("{ROOT}/ipv6/conf");
    let failed = |source| Error::Sysctl { path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let accept = format!("ipv6/conf/{name}/accept_ra");
        // `all` has no effect of its own. A link may go while we look.
        match get(&accept) {
            Ok(value) if name != "all" && value == "1" => match set(&accept, "2") {
                Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            },
            _ => {}
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}

/// Whether this kernel has IPv6.
pub fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6/conf/all").exists()
}

/// Lets a link have IPv6 addresses, and none but those that it is given.
pub(crate) fn ready_for_ipv6(link: &str) -> Result<()> {
    if !has_ipv6() {
        return Err(Error::NoIpv6);
    }
    set(&format!("ipv6/conf/{link}/disable_ipv6"), "0")?;
    set(&format!("ipv6/conf/{link}/accept_ra"), "0")?;
    set(&format!("ipv6/conf/{link}/autoconf"), "0")?;
    // So that they outlive `ip link set down`, as IPv4 addresses do.
    set(&format!("ipv6/conf/{link}/keep_addr_on_down"), "1")
}

/// Switches IPv6 on for a link, and for `lo` if it is off there, after whoever is just switching it off for all links: the
/// write waits for that one's, where a look at the value would not.
pub(crate) fn switch_ipv6_on(link: &str) -> Result<()> {
    if !has_ipv6() {
        return Err(Error::NoIpv6);
    }
    let path = format!("{ROOT}/ipv6/conf/{link}/disable_ipv6");
    fs::write(&path, "0").map_err(|source| Error::Sysctl { path, source })?;
    set("ipv6/conf/lo/disable_ipv6", "0")
}

/// Sets `/proc/sys/net/<key>` unless it has the value already.
pub(crate) fn set(key: &str, value: &str) -> Result<()> {
    if get(key)? == value {
        return Ok(());
    }
    let path = format!("{ROOT}/{key}");
    fs::write(&path, value).map_err(|source| Error::Sysctl { path, source })
}

fn get(key: &str) -> Result<String> {
    let path = format!("{ROOT}/{key}");
    let text = fs::read_to_string(&path).map_err(|source| Error::Sysctl { path, source })?;
    Ok(text.trim().to_owned())
}
