//! `mesh.yaml`; `docs/mesh-yaml.md` has every key.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mesh_types::{
    Affinity, DEFAULT_DRAIN_SECS, EndpointMode, Name, PortConfig, PortError, PublishAt, Subnet, parse_seconds,
};

use super::{
    Intent, WantedNetwork, WantedService, WantedSubnet, health,
    yaml::{Node, Reader},
};

/// The version of the format.
const VERSION: u32 = 1;

pub(super) fn read(reader: &mut Reader, root: &Node) -> Intent {
    let mut intent = Intent::default();
    for (key, at, value) in reader.entries(root, "the file") {
        match key {
            "version" => match reader.parsed::<u32>(value, "version") {
                Some(VERSION) | None => {}
                Some(newer) if newer > VERSION => reader.problem(
                    value,
                    format!("version {newer} is of a newer meshctl; this one reads version {VERSION}"),
                ),
                Some(other) => {
                    reader.problem(value, format!("version {other} is not known; write {VERSION}"))
                }
            },
            "networks" => {
                for (name, at, value) in reader.entries(value, "networks") {
                    if let Some(name) = named(reader, name, at) {
                        let network = network(reader, at, value);
                        intent.networks.insert(name, network);
                    }
                }
            }
            "services" => {
                for (name, at, value) in reader.entries(value, "services") {
                    if let Some(name) = named(reader, name, at) {
                        let service = service(reader, at, value);
                        intent.services.insert(name, service);
                    }
                }
            }
            _ => unknown(reader, at, key, "the file", "version, networks and services"),
        }
    }
    intent
}

/// The name of an object or an alias.
pub(super) fn named(reader: &mut Reader, text: &str, at: &Node) -> Option<Name> {
    Name::new(text).map_err(|error| reader.problem(at, error.to_string())).ok()
}

fn unknown(reader: &mut Reader, at: &Node, key: &str, what: &str, known: &str) {
    reader.problem(at, format!("{what} has no key {key}; there are {known}"));
}

fn network(reader: &mut Reader, at: &Node, node: &Node) -> WantedNetwork {
    let mut network = WantedNetwork { line: at.line, ..WantedNetwork::default() };
    for (key, at, value) in reader.entries(node, "a network") {
        match key {
            "driver" => driver(reader, value),
            "subnets" => {
                let subnets: Vec<_> =
                    reader.items(value, "subnets").iter().filter_map(|item| subnet(reader, item)).collect();
                network.subnets = subnets;
            }
            "ipv6" => network.ipv6 = reader.flag(value, "ipv6"),
            "attachable" => network.attachable = reader.flag(value, "attachable"),
            "internal" => network.internal = reader.flag(value, "internal"),
            "mtu" => network.mtu = reader.parsed(value, "mtu"),
            "labels" => network.labels = reader.labels(value, "labels"),
            _ => unknown(
                reader,
                at,
                key,
                "a network",
                "driver, subnets, ipv6, attachable, internal, mtu and labels",
            ),
        }
    }
    network
}

/// There is one.
pub(super) fn driver(reader: &mut Reader, node: &Node) {
    if let Some(driver) = reader.text(node, "driver").filter(|driver| *driver != "overlay") {
        reader.problem(node, format!("driver {driver} is not known; there is overlay"));
    }
}

/// A range alone, or a mapping.
fn subnet(reader: &mut Reader, node: &Node) -> Option<WantedSubnet> {
    if node.is_scalar() {
        let net = net(reader, node, "subnet")?;
        return checked(reader, node, WantedSubnet::of(net));
    }
    let (mut subnet, mut gateway, mut ip_range, mut aux) = (None, None, None, BTreeMap::new());
    for (key, at, value) in reader.entries(node, "a subnet") {
        match key {
            "subnet" => subnet = net(reader, value, "subnet"),
            "gateway" => gateway = reader.parsed(value, "gateway"),
            "ip_range" => ip_range = net(reader, value, "ip_range"),
            "aux_addresses" => {
                for (name, _, value) in reader.entries(value, "aux_addresses") {
                    aux.extend(reader.parsed(value, "aux_addresses").map(|a| (name.to_owned(), a)));
                }
            }
            _ => unknown(reader, at, key, "a subnet", "subnet, gateway, ip_range and aux_addresses"),
        }
    }
    let Some(net) = subnet else {
        reader.problem(node, "a subnet needs its range, for example subnet: 10.10.3.0/24");
        return None;
    };
    checked(reader, node, WantedSubnet { net, gateway, ip_range, aux_addresses: aux })
}

pub(super) fn net(reader: &mut Reader, node: &Node, what: &str) -> Option<IpNet> {
    let text = reader.text(node, what)?;
    let net = text.parse().ok();
    if net.is_none() {
        reader.problem(node, format!("{what}: {text:?} is not a range such as 10.10.3.0/24"));
    }
    net
}

