//! A container's network namespace, seen from inside.

use std::{
    fs::File,
    io,
    net::IpAddr,
    path::{Path, PathBuf, absolute},
    thread,
};

use mesh_types::Mac;
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sched::{CloneFlags, setns},
    sys::{
        socket::SockaddrStorage,
        statfs::{NSFS_MAGIC, statfs},
    },
};

use crate::{
    environment::wrong,
    error::{CniError, Code},
};

/// An interface as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Whether it is up.
    pub up: bool,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The absolute path of the namespace that `CNI_NETNS` names, which has to be there.
pub fn find(given: &Path) -> Result<PathBuf, CniError> {
    match statfs(given) {
        Ok(found) if found.filesystem_type() == NSFS_MAGIC => {
            let whole = absolute(given).unwrap_or_else(|_| given.to_owned());
            // Links before the last part are resolved, such as /proc/self, which is another one for meshd; the last part
            // stays, since in /proc it is a link to no path.
            let parts = whole.parent().and_then(|folder| folder.canonicalize().ok()).zip(whole.file_name());
            Ok(parts.map_or_else(|| whole.clone(), |(folder, file)| folder.join(file)))
        }
        Ok(_) => Err(wrong(vec![format!("CNI_NETNS is {}, which is no namespace", given.display())])),
        Err(error) => Err(CniError::new(
            Code::UnknownContainer,
            "the container's network namespace is not there",
            format!("CNI_NETNS is {}: {}", given.display(), error.desc()),
        )),
    }
}

/// The interface `name` of the namespace at `path`; none if there is no such one.
pub fn interface(path: &Path, name: &str) -> io::Result<Option<Interface>> {
    let namespace = File::open(path)?;
    let name = name.to_owned();
    // A thread of its own, since only it enters.
    let look = thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        let mut found: Option<Interface> = None;
        for entry in getifaddrs()?.filter(|entry| entry.interface_name == name) {
            let seen = found.get_or_insert_default();
            seen.up |= entry.flags.contains(InterfaceFlags::IFF_UP);
            let Some(address) = entry.address else { continue };
            seen.mac = seen.mac.or_else(|| address.as_link_addr()?.addr().map(Mac));
            seen.addresses.extend(ip(&address));
        }
        Ok(found)
    });
    look.join().map_err(|_| io::Error::other("the thread inside ended"))?
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
