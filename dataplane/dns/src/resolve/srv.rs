//! SRV names of services: `_PORT._PROTOCOL.SERVICE` (RFC 2782).

use std::{net::IpAddr, str::FromStr};

use mesh_types::Protocol;

use crate::{NetworkNames, ServiceNames, ServicePort};

/// What a client is told of one place that offers a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The name to connect to, complete, without the final dot.
    pub target: String,
    /// The port to connect to.
    pub port: u16,
    /// Its share, in relation to the other places'.
    pub weight: u16,
    /// The addresses of `target`.
    pub addresses: &'a [IpAddr],
}

/// What an SRV name comes to on one network.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Srv<'a> {
    /// Nothing of this network.
    Other,
    /// Below a name of this network, but there is no such port.
    Unknown,
    /// A name on the way to others, such as `_tcp.web`.
    Between,
    /// The places.
    Places(Vec<Place<'a>>),
}

/// Looks up `key`, in lower case and without the network's name.
pub(super) fn find<'a>(network: &'a NetworkNames, key: &str) -> Srv<'a> {
    // The labels before the name: how many, and the last two of them.
    let (mut count, mut label, mut protocol, mut rest) = (0, "", "", key);
    while let Some((next, after)) = rest.split_once('.').filter(|(next, _)| next.starts_with('_')) {
        (count, label, protocol, rest) = (count + 1, protocol, next.trim_start_matches('_'), after);
    }
    let known = network.forward.get_by(rest).is_some();
    let of_tasks = rest.strip_prefix("tasks.").and_then(|name| network.services.get_by(name));
    let Some(service) = of_tasks.or_else(|| network.services.get_by(rest)).filter(|_| count > 0) else {
        return if known { Srv::Unknown } else { Srv::Other };
    };
    let Ok(protocol) = Protocol::from_str(protocol) else { return Srv::Unknown };
    let ports = match count {
        1 if service.ports.iter().any(|p| p.protocol == protocol) => return Srv::Between,
        2 => ports(service, protocol, label),
        _ => Vec::new(),
    };
    if ports.is_empty() {
        return Srv::Unknown;
    }
    let place = |name: &str, weight, port: u16| Place {
        target: format!("{name}.{}", network.name),
        port,
        weight,
        addresses: network.forward.get(&name.to_ascii_lowercase()).map_or(&[], |a| a.all()),
    };
    Srv::Places(if of_tasks.is_some() {
        let tasks = service.tasks.iter();
        tasks.flat_map(|(task, weight)| ports.iter().map(|port| place(task, *weight, *port))).collect()
    } else {
        ports.iter().map(|port| place(&service.name, 0, *port)).collect()
    })
}

/// The target ports that a label means: those of that number, else those that are published by it.
fn ports(service: &ServiceNames, protocol: Protocol, label: &str) -> Vec<u16> {
    let numbers: &[u16] = match label.parse() {
        Ok(number) => &[number],
        Err(_) => numbers_of(label),
    };
    let of = |number: fn(&ServicePort) -> u16| {
        let fitting = service.ports.iter().filter(|p| p.protocol == protocol && numbers.contains(&number(p)));
        let mut targets: Vec<u16> = fitting.map(|p| p.target).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    };
    let by_target = of(|p| p.target);
    if by_target.is_empty() { of(|p| p.published) } else { by_target }
}

/// Names that IANA registered for ports, those that tasks are likely to serve. In here rather than in `/etc/services`, so
/// that every node answers the same.
const NAMED: &[(&str, &[u16])] = &[
    ("ftp", &[21]),
    ("ssh", &[22]),
    ("telnet", &[23]),
    ("smtp", &[25]),
    ("domain", &[53]),
    ("http", &[80]),
    ("kerberos", &[88]),
    ("pop3", &[110]),
    ("ntp", &[123]),
    ("imap", &[143]),
    ("snmp", &[161]),
    ("ldap", &[389]),
    ("https", &[443]),
    ("submissions", &[465]),
    ("syslog", &[514]),
    ("rtsp", &[554]),
    ("submission", &[587]),
    ("ldaps", &[636]),
    ("domain-s", &[853]),
    ("rsync", &[873]),
    ("imaps", &[993]),
    ("pop3s", &[995]),
    ("ms-sql-s", &[1433]),
    ("mqtt", &[1883]),
    ("radius", &[1812]),
    ("nfs", &[2049]),
    ("etcd-client", &[2379]),
    ("etcd-server", &[2380]),
    ("mysql", &[3306]),
    ("ms-wbt-server", &[3389]),
    ("stun", &[3478]),
    ("turn", &[3478]),
    ("epmd", &[4369]),
    ("sip", &[5060]),
    ("sips", &[5061]),
    ("xmpp-client", &[5222]),
    ("xmpp-server", &[5269]),
    ("postgresql", &[5432]),
    ("amqps", &[5671]),
    ("amqp", &[5672]),
    ("coap", &[5683]),
    ("rfb", &[5900]),
    ("redis", &[6379]),
    ("ircu", &[6665, 6666, 6667, 6668, 6669]),
    ("http-alt", &[591, 8008, 8080]),
    ("secure-mqtt", &[8883]),
    ("git", &[9418]),
    ("memcache", &[11211]),
    ("minecraft", &[25565]),
    ("mongodb", &[27017]),
];

fn numbers_of(name: &str) -> &'static [u16] {
    NAMED.iter().find(|(named, _)| *named == name).map_or(&[], |(_, numbers)| numbers)
}
