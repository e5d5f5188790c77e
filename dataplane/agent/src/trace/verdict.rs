//! What a program's verdict means for a traced packet, and where it goes from there.

use std::net::{IpAddr, SocketAddr};

use mesh_lb::{Fate, Trial, steered};
use mesh_types::Vni;

use super::{
    Next, TraceEnd, TraceError, TraceFate, left,
    packet::{Headers, Tunnel, headers, opening, tunnel, wrapped},
    run::UPLINK_MACS,
    text::{ICMP, ends, translation},
    unknown,
    words::meaning,
};
use crate::{Agent, Attachment, LocalTask, flows::FlowNames, reconcile::Reconciler};

impl Agent {
    /// What a run means.
    pub(super) fn judged(
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
        let sender = sent.filter(|_| outer.is_none()).and_then(|sent| self.attachment_by_mac(&sent.macs));
        let Some((vni, to)) = self.by_device(names, trial, sender, given.map(|vtep| (Vni::INGRESS, vtep)))
        else {
            let text = "it leaves by another interface; which one, a run by hand does not tell";
            return Ok(("sent on".to_owned(), Next::End(unknown(text.to_owned()))));
        };
        let node = names.node_at(to).unwrap_or_else(|| to.to_string());
        let packet = wrapped(&Tunnel { from: own, to, vni: vni.get(), inner: trial.packet.clone() });
        Ok((format!("sent to node {node} ({to}) in VNI {vni}, by the VXLAN device"), Next::Node(to, packet)))
    }

    /// The network and the VTEP that the VXLAN device was told, which a run does not show: for a chosen task or back to where a
    /// choice was made, as `chosen` says; for an endpoint of the sender's network, that one's node.
    pub(super) fn by_device(
        &self,
        names: &FlowNames,
        trial: &Trial,
        sender: Option<Vni>,
        chosen: Option<(Vni, IpAddr)>,
    ) -> Option<(Vni, IpAddr)> {
        if trial.packet.first_chunk().and_then(steered).is_some() && chosen.is_some() {
            return chosen;
        }
        let vni = sender?;
        let endpoint = names.endpoint(vni, headers(&trial.packet)?.destination.ip())?;
        let view = self.view();
        Some((vni, view.nodes.get(&endpoint.node).filter(|node| node.id != self.inner.node)?.data_path_addr))
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
            let text = "this node has no VXLAN device that takes the outer headers off".to_owned();
            return ("left to the node's stack".to_owned(), Next::End(unknown(text)));
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

/// Whether a packet is the answer to an echo request, turned round on its way.
fn is_echo(sent: &Headers, now: &Headers) -> bool {
    ICMP.contains(&now.protocol)
        && (sent.source.ip(), sent.destination.ip()) == (now.destination.ip(), now.source.ip())
        && sent.destination.port() == 0
        && now.source.port() == 0
}
