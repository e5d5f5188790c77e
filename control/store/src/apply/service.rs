//! Services and their virtual addresses.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use mesh_ipam::{AddressPool, PortPool};
use mesh_types::{
    Affinity, EndpointMode, HealthCheck, HealthSettings, Name, NetworkId, PublishMode, Service, ServiceId,
    ServiceNetwork,
};

use super::{Change, Outcome, expect_version, free_name, port::Publisher, same_name};
use crate::{
    AliasChange, Kind, NewService, Rejection, Response, ServiceChange,
    state::{AddressUse, Cluster, NetworkEntry},
};

impl Cluster {
    pub(super) fn create_service(&mut self, new: NewService, version: u64) -> Outcome {
        if self.services.contains_key(&new.id) {
            return Err(Rejection::IdTaken { kind: Kind::Service, id: new.id.to_string() });
        }
        free_name(Kind::Service, &new.name, self.services.values().map(|service| &service.name))?;
        let mut pool = self.ports.clone();
        let publisher = Publisher { id: new.id, name: &new.name, mode: new.endpoint_mode };
        let ports = self.choose_ports(&mut pool, publisher, &new.ports)?;
        refuse_balancing(&new.name, new.endpoint_mode, new.affinity, new.prefer_local)?;
        let health = new.health.clone().map(|settings| health_check(settings, None)).transpose()?;
        let mut networks = Vec::new();
        self.join_networks(&new.name, new.endpoint_mode, &mut networks, self.networks_or_ingress(&new))?;

        self.ports = pool;
        let service = Service {
            id: new.id,
            name: new.name,
            networks,
            endpoint_mode: new.endpoint_mode,
            ports,
            affinity: new.affinity,
            prefer_local: new.prefer_local,
            drain_timeout_secs: new.drain_timeout_secs,
            health,
            labels: new.labels,
            created_at: new.now,
            version,
        };
        self.take_vips(&service);
        self.services.insert(service.id, Arc::new(service.clone()));
        Ok((Response::Service(service), Change::View))
    }

    pub(super) fn remove_service(&mut self, id: ServiceId) -> Outcome {
        let service = self.services.remove(&id).ok_or(Rejection::UnknownService(id))?;
        for port in &service.ports {
            self.ports.release(port, &id);
        }
        self.release_vips(&service);
        Ok((Response::Done, Change::View))
    }

    pub(super) fn update_service(&mut self, id: ServiceId, change: ServiceChange, version: u64) -> Outcome {
        let before = self.services.get(&id).cloned().ok_or(Rejection::UnknownService(id))?;
        expect_version(Kind::Service, &before.name, before.version, change.expected_version)?;
        let mut service = Service::clone(&before);
        let mut pool = self.ports.clone();
        service.endpoint_mode = change.endpoint_mode.unwrap_or(service.endpoint_mode);
        self.change_networks(&mut service, &change)?;
        self.change_ports(&mut pool, &mut service, &change)?;
        service.affinity = change.affinity.unwrap_or(service.affinity);
        service.prefer_local = change.prefer_local.unwrap_or(service.prefer_local);
        service.drain_timeout_secs = change.drain_timeout_secs.unwrap_or(service.drain_timeout_secs);
        if let Some(wanted) = change.health {
            let over = |settings| health_check(settings, before.health.as_ref());
            service.health = wanted.map(over).transpose()?;
        }
        service.labels.retain(|key, _| !change.remove_labels.contains(key));
        service.labels.extend(change.set_labels);
        refuse_balancing(&service.name, service.endpoint_mode, service.affinity, service.prefer_local)?;
        if *before == service {
            return Ok((Response::Service(service), Change::Nothing));
        }

        let moved = !vips(&before).eq(vips(&service));
        service.version = version;
        self.ports = pool;
        if moved {
            self.release_vips(&before);
            self.take_vips(&service);
        }
        self.services.insert(id, Arc::new(service.clone()));
        Ok((Response::Service(service), Change::View))
    }

    /// Closes and opens ports of `service`, in `pool`; those that stay must suit its endpoint mode.
    fn change_ports(
        &self,
        pool: &mut PortPool<ServiceId>,
        service: &mut Service,
        change: &ServiceChange,
    ) -> Result<(), Rejection> {
        let mut closed = BTreeSet::new();
        for wanted in &change.remove_ports {
            let fit = service.ports.iter().filter(|port| wanted.matches(port)).copied();
            let known = closed.len();
            closed.extend(fit);
            // Two that fit the same ports are one too many only if nothing fits the second.
            if closed.len() == known && !closed.iter().any(|port| wanted.matches(port)) {
                let (service, ports) = (service.name.clone(), service.ports.clone());
                return Err(Rejection::NotPublished { service, wanted: *wanted, ports });
            }
        }
        for port in &closed {
            pool.release(port, &service.id);
        }
        service.ports.retain(|port| !closed.contains(port));
        let publisher = Publisher { id: service.id, name: &service.name, mode: service.endpoint_mode };
        let opened = self.choose_ports(pool, publisher, &change.add_ports)?;
        refuse_ingress_ports(service)?;
        service.ports.extend(opened);
        Ok(())
    }

