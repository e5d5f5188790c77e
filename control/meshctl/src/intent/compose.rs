//! What a Compose file says of networks: `networks:`, and of services their networks, aliases, published ports and health checks.
//!
//! Names are taken as they are, without a project's name before them. All else is read over, and said. A file of Docker
//! engines on the mesh means something else ([`docker`]).

mod docker;

use std::collections::BTreeMap;

use mesh_types::{Name, PortConfig, Protocol, PublishMode};

use super::{
    Intent, WantedNetwork, WantedService, WantedSubnet, health,
    mesh::{checked, driver, named, names, net, place, ports},
    yaml::{Node, Reader},
};

/// The network of services that name none.
const DEFAULT: &str = "default";
/// The option of Docker's overlay driver for the tasks' MTU.
const MTU: &str = "com.docker.network.driver.mtu";

pub(super) fn read(reader: &mut Reader, root: &Node) -> Intent {
    if docker::is_one(root) {
        return docker::read(reader, root);
    }
    let mut intent = Intent::default();
    // Keys of the file, and the names they stand for.
    let mut known: BTreeMap<String, Name> = BTreeMap::new();
    let top = reader.entries(root, "the file");
    for (_, _, value) in top.iter().filter(|(key, ..)| *key == "networks") {
        for (key, at, value) in reader.entries(value, "networks") {
            let Some(read) = network(reader, key, at, value) else { continue };
            known.insert(key.to_owned(), read.name.clone());
            match read.external {
                true => drop(intent.external.insert(read.name)),
                false => drop(intent.networks.insert(read.name, read.network)),
            }
        }
    }
    for (key, at, value) in top {
        match key {
            "networks" | "name" | "version" => {}
            "services" => {
                for (name, at, value) in reader.entries(value, "services") {
                    let Some(name) = named(reader, name, at) else { continue };
                    if let Some(service) = service(reader, &mut intent, &known, at, value, &name) {
                        intent.services.insert(name, service);
                    }
                }
            }
            key if key.starts_with("x-") => {}
            _ => reader.ignore(at, format!("{key}: not a matter of networks")),
        }
    }
    intent
}

struct Read {
    name: Name,
    external: bool,
    network: WantedNetwork,
}

fn network(reader: &mut Reader, key: &str, at: &Node, node: &Node) -> Option<Read> {
    let mut name = key.to_owned();
    let mut external = false;
    let mut network = WantedNetwork { line: at.line, ..WantedNetwork::default() };
    let mut named_at = at;
    for (key, at, value) in reader.entries(node, "a network") {
        match key {
            "name" => {
                name = reader.text(value, "name").unwrap_or_default().to_owned();
                named_at = value;
            }
            "external" if value.is_mapping() => {
                external = true;
                for (key, _, value) in reader.entries(value, "external") {
                    if key == "name" {
                        name = reader.text(value, "name").unwrap_or_default().to_owned();
                        named_at = value;
                    }
                }
            }
            "external" => external = reader.flag(value, "external"),
            "driver" if reader.text(value, "driver") == Some("default") => {}
            "driver" => driver(reader, value),
            "attachable" => network.attachable = reader.flag(value, "attachable"),
            "internal" => network.internal = reader.flag(value, "internal"),
            "enable_ipv6" => network.ipv6 = reader.flag(value, "enable_ipv6"),
            "labels" => network.labels = reader.labels(value, "labels"),
            "driver_opts" => {
                for (key, at, value) in reader.entries(value, "driver_opts") {
                    match key {
                        MTU | "mtu" => network.mtu = reader.parsed(value, "mtu"),
                        "encrypted" => {
                            reader.problem(at, "overlays are not encrypted by meshd; take encrypted out")
                        }
                        _ => reader.ignore(at, format!("driver option {key}")),
                    }
                }
            }
            "ipam" => network.subnets = ipam(reader, value),
            key if key.starts_with("x-") => {}
            _ => reader.ignore(at, format!("network key {key}")),
        }
    }
    Some(Read { name: named(reader, &name, named_at)?, external, network })
}

fn ipam(reader: &mut Reader, node: &Node) -> Vec<WantedSubnet> {
    let mut subnets = Vec::new();
    for (key, at, value) in reader.entries(node, "ipam") {
        match key {
            "config" => {
                for item in reader.items(value, "ipam.config") {
                    subnets.extend(subnet(reader, item));
                }
            }
            "driver" => {}
            _ => reader.ignore(at, format!("ipam key {key}")),
        }
    }
    subnets
}

fn subnet(reader: &mut Reader, node: &Node) -> Option<WantedSubnet> {
    let mut range = None;
    let mut read = (None, None, BTreeMap::new());
    for (key, at, value) in reader.entries(node, "ipam.config") {
        match key {
            "subnet" => range = net(reader, value, "subnet"),
            "gateway" => read.0 = reader.parsed(value, "gateway"),
            "ip_range" => read.1 = net(reader, value, "ip_range"),
            "aux_addresses" => {
                for (name, _, value) in reader.entries(value, "aux_addresses") {
                    read.2.extend(reader.parsed(value, "aux_addresses").map(|a| (name.to_owned(), a)));
                }
            }
            _ => reader.ignore(at, format!("ipam.config key {key}")),
        }
    }
    let (gateway, ip_range, aux_addresses) = read;
    checked(reader, node, WantedSubnet { net: range?, gateway, ip_range, aux_addresses })
}

