//! A Compose file of Docker engines, whose networks say `driver: mesh`: what the mesh has to have before `docker-compose up`.
//!
//! Compose makes containers and Docker's networks. The networks of the mesh that these stand for come from here, and the
//! services that containers are tasks of by their labels, with the ports that are open on every node.

use std::collections::BTreeMap;

use mesh_types::{Name, PortConfig};

use super::{DEFAULT, Intent, WantedNetwork, WantedService, health, named, subnet};
use crate::intent::yaml::{Node, Reader};

/// Of networks.
const DRIVER: &str = "mesh";
/// Which of the mesh, in the options of both drivers.
const NETWORK: &str = "network";
/// Labels, as `cni/docker` reads them.
const SERVICE: &str = "mesh.service";
const PUBLISH: &str = "mesh.publish";

/// What a network of the file is.
enum Place {
    /// One of the mesh.
    Mesh(Name),
    /// One that Docker has already: perhaps of the mesh, by the same name.
    External(Name),
    /// Docker's own.
    Docker,
}

/// Whether a file is one: a network has the driver, or a container is a task of a service.
pub(super) fn is_one(root: &Node) -> bool {
    // What is wrong is told by the reading itself.
    let reader = &mut Reader::default();
    for (key, _, value) in reader.entries(root, "") {
        let parts = if matches!(key, "networks" | "services") { reader.entries(value, "") } else { continue };
        for (_, _, part) in parts.into_iter().filter(|(_, _, part)| part.is_mapping()) {
            let found = reader.entries(part, "").into_iter().any(|(part_key, _, value)| match part_key {
                "driver" if key == "networks" => reader.text(value, "") == Some(DRIVER),
                "labels" if key == "services" => reader.labels(value, "").contains_key(SERVICE),
                _ => false,
            });
            if found {
                return true;
            }
        }
    }
    false
}

pub(super) fn read(reader: &mut Reader, root: &Node) -> Intent {
    let mut intent = Intent::default();
    let mut known = BTreeMap::new();
    let top = reader.entries(root, "the file");
    for (_, _, value) in top.iter().filter(|(key, ..)| *key == "networks") {
        for (key, at, value) in reader.entries(value, "networks") {
            known.extend(network(reader, &mut intent, key, at, value).map(|place| (key, place)));
        }
    }
    for (_, _, value) in top.iter().filter(|(key, ..)| *key == "services") {
        for (key, at, value) in reader.entries(value, "services") {
            part(reader, &mut intent, &known, key, at, value);
        }
    }
    intent
}

fn network(reader: &mut Reader, intent: &mut Intent, key: &str, at: &Node, node: &Node) -> Option<Place> {
    let entries = reader.entries(node, "a network");
    let mut docker_name = key.to_owned();
    let (mut driver, mut external, mut reference, mut addresses) = ("", false, None, None);
    // Free-standing containers may join, as on any network of Docker's.
    let mut network = WantedNetwork { line: at.line, attachable: true, ..WantedNetwork::default() };
    for (key, at, value) in entries {
        match key {
            "name" => docker_name = reader.text(value, "name").unwrap_or_default().to_owned(),
            "external" if value.is_mapping() => external = true,
            "external" => external = reader.flag(value, "external"),
            "driver" => driver = reader.text(value, "driver").unwrap_or_default(),
            "attachable" => network.attachable = reader.flag(value, "attachable"),
            "internal" => network.internal = reader.flag(value, "internal"),
            "enable_ipv6" => network.ipv6 = reader.flag(value, "enable_ipv6"),
            "labels" => network.labels = reader.labels(value, "labels"),
            "driver_opts" => {
                for (key, at, value) in reader.entries(value, "driver_opts") {
                    match key {
                        NETWORK => reference = Some((value, reader.text(value, "network")?)),
                        _ => reader.ignore(
                            at,
                            format!("driver option {key}: Docker is to be told of network alone"),
                        ),
                    }
                }
            }
            "ipam" => {
                for (key, at, value) in reader.entries(value, "ipam") {
                    match key {
                        "config" => {
                            for item in reader.items(value, "ipam.config") {
                                network.subnets.extend(subnet(reader, item));
                            }
                        }
                        "options" => addresses = reader.labels(value, "ipam.options").remove(NETWORK),
                        "driver" => {}
                        _ => reader.ignore(at, format!("ipam key {key}")),
                    }
                }
            }
            key if key.starts_with("x-") => {}
            _ => reader.ignore(at, format!("network key {key}")),
        }
    }
    if external {
        return Some(Place::External(named(reader, &docker_name, at)?));
    }
    if driver != DRIVER {
        reader.ignore(at, format!("network {key}: one of Docker's own"));
        return Some(Place::Docker);
    }
    let Some((at, reference)) = reference else {
        reader.problem(
            at,
            format!("network {key}: say which one of the mesh it is, driver_opts: {{ network: {key} }}"),
        );
        return None;
    };
    if addresses.is_some_and(|other| other != reference) {
        reader.problem(
            at,
            format!("network {key}: driver_opts and ipam.options name two networks of the mesh"),
        );
    }
    let name = named(reader, reference, at)?;
    intent.networks.entry(name.clone()).or_insert(network);
    Some(Place::Mesh(name))
}