    /// Gives `service` its place on networks and its names there as `change` says, with virtual addresses that are
    /// free; takes none.
    fn change_networks(&self, service: &mut Service, change: &ServiceChange) -> Result<(), Rejection> {
        for id in &change.remove_networks {
            let on = service.networks.iter().position(|on| on.network == *id);
            let on = on.ok_or_else(|| self.not_on(service, *id))?;
            service.networks.remove(on);
        }
        // A network that is left and joined again has a new virtual address, as any other.
        for on in &mut service.networks {
            on.vips = match (service.endpoint_mode, on.vips.is_empty()) {
                (EndpointMode::Vip, true) => self.free_vips(self.known_network(on.network)?)?,
                (EndpointMode::Vip, false) => std::mem::take(&mut on.vips),
                (EndpointMode::Dnsrr, _) => Vec::new(),
            };
        }
        let (name, mode) = (service.name.clone(), service.endpoint_mode);
        for (id, _) in &change.add_networks {
            if service.networks.iter().any(|on| on.network == *id) {
                let network = self.known_network(*id)?.network.name.clone();
                return Err(Rejection::ServiceOn { service: name, network });
            }
        }
        self.join_networks(&name, mode, &mut service.networks, change.add_networks.clone())?;
        if service.networks.is_empty() {
            return Err(Rejection::LastNetwork(name));
        }
        self.change_aliases(service, change)
    }

    fn change_aliases(&self, service: &mut Service, change: &ServiceChange) -> Result<(), Rejection> {
        for AliasChange { network, alias } in &change.remove_aliases {
            let mut found = false;
            for on in service.networks.iter_mut().filter(|on| network.is_none_or(|id| id == on.network)) {
                let known = on.aliases.len();
                on.aliases.retain(|have| !same_name(have, alias));
                found |= on.aliases.len() < known;
            }
            if !found {
                let network = network.and_then(|id| Some(self.networks.get(&id)?.name.clone()));
                let (service, alias) = (service.name.clone(), alias.clone());
                return Err(Rejection::NoSuchAlias { service, alias, network });
            }
        }
        for AliasChange { network, alias } in &change.add_aliases {
            if let Some(id) = network
                && !service.networks.iter().any(|on| on.network == *id)
            {
                return Err(self.not_on(service, *id));
            }
            for on in service.networks.iter_mut().filter(|on| network.is_none_or(|id| id == on.network)) {
                if !on.aliases.iter().any(|have| same_name(have, alias)) {
                    on.aliases.push(alias.clone());
                }
            }
        }
        Ok(())
    }

    fn not_on(&self, service: &Service, network: NetworkId) -> Rejection {
        match self.known_network(network) {
            Ok(entry) => {
                Rejection::ServiceNotOn { service: service.name.clone(), network: entry.network.name.clone() }
            }
            Err(unknown) => unknown,
        }
    }

    /// Adds the service's place on each of `joined`, with virtual addresses that are free; takes none.
    fn join_networks(
        &self,
        service: &Name,
        mode: EndpointMode,
        networks: &mut Vec<ServiceNetwork>,
        joined: Vec<(NetworkId, Vec<Name>)>,
    ) -> Result<(), Rejection> {
        for (id, aliases) in joined {
            let entry = self.known_network(id)?;
            if networks.iter().any(|other| other.network == id) {
                let network = entry.network.name.clone();
                return Err(Rejection::NetworkTwice { service: service.clone(), network });
            }
            let vips = match mode {
                EndpointMode::Vip => self.free_vips(entry)?,
                EndpointMode::Dnsrr => Vec::new(),
            };
            networks.push(ServiceNetwork { network: id, vips, aliases });
        }
        Ok(())
    }

    /// Takes the virtual addresses that the service says it has. They were chosen as free.
    fn take_vips(&mut self, service: &Service) {
        for on in &service.networks {
            for (pool, vip) in self.pools_mut(on.network).iter_mut().zip(&on.vips) {
                let _ = pool.take_picked(*vip, AddressUse::Vip(service.id));
            }
        }
    }

    /// Frees the virtual addresses that the service says it has.
    fn release_vips(&mut self, service: &Service) {
        for on in &service.networks {
            for (pool, vip) in self.pools_mut(on.network).iter_mut().zip(&on.vips) {
                pool.release(*vip, &AddressUse::Vip(service.id));
            }
        }
    }

    fn networks_or_ingress(&self, new: &NewService) -> Vec<(NetworkId, Vec<Name>)> {
        if !new.networks.is_empty() {
            return new.networks.clone();
        }
        let ingress = self.networks.values().filter(|network| network.ingress);
        ingress.map(|network| (network.id, Vec::new())).collect()
    }

    fn free_vips(&self, entry: NetworkEntry<'_>) -> Result<Vec<IpAddr>, Rejection> {
        let free = |pool: &AddressPool<AddressUse>| {
            pool.pick(1).first().copied().ok_or_else(|| self.exhausted(entry.network, pool))
        };
        entry.pools.iter().map(free).collect()
    }
}

fn vips(service: &Service) -> impl Iterator<Item = (NetworkId, &[IpAddr])> {
    service.networks.iter().map(|on| (on.network, on.vips.as_slice()))
}

/// Without a virtual address nothing balances what comes in at every node.
fn refuse_ingress_ports(service: &Service) -> Result<(), Rejection> {
    let published = service.ports.iter().any(|port| port.mode == PublishMode::Ingress);
    match service.endpoint_mode {
        EndpointMode::Dnsrr if published => Err(Rejection::DnsRrPorts(service.name.clone())),
        _ => Ok(()),
    }
}

fn health_check(settings: HealthSettings, before: Option<&HealthCheck>) -> Result<HealthCheck, Rejection> {
    settings.over(before).map_err(Rejection::Health)
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
