//! Changes as requests, in an order in which none is in another's way.

use std::{collections::BTreeMap, vec::IntoIter};

use mesh_api::v1::{
    self, AliasChange, CreateNetworkRequest, CreateServiceRequest, RemoveRequest, ServiceAttachment,
    UpdateNetworkRequest, UpdateServiceRequest,
    update_service_request::{AffinityChange, HealthChange},
};
use mesh_types::{Name, Network, PortConfig, PortFilter, Service, Subnet};

use super::{
    WantedNetwork, WantedService,
    diff::{Difference, exactly},
};

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Makes a network.
    CreateNetwork(CreateNetworkRequest),
    /// Changes one.
    UpdateNetwork(UpdateNetworkRequest),
    /// Removes one, if it still has the version that it was compared at.
    RemoveNetwork(RemoveRequest),
    /// Makes a service.
    CreateService(CreateServiceRequest),
    /// Changes one, if it still has the version that it was compared at.
    UpdateService(UpdateServiceRequest),
    /// Removes one, likewise.
    RemoveService(RemoveRequest),
}

/// All requests.
#[derive(Debug, Default)]
pub struct Calls {
    networks: Vec<Call>,
    removals: Vec<Call>,
    /// Ports that others want.
    closings: Vec<Call>,
    updates: Vec<Update>,
    creations: Vec<Creation>,
    network_removals: Vec<Call>,
}

#[derive(Debug)]
struct Update {
    request: UpdateServiceRequest,
    closed: Vec<PortConfig>,
    opened: Vec<PortConfig>,
}

#[derive(Debug)]
struct Creation {
    request: CreateServiceRequest,
    opened: Vec<PortConfig>,
}

impl Call {
    /// What it is about, as an error names it.
    pub fn what(&self) -> String {
        match self {
            Call::CreateNetwork(request) => format!("create network {}", request.name),
            Call::UpdateNetwork(request) => format!("update network {}", request.network),
            Call::RemoveNetwork(request) => format!("remove network {}", request.reference),
            Call::CreateService(request) => format!("create service {}", request.name),
            Call::UpdateService(request) => format!("update service {}", request.service),
            Call::RemoveService(request) => format!("remove service {}", request.reference),
        }
    }
}

impl IntoIterator for Calls {
    type Item = Call;
    type IntoIter = IntoIter<Call>;

    /// Networks come before the services on them and go after them; ports are closed before others open them.
    fn into_iter(self) -> IntoIter<Call> {
        let mut calls = self.networks;
        calls.extend(self.removals);
        calls.extend(self.closings);
        calls.extend(self.updates.into_iter().map(|update| Call::UpdateService(update.request)));
        calls.extend(self.creations.into_iter().map(|creation| Call::CreateService(creation.request)));
        calls.extend(self.network_removals);
        calls.into_iter()
    }
}

impl Calls {
    pub(super) fn create_network(&mut self, name: &Name, wanted: &WantedNetwork) {
        let subnets = wanted.subnets.iter().filter_map(|s| Subnet::new(s.net, s.gateway).ok());
        let aux = wanted.subnets.iter().flat_map(|subnet| &subnet.aux_addresses);
        self.networks.push(Call::CreateNetwork(CreateNetworkRequest {
            name: name.to_string(),
            subnets: subnets.map(|subnet| v1::Subnet::from(&subnet)).collect(),
            attachable: wanted.attachable,
            internal: wanted.internal,
            mtu: wanted.mtu.unwrap_or_default().into(),
            labels: wanted.labels.clone(),
            ip_ranges: wanted.subnets.iter().filter_map(|s| s.ip_range).map(|r| r.to_string()).collect(),
            ipv6: wanted.ipv6,
            aux_addresses: aux.map(|(name, address)| (name.clone(), address.to_string())).collect(),
            ingress: false,
        }));
    }

    pub(super) fn update_network(&mut self, network: &Network, wanted: &WantedNetwork) {
        let (set_labels, remove_labels) = labels(&network.labels, &wanted.labels);
        self.networks.push(Call::UpdateNetwork(UpdateNetworkRequest {
            network: network.name.to_string(),
            expected_version: Some(network.version),
            attachable: (network.attachable != wanted.attachable).then_some(wanted.attachable),
            set_labels,
            remove_labels,
        }));
    }

    pub(super) fn remove_network(&mut self, network: &Network) {
        let (reference, expected_version) = (network.id.to_string(), Some(network.version));
        self.network_removals.push(Call::RemoveNetwork(RemoveRequest { reference, expected_version }));
    }

    pub(super) fn remove_service(&mut self, service: &Service) {
        let (reference, expected_version) = (service.id.to_string(), Some(service.version));
        self.removals.push(Call::RemoveService(RemoveRequest { reference, expected_version }));
    }

