//! The names that a network's tasks can resolve, from what is decided and what runs.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_dns::NetworkNames;
use mesh_types::{ClusterView, Endpoint, EndpointMode, EndpointState, Network};

/// Names and reverse names on `network`; `endpoints` are those of its table.
pub fn network_names<'a>(
    view: &ClusterView,
    network: &Network,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> NetworkNames {
    let mut forward: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let mut reverse = BTreeMap::new();
    let mut add = |name: &str, address: IpAddr| {
        let addresses = forward.entry(name.to_ascii_lowercase()).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    };
    let services = || {
        view.services.values().filter_map(|s| Some((s, s.networks.iter().find(|n| n.network == network.id)?)))
    };
    for endpoint in endpoints.into_iter().filter(|e| e.network == network.id) {
        for &address in &endpoint.addresses {
            reverse.insert(address, format!("{}.{}", endpoint.name, network.name));
            add(endpoint.name.as_str(), address);
            endpoint.aliases.iter().for_each(|alias| add(alias.as_str(), address));
        }
        let service = services().find(|(s, _)| Some(s.id) == endpoint.service);
        if let (Some((service, member)), EndpointState::Ready) = (service, endpoint.state) {
            for &address in &endpoint.addresses {
                add(&format!("tasks.{}", service.name), address);
                if service.endpoint_mode == EndpointMode::Dnsrr {
                    add(service.name.as_str(), address);
                    member.aliases.iter().for_each(|alias| add(alias.as_str(), address));
                }
            }
        }
    }
    for (service, member) in services() {
        for &vip in &member.vips {
            reverse.insert(vip, format!("{}.{}", service.name, network.name));
            add(service.name.as_str(), vip);
            member.aliases.iter().for_each(|alias| add(alias.as_str(), vip));
        }
    }
    let subnets = network.subnets.iter().map(|s| s.net()).collect();
    NetworkNames { name: network.name.clone(), subnets, forward, reverse }
}
