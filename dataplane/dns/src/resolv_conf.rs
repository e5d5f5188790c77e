//! Name servers from a file such as `/etc/resolv.conf`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::DNS_ADDRESS;

/// As many as libc asks (resolv.conf(5), MAXNS).
const MOST: usize = 3;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodeResolver {
    /// The name servers, in order.
    pub servers: Arc<[SocketAddr]>,
    /// Domains that names are looked for in.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

/// The file, read again when it changes.
#[derive(Debug)]
pub(crate) struct ResolvConf {
    path: PathBuf,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    version: Option<Version>,
    /// Whether the file was written so shortly before that a further change may show the same time.
    fresh: bool,
    read: Arc<NodeResolver>,
}

/// What changes when a file is written or replaced, or the link to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

/// Coarser than every file system's clock.
const FRESH: Duration = Duration::from_secs(2);

impl ResolvConf {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: Mutex::default() }
    }

    /// What the file says now. An unreadable file counts as an empty one.
    pub(crate) fn read(&self) -> Arc<NodeResolver> {
        let now = version(&self.path).ok();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((now, fresh)) = now else {
            if last.version.take().is_some() {
                tracing::warn!(file = %self.path.display(), "cannot be read: no name servers to forward to");
            }
            last.read = Arc::default();
            return Arc::default();
        };
        if last.version != Some(now) || last.fresh {
            let read = fs::read(&self.path).map(|bytes| parse(&String::from_utf8_lossy(&bytes)));
            match read {
                // Somebody is just writing it anew.
                Ok(read) if fresh && read.servers.is_empty() && !last.read.servers.is_empty() => {}
                Ok(read) if *last.read == read => {}
                Ok(read) => {
                    tracing::debug!(file = %self.path.display(), ?read, "name servers read");
                    last.read = Arc::new(read);
                }
                Err(error) => {
                    tracing::warn!(file = %self.path.display(), %error, "no name servers to forward to");
                    last.read = Arc::default();
                }
            }
            (last.version, last.fresh) = (Some(now), fresh);
        }
        Arc::clone(&last.read)
    }
}

/// The file's version, and whether it is fresh.
fn version(path: &Path) -> io::Result<(Version, bool)> {
    let meta = fs::metadata(path)?;
    let version = Version {
        device: meta.dev(),
        inode: meta.ino(),
        length: meta.size(),
        written: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    // A time to come is as good as now.
    let fresh = meta.modified()?.elapsed().map_or(true, |age| age < FRESH);
    Ok((version, fresh))
}

/// As resolv.conf(5) has it: the servers without repetition and without our own address, which would lead back to us; the
/// last line of `search` or `domain`; all options.
fn parse(text: &str) -> NodeResolver {
    let mut servers = Vec::new();
    let mut read = NodeResolver::default();
    let owned = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(server)),
            Some("search") => read.search = owned(words),
            Some("domain") => read.search = owned(words).into_iter().take(1).collect(),
            Some("options") => read.options.extend(owned(words)),
            _ => {}
        }
    }
    let mut seen = Vec::new();
    servers.retain(|s| {
        s.ip() != IpAddr::V4(*DNS_ADDRESS.ip()) && !seen.contains(s) && {
            seen.push(*s);
            true
        }
    });
    servers.truncate(MOST);
    read.servers = servers.into();
    read
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

    fn servers(conf: &ResolvConf) -> Vec<String> {
        conf.read().servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_lines_that_count() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver  fd00::1 # x\n\
                    nameserver 127.0.0.11\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver\n\
                    nameserver fe80::1%7\nnameserver 10.0.0.4\noptions edns0 ndots:2\ndomain old\n\
                    search corp.example lab.example\noptions rotate\n";
        let read = parse(text);
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53", "[fe80::1%7]:53"]);
        assert_eq!(read.search, ["corp.example", "lab.example"]);
        assert_eq!(read.options, ["edns0", "ndots:2", "rotate"]);
        assert_eq!(parse(""), NodeResolver::default());
        assert_eq!(parse("search a b\ndomain corp.example x\n").search, ["corp.example"]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let conf = ResolvConf::new(&path);
        assert!(servers(&conf).is_empty());
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(servers(&conf), ["10.0.0.1:53"]);
        // At once, in the same place, of the same length.
        fs::write(&path, "nameserver 10.0.0.3\n").unwrap();
        assert_eq!(servers(&conf), ["10.0.0.3:53"]);
        let other = folder.path().join("new");
        fs::write(&other, "nameserver 10.0.0.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(servers(&conf), ["10.0.0.2:53"]);
        fs::remove_file(&path).unwrap();
        assert!(servers(&conf).is_empty());
    }

    #[test]
    fn links_are_followed_wherever_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, server: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("nameserver {server}\n")).unwrap();
            let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
            fs::File::options().write(true).open(&path).unwrap().set_times(old).unwrap();
            path
        };
        let (one, other) = (file("one", "10.0.0.1"), file("two", "10.0.0.2"));
        let path = folder.path().join("resolv.conf");
        fs::copy(&one, &path).unwrap();
        let conf = ResolvConf::new(&path);
        assert_eq!(servers(&conf), ["10.0.0.1:53"]);
        for (target, server) in [(&other, "10.0.0.2:53"), (&one, "10.0.0.1:53"), (&other, "10.0.0.2:53")] {
            let new = folder.path().join("new");
            std::os::unix::fs::symlink(target, &new).unwrap();
            fs::rename(&new, &path).unwrap();
            assert_eq!(servers(&conf), [server]);
        }
    }

    #[test]
    fn a_file_that_is_being_written_keeps_its_servers_for_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let conf = ResolvConf::new(&path);
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(servers(&conf), ["10.0.0.1:53"]);
        fs::write(&path, "").unwrap();
        assert_eq!(servers(&conf), ["10.0.0.1:53"]);
        let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        fs::File::options().write(true).open(&path).unwrap().set_times(old).unwrap();
        assert!(servers(&conf).is_empty(), "nobody writes it any more");
    }
}
