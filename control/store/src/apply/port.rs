//! Published ports of services.

use mesh_ipam::PortPool;
use mesh_types::{EndpointMode, Name, PortConfig, Protocol, PublishMode, ReturnMode, ServiceId};

use crate::{Rejection, state::Cluster};

/// The service that ports are wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publisher<'a> {
    pub id: ServiceId,
    pub name: &'a Name,
    pub mode: EndpointMode,
}

impl Cluster {
    /// Checks the ports asked for, fills the open ones in and takes them in `pool`: a copy, given up on an error.
    pub(super) fn choose_ports(
        &self,
        pool: &mut PortPool<ServiceId>,
        publisher: Publisher<'_>,
        asked: &[PortConfig],
    ) -> Result<Vec<PortConfig>, Rejection> {
        let mut chosen = Vec::with_capacity(asked.len());
        for port in asked {
            let port = check(publisher, *port)?;
            if port.published != 0 {
                self.refuse_clash(pool, publisher, &port, &chosen)?;
                pool.take(&port, publisher.id);
            }
            chosen.push(port);
        }
        // Those that are named first: they may be of the automatic range too.
        for port in chosen.iter_mut().filter(|port| port.published == 0) {
            let free = pool.pick(port.protocol);
            port.published = free.ok_or(Rejection::PortsExhausted(port.protocol))?;
            pool.take_picked(port, publisher.id);
        }
        Ok(chosen)
    }

    fn refuse_clash(
        &self,
        pool: &PortPool<ServiceId>,
        publisher: Publisher<'_>,
        asked: &PortConfig,
        chosen: &[PortConfig],
    ) -> Result<(), Rejection> {
        let Some((at, owner)) = pool.clash(asked) else { return Ok(()) };
        let asked = *asked;
        if let Some(&first) = chosen.iter().find(|first| first.clashes(&asked)) {
            return Err(Rejection::PortTwice { first, second: asked });
        }
        let service = self.known_service(*owner)?;
        let same = |port: &&PortConfig| port.at == at && port.clashes(&asked);
        // The pool has what services have, so it is there.
        let taken = service.ports.iter().find(same).copied().unwrap_or(asked);
        Err(if *owner == publisher.id {
            Rejection::PortPublished { asked, taken, service: service.name.clone() }
        } else {
            Rejection::PortTaken { asked, taken, owner: service.name.clone() }
        })
    }
}

/// What can be told of a port alone. A free SCTP port is the target: no other can lead there.
fn check(publisher: Publisher<'_>, mut port: PortConfig) -> Result<PortConfig, Rejection> {
    let PortConfig { target, protocol, .. } = port;
    if target == 0 {
        return Err(Rejection::TargetPort);
    }
    if protocol == Protocol::Sctp {
        port.published = if port.published == 0 { target } else { port.published };
        if port.published != target {
            return Err(Rejection::SctpPorts { published: port.published, target });
        }
    }
    let published = port.published;
    if let Some(purpose) = port.own_use() {
        let purpose = purpose.to_owned();
        return Err(Rejection::PortReserved { published, protocol, purpose });
    }
    if publisher.mode == EndpointMode::Dnsrr && port.mode == PublishMode::Ingress {
        return Err(Rejection::DnsRrPorts(publisher.name.clone()));
    }
    if port.mode == PublishMode::Host && port.return_mode == ReturnMode::Direct {
        return Err(Rejection::DirectHost(port));
    }
    Ok(port)
}
