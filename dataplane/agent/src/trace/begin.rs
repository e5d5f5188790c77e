//! Where a traced packet begins: at a task of this node, or with a client outside whose packets come in here.

use std::net::{IpAddr, SocketAddr};

use mesh_lb::{Entry, FlowId, GATEWAY_MAC};
use mesh_types::Network;

use super::{
    Next, Passage, TraceError, TraceFrom, TraceSpec, TraceStep, left,
    packet::opening,
    run::{Start, UPLINK_MACS},
    text::published,
};
use crate::{
    Agent, Attachment, LocalTask, attach::way_out, flows::FlowNames, planner::Family, reconcile::Reconciler,
};

/// Source ports of traces: the dynamic ones (RFC 6335).
const FIRST_PORT: u16 = 49_152;
/// Ports that are tried until one is found that no flow has.
const TRIES: usize = 16;

impl Agent {
    /// The sender's part.
    pub(super) async fn begin_trace(&self, spec: &TraceSpec) -> Result<Passage, TraceError> {
        match &spec.from {
            TraceFrom::Task(task) => {
                let task = self.task(task)?;
                self.sent_by_task(&task, spec).await
            }
            TraceFrom::Outside(client, _) => self.sent_from_outside(*client, spec).await,
        }
    }

    async fn sent_from_outside(&self, client: IpAddr, spec: &TraceSpec) -> Result<Passage, TraceError> {
        let names = self.flow_names().await;
        let view = self.view();
        let own = view.nodes.get(&self.inner.node).map(|node| node.advertise_addr);
        let address = match spec.to.parse::<IpAddr>() {
            Ok(address) => address,
            // A service or a node: the port is looked for at this node's address.
            Err(_) => {
                view.service(&spec.to).map(drop).or_else(|_| view.node(&spec.to).map(drop))?;
                own.ok_or_else(|| TraceError::Family("this node is no member any more".to_owned()))?
            }
        };
        if address.is_ipv4() != client.is_ipv4() {
            return Err(TraceError::Family(format!(
                "{client} and {address} are of two families; give a client and an address of one"
            )));
        }
        let mut reconciler = self.inner.reconciler.lock().await;
        let front = SocketAddr::new(address, spec.port);
        let protocol = spec.protocol.number(address);
        let ifindex = reconciler.host().settings.uplink_ifindex;
        let client = fresh(&reconciler, client, |client| FlowId { vni: None, protocol, client, front })?;
        let packet = opening(UPLINK_MACS, protocol, client, front);
        let start = Start { entry: Entry::Uplink, ifindex, packet, flow: None, found: Vec::new() };
        self.run_trace(&mut reconciler, &names, start)
    }