/// What can be told of a subnet alone.
pub(super) fn checked(reader: &mut Reader, node: &Node, subnet: WantedSubnet) -> Option<WantedSubnet> {
    match Subnet::new(subnet.net, subnet.gateway) {
        Ok(_) => Some(subnet),
        Err(error) => {
            reader.problem(node, error.to_string());
            None
        }
    }
}

impl WantedSubnet {
    /// With nothing said but its range.
    pub fn of(net: IpNet) -> Self {
        Self { net, gateway: None, ip_range: None, aux_addresses: BTreeMap::new() }
    }
}

impl WantedService {
    /// With nothing said.
    pub fn at(line: usize) -> Self {
        Self {
            line,
            networks: BTreeMap::new(),
            ports: Vec::new(),
            endpoint_mode: EndpointMode::default(),
            affinity: None,
            prefer_local: false,
            drain_timeout_secs: DEFAULT_DRAIN_SECS,
            health: None,
            labels: BTreeMap::new(),
        }
    }
}

fn service(reader: &mut Reader, at: &Node, node: &Node) -> WantedService {
    let mut service = WantedService::at(at.line);
    for (key, at, value) in reader.entries(node, "a service") {
        match key {
            "networks" => service.networks = places(reader, value),
            "ports" => {
                for item in reader.items(value, "ports") {
                    service.ports.extend(port(reader, item));
                }
            }
            "endpoint_mode" => {
                service.endpoint_mode = reader.parsed(value, "endpoint_mode").unwrap_or_default();
            }
            "affinity" => match reader.text(value, "affinity") {
                None | Some("none") => {}
                Some(_) => service.affinity = reader.parsed::<Affinity>(value, "affinity"),
            },
            "prefer_local" => service.prefer_local = reader.flag(value, "prefer_local"),
            "drain_timeout" => {
                let text = reader.text(value, "drain_timeout").unwrap_or("30s");
                match parse_seconds(text) {
                    Ok(seconds) => service.drain_timeout_secs = seconds,
                    Err(error) => reader.problem(value, format!("drain_timeout: {error}")),
                }
            }
            "health" => service.health = health::mesh(reader, value),
            "labels" => service.labels = reader.labels(value, "labels"),
            _ => unknown(
                reader,
                at,
                key,
                "a service",
                "networks, ports, endpoint_mode, affinity, prefer_local, drain_timeout, health and labels",
            ),
        }
    }
    service
}

/// A list of names, or a mapping of names with the aliases there.
fn places(reader: &mut Reader, node: &Node) -> BTreeMap<Name, Vec<Name>> {
    let mut places = BTreeMap::new();
    if !node.is_mapping() {
        for item in reader.items(node, "networks") {
            if let Some(name) = reader.parsed::<Name>(item, "network")
                && places.insert(name.clone(), Vec::new()).is_some()
            {
                reader.problem(item, format!("network {name} is named twice"));
            }
        }
        return places;
    }
    for (name, at, value) in reader.entries(node, "networks") {
        let mut aliases = Vec::new();
        for (key, at, value) in reader.entries(value, "a service's network") {
            match key {
                "aliases" => aliases = names(reader, value),
                _ => unknown(reader, at, key, "a service's network", "aliases"),
            }
        }
        places.extend(named(reader, name, at).map(|name| (name, aliases)));
    }
    places
}

/// A list of names.
pub(super) fn names(reader: &mut Reader, node: &Node) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for item in reader.items(node, "aliases") {
        names.extend(reader.parsed::<Name>(item, "alias").filter(|name| !names.contains(name)));
    }
    names
}

/// A text as of `meshctl publish`, or a mapping of the same fields.
fn port(reader: &mut Reader, node: &Node) -> Vec<PortConfig> {
    let mut text = String::new();
    if node.is_scalar() {
        text.push_str(reader.text(node, "port").unwrap_or_default());
    } else {
        const FIELDS: [&str; 7] =
            ["published", "target", "protocol", "mode", "address", "interface", "return"];
        for (key, at, value) in reader.entries(node, "a port") {
            if !FIELDS.contains(&key) {
                unknown(reader, at, key, "a port", &FIELDS.join(", "));
            } else if let Some(value) = reader.text(value, key) {
                let comma = if text.is_empty() { "" } else { "," };
                text.push_str(&format!("{comma}{key}={value}"));
            }
        }
    }
    ports(reader, node, PortConfig::parse_all(&text))
}

/// The ports, or what is wrong with them.
pub(super) fn ports(
    reader: &mut Reader,
    node: &Node,
    parsed: Result<Vec<PortConfig>, PortError>,
) -> Vec<PortConfig> {
    parsed.unwrap_or_else(|error| {
        reader.problem(node, format!("port: {error}"));
        Vec::new()
    })
}

/// Where a host address of a Compose file is.
pub(super) fn place(reader: &mut Reader, node: &Node, text: &str) -> Option<PublishAt> {
    match text {
        "0.0.0.0" | "::" => Some(PublishAt::Any),
        _ => text.parse().map_err(|error: PortError| reader.problem(node, error.to_string())).ok(),
    }
}
