//! The configuration that the runtime gives on standard input: the fields of a network's configuration file, and what
//! the runtime adds for one container.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use mesh_types::{
    InterfaceName, MAX_WEIGHT, Mac, Name, NameError, Nameserver, PortConfig, PortError, Protocol, PublishAt,
    PublishMode, ResolverOption, SearchDomain,
};
use serde_json::Value;

use crate::{
    environment::is_identifier,
    error::{CniError, Code},
    fields::Fields,
    version::SpecVersion,
};

const DEFAULT_SOCKET: &str = "/run/meshd/meshd.sock";

/// A configuration whose fields have been checked, each for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The version that it is of, and that answers are of.
    pub version: SpecVersion,
    /// The CNI network's name.
    pub name: String,
    /// meshd's network.
    pub network: String,
    /// meshd's socket.
    pub socket: PathBuf,
    /// The name of the interface, where it is not the runtime's to give: behind other plugins.
    pub interface: Option<InterfaceName>,
    /// Service that the containers are tasks of.
    pub service: Option<String>,
    /// Share of the service's connections.
    pub weight: Option<u16>,
    /// Further names, of the configuration and of the runtime.
    pub aliases: Vec<Name>,
    /// Static addresses; those of the runtime, if it gives any.
    pub addresses: Vec<IpAddr>,
    /// The interface's Ethernet address, given by the runtime.
    pub mac: Option<Mac>,
    /// Ports of the service, to be open on every node.
    pub publish: Vec<PortConfig>,
    /// Ports of the container, to be open on this node alone.
    pub port_mappings: Vec<PortConfig>,
    /// Where names are asked that are not the cluster's, and how.
    pub dns: Dns,
    /// What the plugins before this one have made, or with CHECK and DEL all of them.
    pub prev_result: Option<Value>,
    /// With GC: the attachments that are still there, as pairs of container and interface.
    pub valid_attachments: Option<Vec<(String, String)>>,
}

/// Settings for names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers outside.
    pub servers: Vec<Nameserver>,
    /// Domains that names are looked for in.
    pub search: Vec<SearchDomain>,
    /// For the resolver.
    pub options: Vec<ResolverOption>,
}

/// A static address, with or without a prefix length: the network's own counts.
#[derive(Debug, Clone, Copy)]
pub struct StaticAddress(pub IpAddr);

impl FromStr for StaticAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().or_else(|_| text.parse::<IpNet>().map(|net| net.addr()));
        address.map(Self).map_err(|_| format!("{text:?} is not an IP address"))
    }
}

/// A published port with both its numbers.
#[derive(Debug, Clone)]
struct Published(Vec<PortConfig>);

impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = PortConfig::parse_all(text).map_err(|error: PortError| error.to_string())?;
        match ports.iter().any(|port| port.published == 0) {
            true => Err(format!("{text:?} leaves the published port open; write for example 8080:{text}")),
            false => Ok(Self(ports)),
        }
    }
}

/// The ports that a text of the configuration or of `CNI_ARGS` means.
pub fn published(text: &str) -> Result<Vec<PortConfig>, String> {
    text.parse::<Published>().map(|published| published.0)
}

/// An alias of the configuration. What was attached by a version that took more names has to be detached too: they are
/// looked at when a container is added.
struct Alias(Name);

impl FromStr for Alias {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Name::known(text).map(Self)
    }
}

impl Config {
    /// Reads what standard input holds.
    pub fn read(config: &Value) -> Result<Self, CniError> {
        let version = SpecVersion::of_config(config)?;
        let fields = Fields::of(config)?;
        let name = network_name(&fields)?;
        refuse_ipam(&fields)?;
        let runtime = fields.object("runtimeConfig", "runtimeConfig")?;
        let args = fields.object("args", "args")?.object("cni", "args.cni")?;
        let published: Vec<Published> = fields.list("publish")?;
        let network =
            fields.get("network", "the name of a network")?.filter(|text: &String| !text.is_empty());
        let mut aliases: Vec<Alias> = fields.list("aliases")?;
        aliases.extend(runtime_aliases(&runtime, &name)?);
        Ok(Self {
            version,
            network: network.unwrap_or_else(|| name.clone()),
            socket: fields.get("socket", "a path")?.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)),
            interface: fields.parsed("interface")?,
            service: fields.get("service", "the name of a service")?.filter(|text: &String| !text.is_empty()),
            weight: weight(&fields)?,
            aliases: aliases.into_iter().map(|alias| alias.0).collect(),
            addresses: addresses(&fields, &args, &runtime)?,
            mac: runtime.parsed("mac")?,
            publish: published.into_iter().flat_map(|published| published.0).collect(),
            port_mappings: port_mappings(&runtime)?,
            dns: dns(&fields, &runtime)?,
            prev_result: fields.object("prevResult", "prevResult")?.whole(),
            valid_attachments: valid_attachments(&fields)?,
            name,
        })
    }
}

fn network_name(fields: &Fields) -> Result<String, CniError> {
    let name: String = fields.get("name", "the name of a network")?.unwrap_or_default();
    match name.as_str() {
        "" => Err(CniError::config("\"name\" is missing: the name of the CNI network")),
        text if !is_identifier(text) => Err(CniError::config(format!(
            "\"name\" is {text:?}; it may have letters, digits, '_', '.' and '-', a letter or digit first"
        ))),
        _ => Ok(name),
    }
}

/// Addresses are meshd's to give: one that another plugin gives would be unknown to the other nodes.
fn refuse_ipam(fields: &Fields) -> Result<(), CniError> {
    let Some(kind) = fields.object("ipam", "ipam")?.value("type").filter(|kind| **kind != "") else {
        return Ok(());
    };
    Err(CniError::new(
        Code::UnsupportedField,
        "unsupported field in the network configuration",
        format!(
            "\"ipam.type\" is {kind}: meshd gives addresses itself, out of the network's subnet; take \"ipam\" out"
        ),
    ))
}

