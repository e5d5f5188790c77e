//! Names that follow endpoints, change by change: what it costs does not depend on how many names there are.

use std::{collections::BTreeSet, sync::Arc};

use mesh_dns::{NetworkNames, ServiceNames};
use mesh_gossip::EndpointKey;
use mesh_types::{Endpoint, EndpointMode, Network, Service, ServiceId, ServiceNetwork};

use super::{names_of, tasks_of};

/// An endpoint on the network before and after a change.
pub type EndpointChange = (Option<Arc<Endpoint>>, Option<Arc<Endpoint>>);

/// Brings names that are not contested in line with changes of endpoints; `service` finds a service, which is as it was when they
/// were made. `false` if they cannot be followed: then `names` are worth nothing and are to be made anew.
#[must_use]
pub fn follow<'a>(
    names: &mut NetworkNames,
    network: &Network,
    service: impl Fn(ServiceId) -> Option<&'a Service>,
    changes: &[EndpointChange],
) -> bool {
    let mut seen = BTreeSet::new();
    let told = changes.iter().filter(|(before, after)| tells_of(before) != tells_of(after));
    let told: Vec<(Option<&Endpoint>, Option<&Endpoint>)> =
        told.map(|(before, after)| (before.as_deref(), after.as_deref())).collect();
    // Of two changes of one endpoint nobody here knows which was first.
    let keys = told.iter().filter_map(|(before, after)| before.or(*after));
    if !keys.map(EndpointKey::from).all(|key| seen.insert(key)) {
        return false;
    }
    let on = |endpoint: &Endpoint| -> Option<(&'a Service, &'a ServiceNetwork)> {
        let service = service(endpoint.service?)?;
        Some((service, service.networks.iter().find(|n| n.network == network.id)?))
    };
    // What ends makes room for what begins: an address may go from one to another.
    told.iter().filter_map(|(before, _)| *before).all(|e| remove(names, network, e, on(e)))
        && told.iter().filter_map(|(_, after)| *after).all(|e| add(names, network, e, on(e)))
}

/// What of an endpoint names depend on.
fn tells_of(endpoint: &Option<Arc<Endpoint>>) -> Option<impl PartialEq> {
    endpoint.as_ref().map(|e| {
        let serves = e.service.filter(|_| e.takes_flows()).map(|service| (service, e.weight));
        (e.name.clone(), e.addresses.clone(), e.aliases.clone(), serves)
    })
}

type On<'a> = Option<(&'a Service, &'a ServiceNetwork)>;

/// The names that lead to an endpoint, in lower case.
fn forward(endpoint: &Endpoint, on: On<'_>) -> Vec<String> {
    let own = std::iter::once(&endpoint.name).chain(&endpoint.aliases).map(|name| name.as_str().to_owned());
    let mut all: Vec<String> = own.collect();
    if let Some((service, member)) = on.filter(|_| endpoint.takes_flows()) {
        all.push(tasks_of(service));
        if service.endpoint_mode == EndpointMode::Dnsrr {
            all.extend(names_of(service, member).map(str::to_owned));
        }
    }
    all.iter_mut().for_each(|name| name.make_ascii_lowercase());
    all
}

fn full_name(endpoint: &Endpoint, network: &Network) -> String {
    format!("{}.{}", endpoint.name, network.name)
}

fn remove(names: &mut NetworkNames, network: &Network, endpoint: &Endpoint, on: On<'_>) -> bool {
    let full = full_name(endpoint, network);
    for address in &endpoint.addresses {
        if names.reverse.remove(address).as_ref() != Some(&full) {
            return false;
        }
    }
    for name in forward(endpoint, on) {
        let Some(addresses) = names.forward.get_mut(&name) else { return false };
        if !addresses.remove(&endpoint.addresses) {
            return false;
        }
        if addresses.holders() == 0 {
            names.forward.remove(&name);
        }
    }
    change_service(names, endpoint, on, |of_service, name| of_service.tasks.remove(name).is_some())
}

fn add(names: &mut NetworkNames, network: &Network, endpoint: &Endpoint, on: On<'_>) -> bool {
    for address in &endpoint.addresses {
        if names.reverse.insert(*address, full_name(endpoint, network)).is_some() {
            return false;
        }
    }
    for name in forward(endpoint, on) {
        match names.forward.get_mut(&name) {
            Some(addresses) => addresses.add(&endpoint.addresses),
            None => drop(names.forward.insert(name, endpoint.addresses.clone().into())),
        }
    }
    change_service(names, endpoint, on, |of_service, name| {
        of_service.tasks.insert(name.clone(), endpoint.weight).is_none()
    })
}

/// Changes what SRV questions find of the endpoint's service, under all of its names.
fn change_service(
    names: &mut NetworkNames,
    endpoint: &Endpoint,
    on: On<'_>,
    change: impl Fn(&mut ServiceNames, &String) -> bool,
) -> bool {
    let Some((service, member)) = on.filter(|_| endpoint.takes_flows()) else { return true };
    let Some(known) = names.services.get_by(service.name.as_str().to_ascii_lowercase().as_str()) else {
        return false;
    };
    let mut changed = ServiceNames::clone(known);
    let known = Arc::clone(known);
    if !change(&mut changed, &endpoint.name.to_string()) {
        return false;
    }
    let changed = Arc::new(changed);
    names_of(service, member).all(|name| {
        let before = names.services.insert(name.to_ascii_lowercase(), Arc::clone(&changed));
        // A name that another service has as well is that one's, or this one's: not to be told here.
        before.is_some_and(|before| Arc::ptr_eq(&before, &known) || Arc::ptr_eq(&before, &changed))
    })
}