    async fn sent_by_task(&self, task: &LocalTask, spec: &TraceSpec) -> Result<Passage, TraceError> {
        let names = self.flow_names().await;
        let view = self.view();
        let (address, mut steps) = self.address_for(task, spec).await?;
        let family = Family::of(address);
        let networks: Vec<(&Attachment, &Network)> =
            task.attachments.iter().filter_map(|a| Some((a, view.networks.get(&a.network)?))).collect();
        let on_link = networks.iter().position(|(_, network)| network.subnet_of(address).is_some());
        let all: Vec<&Network> = networks.iter().map(|(_, network)| *network).collect();
        let place = on_link.or_else(|| way_out(&all, family)).and_then(|at| networks.get(at));
        let of_family = |a: &&IpAddr| Family::of(**a) == family;
        let place = place.and_then(|(a, network)| Some((*a, *network, *a.addresses.iter().find(of_family)?)));
        let Some((attachment, network, own)) = place else {
            return Err(TraceError::Family(format!(
                "task {} has no address of the family of {address} to send from",
                task.name
            )));
        };
        let node = self.name_of_node(self.inner.node);
        if task.attachments.iter().any(|a| a.addresses.contains(&address)) {
            steps.push(TraceStep {
                node,
                place: "the task's own stack".to_owned(),
                found: vec![format!("{address} is an address of task {} itself", task.name)],
                verdict: "stays in the task".to_owned(),
            });
            let text = format!("task {} speaks to itself: no packet leaves it", task.name);
            return Ok(Passage { steps, next: Next::End(left(text)), origin: None, back: None });
        }
        let mut reconciler = self.inner.reconciler.lock().await;
        let front = SocketAddr::new(address, spec.port);
        let protocol = spec.protocol.number(address);
        let vip = names.front(Some(network.vni), front, protocol).is_some();
        let outside = if family == Family::V4 {
            attachment.egress4.map(IpAddr::V4)
        } else {
            attachment.egress6.map(IpAddr::V6)
        };
        let id = |client: SocketAddr| match vip {
            true => FlowId { vni: Some(network.vni), protocol, client, front },
            // A published port of the node sees the address that stands for the task outside.
            false => {
                let client = SocketAddr::new(outside.unwrap_or(own), client.port());
                FlowId { vni: None, protocol, client, front }
            }
        };
        let client = fresh(&reconciler, own, id)?;
        let to = names.endpoint(network.vni, address).map_or(GATEWAY_MAC, |endpoint| endpoint.mac.0);
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&to);
        macs[6..].copy_from_slice(&attachment.mac.0);
        let mut found = vec![format!(
            "{own} is task {}'s address on network {} (VNI {})",
            task.name, network.name, network.vni
        )];
        found.push(self.described(&names, &reconciler, network, front, protocol));
        let start = Start {
            entry: Entry::FromTask,
            ifindex: attachment.ifindex,
            packet: opening(macs, protocol, client, front),
            flow: Some(id(client)),
            found,
        };
        let passage = self.run_trace(&mut reconciler, &names, start)?;
        steps.extend(passage.steps);
        Ok(Passage { steps, ..passage })
    }

    /// The address that a name means for the task, and the step that found it.
    async fn address_for(
        &self,
        task: &LocalTask,
        spec: &TraceSpec,
    ) -> Result<(IpAddr, Vec<TraceStep>), TraceError> {
        if let Ok(address) = spec.to.parse::<IpAddr>() {
            return Ok((address, Vec::new()));
        }
        let (_, lookups) = self.explain_name(&task.id.to_string(), &spec.to, None).await?;
        let (mut addresses, mut found) = (Vec::new(), Vec::new());
        for lookup in &lookups {
            let words = |record: &String| record.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let records: Vec<Vec<String>> = lookup.records.iter().map(words).collect();
            let of: Vec<IpAddr> = records
                .iter()
                .filter(|words| words.get(3).is_some_and(|kind| kind == "A" || kind == "AAAA"))
                .filter_map(|words| words.get(4)?.parse().ok())
                .collect();
            let told = match of.is_empty() {
                true => lookup.code.clone(),
                false => of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            };
            found.push(format!("{} {}: {told} ({})", lookup.name, lookup.qtype, lookup.why));
            addresses.extend(of);
        }
        let wanted = |a: &&IpAddr| spec.ipv6.is_none_or(|ipv6| a.is_ipv6() == ipv6);
        let has = |a: &&IpAddr| {
            task.attachments.iter().any(|at| at.addresses.iter().any(|own| own.is_ipv4() == a.is_ipv4()))
        };
        let mut address = addresses.iter().filter(wanted).find(has).copied();
        if address.is_none()
            && let Ok(node) = self.view().node(&spec.to)
        {
            found.push(format!("node {} has the address {}", node.name, node.advertise_addr));
            address = Some(node.advertise_addr);
        }
        let Some(address) = address else {
            return Err(TraceError::NoAddress {
                name: spec.to.clone(),
                task: task.name.to_string(),
                why: found.join("; "),
            });
        };
        let step = TraceStep {
            node: self.name_of_node(self.inner.node),
            place: "the task's resolver".to_owned(),
            found,
            verdict: format!("{} is {address}", spec.to),
        };
        Ok((address, vec![step]))
    }

    /// What a task of a network speaks to.
    fn described(
        &self,
        names: &FlowNames,
        reconciler: &Reconciler,
        network: &Network,
        to: SocketAddr,
        protocol: u8,
    ) -> String {
        let address = to.ip();
        if let Some(endpoint) = names.endpoint(network.vni, address) {
            return format!("{address} is task {} on node {}", endpoint.name, names.node_name(endpoint.node));
        }
        if let Some(front) = names.front(Some(network.vni), to, protocol) {
            let backends = backends(reconciler, front.service, address.is_ipv4());
            return format!(
                "{address} is the virtual address of service {}, {backends}",
                names.service_name(front.service)
            );
        }
        match network.subnet_of(address) {
            Some(subnet) if subnet.gateway() == address => {
                format!("{address} is the gateway of network {}", network.name)
            }
            Some(_) => format!("{address} is in network {}, and no task or service has it", network.name),
            None => published(names, to, protocol)
                .unwrap_or_else(|| format!("{address} is outside of network {}", network.name)),
        }
    }
}

/// An address with a port from which there is no such flow yet.
fn fresh(
    reconciler: &Reconciler,
    address: IpAddr,
    flow: impl Fn(SocketAddr) -> FlowId,
) -> Result<SocketAddr, TraceError> {
    let mut client = SocketAddr::new(address, FIRST_PORT);
    for _ in 0..TRIES {
        client.set_port(FIRST_PORT + rand::random_range(0..16_384));
        if !reconciler.data_path_seen().notes(&flow(client), &[])?.is_known() {
            break;
        }
    }
    Ok(client)
}

/// How many tasks a service has, in words.
fn backends(reconciler: &Reconciler, service: mesh_types::ServiceId, v4: bool) -> String {
    let services = reconciler.services();
    let entries = services.get(&service).into_iter().flat_map(|plan| plan.frontends.iter());
    let of_family = |frontend: &mesh_lb::Frontend| match frontend {
        mesh_lb::Frontend::Vip { address, .. } => address.is_ipv4() == v4,
        mesh_lb::Frontend::Published { on, .. } => match on {
            mesh_lb::PublishedOn::AnyV4 => v4,
            mesh_lb::PublishedOn::AnyV6 => !v4,
            mesh_lb::PublishedOn::Address(address) => address.is_ipv4() == v4,
        },
    };
    let takes = entries.filter(|(frontend, _)| of_family(frontend));
    let takes = takes.map(|(_, entry)| entry.backends.iter().filter(|b| !b.draining).count()).max();
    match takes.unwrap_or(0) {
        0 => "which has no task that takes new flows".to_owned(),
        1 => "which has one task that takes new flows".to_owned(),
        n => format!("which has {n} tasks that take new flows"),
    }
}
