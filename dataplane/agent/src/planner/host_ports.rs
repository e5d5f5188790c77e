//! Ports of this node that lead to one task of it.

use std::collections::BTreeMap;

use mesh_lb::{Frontend, ServiceEntry, ServicePlan};
use mesh_types::{Network, PortConfig, ServiceId};

use super::{Facts, Family, Finding, places::places, service::backend};
use crate::{LocalTask, attach::way_out};

/// The tasks' ports as services of their own, and which of them cannot be open: what is published goes first, then the task
/// that was there first.
pub(super) fn plans(facts: &Facts) -> (BTreeMap<ServiceId, ServicePlan>, Vec<Finding>) {
    let (mut plans, mut findings) = (BTreeMap::new(), Vec::new());
    let mut open: Vec<(PortConfig, &LocalTask)> = Vec::new();
    for task in facts.tasks().iter().filter(|t| t.has_host_ports()) {
        let mut own = Vec::new();
        for port in task.ports() {
            let other = open.iter().find(|(p, _)| p.clashes(&port)).map(|(_, t)| format!("task {}", t.name));
            let service = facts.publisher(&port).and_then(|id| facts.view().services.get(&id));
            let by = service.map(|s| format!("service {}", s.name)).or(other);
            match by {
                Some(by) => {
                    let (port, task) = (port.place(), task.name.clone());
                    findings.push(Finding::HostPort { port, task, by });
                }
                None => own.push(port),
            }
        }
        let id = ServiceId::from_u128(task.id.as_u128());
        plans.extend(plan(facts, task, id, &own).map(|plan| (id, plan)));
        open.extend(own.into_iter().map(|port| (port, task)));
    }
    (plans, findings)
}

fn plan(facts: &Facts, task: &LocalTask, id: ServiceId, ports: &[PortConfig]) -> Option<ServicePlan> {
    let endpoints: Vec<_> = task.endpoints(facts.node()).collect();
    let networks: Vec<&Network> =
        endpoints.iter().filter_map(|e| facts.view().networks.get(&e.network)).collect();
    let mut frontends = BTreeMap::new();
    for family in Family::ALL {
        // Replies leave where the default route leads.
        let Some(&network) = way_out(&networks, family).and_then(|at| networks.get(at)) else { continue };
        let has = |e: &&mesh_types::Endpoint| e.addresses.iter().any(|a| Family::of(*a) == family);
        let endpoint = endpoints.iter().filter(|e| e.network == network.id).find(has);
        let Some(backend) = endpoint.and_then(|e| backend(facts, e, network)) else { continue };
        for port in ports {
            for on in places(facts, id, port, family) {
                let frontend = Frontend::Published { on, port: port.published, protocol: port.protocol };
                let entry = ServiceEntry {
                    affinity: None,
                    direct: false,
                    target_port: Some(port.target),
                    backends: vec![backend],
                };
                frontends.insert(frontend, entry);
            }
        }
    }
    (!frontends.is_empty()).then(|| ServicePlan { number: super::service::number_of(id), frontends })
}