/// One part of `services:`. Its containers are Compose's matter; the service of the mesh that they are tasks of is ours.
fn part(
    reader: &mut Reader,
    intent: &mut Intent,
    known: &BTreeMap<&str, Place>,
    part: &str,
    at: &Node,
    node: &Node,
) {
    let mut labels = BTreeMap::new();
    let mut places = Vec::new();
    let mut service = WantedService::at(at.line);
    for (key, _, value) in reader.entries(node, "a service") {
        match key {
            "labels" => labels = reader.labels(value, "labels"),
            "networks" if value.is_mapping() => {
                places.extend(reader.entries(value, "networks").into_iter().map(|(key, at, _)| (key, at)));
            }
            "networks" => {
                for item in reader.items(value, "networks") {
                    places.extend(reader.text(item, "network").map(|key| (key, item)));
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
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if places.is_empty() {
        places.push((DEFAULT, at));
    }
    let (mut ours, mut external) = (Vec::new(), Vec::new());
    for (key, at) in places {
        match known.get(key) {
            Some(Place::Mesh(name)) => ours.push(name.clone()),
            Some(Place::External(name)) => external.push(name.clone()),
            Some(Place::Docker) => {}
            None if key == DEFAULT => {}
            None => reader.problem(at, format!("network {key} is not under networks: of this file")),
        }
    }
    let Some(label) = labels.get(SERVICE) else {
        if labels.contains_key(PUBLISH) {
            reader.problem(at, format!("service {part}: the label {PUBLISH} needs {SERVICE}"));
        }
        let closed = |name: &&Name| intent.networks.get(*name).is_some_and(|network| !network.attachable);
        if let Some(name) = ours.iter().find(closed) {
            let why =
                format!("network {name} is not attachable, so that its containers need the label {SERVICE}");
            reader.problem(at, format!("service {part}: {why}"));
        }
        return;
    };
    let Some(name) = named(reader, label.trim(), at) else { return };
    if ours.is_empty() {
        intent.external.extend(external.iter().cloned());
        ours = external;
    }
    if ours.is_empty() {
        reader.problem(
            at,
            format!("service {part}: the label {SERVICE} needs a network with driver: {DRIVER}"),
        );
    }
    service.networks = ours.into_iter().map(|network| (network, Vec::new())).collect();
    for word in labels.get(PUBLISH).into_iter().flat_map(|text| text.split([',', ' '])) {
        match word.parse::<PortConfig>() {
            _ if word.is_empty() => {}
            Ok(port) if port.published != 0 => service.ports.push(port),
            Ok(_) => reader
                .problem(at, format!("service {part}: {PUBLISH}: write PUBLISHED:TARGET, such as 8080:80")),
            Err(error) => reader.problem(at, format!("service {part}: {PUBLISH}: {error}")),
        }
    }
    join(intent, name, service);
}

/// Several parts may be tasks of one service, which is on the networks of all and has the ports of all.
fn join(intent: &mut Intent, name: Name, part: WantedService) {
    let Some(service) = intent.services.get_mut(&name) else {
        intent.services.insert(name, part);
        return;
    };
    service.networks.extend(part.networks);
    for port in part.ports {
        if !service.ports.contains(&port) {
            service.ports.push(port);
        }
    }
    service.labels.extend(part.labels);
    service.health = service.health.take().or(part.health);
}