fn weight(fields: &Fields) -> Result<Option<u16>, CniError> {
    let wanted = format!("a weight of 1 to {MAX_WEIGHT}");
    let weight: Option<u16> = fields.get("weight", &wanted)?;
    match (weight, fields.value("weight")) {
        (Some(weight), Some(given)) if !(1..=MAX_WEIGHT).contains(&weight) => {
            Err(fields.wrong("weight", given, &wanted))
        }
        _ => Ok(weight),
    }
}

/// Those of the runtime's capability, else of `args`, else of the configuration.
fn addresses(fields: &Fields, args: &Fields, runtime: &Fields) -> Result<Vec<IpAddr>, CniError> {
    let of_config = || -> Result<Vec<StaticAddress>, CniError> {
        let one = fields.parsed("address")?;
        Ok(one.into_iter().chain(fields.list("addresses")?).collect())
    };
    let mut given: Vec<StaticAddress> = runtime.list("ips")?;
    for further in [args.list("ips")?, of_config()?] {
        if given.is_empty() {
            given = further;
        }
    }
    Ok(given.into_iter().map(|address| address.0).collect())
}

/// A list, or as Podman has it a list for each network.
fn runtime_aliases(runtime: &Fields, network: &str) -> Result<Vec<Alias>, CniError> {
    let Some(Value::Object(by_network)) = runtime.value("aliases") else { return runtime.list("aliases") };
    let Some(ours) = by_network.get(network) else { return Ok(Vec::new()) };
    let texts: Vec<String> = serde::Deserialize::deserialize(ours)
        .map_err(|_| runtime.wrong("aliases", ours, "a list of texts for each network"))?;
    texts.iter().map(|text| runtime.parse("aliases", text)).collect()
}

fn port_mappings(runtime: &Fields) -> Result<Vec<PortConfig>, CniError> {
    const KEY: &str = "portMappings";
    let given: Vec<Value> = runtime.get(KEY, "a list of port mappings")?.unwrap_or_default();
    let mut mappings = Vec::new();
    for mapping in &given {
        let wrong = |what: &str| runtime.wrong(KEY, mapping, what);
        let number = |key: &str| match mapping.get(key) {
            None | Some(Value::Null) => Ok(0),
            Some(number) => {
                let number = number.as_u64().and_then(|number| u16::try_from(number).ok());
                number.ok_or_else(|| wrong(&format!("a port mapping: {key:?} has to be 1 to 65535")))
            }
        };
        let text = |key: &str| match mapping.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.to_lowercase()),
            Some(_) => Err(wrong(&format!("a port mapping: {key:?} has to be a text"))),
        };
        let (published, target) = (number("hostPort")?, number("containerPort")?);
        // Runtimes pass all ports that a container has, published or not.
        if published == 0 && mapping.is_object() {
            continue;
        }
        if target == 0 {
            return Err(wrong("a port mapping: \"containerPort\" has to be 1 to 65535"));
        }
        let protocol = match text("protocol")?.as_str() {
            "" => Protocol::Tcp,
            given => runtime.parse(KEY, given)?,
        };
        let at = match text("hostIP")?.as_str() {
            "" => PublishAt::Any,
            given => {
                let host: IpAddr =
                    given.parse().map_err(|_| wrong("a port mapping: \"hostIP\" is no IP address"))?;
                match host.is_unspecified() {
                    true => PublishAt::Any,
                    false => PublishAt::address(host).map_err(|e| wrong(&format!("a port mapping: {e}")))?,
                }
            }
        };
        let mapping =
            PortConfig { mode: PublishMode::Host, at, ..PortConfig::new(published, target, protocol) };
        // 0.0.0.0 and :: come as one each, and both stand for all.
        if !mappings.contains(&mapping) {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

/// What the runtime gives takes the place of what the configuration has.
fn dns(fields: &Fields, runtime: &Fields) -> Result<Dns, CniError> {
    let config = fields.object("dns", "dns")?;
    let runtime = runtime.object("dns", "runtimeConfig.dns")?;
    let domain: Option<SearchDomain> = config.parsed("domain")?;
    let mut search: Vec<SearchDomain> = config.list("search")?;
    if search.is_empty() {
        search.extend(domain);
    }
    let of_config = Dns { servers: config.list("nameservers")?, search, options: config.list("options")? };
    let of_runtime = Dns {
        servers: runtime.list("servers")?,
        search: runtime.list("searches")?,
        options: runtime.list("options")?,
    };
    fn first<T>(one: Vec<T>, other: Vec<T>) -> Vec<T> {
        if one.is_empty() { other } else { one }
    }
    Ok(Dns {
        servers: first(of_runtime.servers, of_config.servers),
        search: first(of_runtime.search, of_config.search),
        options: first(of_runtime.options, of_config.options),
    })
}

fn valid_attachments(fields: &Fields) -> Result<Option<Vec<(String, String)>>, CniError> {
    // The second is what the first runtimes that knew GC wrote.
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let Some(key) = keys.into_iter().find(|key| fields.value(key).is_some()) else { return Ok(None) };
    let given: Vec<Value> = fields.get(key, "a list of attachments")?.unwrap_or_default();
    let text = |attachment: &Value, key: &str| attachment.get(key)?.as_str().map(str::to_owned);
    let pair = |attachment: &Value| {
        let pair = text(attachment, "containerID").zip(text(attachment, "ifname"));
        pair.ok_or_else(|| {
            fields.wrong(key, attachment, "an attachment, which has a \"containerID\" and an \"ifname\"")
        })
    };
    given.iter().map(pair).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests;
