//! What happens to a trace's packet on one node.

use std::net::{IpAddr, SocketAddr};

use mesh_lb::{Entry, Fate, FlowId, GATEWAY_MAC, Noted, Trial, steered};
use mesh_types::{Network, Protocol, Vni};

use super::{
    Next, Origin, Passage, TraceEnd, TraceError, TraceFate, TraceFrom, TraceSpec, TraceStep,
    packet::{Headers, Tunnel, headers, opening, tunnel, wrapped},
    unknown,
    words::meaning,
};
use crate::{
    Agent, Attachment, LocalTask, attach::way_out, flows::FlowNames, planner::Family, reconcile::Reconciler,
};

/// Source ports of traces: the dynamic ones (RFC 6335).
const FIRST_PORT: u16 = 49_152;
/// Ports that are tried until one is found that no flow has.
const TRIES: usize = 16;
/// IP protocol numbers of ICMP and ICMPv6 (IANA).
const ICMP: [u8; 2] = [1, 58];
/// Of the Ethernet header that an uplink receives; nothing depends on it.
const UPLINK_MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A way into the programs.
struct Start {
    entry: Entry,
    ifindex: u32,
    packet: Vec<u8>,
    /// The flow that the program may note, if any.
    flow: Option<FlowId>,
    found: Vec<String>,
}

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

    /// A packet that came in by an uplink.
    pub(super) async fn arrive_trace(&self, packet: &[u8]) -> Result<Passage, TraceError> {
        let names = self.flow_names().await;
        let mut reconciler = self.inner.reconciler.lock().await;
        let start = Start {
            entry: Entry::Uplink,
            ifindex: reconciler.host().settings.uplink_ifindex,
            packet: packet.to_vec(),
            flow: None,
            found: Vec::new(),
        };
        let mut passage = self.run_trace(&mut reconciler, &names, start)?;
        // Between nodes nothing is chosen; what came from outside of the mesh enters here.
        passage.origin = passage.origin.filter(|origin| tunnel(&origin.packet).is_none());
        Ok(passage)
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

    /// Runs the program, and says what it did.
    fn run_trace(
        &self,
        reconciler: &mut Reconciler,
        names: &FlowNames,
        start: Start,
    ) -> Result<Passage, TraceError> {
        let Start { entry, ifindex, packet, mut flow, mut found } = start;
        let own = reconciler.host().settings.vtep;
        let outer = tunnel(&packet).filter(|outer| outer.to == own);
        let sent = match &outer {
            Some(outer) => headers(&outer.inner),
            None => headers(&packet),
        };
        if let Some(outer) = &outer {
            found.extend(self.opened(names, outer));
        } else if entry == Entry::Uplink
            && let Some(sent) = &sent
        {
            let front = sent.destination;
            flow = Some(FlowId { vni: None, protocol: sent.protocol, client: sent.source, front });
            found.push(match ICMP.contains(&sent.protocol) {
                true => format!("an echo request to {}; only ports are published", front.ip()),
                false => published(names, front, sent.protocol).unwrap_or_else(|| {
                    format!("no service publishes {front} ({})", transport(sent.protocol))
                }),
            });
        }
        let services = reconciler.services();
        let numbers: Vec<u32> = flow
            .iter()
            .flat_map(|flow| {
                let front = names.front(flow.vni, flow.front, flow.protocol);
                front.and_then(|front| services.get(&front.service)).map(|plan| plan.number)
            })
            .collect();
        let noted = match &flow {
            Some(flow) => Some((*flow, reconciler.data_path().notes(flow, &numbers)?)),
            None => None,
        };
        let trial = reconciler.data_path().run_by_hand(entry, ifindex, &packet);
        let back = match &trial {
            Ok(trial) => self.answered(reconciler, names, trial, sent),
            Err(_) => Ok(None),
        };
        let given = match &flow {
            Some(flow) => reconciler.data_path().given_to(flow).ok().flatten(),
            None => None,
        };
        if let Some((flow, noted)) = noted {
            take_back(reconciler, &flow, noted)?;
        }
        let (trial, back) = (trial?, back?);
        let origin = Origin {
            by_task: entry == Entry::FromTask,
            ifindex,
            packet,
            flow: flow.map(|flow| (flow.vni, flow.protocol, flow.client, flow.front)),
        };
        if let Some(given) = given {
            let who = names.endpoint(given.vni, given.address).map(|endpoint| endpoint.name.to_string());
            let who = who.unwrap_or_else(|| "a task".to_owned());
            let node = names.node_at(given.vtep).unwrap_or_else(|| given.vtep.to_string());
            found.push(format!("the flow is new, and is given to {who} ({}) on node {node}", given.address));
        }
        let (verdict, next) =
            self.judged(reconciler, names, &trial, (outer.as_ref(), sent), given.map(|g| g.vtep))?;
        let step = TraceStep {
            node: self.name_of_node(self.inner.node),
            place: entry.as_str().to_owned(),
            found,
            verdict,
        };
        Ok(Passage { steps: vec![step], next, origin: Some(origin), back })
    }

    /// What is known of a packet between nodes.
    fn opened(&self, names: &FlowNames, outer: &Tunnel) -> Vec<String> {
        let sender = names.node_at(outer.from).map_or_else(
            || format!("{} is no node that is known here", outer.from),
            |node| format!("{} is node {node}", outer.from),
        );
        let vni = Vni::new(outer.vni).ok();
        let what = match vni {
            Some(Vni::INGRESS) => {
                let steered = outer.inner.first_chunk().and_then(steered);
                let local = steered.and_then(|steered| names.local(steered.endpoint));
                match (steered, local) {
                    (Some(to), Some(task)) if task.generation.0 == to.generation => {
                        format!("VNI 1: for a service, and the sender has chosen task {} here", task.name)
                    }
                    (Some(to), _) => format!("VNI 1: for endpoint {}, which is no more here", to.endpoint.0),
                    (None, _) => "VNI 1, but no choice is written in it".to_owned(),
                }
            }
            Some(vni) => match names.network_name(vni) {
                Some(network) => format!("VNI {vni}: network {network}"),
                None => format!("VNI {vni}: no network that this node knows"),
            },
            None => format!("VNI {} is none", outer.vni),
        };
        vec![sender, what]
    }

    /// What a run means.
    fn judged(
        &self,
        reconciler: &mut Reconciler,
        names: &FlowNames,
        trial: &Trial,
        (outer, sent): (Option<&Tunnel>, Option<Headers>),
        given: Option<IpAddr>,
    ) -> Result<(String, Next), TraceError> {
        let own = reconciler.host().settings.vtep;
        match trial.fate {
            Fate::Ended(Some(reason)) => {
                let (reason, text) = (reason.as_str(), meaning(reason.as_str()));
                let end = TraceEnd {
                    fate: TraceFate::Dropped,
                    text: text.to_owned(),
                    reason: Some(reason.to_owned()),
                };
                Ok((format!("dropped: {reason}"), Next::End(end)))
            }
            Fate::Ended(None) => {
                let text = "the program kept the packet: it answers it itself, or other packets were dropped at that moment; try again";
                Ok(("kept".to_owned(), Next::End(unknown(text.to_owned()))))
            }
            Fate::Redirected => {
                if let Some(on) = tunnel(&trial.packet).filter(|on| on.from == own) {
                    let node = names.node_at(on.to).unwrap_or_else(|| on.to.to_string());
                    let verdict =
                        format!("sent to node {node} ({}) in VNI {}, by the fast path", on.to, on.vni);
                    return Ok((verdict, Next::Node(on.to, trial.packet.clone())));
                }
                self.redirected(reconciler, names, trial, (outer, sent), given)
            }
            Fate::Passed => Ok(self.passed(names, trial, outer, own)),
        }
    }

    /// Into a task, or to the VXLAN device.
    fn redirected(
        &self,
        reconciler: &mut Reconciler,
        names: &FlowNames,
        trial: &Trial,
        (outer, sent): (Option<&Tunnel>, Option<Headers>),
        given: Option<IpAddr>,
    ) -> Result<(String, Next), TraceError> {
        let own = reconciler.host().settings.vtep;
        let Some(now) = headers(&trial.packet) else {
            let text = "the packet cannot be read any more";
            return Ok(("sent on".to_owned(), Next::End(unknown(text.to_owned()))));
        };
        if let Some((task, attachment)) = self.task_of_packet(&now) {
            let vni = self.view().networks.get(&attachment.network).map(|network| network.vni);
            if let Some(vni) = vni {
                let (to, from) = (now.destination, now.source);
                reconciler.data_path().forget_reply(vni, now.protocol, to, from)?;
            }
            if sent.is_some_and(|sent| is_echo(&sent, &now)) {
                let text = format!(
                    "the data path itself answers for {}: task {} gets the echo reply",
                    now.source.ip(),
                    task.name
                );
                let end = TraceEnd { fate: TraceFate::Delivered, text, reason: None };
                return Ok((format!("answered, back into task {}", task.name), Next::End(end)));
            }
            let mut verdict = format!("into task {}", task.name);
            verdict.extend(sent.map(|sent| translation(&sent, &now)));
            let text = format!(
                "task {} gets it as {}; {}",
                task.name,
                ends(&now),
                match ICMP.contains(&now.protocol) {
                    true => "its kernel answers",
                    false => "whether anything listens there, the task decides",
                }
            );
            let end = TraceEnd { fate: TraceFate::Delivered, text, reason: None };
            return Ok((verdict, Next::End(end)));
        }
        let steering = trial.packet.first_chunk().and_then(steered);
        let place = sent.and_then(|sent| {
            let local = outer.is_none().then(|| self.attachment_by_mac(&sent.macs)).flatten()?;
            let endpoint = names.endpoint(local, sent.destination.ip())?;
            let view = self.view();
            Some((local, view.nodes.get(&endpoint.node)?.data_path_addr))
        });
        let (vni, to) = match (steering, given, place) {
            (Some(_), Some(vtep), _) => (Vni::INGRESS.get(), vtep),
            (_, _, Some((vni, vtep))) => (vni.get(), vtep),
            _ => {
                let text = "it leaves by another interface; which one, a run by hand does not tell";
                return Ok(("sent on".to_owned(), Next::End(unknown(text.to_owned()))));
            }
        };
        let node = names.node_at(to).unwrap_or_else(|| to.to_string());
        let packet = wrapped(&Tunnel { from: own, to, vni, inner: trial.packet.clone() });
        Ok((format!("sent to node {node} ({to}) in VNI {vni}, by the VXLAN device"), Next::Node(to, packet)))
    }

    /// The task of this node that a packet is for, with the place that it is at.
    pub(super) fn task_of_packet(&self, now: &Headers) -> Option<(LocalTask, Attachment)> {
        let tasks = self.lock().tasks.clone();
        let is = |a: &&Attachment| a.mac.0 == now.macs[..6] && a.addresses.contains(&now.destination.ip());
        tasks.iter().find_map(|task| Some((task.clone(), task.attachments.iter().find(is)?.clone())))
    }

    /// The network of the task with the Ethernet address that a packet comes from.
    fn attachment_by_mac(&self, macs: &[u8; 12]) -> Option<Vni> {
        let tasks = self.lock().tasks.clone();
        let mut all = tasks.iter().flat_map(|task| &task.attachments);
        let attachment = all.find(|a| a.mac.0 == macs[6..])?;
        Some(self.view().networks.get(&attachment.network)?.vni)
    }

    /// On to the kernel.
    fn passed(
        &self,
        names: &FlowNames,
        trial: &Trial,
        outer: Option<&Tunnel>,
        own: IpAddr,
    ) -> (String, Next) {
        if outer.is_some() {
            let text = format!(
                "this node takes the outer headers off by the VXLAN device, whose program cannot be run by hand; by what is known here {}",
                outer.map_or_else(String::new, |outer| self.expected(names, outer))
            );
            return ("left to the VXLAN device".to_owned(), Next::End(unknown(text)));
        }
        let Some(now) = headers(&trial.packet) else {
            return ("left to the node's stack".to_owned(), Next::End(unknown(String::new())));
        };
        let view = self.view();
        let here = view.nodes.get(&self.inner.node);
        let is_here = [Some(own), here.map(|node| node.advertise_addr)].contains(&Some(now.destination.ip()));
        if is_here {
            let text = format!(
                "{} is this node's own: one of its processes answers, if any listens there",
                now.destination
            );
            return ("left to the node's stack".to_owned(), Next::End(left(text)));
        }
        let node = view.nodes.values().find(|node| node.advertise_addr == now.destination.ip());
        if let (Some(node), Some(here)) = (node, here)
            && here.advertise_addr.is_ipv4() == now.destination.is_ipv4()
        {
            let verdict = format!(
                "out by the node's stack, which masquerades it as {}; {} is node {}",
                here.advertise_addr,
                now.destination.ip(),
                node.name
            );
            let from = SocketAddr::new(here.advertise_addr, now.source.port());
            let packet = opening(UPLINK_MACS, now.protocol, from, now.destination);
            return (verdict, Next::Node(node.data_path_addr, packet));
        }
        let place = match names.node_at(now.destination.ip()) {
            Some(node) => format!("node {node}"),
            None => "the world outside".to_owned(),
        };
        let text = format!(
            "it leaves for {place} by the node's own routes, masqueraded; the data path has no more to say"
        );
        ("out by the node's stack".to_owned(), Next::End(left(text)))
    }
}