fn service(
    reader: &mut Reader,
    intent: &mut Intent,
    known: &BTreeMap<String, Name>,
    at: &Node,
    node: &Node,
    name: &Name,
) -> Option<WantedService> {
    let mut service = WantedService::at(at.line);
    let mut ignored = Vec::new();
    for (key, at, value) in reader.entries(node, "a service") {
        match key {
            "networks" => service.networks = places(reader, known, value),
            "network_mode" => {
                reader.ignore(at, format!("service {name}: with network_mode it is on no overlay"));
                return None;
            }
            "ports" => {
                for item in reader.items(value, "ports") {
                    service.ports.extend(port(reader, item));
                }
            }
            "healthcheck" => service.health = health::compose(reader, value),
            "deploy" => {
                for (key, _, value) in reader.entries(value, "deploy") {
                    match key {
                        "endpoint_mode" => {
                            service.endpoint_mode = reader.parsed(value, "endpoint_mode").unwrap_or_default();
                        }
                        "labels" => service.labels = reader.labels(value, "labels"),
                        _ => ignored.push(format!("deploy.{key}")),
                    }
                }
            }
            key if key.starts_with("x-") => {}
            _ => ignored.push(key.to_owned()),
        }
    }
    if !ignored.is_empty() {
        reader.ignore(at, format!("service {name}: {}", ignored.join(", ")));
    }
    // As Compose does it.
    let default = match known.get(DEFAULT) {
        Some(name) => Some(name.clone()),
        None => named(reader, DEFAULT, at),
    }?;
    if service.networks.is_empty() {
        service.networks.insert(default.clone(), Vec::new());
    }
    if service.networks.contains_key(&default) && !intent.external.contains(&default) {
        let made = || WantedNetwork { line: at.line, ..WantedNetwork::default() };
        intent.networks.entry(default).or_insert_with(made);
    }
    Some(service)
}

fn places(reader: &mut Reader, known: &BTreeMap<String, Name>, node: &Node) -> BTreeMap<Name, Vec<Name>> {
    let mut places = BTreeMap::new();
    let mut join = |reader: &mut Reader, key: &str, at: &Node, aliases| match known.get(key) {
        Some(name) => drop(places.insert(name.clone(), aliases)),
        None if key == DEFAULT => {
            places.extend(named(reader, key, at).map(|name| (name, aliases)));
        }
        None => reader.problem(at, format!("network {key} is not under networks: of this file")),
    };
    if !node.is_mapping() {
        for item in reader.items(node, "networks") {
            if let Some(key) = reader.text(item, "network") {
                join(reader, key, item, Vec::new());
            }
        }
        return places;
    }
    for (key, at, value) in reader.entries(node, "networks") {
        let mut aliases = Vec::new();
        for (key, at, value) in reader.entries(value, "a service's network") {
            match key {
                "aliases" => aliases = names(reader, value),
                _ => reader.ignore(at, format!("{key} of a service's network: addresses belong to tasks")),
            }
        }
        join(reader, key, at, aliases);
    }
    places
}

fn port(reader: &mut Reader, node: &Node) -> Vec<PortConfig> {
    if node.is_scalar() {
        let text = reader.text(node, "port").unwrap_or_default();
        // All addresses are so unless said.
        let plain = text.strip_prefix("0.0.0.0:").unwrap_or(text);
        return ports(reader, node, PortConfig::parse_all(plain));
    }
    let mut port = PortConfig::new(0, 0, Protocol::Tcp);
    let mut published = String::new();
    for (key, at, value) in reader.entries(node, "a port") {
        match key {
            "target" => port.target = reader.parsed(value, "target").unwrap_or_default(),
            "published" => published = reader.text(value, "published").unwrap_or_default().to_owned(),
            "protocol" => port.protocol = reader.parsed(value, "protocol").unwrap_or_default(),
            "mode" => port.mode = reader.parsed::<PublishMode>(value, "mode").unwrap_or_default(),
            "host_ip" => {
                let text = reader.text(value, "host_ip").unwrap_or("0.0.0.0");
                port.at = place(reader, value, text).unwrap_or_default();
            }
            _ => reader.ignore(at, format!("port key {key}")),
        }
    }
    if port.target == 0 {
        reader.problem(node, "a port needs its target, 1 to 65535");
        return Vec::new();
    }
    match published.as_str() {
        "" => {}
        text => match text.parse() {
            Ok(number) => port.published = number,
            Err(_) => reader
                .problem(node, format!("published: {text:?} is not a port; ranges go in the short form")),
        },
    }
    vec![port]
}
