//! Processes of the node that listen where a published port is open. Clients reach the mesh and not them, which their
//! owners should be told. This part is pure but for the reading of /proc at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use mesh_types::{ListenerProcess, PortConfig, Protocol, PublishAt};

/// A socket that takes what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// The port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The address that it is bound to.
    pub address: IpAddr,
    /// Its number in the socket file system.
    pub inode: u64,
}

/// States in /proc/net/{tcp,udp}: TCP sockets that listen, and UDP sockets that are not connected.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// Reads one line of /proc/net/{tcp,tcp6,udp,udp6}. `None` for other sockets, and for the heading.
fn parse(line: &str, protocol: Protocol) -> Option<Listening> {
    let mut fields = line.split_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    let wanted = if protocol == Protocol::Tcp { LISTEN } else { UNCONNECTED };
    if state != wanted {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Listening { port, protocol, address: address_of(address)?, inode })
}

/// Words of 32 bits in the machine's order, in hexadecimal digits.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (place, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(place * 8)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// Reads one line of /proc/net/sctp/eps, which lists sockets that listen, each with its addresses. Nothing for the heading.
fn parse_sctp(line: &str) -> Vec<Listening> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, _, _, port, _, inode, addresses @ ..] = &fields[..] else { return Vec::new() };
    let (Ok(port), Ok(inode)) = (port.parse(), inode.parse()) else { return Vec::new() };
    let addresses = addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
    let socket = |address: IpAddr| Listening {
        port,
        protocol: Protocol::Sctp,
        address: address.to_canonical(),
        inode,
    };
    addresses.map(socket).collect()
}

/// Whether the published port takes what the socket is waiting for.
pub fn shadows(port: &PortConfig, socket: &Listening, host_addresses: &BTreeMap<IpAddr, String>) -> bool {
    if (port.published, port.protocol) != (socket.port, socket.protocol) {
        return false;
    }
    let everywhere = socket.address.is_unspecified();
    // A socket at `::` may be one for IPv6 only, which /proc does not tell.
    let takes = |address: &IpAddr| {
        *address == socket.address || everywhere && (socket.address.is_ipv6() || address.is_ipv4())
    };
    match port.at {
        PublishAt::Any => {
            everywhere || socket.address.is_loopback() || host_addresses.contains_key(&socket.address)
        }
        PublishAt::Address(address) => {
            (address.is_loopback() || host_addresses.contains_key(&address)) && takes(&address)
        }
        PublishAt::Interface(name) => {
            let mut on = host_addresses.iter().filter(|(_, interface)| interface.as_str() == name.as_str());
            on.any(|(address, _)| takes(address))
        }
    }
}

/// The sockets of the calling thread's network namespace that wait for what comes.
pub fn listening() -> io::Result<Vec<Listening>> {
    let files =
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let mut found = Vec::new();
    for (name, protocol) in files {
        for line in lines(name)? {
            match parse(&line?, protocol) {
                Some(socket) => found.push(socket),
                // The kernel lists TCP sockets that listen before all others, which may be very many.
                None if protocol == Protocol::Tcp => break,
                None => {}
            }
        }
    }
    for line in lines("sctp/eps")? {
        found.extend(parse_sctp(&line?));
    }
    Ok(found)
}

/// The lines of a file below /proc/net but for its heading; none when there is no such protocol.
fn lines(name: &str) -> io::Result<impl Iterator<Item = io::Result<String>>> {
    let file = match fs::File::open(Path::new("/proc/thread-self/net").join(name)) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    Ok(file.into_iter().flat_map(|file| BufReader::new(file).lines().skip(1)))
}

