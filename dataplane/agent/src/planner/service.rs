//! A service's part of the plan: what its clients speak to on this node, and the tasks behind it.

use std::collections::BTreeMap;

use mesh_lb::{Backend, BackendKey, Frontend, ServiceEntry, ServicePlan, SourceAffinity};
use mesh_types::{
    Endpoint, EndpointMode, EndpointState, Network, NetworkId, PortConfig, PublishAt, PublishMode,
    ReturnMode, Service, ServiceId,
};

use super::{Facts, Family, places::places, published_on};

/// The service as this node's data path holds it; none if nobody here can speak to it.
pub(super) fn service_plan(facts: &Facts, service: &Service) -> Option<ServicePlan> {
    let mut builder = Builder { facts, service, frontends: BTreeMap::new() };
    if service.endpoint_mode == EndpointMode::Vip {
        builder.vips();
    }
    builder.ports(PublishMode::Ingress);
    builder.ports(PublishMode::Host);
    let frontends = builder.frontends;
    (!frontends.is_empty()).then(|| ServicePlan { number: number_of(service.id), frontends })
}

/// A number that is the same on every node, and different for nearly all services.
pub(super) fn number_of(service: ServiceId) -> u32 {
    let id = service.as_u128();
    (id ^ (id >> 32) ^ (id >> 64) ^ (id >> 96)) as u32
}

struct Builder<'a> {
    facts: &'a Facts,
    service: &'a Service,
    frontends: BTreeMap<Frontend, ServiceEntry>,
}

impl Builder<'_> {
    /// Its virtual addresses on networks that this node has tasks on.
    fn vips(&mut self) {
        for member in self.service.networks.iter().filter(|n| self.facts.is_local(n.network)) {
            let Some(network) = self.facts.view().networks.get(&member.network) else { continue };
            let candidates = self.candidates(network.id, network, Whose::Everybodys);
            for &address in &member.vips {
                let entry = self.entry(None, of_family(&candidates, Family::of(address)));
                self.frontends.insert(Frontend::Vip { vni: network.vni, address }, entry);
            }
        }
    }

    /// Its published ports of this mode.
    fn ports(&mut self, mode: PublishMode) {
        let ports = || self.service.ports.iter().filter(|p| p.mode == mode);
        if ports().next().is_none() {
            return;
        }
        for family in Family::ALL {
            let Some(network) = published_on(self.facts.view(), self.service, family) else { continue };
            let backends = match (mode, self.facts.ingress()) {
                (PublishMode::Ingress, None) => continue,
                (PublishMode::Ingress, Some(scope)) => self.candidates(scope, network, Whose::Everybodys),
                (PublishMode::Host, _) => self.candidates(network.id, network, Whose::Own),
            };
            let backends = of_family(&backends, family);
            if mode == PublishMode::Host && backends.is_empty() {
                continue;
            }
            for port in ports() {
                self.port(port, family, &backends);
            }
        }
    }

    fn port(&mut self, port: &PortConfig, family: Family, backends: &[Backend]) {
        for on in places(self.facts, self.service.id, port, family) {
            let frontend = Frontend::Published { on, port: port.published, protocol: port.protocol };
            let mut entry = self.entry(Some(port.target), backends.to_vec());
            entry.direct = port.return_mode == ReturnMode::Direct;
            // One service may name an address and the interface that has it: the address counts.
            if matches!(port.at, PublishAt::Interface(_)) {
                self.frontends.entry(frontend).or_insert(entry);
            } else {
                self.frontends.insert(frontend, entry);
            }
        }
    }

    fn entry(&self, target_port: Option<u16>, backends: Vec<Backend>) -> ServiceEntry {
        let affinity = self.service.affinity.map(|a| SourceAffinity { timeout_secs: a.timeout_secs });
        ServiceEntry { affinity, direct: false, target_port, backends }
    }

    /// The service's endpoints on `network` that the table of `scope` tells of, by key.
    fn candidates(&self, scope: NetworkId, network: &Network, whose: Whose) -> Vec<Candidate> {
        let facts = self.facts;
        let told = facts.of_service(self.service.id, scope).filter(|e| e.network == network.id);
        let mut by_key: BTreeMap<BackendKey, Candidate> = BTreeMap::new();
        for endpoint in told {
            let own = endpoint.node == facts.node();
            if !own && whose == Whose::Own {
                continue;
            }
            let Some(backend) = backend(facts, endpoint, network) else { continue };
            let has = |family| endpoint.addresses.iter().any(|a| Family::of(*a) == family);
            let candidate = Candidate { backend, own, v4: has(Family::V4), v6: has(Family::V6) };
            // This node knows best who runs its own tasks.
            if own || !by_key.get(&backend.key).is_some_and(|c| c.own) {
                by_key.insert(backend.key, candidate);
            }
        }
        let mut all: Vec<_> = by_key.into_values().collect();
        let near = |c: &Candidate| c.own && !c.backend.draining;
        if self.service.prefer_local && all.iter().any(near) {
            // Those further away keep the flows that they have.
            all.iter_mut().filter(|c| !c.own).for_each(|c| c.backend.draining = true);
        }
        all
    }
}

/// The endpoint as clients reach it; none if it is drained, or on a node that cannot be reached.
pub(super) fn backend(facts: &Facts, endpoint: &Endpoint, network: &Network) -> Option<Backend> {
    let place = facts.place_of(endpoint)?;
    if endpoint.state == EndpointState::Drained {
        return None;
    }
    Some(Backend {
        key: BackendKey(endpoint.task, endpoint.network),
        vni: network.vni,
        // The same one for both families: it is one backend.
        address: *endpoint.addresses.first()?,
        vtep: place.vtep,
        ifindex: place.ifindex,
        endpoint: endpoint.local_id,
        generation: endpoint.generation,
        // One that is out of order keeps its flows too: they may yet end well.
        draining: !endpoint.takes_flows(),
        weight: endpoint.weight,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Everybodys,
}

struct Candidate {
    backend: Backend,
    own: bool,
    v4: bool,
    v6: bool,
}

fn of_family(candidates: &[Candidate], family: Family) -> Vec<Backend> {
    let has = |c: &&Candidate| if family == Family::V4 { c.v4 } else { c.v6 };
    candidates.iter().filter(has).map(|c| c.backend).collect()
}
