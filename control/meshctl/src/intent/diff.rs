//! What has to change so that what is declared is so.

use std::collections::{BTreeMap, BTreeSet};

use mesh_types::{
    Affinity, ClusterView, Family, HealthCheck, Name, Network, PortConfig, PortFilter, Protocol, Service,
    Subnet, format_seconds,
};
use serde::Serialize;

use super::{Calls, Intent, Remark, WantedNetwork, WantedService};

/// Ports that managers choose of.
const AUTOMATIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is removed.
    Remove,
}

/// One object that is other than declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What becomes of it.
    pub action: Action,
    /// `network` or `service`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What of it, for people: `+ what comes`, `- what goes`, `~ what becomes something else`.
    pub details: Vec<String>,
}

/// All that has to change.
#[derive(Debug, Default)]
pub struct Plan {
    /// For people.
    pub changes: Vec<Change>,
    /// For the managers, in an order in which nothing is in the way.
    pub calls: Calls,
}

/// Compares `intent` with what there is; with `prune`, what is not declared goes. An error has all that cannot be.
pub fn plan(intent: &Intent, view: &ClusterView, prune: bool) -> Result<Plan, Vec<Remark>> {
    let mut planner = Planner { intent, view, plan: Plan::default(), problems: Vec::new() };
    for (name, wanted) in &intent.networks {
        planner.network(name, wanted);
    }
    for (name, wanted) in &intent.services {
        planner.service(name, wanted);
    }
    if prune {
        planner.prune();
    }
    planner.problems.sort();
    if !planner.problems.is_empty() {
        return Err(planner.problems);
    }
    planner.plan.calls.untangle();
    Ok(planner.plan)
}

struct Planner<'a> {
    intent: &'a Intent,
    view: &'a ClusterView,
    plan: Plan,
    problems: Vec<Remark>,
}

impl Planner<'_> {
    fn problem(&mut self, line: usize, text: String) {
        self.problems.push(Remark { line, text });
    }

    fn change(&mut self, action: Action, kind: &'static str, name: &Name, details: Vec<String>) {
        self.plan.changes.push(Change { action, kind, name: name.to_string(), details });
    }

    fn existing_network(&self, name: &Name) -> Option<&Network> {
        self.view.networks.values().find(|network| network.name == *name)
    }

    fn network(&mut self, name: &Name, wanted: &WantedNetwork) {
        let Some(network) = self.view.networks.values().find(|network| network.name == *name) else {
            self.change(Action::Create, "network", name, describe_network(wanted));
            self.plan.calls.create_network(name, wanted);
            return;
        };
        for fixed in fixed_differences(network, wanted) {
            let text = format!(
                "network {name}: {fixed}, which cannot change for a network's life; remove the network first, or \
                 declare it under another name"
            );
            self.problem(wanted.line, text);
        }
        let mut details = Vec::new();
        flag(&mut details, "attachable", network.attachable, wanted.attachable);
        labels(&mut details, &network.labels, &wanted.labels);
        if !details.is_empty() {
            self.change(Action::Update, "network", name, details);
            self.plan.calls.update_network(network, wanted);
        }
    }

    fn service(&mut self, name: &Name, wanted: &WantedService) {
        for network in wanted.networks.keys() {
            let declared = self.intent.networks.contains_key(network);
            if !declared && self.existing_network(network).is_none() {
                let text =
                    format!("service {name}: network {network} is neither declared here nor in the cluster");
                self.problem(wanted.line, text);
            }
        }
        let Some(service) = self.view.services.values().find(|service| service.name == *name) else {
            self.change(Action::Create, "service", name, describe_service(wanted));
            self.plan.calls.create_service(name, wanted);
            return;
        };
        let difference = Difference::new(self.view, service, wanted);
        if !difference.details.is_empty() {
            self.change(Action::Update, "service", name, difference.details.clone());
            self.plan.calls.update_service(service, wanted, difference);
        }
    }

    /// What is not declared, but for the ingress network and networks that declared services are on.
    fn prune(&mut self) {
        let needed: BTreeSet<&Name> = self.intent.services.values().flat_map(|s| s.networks.keys()).collect();
        let (intent, view) = (self.intent, self.view);
        for service in view.services.values().filter(|s| !intent.services.contains_key(&s.name)) {
            self.change(Action::Remove, "service", &service.name, Vec::new());
            self.plan.calls.remove_service(service);
        }
        let spared = |network: &&Network| {
            let name = &network.name;
            let declared = intent.networks.contains_key(name) || intent.external.contains(name);
            !network.ingress && !declared && !needed.contains(name)
        };
        for network in view.networks.values().filter(spared) {
            self.change(Action::Remove, "network", &network.name, Vec::new());
            self.plan.calls.remove_network(network);
        }
    }
}

