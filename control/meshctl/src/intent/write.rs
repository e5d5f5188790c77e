//! What there is, as a `mesh.yaml` that declares just that.

use std::{collections::BTreeMap, fmt::Write};

use mesh_types::{
    Affinity, ClusterView, DEFAULT_DRAIN_SECS, EndpointMode, Network, NetworkId, Service, Subnet,
    format_seconds,
};

use super::health;

/// All networks but the ingress one, and all services.
pub fn write(view: &ClusterView) -> String {
    let mut networks: Vec<&Network> = view.networks.values().filter(|network| !network.ingress).collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let mut services: Vec<&Service> = view.services.values().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let mut page = Page { text: "version: 1\n".to_owned() };
    if !networks.is_empty() {
        page.line(0, "networks:");
    }
    for network in networks {
        page.network(network);
    }
    if !services.is_empty() {
        page.line(0, "services:");
    }
    for service in services {
        page.service(view, service);
    }
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, indent: usize, line: impl std::fmt::Display) {
        // Writing to memory does not fail.
        let _ = writeln!(self.text, "{:indent$}{line}", "", indent = indent * 2);
    }

    fn network(&mut self, network: &Network) {
        self.line(1, format_args!("{}:", quoted(network.name.as_str())));
        self.line(2, "subnets:");
        for subnet in &network.subnets {
            self.subnet(network, subnet);
        }
        let flags = [(network.attachable, "attachable"), (network.internal, "internal")];
        for (_, flag) in flags.iter().filter(|(on, _)| *on) {
            self.line(2, format_args!("{flag}: true"));
        }
        if let Some(mtu) = network.mtu {
            self.line(2, format_args!("mtu: {mtu}"));
        }
        self.labels(&network.labels);
    }

    fn subnet(&mut self, network: &Network, subnet: &Subnet) {
        let net = subnet.net();
        let range = network.ip_ranges.iter().find(|range| net.contains(*range));
        let aux: Vec<_> = network.aux_addresses.iter().filter(|(_, a)| net.contains(*a)).collect();
        let usual = Subnet::new(net, None).is_ok_and(|usual| usual == *subnet);
        if usual && range.is_none() && aux.is_empty() {
            return self.line(3, format_args!("- {}", quoted(&net.to_string())));
        }
        self.line(3, format_args!("- subnet: {}", quoted(&net.to_string())));
        if !usual {
            self.line(4, format_args!("gateway: {}", quoted(&subnet.gateway().to_string())));
        }
        if let Some(range) = range {
            self.line(4, format_args!("ip_range: {}", quoted(&range.to_string())));
        }
        if !aux.is_empty() {
            self.line(4, "aux_addresses:");
        }
        for (name, address) in aux {
            self.line(5, format_args!("{}: {}", quoted(name), quoted(&address.to_string())));
        }
    }

    fn service(&mut self, view: &ClusterView, service: &Service) {
        let ingress = |id: NetworkId| view.networks.get(&id).is_none_or(|network| network.ingress);
        let usual =
            matches!(service.networks.as_slice(), [on] if ingress(on.network) && on.aliases.is_empty());
        let start = self.text.len();
        self.line(1, format_args!("{}:", quoted(service.name.as_str())));
        let empty = self.text.len();
        if !usual {
            self.places(view, service);
        }
        if !service.ports.is_empty() {
            self.line(2, "ports:");
        }
        for port in &service.ports {
            self.line(3, format_args!("- {}", quoted(&port.to_string())));
        }
        if service.endpoint_mode != EndpointMode::default() {
            self.line(2, format_args!("endpoint_mode: {}", service.endpoint_mode));
        }
        if let Some(affinity) = service.affinity {
            self.line(2, format_args!("affinity: {}", quoted(&Affinity::to_string(&affinity))));
        }
        if service.prefer_local {
            self.line(2, "prefer_local: true");
        }
        if service.drain_timeout_secs != DEFAULT_DRAIN_SECS {
            self.line(2, format_args!("drain_timeout: {}", format_seconds(service.drain_timeout_secs)));
        }
        match service.health.as_ref().map(health::lines).as_deref() {
            None | Some([]) => {}
            Some([(_, check)]) => self.line(2, format_args!("health: {}", quoted(check))),
            Some([(key, check), rest @ ..]) => {
                self.line(2, "health:");
                self.line(3, format_args!("{key}: {}", quoted(check)));
                for (key, value) in rest {
                    self.line(3, format_args!("{key}: {value}"));
                }
            }
        }
        self.labels(&service.labels);
        if self.text.len() == empty {
            self.text.truncate(start);
            self.line(1, format_args!("{}: {{}}", quoted(service.name.as_str())));
        }
    }

    fn places(&mut self, view: &ClusterView, service: &Service) {
        self.line(2, "networks:");
        for on in &service.networks {
            let Some(network) = view.networks.get(&on.network) else { continue };
            let name = quoted(network.name.as_str());
            if on.aliases.is_empty() {
                self.line(3, format_args!("{name}: {{}}"));
                continue;
            }
            self.line(3, format_args!("{name}:"));
            self.line(4, "aliases:");
            for alias in &on.aliases {
                self.line(5, format_args!("- {}", quoted(alias.as_str())));
            }
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if !labels.is_empty() {
            self.line(2, "labels:");
        }
        for (key, value) in labels {
            self.line(3, format_args!("{}: {}", quoted(key), quoted(value)));
        }
    }
}

/// A text as YAML has it: plain where nothing can be taken for something else, else in double quotes, escaped as in JSON,
/// which YAML 1.2 reads alike.
fn quoted(text: &str) -> String {
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ','));
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if letters && first && !word.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}
