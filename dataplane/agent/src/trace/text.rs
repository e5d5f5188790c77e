//! What is said of packets.

use std::net::SocketAddr;

use mesh_types::Protocol;

use super::packet::Headers;
use crate::flows::FlowNames;

/// IP protocol numbers of ICMP and ICMPv6 (IANA).
pub(super) const ICMP: [u8; 2] = [1, 58];

/// The service that publishes a port, in words.
pub(super) fn published(names: &FlowNames, front: SocketAddr, protocol: u8) -> Option<String> {
    let service = names.front(None, front, protocol)?.service;
    let (port, transport) = (front.port(), transport(protocol));
    Some(format!("port {port}/{transport} is published by service {}", names.service_name(service)))
}

pub(super) fn transport(protocol: u8) -> &'static str {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|p| p.number() == protocol).map_or("other", Protocol::as_str)
}

/// Source and destination, with ports where there are any.
pub(super) fn ends(headers: &Headers) -> String {
    let Headers { source, destination, .. } = headers;
    match ICMP.contains(&headers.protocol) {
        true => format!("{} -> {}", source.ip(), destination.ip()),
        false => format!("{source} -> {destination}"),
    }
}

/// What a program has changed of a packet's addresses.
pub(super) fn translation(before: &Headers, now: &Headers) -> String {
    let part = |what, a: SocketAddr, b: SocketAddr| (a != b).then(|| format!("{what} {a} becomes {b}"));
    let parts =
        [part("source", before.source, now.source), part("destination", before.destination, now.destination)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { ", untouched".to_owned() } else { format!(", translated: {}", parts.join(", ")) }
}