/// What a network has otherwise than wanted and cannot change. What is not said is as the cluster chose it.
fn fixed_differences(network: &Network, wanted: &WantedNetwork) -> Vec<String> {
    let mut differences = Vec::new();
    let yes = |on: bool| if on { "internal" } else { "not internal" };
    if network.internal != wanted.internal {
        differences.push(format!("it is {}", yes(network.internal)));
    }
    if network.mtu != wanted.mtu {
        let mtu =
            network.mtu.map_or("it has no MTU of its own".to_owned(), |mtu| format!("its MTU is {mtu}"));
        differences.push(mtu);
    }
    for subnet in &wanted.subnets {
        let family = Family::of(subnet.net.addr());
        match network.subnets.iter().find(|have| have.family() == family) {
            None => differences.push(format!("it has no {family} subnet")),
            Some(have) if have.net() != subnet.net => {
                differences.push(format!("its {family} subnet is {}, not {}", have.net(), subnet.net));
            }
            Some(have) => {
                if subnet.gateway.is_some_and(|gateway| gateway != have.gateway()) {
                    differences.push(format!("the gateway of {} is {}", have.net(), have.gateway()));
                }
                let range = network.ip_ranges.iter().find(|range| Family::of(range.addr()) == family);
                if range != subnet.ip_range.as_ref() {
                    let range =
                        range.map_or("has no range of its own".to_owned(), |r| format!("has range {r}"));
                    differences.push(format!("{} {range}", have.net()));
                }
            }
        }
    }
    let families: BTreeSet<Family> = network.subnets.iter().map(Subnet::family).collect();
    let mut said: BTreeSet<Family> = wanted.subnets.iter().map(|s| Family::of(s.net.addr())).collect();
    if said.is_empty() {
        said.insert(Family::V4);
    }
    if wanted.ipv6 {
        said.insert(Family::V6);
    }
    for family in families.difference(&said) {
        differences.push(format!("it has an {family} subnet"));
    }
    // One that is said was looked at above.
    if wanted.ipv6
        && !families.contains(&Family::V6)
        && !wanted.subnets.iter().any(|s| s.net.addr().is_ipv6())
    {
        differences.push("it has no IPv6 subnet".to_owned());
    }
    let aux: BTreeMap<_, _> = wanted.subnets.iter().flat_map(|s| s.aux_addresses.clone()).collect();
    if network.aux_addresses != aux {
        differences.push("its auxiliary addresses are others".to_owned());
    }
    differences
}

fn flag(details: &mut Vec<String>, what: &str, is: bool, wanted: bool) {
    if is != wanted {
        details.push(format!("~ {what}: {is} -> {wanted}"));
    }
}

fn labels(details: &mut Vec<String>, is: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) {
    for (key, value) in wanted.iter().filter(|(key, value)| is.get(*key) != Some(value)) {
        details.push(match is.get(key) {
            Some(before) => format!("~ label {key}: {before:?} -> {value:?}"),
            None => format!("+ label {key}: {value:?}"),
        });
    }
    details.extend(is.keys().filter(|key| !wanted.contains_key(*key)).map(|key| format!("- label {key}")));
}

fn describe_network(wanted: &WantedNetwork) -> Vec<String> {
    let mut details = Vec::new();
    for subnet in &wanted.subnets {
        let gateway = subnet.gateway.map(|gateway| format!(", gateway {gateway}")).unwrap_or_default();
        let range = subnet.ip_range.map(|range| format!(", range {range}")).unwrap_or_default();
        details.push(format!("+ subnet {}{gateway}{range}", subnet.net));
    }
    let flags = [(wanted.ipv6, "ipv6"), (wanted.attachable, "attachable"), (wanted.internal, "internal")];
    details.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| format!("+ {flag}")));
    details.extend(wanted.mtu.map(|mtu| format!("+ mtu {mtu}")));
    labels(&mut details, &BTreeMap::new(), &wanted.labels);
    details
}

fn describe_service(wanted: &WantedService) -> Vec<String> {
    let names = |aliases: &[Name]| aliases.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    let place = |(network, aliases): (&Name, &Vec<Name>)| match aliases.as_slice() {
        [] => format!("+ network {network}"),
        aliases => format!("+ network {network}, alias {}", names(aliases)),
    };
    let mut details: Vec<String> = wanted.networks.iter().map(place).collect();
    details.extend(wanted.ports.iter().map(|port| format!("+ port {}", port_text(port))));
    let usual = WantedService::at(0);
    if wanted.endpoint_mode != usual.endpoint_mode {
        details.push(format!("+ endpoint mode {}", wanted.endpoint_mode));
    }
    details.extend(wanted.affinity.map(|affinity| format!("+ affinity {affinity}")));
    details.extend(wanted.prefer_local.then(|| "+ prefer local".to_owned()));
    if wanted.drain_timeout_secs != usual.drain_timeout_secs {
        details.push(format!("+ drain timeout {}", format_seconds(wanted.drain_timeout_secs)));
    }
    details.extend(wanted.health.as_ref().map(|check| format!("+ health check {check}")));
    labels(&mut details, &BTreeMap::new(), &wanted.labels);
    details
}

/// A free port is not known yet.
fn port_text(port: &PortConfig) -> String {
    match port.published {
        0 => format!("{port} (a free one)"),
        _ => port.to_string(),
    }
}

