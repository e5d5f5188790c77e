//! One run of a program on a traced packet, or two where the VXLAN device stands between: what was found before it, what the
//! program did, and that what it noted is forgotten.

use mesh_lb::{Entry, Fate, FlowId, Noted, Outer, Trial, steered};
use mesh_types::Vni;

use super::{
    Origin, Passage, TraceError, TraceStep,
    packet::{Tunnel, headers, tunnel},
    text::{ICMP, published, transport},
};
use crate::{Agent, flows::FlowNames, reconcile::Reconciler};

/// Of the Ethernet header that an uplink receives; nothing depends on it.
pub(super) const UPLINK_MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A way into the programs.
pub(super) struct Start {
    pub entry: Entry,
    pub ifindex: u32,
    pub packet: Vec<u8>,
    /// The flow that the program may note, if any.
    pub flow: Option<FlowId>,
    pub found: Vec<String>,
}

/// What became of a packet.
pub(super) struct Ran {
    pub trial: Trial,
    /// The first program left it to the VXLAN device, and this is what the one behind that did.
    pub by_device: bool,
}

/// Runs a program; and the one behind the VXLAN device, where the first leaves the packet to that.
pub(super) fn by_programs(
    reconciler: &mut Reconciler,
    entry: Entry,
    ifindex: u32,
    packet: &[u8],
) -> Result<Ran, mesh_lb::Error> {
    let settings = &reconciler.host().settings;
    let (own, device) = (settings.vtep, settings.vxlan_ifindex);
    let trial = reconciler.data_path().run_by_hand(entry, ifindex, packet)?;
    let outer = tunnel(packet).filter(|outer| entry == Entry::Uplink && outer.to == own && device != 0);
    match outer {
        Some(Tunnel { from, to, vni, inner }) if trial.fate == Fate::Passed => {
            let trial = reconciler.data_path().run_opened(device, &Outer { from, to, vni }, &inner)?;
            Ok(Ran { trial, by_device: true })
        }
        _ => Ok(Ran { trial, by_device: false }),
    }
}

impl Agent {
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

    /// Runs the program, and says what it did.
    pub(super) fn run_trace(
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
        let ran = by_programs(reconciler, entry, ifindex, &packet);
        let back = match &ran {
            Ok(ran) => self.answered(reconciler, names, &ran.trial, (outer.as_ref(), sent)),
            Err(_) => Ok(None),
        };
        let given = match &flow {
            Some(flow) => reconciler.data_path().given_to(flow).ok().flatten(),
            None => None,
        };
        if let Some((flow, noted)) = noted {
            take_back(reconciler, &flow, noted)?;
        }
        let (Ran { trial, by_device }, back) = (ran?, back?);
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
        let steps = self.stations(entry, by_device, found, verdict);
        Ok(Passage { steps, next, origin: Some(origin), back })
    }

    /// The program, and the one behind the VXLAN device.
    pub(super) fn stations(
        &self,
        entry: Entry,
        by_device: bool,
        found: Vec<String>,
        verdict: String,
    ) -> Vec<TraceStep> {
        let node = self.name_of_node(self.inner.node);
        let station = |entry: Entry, found, verdict| TraceStep {
            node: node.clone(),
            place: entry.as_str().to_owned(),
            found,
            verdict,
        };
        if !by_device {
            return vec![station(entry, found, verdict)];
        }
        let left = "left to the VXLAN device, which takes the outer headers off".to_owned();
        vec![station(entry, found, left), station(Entry::Vxlan, Vec::new(), verdict)]
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
}

/// Forgets what a run has noted of a flow.
pub(super) fn take_back(
    reconciler: &mut Reconciler,
    flow: &FlowId,
    noted: Noted,
) -> Result<(), mesh_lb::Error> {
    reconciler.data_path().take_back(flow, noted)
}