/// The processes that hold the sockets of these numbers. Looks at every process, so not for every second.
pub fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, ListenerProcess> {
    let mut found = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // Gone, or not ours to look into.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode =
                target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                found.entry(inode).or_insert_with(|| ListenerProcess { name: name.trim().to_owned(), pid });
            }
        }
        if found.len() == inodes.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 \
                    0000000000000000 100 0 0 10 0";
        let socket = parse(line, Protocol::Tcp).unwrap();
        assert_eq!(
            (socket.address.to_string().as_str(), socket.port, socket.inode),
            ("127.0.0.1", 8080, 12345)
        );
        let line = "  51: B80D0120000000000000000001000000:0035 00000000000000000000000000000000:0000 07 \
                    00000000:00000000 00:00000000 00000000  1000        0 77 2 0000000000000000 0";
        let socket = parse(line, Protocol::Udp).unwrap();
        assert_eq!((socket.address.to_string().as_str(), socket.port), ("2001:db8::1", 53));
        assert_eq!(parse(line, Protocol::Tcp), None);
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue", Protocol::Tcp), None);
        for cut in 0..line.len() {
            let _ = parse(&line[..cut], Protocol::Udp);
        }
    }

    #[test]
    fn sctp_lines_are_read() {
        let heading = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS";
        assert_eq!(parse_sctp(heading), []);
        let line = "0000000000000000 0000000000000000 2   10  37   9100      0 31337 0.0.0.0 ";
        let found: Vec<_> =
            parse_sctp(line).iter().map(|s| (s.address.to_string(), s.port, s.inode)).collect();
        assert_eq!(found, [("0.0.0.0".to_owned(), 9100, 31337)]);
        let line = "0 0 2 10 37 9100 0 31337 10.0.0.5 fd00:0000:0000:0000:0000:0000:0000:0005 ";
        let found: Vec<_> = parse_sctp(line).iter().map(|s| s.address.to_string()).collect();
        assert_eq!(found, ["10.0.0.5", "fd00::5"]);
        for cut in 0..line.len() {
            let _ = parse_sctp(&line[..cut]);
        }
    }

    #[test]
    fn a_port_shadows_what_waits_at_its_place() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let addresses = [("10.0.0.5", "eth0"), ("10.0.1.5", "eth1"), ("fd00::5", "eth2")];
        let addresses = addresses.map(|(address, interface)| (ip(address), interface.to_owned())).into();
        let socket =
            |address: &str| Listening { port: 80, protocol: Protocol::Tcp, address: ip(address), inode: 1 };
        let is = |port: &str, address: &str| shadows(&port.parse().unwrap(), &socket(address), &addresses);
        for (port, address, expected) in [
            ("80:80", "0.0.0.0", true),
            ("80:80", "::", true),
            ("80:80", "127.0.0.1", true),
            ("80:80", "10.0.1.5", true),
            ("80:80/udp", "0.0.0.0", false),
            ("81:80", "0.0.0.0", false),
            ("10.0.0.5:80:80", "0.0.0.0", true),
            ("10.0.0.5:80:80", "10.0.0.5", true),
            ("10.0.0.5:80:80", "10.0.1.5", false),
            ("10.0.9.9:80:80", "0.0.0.0", false),
            ("127.0.0.1:80:80", "0.0.0.0", true),
            ("127.0.0.1:80:80", "127.0.0.1", true),
            ("127.0.0.1:80:80", "10.0.0.5", false),
            ("eth1:80:80", "0.0.0.0", true),
            ("eth1:80:80", "10.0.1.5", true),
            ("eth1:80:80", "10.0.0.5", false),
            ("eth7:80:80", "0.0.0.0", false),
            ("[fd00::5]:80:80", "::", true),
            ("[fd00::5]:80:80", "fd00::5", true),
            ("[fd00::5]:80:80", "0.0.0.0", false),
            ("[fd00::5]:80:80", "10.0.0.5", false),
            ("eth2:80:80", "::", true),
            ("eth2:80:80", "0.0.0.0", false),
            ("10.0.0.5:80:80", "::", true),
        ] {
            assert_eq!(is(port, address), expected, "{port} {address}");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let found = listening().unwrap();
        for (port, protocol) in [
            (socket.local_addr().unwrap().port(), Protocol::Tcp),
            (udp.local_addr().unwrap().port(), Protocol::Udp),
        ] {
            let mine = found.iter().find(|s| (s.port, s.protocol) == (port, protocol)).unwrap();
            let owner = &owners(&BTreeSet::from([mine.inode]))[&mine.inode];
            assert_eq!(owner.pid, std::process::id());
        }
    }
}
