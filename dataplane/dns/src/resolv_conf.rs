//! Name servers from a file such as `/etc/resolv.conf`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::DNS_ADDRESS;

/// As many as libc asks (resolv.conf(5), MAXNS).
const MOST: usize = 3;

/// The file, read again when it changes.
#[derive(Debug)]
pub(crate) struct ResolvConf {
    path: PathBuf,
    last: Mutex<(Option<Version>, Arc<[SocketAddr]>)>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    length: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl ResolvConf {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: Mutex::new((None, Arc::default())) }
    }

    /// The name servers as the file has them now. An unreadable file counts as an empty one.
    pub(crate) fn servers(&self) -> Arc<[SocketAddr]> {
        let now = version(&self.path).ok();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || last.0 != now {
            let text = fs::read(&self.path).unwrap_or_else(|error| {
                tracing::warn!(file = %self.path.display(), %error, "no name servers to forward to");
                Vec::new()
            });
            let servers: Arc<[_]> = parse(&String::from_utf8_lossy(&text)).into();
            tracing::debug!(file = %self.path.display(), ?servers, "name servers read");
            *last = (now, servers);
        }
        Arc::clone(&last.1)
    }
}

fn version(path: &Path) -> io::Result<Version> {
    let meta = fs::metadata(path)?;
    Ok(Version {
        inode: meta.ino(),
        length: meta.size(),
        seconds: meta.mtime(),
        nanoseconds: meta.mtime_nsec(),
    })
}

/// The `nameserver` lines, without repetition and without our own address, which would lead back to us.
fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(server) else { continue };
        if server.ip() != IpAddr::V4(*DNS_ADDRESS.ip()) && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers.truncate(MOST);
    servers
}

fn server(word: &str) -> Option<SocketAddr> {
    if let Some((address, link)) = word.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = link.parse().ok().or_else(|| nix::net::if_::if_nametoindex(link).ok())?;
        return Some(SocketAddrV6::new(address, 53, 0, scope).into());
    }
    let address: IpAddr = word.parse().ok()?;
    // libc takes 0.0.0.0 for this host.
    let here = address == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Some(SocketAddr::new(if here { Ipv4Addr::LOCALHOST.into() } else { address }, 53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_count() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver  fd00::1 # x\n\
                    nameserver 127.0.0.11\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver\n\
                    nameserver fe80::1%7\nnameserver 10.0.0.4\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53", "[fe80::1%7]:53"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let conf = ResolvConf::new(&path);
        assert!(conf.servers().is_empty());
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(conf.servers().as_ref(), ["10.0.0.1:53".parse().unwrap()]);
        let other = folder.path().join("new");
        fs::write(&other, "nameserver 10.0.0.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(conf.servers().as_ref(), ["10.0.0.2:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert!(conf.servers().is_empty());
    }
}
