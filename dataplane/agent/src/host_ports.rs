//! Ports of this node that lead to one task of it: asked for by its runtime, not decided by managers. A port that is
//! published goes first.

use std::{collections::BTreeSet, net::IpAddr};

use mesh_types::{ClusterView, Family, Name, Network, PortConfig, PublishAt, PublishMode, ReturnMode};

use crate::{Agent, AttachError, LocalTask, state::State};

/// Where a port is looked for when any will do: below what the managers give out, and what the kernel gives to sockets.
const ANY: std::ops::RangeInclusive<u16> = 20_000..=29_999;

impl Agent {
    /// Whether the node has the addresses that the ports are asked for at; it has those of loopback, without counting them
    /// among its own.
    pub(crate) async fn check_places(&self, ports: &[PortConfig]) -> Result<(), AttachError> {
        let asked: BTreeSet<IpAddr> =
            ports.iter().filter_map(address_of).filter(|address| !address.is_loopback()).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let here = self.inner.reconciler.lock().await.host().addresses.clone();
        match asked.into_iter().find(|address| !here.contains_key(address)) {
            Some(address) => {
                let own: Vec<_> = here.keys().map(ToString::to_string).collect();
                Err(AttachError::PortAddress { address, own: own.join(", ") })
            }
            None => Ok(()),
        }
    }
}

/// Whether one of `networks` has a subnet of the family in which each port is asked for: nothing could be behind it else.
pub(crate) fn check_families<'a>(
    ports: &[PortConfig],
    networks: impl Iterator<Item = &'a Network> + Clone,
) -> Result<(), AttachError> {
    for port in ports {
        if let Some(family) = address_of(port).map(Family::of)
            && !networks.clone().any(|network| network.subnets.iter().any(|s| s.family() == family))
        {
            return Err(AttachError::PortFamily { port: port.place(), family });
        }
    }
    Ok(())
}

fn address_of(port: &PortConfig) -> Option<IpAddr> {
    if let PublishAt::Address(address) = port.at { Some(address) } else { None }
}

/// Whether `had`, which is open, is what `port` asks for.
pub(crate) fn is_port(had: &PortConfig, port: &PortConfig) -> bool {
    (had.target, had.protocol, had.at) == (port.target, port.protocol, port.at)
        && (port.published == 0 || had.published == port.published)
}

impl LocalTask {
    /// Its ports, each once, however many of its places hold it.
    pub fn ports(&self) -> Vec<PortConfig> {
        let mut ports = Vec::new();
        for port in self.attachments.iter().flat_map(|a| &a.host_ports) {
            if !ports.contains(port) {
                ports.push(*port);
            }
        }
        ports
    }

    /// Its port that is what `port` asks for.
    pub(crate) fn opened(&self, port: &PortConfig) -> Option<&PortConfig> {
        self.attachments.iter().flat_map(|a| &a.host_ports).find(|had| is_port(had, port))
    }
}

/// The ports as they can be opened on this node now: each once, with a number where any would do.
pub(crate) fn settle(state: &State, wanted: &[PortConfig]) -> Result<Vec<PortConfig>, AttachError> {
    let mut settled: Vec<PortConfig> = Vec::new();
    for port in wanted {
        let mut port = PortConfig { mode: PublishMode::Host, return_mode: ReturnMode::Tunnel, ..*port };
        if matches!(port.at, PublishAt::Interface(_)) {
            return Err(AttachError::PortInterface(port.place()));
        }
        if port.published == 0 {
            let free = |number: &u16| {
                let port = PortConfig { published: *number, ..port };
                check(state, &settled, &port).is_ok()
            };
            port.published = ANY.into_iter().find(free).ok_or(AttachError::NoFreePort)?;
        }
        if settled.contains(&port) {
            continue;
        }
        check(state, &settled, &port)?;
        settled.push(port);
    }
    Ok(settled)
}

fn check(state: &State, beside: &[PortConfig], port: &PortConfig) -> Result<(), AttachError> {
    if let Some(purpose) = port.own_use() {
        return Err(AttachError::PortReserved { port: port.place(), purpose });
    }
    if let Some(service) = publisher(&state.view, port) {
        return Err(AttachError::PortPublished { port: port.place(), service });
    }
    let of_task = |task: &LocalTask| {
        let mut ports = task.attachments.iter().flat_map(|a| &a.host_ports);
        ports.any(|p| p.clashes(port)).then(|| task.name.clone())
    };
    let under_way = || state.reserved.values().find(|r| r.host_ports.iter().any(|p| p.clashes(port)));
    let taken = state.tasks.iter().chain(&state.absent).find_map(of_task);
    if let Some(task) = taken.or_else(|| under_way().map(|r| r.name.clone())) {
        return Err(AttachError::PortOfTask { port: port.place(), task });
    }
    match beside.iter().any(|p| p.clashes(port)) {
        true => Err(AttachError::PortTwice(port.place())),
        false => Ok(()),
    }
}

/// The service that publishes the port, on whichever nodes.
fn publisher(view: &ClusterView, port: &PortConfig) -> Option<Name> {
    let publishes = |service: &&mesh_types::Service| service.ports.iter().any(|p| p.clashes(port));
    view.services.values().find(publishes).map(|service| service.name.clone())
}
