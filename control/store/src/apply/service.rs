//! Services: virtual addresses and published ports.

use std::{collections::BTreeSet, net::IpAddr};

use mesh_types::{
    DEFAULT_DRAIN_SECS, EndpointMode, GOSSIP_PORT, MANAGER_PORT, Name, NetworkId, PortConfig, Protocol,
    Service, ServiceId, ServiceNetwork, VXLAN_PORT,
};

use super::{Change, Outcome, free_name};
use crate::{
    Kind, NewService, Rejection, Response,
    state::{AddressUse, Cluster, NetworkEntry},
};

impl Cluster {
    pub(super) fn create_service(&mut self, new: NewService) -> Outcome {
        if self.services.contains_key(&new.id) {
            return Err(Rejection::IdTaken { kind: Kind::Service, id: new.id.to_string() });
        }
        free_name(Kind::Service, &new.name, self.services.values().map(|service| &service.name))?;
        let ports = self.choose_ports(&new.name, new.endpoint_mode, &new.ports)?;
        let networks = self.choose_vips(&new)?;

        for (asked, port) in new.ports.iter().zip(&ports) {
            self.take_port(asked, port, new.id);
        }
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
            affinity: None,
            prefer_local: false,
            drain_timeout_secs: DEFAULT_DRAIN_SECS,
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

    pub(super) fn publish(&mut self, id: ServiceId, asked: PortConfig) -> Outcome {
        let service = self.known_service(id)?;
        let ports = self.choose_ports(&service.name, service.endpoint_mode, &[asked])?;
        let service = self.services.get_mut(&id).ok_or(Rejection::UnknownService(id))?;
        service.ports.extend(&ports);
        for port in &ports {
            self.take_port(&asked, port, id);
        }
        // One was asked for, so one was chosen.
        Ok((Response::Published(ports.first().copied().unwrap_or(asked)), Change::View))
    }

    pub(super) fn unpublish(&mut self, id: ServiceId, published: u16, protocol: Protocol) -> Outcome {
        let service = self.services.get_mut(&id).ok_or(Rejection::UnknownService(id))?;
        if !self.ports.release(protocol, published, &id) {
            let (service, ports) = (service.name.clone(), service.ports.clone());
            return Err(Rejection::NotPublished { service, published, protocol, ports });
        }
        service.ports.retain(|port| (port.published, port.protocol) != (published, protocol));
        Ok((Response::Done, Change::View))
    }

    /// Checks the ports asked for and fills the open ones in; takes none.
    fn choose_ports(
        &self,
        service: &Name,
        mode: EndpointMode,
        asked: &[PortConfig],
    ) -> Result<Vec<PortConfig>, Rejection> {
        if mode == EndpointMode::Dnsrr && !asked.is_empty() {
            return Err(Rejection::DnsRrPorts(service.clone()));
        }
        let mut chosen = BTreeSet::new();
        for &PortConfig { published, target, protocol, .. } in asked {
            if target == 0 {
                return Err(Rejection::TargetPort);
            }
            if published == 0 {
                continue;
            }
            if let Some(purpose) = reserved(published, protocol) {
                let purpose = purpose.to_owned();
                return Err(Rejection::PortReserved { published, protocol, purpose });
            }
            if let Some(owner) = self.ports.holder(protocol, published) {
                let owner = self.known_service(*owner)?.name.clone();
                return Err(Rejection::PortTaken { published, protocol, owner });
            }
            if !chosen.insert((protocol, published)) {
                return Err(Rejection::PortTwice { published, protocol });
            }
        }
        let mut ports = Vec::with_capacity(asked.len());
        for port in asked {
            let mut port = *port;
            if port.published == 0 {
                let free = self.ports.pick(port.protocol, &chosen);
                port.published = free.ok_or(Rejection::PortsExhausted(port.protocol))?;
                chosen.insert((port.protocol, port.published));
            }
            ports.push(port);
        }
        Ok(ports)
    }

    fn take_port(&mut self, asked: &PortConfig, chosen: &PortConfig, holder: ServiceId) {
        if asked.published == 0 {
            self.ports.take_picked(chosen.protocol, chosen.published, holder);
        } else {
            self.ports.take(chosen.protocol, chosen.published, holder);
        }
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
        let free = entry.pools.iter().map(|pool| pool.pick(1).first().copied());
        free.map(|vip| vip.ok_or_else(|| self.exhausted(entry))).collect()
    }
}

/// What the cluster uses a port for on every node.
fn reserved(port: u16, protocol: Protocol) -> Option<&'static str> {
    match (port, protocol) {
        (MANAGER_PORT, Protocol::Tcp) => Some("its managers"),
        (GOSSIP_PORT, _) => Some("gossip"),
        (VXLAN_PORT, Protocol::Udp) => Some("VXLAN"),
        _ => None,
    }
}