    pub(super) fn create_service(&mut self, name: &Name, wanted: &WantedService) {
        let request = CreateServiceRequest {
            name: name.to_string(),
            endpoint_mode: v1::EndpointMode::from(wanted.endpoint_mode).into(),
            ports: wanted.ports.iter().map(|port| (*port).into()).collect(),
            labels: wanted.labels.clone(),
            affinity: wanted.affinity.map(|a| v1::Affinity { timeout_secs: a.timeout_secs }),
            prefer_local: wanted.prefer_local,
            drain_timeout_secs: Some(wanted.drain_timeout_secs),
            attachments: wanted.networks.iter().map(attachment).collect(),
            health: wanted.health.clone().map(Into::into),
            ..CreateServiceRequest::default()
        };
        self.creations.push(Creation { request, opened: wanted.ports.clone() });
    }

    pub(super) fn update_service(
        &mut self,
        service: &Service,
        wanted: &WantedService,
        difference: Difference,
    ) {
        let (set_labels, remove_labels) = labels(&service.labels, &wanted.labels);
        let affinity = match wanted.affinity {
            _ if wanted.affinity == service.affinity => None,
            None => Some(AffinityChange::NoAffinity(true)),
            Some(a) => Some(AffinityChange::Affinity(v1::Affinity { timeout_secs: a.timeout_secs })),
        };
        let health = match &wanted.health {
            _ if wanted.health == service.health => None,
            None => Some(HealthChange::NoHealth(true)),
            Some(check) => Some(HealthChange::Health(check.clone().into())),
        };
        let mode = (wanted.endpoint_mode != service.endpoint_mode).then_some(wanted.endpoint_mode);
        let drain = wanted.drain_timeout_secs;
        let request = UpdateServiceRequest {
            service: service.name.to_string(),
            affinity_change: affinity,
            prefer_local: (wanted.prefer_local != service.prefer_local).then_some(wanted.prefer_local),
            drain_timeout_secs: (drain != service.drain_timeout_secs).then_some(drain),
            remove_ports: filters(&difference.closed),
            add_ports: difference.opened.iter().map(|port| (*port).into()).collect(),
            set_labels,
            remove_labels,
            expected_version: Some(service.version),
            endpoint_mode: mode.map_or(v1::EndpointMode::Unspecified, Into::into).into(),
            remove_networks: difference.left.iter().map(Name::to_string).collect(),
            add_networks: difference
                .joined
                .iter()
                .map(|(name, aliases)| attachment((name, aliases)))
                .collect(),
            remove_aliases: difference.lost_aliases.iter().map(alias).collect(),
            add_aliases: difference.new_aliases.iter().map(alias).collect(),
            health_change: health,
        };
        self.updates.push(Update { request, closed: difference.closed, opened: difference.opened });
    }

    /// Ports that one service gives up and another one wants are closed in a request of their own, before all others.
    pub(super) fn untangle(&mut self) {
        let wanted = |by: &str, port: &PortConfig| {
            let updates = self.updates.iter().filter(|update| update.request.service != by);
            let opened = updates.flat_map(|update| &update.opened);
            opened.chain(self.creations.iter().flat_map(|c| &c.opened)).any(|other| other.clashes(port))
        };
        let tangled: Vec<bool> = self
            .updates
            .iter()
            .map(|update| update.closed.iter().any(|port| wanted(&update.request.service, port)))
            .collect();
        for (update, _) in self.updates.iter_mut().zip(tangled).filter(|(_, tangled)| *tangled) {
            let request = &mut update.request;
            self.closings.push(Call::UpdateService(UpdateServiceRequest {
                service: request.service.clone(),
                expected_version: request.expected_version,
                remove_ports: std::mem::take(&mut request.remove_ports),
                ..UpdateServiceRequest::default()
            }));
        }
    }
}

/// What to set and what to take away.
fn labels(
    is: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let set = wanted.iter().filter(|(key, value)| is.get(*key) != Some(value));
    let gone = is.keys().filter(|key| !wanted.contains_key(*key));
    (set.map(|(key, value)| (key.clone(), value.clone())).collect(), gone.cloned().collect())
}

fn attachment((network, aliases): (&Name, &Vec<Name>)) -> ServiceAttachment {
    ServiceAttachment { network: network.to_string(), aliases: aliases.iter().map(Name::to_string).collect() }
}

fn alias((network, alias): &(Name, Name)) -> AliasChange {
    AliasChange { network: network.to_string(), alias: alias.to_string() }
}

fn filters(ports: &[PortConfig]) -> Vec<String> {
    ports.iter().map(|port| PortFilter::to_string(&exactly(port))).collect()
}
