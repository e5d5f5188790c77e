//! The names that a network's tasks can resolve, from what is decided and what runs.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_dns::{Addresses, NetworkNames, ServiceNames, ServicePort};
use mesh_types::{Endpoint, EndpointMode, Network, PortConfig, Service, ServiceId, ServiceNetwork};

mod following;

pub use following::{EndpointChange, follow};

/// Names and reverse names on `network`; `services` are those on it, `endpoints` those of its table.
///
/// A service's names are known also while it has no task to answer with: so nobody else is asked for them.
pub fn network_names<'a>(
    network: &Network,
    services: impl IntoIterator<Item = &'a Service>,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> Made {
    let services = members(network, services);
    let mut names = Names::default();
    let mut running: BTreeMap<ServiceId, BTreeMap<String, u16>> = BTreeMap::new();
    for endpoint in endpoints.into_iter().filter(|e| e.network == network.id) {
        for &address in &endpoint.addresses {
            names.name_address(address, format!("{}.{}", endpoint.name, network.name));
        }
        names.add(endpoint.name.as_str(), &endpoint.addresses);
        endpoint.aliases.iter().for_each(|alias| names.add(alias.as_str(), &endpoint.addresses));
        let service = endpoint.service.and_then(|s| services.get(&s));
        if let Some((service, member)) = service.filter(|_| endpoint.takes_flows()) {
            let of_service = running.entry(service.id).or_default();
            let before = of_service.insert(endpoint.name.to_string(), endpoint.weight);
            names.contested |= before.is_some();
            names.add(&tasks_of(service), &endpoint.addresses);
            if service.endpoint_mode == EndpointMode::Dnsrr {
                names_of(service, member).for_each(|name| names.add(name, &endpoint.addresses));
            }
        }
    }
    let mut by_name = BTreeMap::new();
    for (service, member) in services.values() {
        for &vip in &member.vips {
            names.name_address(vip, format!("{}.{}", service.name, network.name));
        }
        let of_service = Arc::new(ServiceNames {
            name: service.name.to_string(),
            ports: service.ports.iter().map(port).collect(),
            tasks: running.remove(&service.id).unwrap_or_default().into_iter().collect(),
        });
        names.add(&tasks_of(service), &[]);
        for name in names_of(service, member) {
            names.add(name, &member.vips);
            by_name.insert(name.to_ascii_lowercase(), Arc::clone(&of_service));
        }
    }
    let forward = names.forward.into_iter().map(|(name, (all, holders))| (name, Addresses::of(all, holders)));
    let contested = names.contested;
    let names = NetworkNames {
        name: network.name.clone(),
        subnets: network.subnets.iter().map(|s| s.net()).collect(),
        forward: forward.collect(),
        reverse: names.reverse.into_iter().collect(),
        services: by_name.into_iter().collect(),
    };
    Made { names, contested }
}

/// What came of it.
#[derive(Debug)]
pub struct Made {
    /// The names.
    pub names: NetworkNames,
    /// Two have one address, or two tasks of a service one name: who else would have it is not in the names, so that they
    /// cannot be followed, only be made anew.
    pub contested: bool,
}

/// The services that are on `network`, and how.
fn members<'a>(
    network: &Network,
    services: impl IntoIterator<Item = &'a Service>,
) -> BTreeMap<ServiceId, (&'a Service, &'a ServiceNetwork)> {
    let member = |service: &'a Service| service.networks.iter().find(|n| n.network == network.id);
    services.into_iter().filter_map(|s| Some((s.id, (s, member(s)?)))).collect()
}

/// A service's name and its aliases.
fn names_of<'a>(service: &'a Service, member: &'a ServiceNetwork) -> impl Iterator<Item = &'a str> {
    std::iter::once(&service.name).chain(&member.aliases).map(|name| name.as_str())
}

fn tasks_of(service: &Service) -> String {
    format!("tasks.{}", service.name)
}

fn port(config: &PortConfig) -> ServicePort {
    ServicePort { protocol: config.protocol, published: config.published, target: config.target }
}

#[derive(Default)]
struct Names {
    /// By name: all addresses, and how many have it.
    forward: BTreeMap<String, (Vec<IpAddr>, u32)>,
    reverse: BTreeMap<IpAddr, String>,
    contested: bool,
}

impl Names {
    fn add(&mut self, name: &str, addresses: &[IpAddr]) {
        let (all, holders) = self.forward.entry(name.to_ascii_lowercase()).or_default();
        all.extend(addresses);
        *holders += 1;
    }

    fn name_address(&mut self, address: IpAddr, name: String) {
        self.contested |= self.reverse.insert(address, name).is_some();
    }
}

/// Who has `name`, in lower case and without the network's name, on `network`: one line for each service and task, for
/// people. SRV names and names of addresses have none of their own.
pub fn origins<'a>(
    network: &Network,
    services: impl IntoIterator<Item = &'a Service>,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
    name: &str,
) -> Vec<String> {
    let services = members(network, services);
    let mut told = Vec::new();
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    let by_tasks = |service: &Service, member: &ServiceNetwork| {
        let by_name = names_of(service, member).any(same) && service.endpoint_mode == EndpointMode::Dnsrr;
        by_name || same(&tasks_of(service))
    };
    for (service, member) in services.values() {
        let kind = if same(service.name.as_str()) { "service" } else { "alias of service" };
        if names_of(service, member).any(same) {
            told.push(match service.endpoint_mode {
                EndpointMode::Vip => format!("{kind} {}, by its virtual address", service.name),
                EndpointMode::Dnsrr => format!("{kind} {}, by its tasks (dnsrr)", service.name),
            });
        }
        if same(&tasks_of(service)) {
            told.push(format!("the tasks of service {}", service.name));
        }
    }
    for endpoint in endpoints.into_iter().filter(|e| e.network == network.id) {
        if same(endpoint.name.as_str()) {
            told.push(format!("task {}", endpoint.name));
        } else if endpoint.aliases.iter().any(|alias| same(alias.as_str())) {
            told.push(format!("alias or host name of task {}", endpoint.name));
        }
        let service = endpoint.service.and_then(|s| services.get(&s));
        if service.is_some_and(|(service, member)| by_tasks(service, member)) {
            let left_out =
                if endpoint.takes_flows() { "" } else { ", left out: it takes no connections now" };
            told.push(format!("its task {}{left_out}", endpoint.name));
        }
    }
    told
}

#[cfg(test)]
mod tests;