/// How a service differs from what is wanted.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub details: Vec<String>,
    pub closed: Vec<PortConfig>,
    pub opened: Vec<PortConfig>,
    pub left: Vec<Name>,
    pub joined: Vec<(Name, Vec<Name>)>,
    /// Network and name.
    pub lost_aliases: Vec<(Name, Name)>,
    pub new_aliases: Vec<(Name, Name)>,
}

impl Difference {
    fn new(view: &ClusterView, service: &Service, wanted: &WantedService) -> Self {
        let mut difference = Self::default();
        difference.networks(view, service, wanted);
        difference.ports(service, wanted);
        let details = &mut difference.details;
        if service.endpoint_mode != wanted.endpoint_mode {
            details.push(format!("~ endpoint mode: {} -> {}", service.endpoint_mode, wanted.endpoint_mode));
        }
        if service.affinity != wanted.affinity {
            let text = |a: Option<Affinity>| a.map_or("none".to_owned(), |a| a.to_string());
            details.push(format!("~ affinity: {} -> {}", text(service.affinity), text(wanted.affinity)));
        }
        flag(details, "prefer local", service.prefer_local, wanted.prefer_local);
        if service.drain_timeout_secs != wanted.drain_timeout_secs {
            let (is, wanted) = (service.drain_timeout_secs, wanted.drain_timeout_secs);
            details.push(format!("~ drain timeout: {} -> {}", format_seconds(is), format_seconds(wanted)));
        }
        if service.health != wanted.health {
            let text =
                |check: Option<&HealthCheck>| check.map_or_else(|| "none".to_owned(), ToString::to_string);
            let (is, wanted) = (text(service.health.as_ref()), text(wanted.health.as_ref()));
            details.push(format!("~ health check: {is} -> {wanted}"));
        }
        labels(details, &service.labels, &wanted.labels);
        difference
    }

    fn networks(&mut self, view: &ClusterView, service: &Service, wanted: &WantedService) {
        let name = |id| view.networks.get(&id).map(|network: &Network| network.name.clone());
        let is: BTreeMap<Name, &[Name]> = service
            .networks
            .iter()
            .filter_map(|on| Some((name(on.network)?, on.aliases.as_slice())))
            .collect();
        let mut should = wanted.networks.clone();
        if should.is_empty() {
            let ingress = view.networks.values().find(|network| network.ingress);
            should.extend(ingress.map(|network| (network.name.clone(), Vec::new())));
        }
        for network in is.keys().filter(|network| !should.contains_key(*network)) {
            self.details.push(format!("- network {network}"));
            self.left.push(network.clone());
        }
        for (network, aliases) in should {
            let Some(have) = is.get(&network) else {
                self.details.push(format!("+ network {network}"));
                self.details.extend(aliases.iter().map(|alias| format!("+ alias {network}:{alias}")));
                self.joined.push((network, aliases));
                continue;
            };
            let same = |a: &Name, b: &Name| a.as_str().eq_ignore_ascii_case(b.as_str());
            for alias in have.iter().filter(|have| !aliases.iter().any(|alias| same(alias, have))) {
                self.details.push(format!("- alias {network}:{alias}"));
                self.lost_aliases.push((network.clone(), alias.clone()));
            }
            for alias in aliases.iter().filter(|alias| !have.iter().any(|have| same(alias, have))) {
                self.details.push(format!("+ alias {network}:{alias}"));
                self.new_aliases.push((network.clone(), alias.clone()));
            }
        }
    }

    fn ports(&mut self, service: &Service, wanted: &WantedService) {
        let mut is = service.ports.clone();
        let mut free = Vec::new();
        for port in wanted.ports.iter().copied().map(settled) {
            match is.iter().position(|have| *have == port) {
                Some(place) => drop(is.remove(place)),
                None if port.published == 0 => free.push(port),
                None => self.opened.push(port),
            }
        }
        // One that was chosen before serves as well as another.
        for port in free {
            let fits = |have: &PortConfig| {
                AUTOMATIC.contains(&have.published) && PortConfig { published: 0, ..*have } == port
            };
            match is.iter().position(fits) {
                Some(place) => drop(is.remove(place)),
                None => self.opened.push(port),
            }
        }
        self.closed = is;
        self.details.extend(self.closed.iter().map(|port| format!("- port {port}")));
        self.details.extend(self.opened.iter().map(|port| format!("+ port {}", port_text(port))));
    }
}

/// A free SCTP port is the target: no other can lead there.
fn settled(port: PortConfig) -> PortConfig {
    match (port.protocol, port.published) {
        (Protocol::Sctp, 0) => PortConfig { published: port.target, ..port },
        _ => port,
    }
}

/// The filter that fits this port alone.
pub(super) fn exactly(port: &PortConfig) -> PortFilter {
    PortFilter {
        published: Some((port.published, port.published)),
        target: Some((port.target, port.target)),
        protocol: port.protocol,
        mode: Some(port.mode),
        at: Some(port.at),
        return_mode: Some(port.return_mode),
    }
}
