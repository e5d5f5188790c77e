//! The names that a network's tasks can resolve, from what is decided and what runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_dns::NetworkNames;
use mesh_types::{Endpoint, EndpointMode, Network, Service, ServiceId, ServiceNetwork};

/// Names and reverse names on `network`; `services` are those on it, `endpoints` those of its table.
pub fn network_names<'a>(
    network: &Network,
    services: impl IntoIterator<Item = &'a Service>,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> NetworkNames {
    let member = |service: &'a Service| service.networks.iter().find(|n| n.network == network.id);
    let services: BTreeMap<ServiceId, (&Service, &ServiceNetwork)> =
        services.into_iter().filter_map(|s| Some((s.id, (s, member(s)?)))).collect();
    let mut names = Names::default();
    for endpoint in endpoints.into_iter().filter(|e| e.network == network.id) {
        for &address in &endpoint.addresses {
            names.reverse.insert(address, format!("{}.{}", endpoint.name, network.name));
            names.add(endpoint.name.as_str(), address);
            endpoint.aliases.iter().for_each(|alias| names.add(alias.as_str(), address));
        }
        let service = endpoint.service.and_then(|s| services.get(&s));
        if let Some((service, member)) = service.filter(|_| endpoint.takes_flows()) {
            for &address in &endpoint.addresses {
                names.add(&format!("tasks.{}", service.name), address);
                if service.endpoint_mode == EndpointMode::Dnsrr {
                    names.add(service.name.as_str(), address);
                    member.aliases.iter().for_each(|alias| names.add(alias.as_str(), address));
                }
            }
        }
    }
    for (service, member) in services.values() {
        for &vip in &member.vips {
            names.reverse.insert(vip, format!("{}.{}", service.name, network.name));
            names.add(service.name.as_str(), vip);
            member.aliases.iter().for_each(|alias| names.add(alias.as_str(), vip));
        }
    }
    let forward = names.forward.into_iter().map(|(name, addresses)| (name, addresses.into_iter().collect()));
    NetworkNames {
        name: network.name.clone(),
        subnets: network.subnets.iter().map(|s| s.net()).collect(),
        forward: forward.collect(),
        reverse: names.reverse,
    }
}

#[derive(Default)]
struct Names {
    forward: BTreeMap<String, BTreeSet<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
}

impl Names {
    fn add(&mut self, name: &str, address: IpAddr) {
        self.forward.entry(name.to_ascii_lowercase()).or_default().insert(address);
    }
}