impl Agent {
    /// What the VXLAN device's program should do with a packet, by the same tables.
    fn expected(&self, names: &FlowNames, outer: &Tunnel) -> String {
        if names.node_at(outer.from).is_none() {
            return "it drops the packet: the sender is no member".to_owned();
        }
        let (Ok(vni), Some(inner)) = (Vni::new(outer.vni), headers(&outer.inner)) else {
            return "it drops the packet: it cannot be read".to_owned();
        };
        if vni == Vni::INGRESS {
            let steered = outer.inner.first_chunk().and_then(steered);
            let task = steered
                .and_then(|to| names.local(to.endpoint).filter(|task| task.generation.0 == to.generation));
            return match task {
                Some(task) => format!("task {} should get it", task.name),
                None => "it drops the packet: the chosen task is gone".to_owned(),
            };
        }
        match names.endpoint(vni, inner.destination.ip()) {
            Some(task) if task.node == self.inner.node => format!("task {} should get it", task.name),
            _ => format!("no task here has the address {}", inner.destination.ip()),
        }
    }
}

/// Forgets what a run has noted of a flow.
pub(super) fn take_back(
    reconciler: &mut Reconciler,
    flow: &FlowId,
    noted: Noted,
) -> Result<(), mesh_lb::Error> {
    reconciler.data_path().take_back(flow, noted)
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

/// The service that publishes a port, in words.
fn published(names: &FlowNames, front: SocketAddr, protocol: u8) -> Option<String> {
    let service = names.front(None, front, protocol)?.service;
    let (port, transport) = (front.port(), transport(protocol));
    Some(format!("port {port}/{transport} is published by service {}", names.service_name(service)))
}

fn transport(protocol: u8) -> &'static str {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|p| p.number() == protocol).map_or("other", Protocol::as_str)
}

/// Whether a packet is the answer to an echo request, turned round on its way.
fn is_echo(sent: &Headers, now: &Headers) -> bool {
    ICMP.contains(&now.protocol)
        && (sent.source.ip(), sent.destination.ip()) == (now.destination.ip(), now.source.ip())
        && sent.destination.port() == 0
        && now.source.port() == 0
}

/// Source and destination, with ports where there are any.
pub(super) fn ends(headers: &Headers) -> String {
    let Headers { source, destination, .. } = headers;
    match ICMP.contains(&headers.protocol) {
        true => format!("{} -> {}", source.ip(), destination.ip()),
        false => format!("{source} -> {destination}"),
    }
}

/// What a program has changed of a packet's addresses.
pub(super) fn translation(before: &Headers, now: &Headers) -> String {
    let part = |what, a: SocketAddr, b: SocketAddr| (a != b).then(|| format!("{what} {a} becomes {b}"));
    let parts =
        [part("source", before.source, now.source), part("destination", before.destination, now.destination)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { ", untouched".to_owned() } else { format!(", translated: {}", parts.join(", ")) }
}

pub(super) fn left(text: String) -> TraceEnd {
    TraceEnd { fate: TraceFate::Left, text, reason: None }
}
