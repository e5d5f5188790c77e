//! Services and their virtual addresses.

use std::{collections::BTreeSet, net::IpAddr};

use mesh_ipam::AddressPool;
use mesh_types::{Affinity, EndpointMode, Name, NetworkId, Service, ServiceId, ServiceNetwork};

use super::{Change, Outcome, free_name, port::Publisher};
use crate::{
    Kind, NewService, Rejection, Response, ServiceChange,
    state::{AddressUse, Cluster, NetworkEntry},
};

impl Cluster {
    pub(super) fn create_service(&mut self, new: NewService) -> Outcome {
        if self.services.contains_key(&new.id) {
            return Err(Rejection::IdTaken { kind: Kind::Service, id: new.id.to_string() });
        }
        free_name(Kind::Service, &new.name, self.services.values().map(|service| &service.name))?;
        let mut pool = self.ports.clone();
        let publisher = Publisher { id: new.id, name: &new.name, mode: new.endpoint_mode };
        let ports = self.choose_ports(&mut pool, publisher, &new.ports)?;
        refuse_balancing(&new.name, new.endpoint_mode, new.affinity, new.prefer_local)?;
        let networks = self.choose_vips(&new)?;

        self.ports = pool;
        for on in &networks {
            for (pool, vip) in
                self.networks.get_mut(&on.network).into_iter().flat_map(|e| &mut e.pools).zip(&on.vips)
            {
                // Chosen as free above, on a network that is named once.
                let _ = pool.take_picked(*vip, AddressUse::Vip(new.id));
            }
        }
        let service = Service {
            id: new.id,
            name: new.name,
            networks,
            endpoint_mode: new.endpoint_mode,
            ports,
            affinity: new.affinity,
            prefer_local: new.prefer_local,
            drain_timeout_secs: new.drain_timeout_secs,
            labels: new.labels,
            created_at: new.now,
        };
        self.services.insert(service.id, service.clone());
        Ok((Response::Service(service), Change::View))
    }

    pub(super) fn remove_service(&mut self, id: ServiceId) -> Outcome {
        self.services.remove(&id).ok_or(Rejection::UnknownService(id))?;
        self.ports.release_all(&id);
        for pool in self.networks.values_mut().flat_map(|entry| &mut entry.pools) {
            pool.release_all(&AddressUse::Vip(id));
        }
        Ok((Response::Done, Change::View))
    }

    pub(super) fn update_service(&mut self, id: ServiceId, change: ServiceChange) -> Outcome {
        let before = self.known_service(id)?;
        let mut service = before.clone();
        let mut pool = self.ports.clone();
        let mut closed = BTreeSet::new();
        for wanted in &change.remove_ports {
            let fit = before.ports.iter().filter(|port| wanted.matches(port)).copied();
            let known = closed.len();
            closed.extend(fit);
            // Two that fit the same ports are one too many only if nothing fits the second.
            if closed.len() == known && !closed.iter().any(|port| wanted.matches(port)) {
                let (service, ports) = (service.name, service.ports);
                return Err(Rejection::NotPublished { service, wanted: *wanted, ports });
            }
        }
        for port in &closed {
            pool.release(port, &id);
        }
        service.ports.retain(|port| !closed.contains(port));
        let publisher = Publisher { id, name: &before.name, mode: before.endpoint_mode };
        service.ports.extend(self.choose_ports(&mut pool, publisher, &change.add_ports)?);
        service.affinity = change.affinity.unwrap_or(service.affinity);
        service.prefer_local = change.prefer_local.unwrap_or(service.prefer_local);
        service.drain_timeout_secs = change.drain_timeout_secs.unwrap_or(service.drain_timeout_secs);
        service.labels.retain(|key, _| !change.remove_labels.contains(key));
        service.labels.extend(change.set_labels);
        refuse_balancing(&service.name, service.endpoint_mode, service.affinity, service.prefer_local)?;

        let changed = if *before == service { Change::Nothing } else { Change::View };
        if changed == Change::View {
            self.ports = pool;
            self.services.insert(id, service.clone());
        }
        Ok((Response::Service(service), changed))
    }

    /// The service's place on each network, with virtual addresses that are free; takes none.
    fn choose_vips(&self, new: &NewService) -> Result<Vec<ServiceNetwork>, Rejection> {
        let mut networks: Vec<ServiceNetwork> = Vec::new();
        for (id, aliases) in self.networks_or_ingress(new) {
            let entry = self.known_network(id)?;
            if networks.iter().any(|other| other.network == id) {
                let network = entry.network.name.clone();
                return Err(Rejection::NetworkTwice { service: new.name.clone(), network });
            }
            let vips = match new.endpoint_mode {
                EndpointMode::Vip => self.free_vips(entry)?,
                EndpointMode::Dnsrr => Vec::new(),
            };
            networks.push(ServiceNetwork { network: id, vips, aliases });
        }
        Ok(networks)
    }

    fn networks_or_ingress(&self, new: &NewService) -> Vec<(NetworkId, Vec<Name>)> {
        if !new.networks.is_empty() {
            return new.networks.clone();
        }
        let ingress = self.networks.values().filter(|entry| entry.network.ingress);
        ingress.map(|entry| (entry.network.id, Vec::new())).collect()
    }

    fn free_vips(&self, entry: &NetworkEntry) -> Result<Vec<IpAddr>, Rejection> {
        let free = |pool: &AddressPool<AddressUse>| {
            pool.pick(1).first().copied().ok_or_else(|| self.exhausted(entry, pool))
        };
        entry.pools.iter().map(free).collect()
    }
}

/// With `dnsrr` clients choose the task.
fn refuse_balancing(
    name: &Name,
    mode: EndpointMode,
    affinity: Option<Affinity>,
    prefer_local: bool,
) -> Result<(), Rejection> {
    let option = match (affinity, prefer_local) {
        _ if mode == EndpointMode::Vip => return Ok(()),
        (None, false) => return Ok(()),
        (Some(_), _) => "--affinity",
        (None, true) => "--prefer-local",
    };
    Err(Rejection::DnsRrBalancing(name.clone(), option.to_owned()))
}
