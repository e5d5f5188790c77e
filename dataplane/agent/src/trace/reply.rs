//! The way back: what the task would answer is given to the programs while they still know of the packet.
//!
//! The task's node runs its program on the answer right after the packet; where the packet entered, it is run once more before
//! the answer that comes back, so that the choice is noted which the answer is checked against.

use std::net::IpAddr;

use mesh_lb::{Entry, Fate, FlowId, GATEWAY_MAC, Trial};
use mesh_types::Vni;

use super::{
    Next, Origin, Passage, TraceEnd, TraceError, TraceFate, TraceStep, left,
    packet::{Headers, Tunnel, answer, headers, tunnel, wrapped},
    run::{Ran, by_programs, take_back},
    text::{ends, translation},
    unknown,
    words::meaning,
};
use crate::{Agent, flows::FlowNames, reconcile::Reconciler};

impl Agent {
    /// What becomes of the answer to a packet that a run has given to a task of this node; none when it gave it to no task,
    /// or the data path has answered itself.
    pub(super) fn answered(
        &self,
        reconciler: &mut Reconciler,
        names: &FlowNames,
        trial: &Trial,
        (outer, sent): (Option<&Tunnel>, Option<Headers>),
    ) -> Result<Option<(Vec<TraceStep>, Next)>, TraceError> {
        let own = reconciler.host().settings.vtep;
        let is_sent_on = tunnel(&trial.packet).is_some_and(|outer| outer.from == own);
        let Some(now) = headers(&trial.packet).filter(|_| trial.fate == Fate::Redirected && !is_sent_on)
        else {
            return Ok(None);
        };
        let Some((task, place)) = self.task_of_packet(&now) else { return Ok(None) };
        // What comes back to its sender was answered on the way.
        if sent.is_some_and(|sent| sent.macs[6..] == now.macs[..6]) {
            return Ok(None);
        }
        let vni = self.view().networks.get(&place.network).map(|network| network.vni);
        let peer = vni.and_then(|vni| names.endpoint(vni, now.source.ip()));
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&peer.map_or(GATEWAY_MAC, |peer| peer.mac.0));
        macs[6..].copy_from_slice(&place.mac.0);
        let packet = answer(macs, &now);
        let said = headers(&packet);
        let trial = reconciler.data_path().run_by_hand(Entry::FromTask, place.ifindex, &packet)?;
        let mut found = Vec::new();
        found.extend(said.map(|said| format!("task {} answers {}", task.name, ends(&said))));
        let back_to = outer.map(|outer| (Vni::RETURN, outer.from));
        let device = self.by_device(names, &trial, vni, back_to);
        let (verdict, next) = self.judged_answer(reconciler, names, &trial, said, device);
        Ok(Some((self.stations(Entry::FromTask, false, found, verdict), next)))
    }

    /// An answer that came back to the node where the packet entered.
    pub(super) async fn return_trace(&self, origin: &Origin, reply: &[u8]) -> Result<Passage, TraceError> {
        let names = self.flow_names().await;
        let mut reconciler = self.inner.reconciler.lock().await;
        let reconciler = &mut *reconciler;
        let flow = origin.flow.map(|(vni, protocol, client, front)| FlowId { vni, protocol, client, front });
        let noted = match &flow {
            Some(flow) => Some((*flow, reconciler.data_path().notes(flow, &[])?)),
            None => None,
        };
        let entry = if origin.by_task { Entry::FromTask } else { Entry::Uplink };
        let uplink = reconciler.host().settings.uplink_ifindex;
        let once_more = reconciler.data_path().run_by_hand(entry, origin.ifindex, &origin.packet);
        let ran = once_more.and_then(|_| by_programs(reconciler, Entry::Uplink, uplink, reply));
        if let Some((flow, noted)) = noted {
            take_back(reconciler, &flow, noted)?;
        }
        let Ran { trial, by_device } = ran?;
        let outer = tunnel(reply);
        let mut found = Vec::new();
        if let Some(outer) = &outer {
            let sender = names.node_at(outer.from).unwrap_or_else(|| "no node that is known here".to_owned());
            found.push(format!("{} is {sender}; VNI {}", outer.from, outer.vni));
        }
        let sent = outer.as_ref().and_then(|outer| headers(&outer.inner));
        let (verdict, next) = self.judged_answer(reconciler, &names, &trial, sent, None);
        let steps = self.stations(Entry::Uplink, by_device, found, verdict);
        Ok(Passage { steps, next, origin: None, back: None })
    }

    /// What a run of an answer means; `device` is where the VXLAN device takes it, if the fast path does not.
    fn judged_answer(
        &self,
        reconciler: &Reconciler,
        names: &FlowNames,
        trial: &Trial,
        sent: Option<Headers>,
        device: Option<(Vni, IpAddr)>,
    ) -> (String, Next) {
        let own = reconciler.host().settings.vtep;
        let end = |fate, text| TraceEnd { fate, text, reason: None };
        let changed = |now: &Headers| sent.map(|sent| translation(&sent, now)).unwrap_or_default();
        match trial.fate {
            Fate::Ended(Some(reason)) => {
                let reason = reason.as_str();
                let dropped = TraceEnd {
                    fate: TraceFate::Dropped,
                    text: meaning(reason).to_owned(),
                    reason: Some(reason.to_owned()),
                };
                (format!("dropped: {reason}"), Next::End(dropped))
            }
            Fate::Ended(None) => {
                let text =
                    "the program kept the answer, or other packets were dropped at that moment; try again";
                ("kept".to_owned(), Next::End(unknown(text.to_owned())))
            }
            Fate::Redirected | Fate::Passed => {
                if let Some(on) = tunnel(&trial.packet).filter(|on| on.from == own) {
                    let node = names.node_at(on.to).unwrap_or_else(|| on.to.to_string());
                    let inner = headers(&on.inner).map(|now| changed(&now)).unwrap_or_default();
                    let verdict =
                        format!("sent to node {node} ({}) in VNI {}, by the fast path{inner}", on.to, on.vni);
                    return (verdict, Next::Node(on.to, trial.packet.clone()));
                }
                let Some(now) = headers(&trial.packet) else {
                    return (
                        "sent on".to_owned(),
                        Next::End(unknown("it cannot be read any more".to_owned())),
                    );
                };
                if let Some((task, _)) = self.task_of_packet(&now) {
                    let text = format!("task {} gets it as {}", task.name, ends(&now));
                    let verdict = format!("into task {}{}", task.name, changed(&now));
                    return (verdict, Next::End(end(TraceFate::Delivered, text)));
                }
                if let Some((vni, to)) = device.filter(|_| trial.fate == Fate::Redirected) {
                    let node = names.node_at(to).unwrap_or_else(|| to.to_string());
                    let inner = trial.packet.clone();
                    let packet = wrapped(&Tunnel { from: own, to, vni: vni.get(), inner });
                    let changed = changed(&now);
                    let verdict =
                        format!("sent to node {node} ({to}) in VNI {vni}, by the VXLAN device{changed}");
                    return (verdict, Next::Node(to, packet));
                }
                let to = now.destination.ip();
                let who =
                    names.node_at(to).map_or_else(|| to.to_string(), |node| format!("node {node} ({to})"));
                if trial.fate == Fate::Passed {
                    let text = format!("this node's stack takes {} to whoever it is for", ends(&now));
                    return (format!("left to the node's stack{}", changed(&now)), Next::End(left(text)));
                }
                let text = format!("{who} gets it as {}", ends(&now));
                (
                    format!("out by the uplink to {who}{}", changed(&now)),
                    Next::End(end(TraceFate::Delivered, text)),
                )
            }
        }
    }
}
