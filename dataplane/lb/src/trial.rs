//! Runs of the loaded programs by hand, with the maps as they are: what would become of a packet. Nothing is sent.
//!
//! A run counts as a packet does, and notes what a packet would: [`DataPath::notes`] and [`DataPath::take_back`] stand
//! around it, so that what it noted is forgotten.

use std::net::{IpAddr, SocketAddr};

use aya::{TestRun, TestRunOptions, programs::ProgramError};
use mesh_abi::{AffinityKey, AffinityValue, DropReason, FlowKey, PUBLISHED, Steering, flow_state, v4_mapped};
use mesh_types::{LocalEndpointId, Vni};

use crate::{
    DataPath,
    error::Error,
    flow_list::{FlowTask, ip},
    sys::tunneled::{self, Outer},
    table::Partly,
};

/// The kernel's `enum tc_action`, as far as the programs use it.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_REDIRECT: i32 = 7;
/// Room for outer headers.
const ROOM: usize = 256;

/// A program that can be run by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// What a task sends.
    FromTask,
    /// What comes in by an uplink. Where XDP is in front of it, that takes the same steps earlier.
    Uplink,
    /// What the VXLAN device has taken the outer headers off.
    Vxlan,
}

impl Entry {
    /// The program's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Entry::FromTask => "from_task",
            Entry::Uplink => "uplink",
            Entry::Vxlan => "vxlan",
        }
    }
}

/// What a program makes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Where the packet goes.
    pub fate: Fate,
    /// As it is then.
    pub packet: Vec<u8>,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// On to the kernel.
    Passed,
    /// To another interface; the packet tells which.
    Redirected,
    /// Nowhere: it is answered or not needed, or it is dropped; the reason is missing where several packets were dropped
    /// at that moment.
    Ended(Option<DropReason>),
}

/// A flow as the node knows it that its packets enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowId {
    /// The network of a VIP; none for a published port.
    pub vni: Option<Vni>,
    /// IP protocol number.
    pub protocol: u8,
    /// Who began it.
    pub client: SocketAddr,
    /// What it speaks to.
    pub front: SocketAddr,
}

/// What was noted of a flow before a run.
#[derive(Debug, Clone)]
pub struct Noted {
    known: bool,
    affinity: Vec<(AffinityKey, Option<AffinityValue>)>,
}

impl Noted {
    /// Whether there is such a flow: a run would be taken for one of its packets.
    pub fn is_known(&self) -> bool {
        self.known
    }
}

/// A choice that a packet between nodes carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steered {
    /// The endpoint's id on its node.
    pub endpoint: LocalEndpointId,
    /// Which use of that id.
    pub generation: u16,
}

/// Reads the Ethernet addresses of a packet of the ingress network.
pub fn steered(addresses: &[u8; 12]) -> Option<Steered> {
    let Steering { endpoint, generation, .. } = Steering::decode(addresses)?;
    Some(Steered { endpoint: LocalEndpointId(endpoint), generation })
}

impl DataPath {
    /// Runs a program on a packet that comes from the interface with this number, one of the calling thread's namespace.
    /// [`Entry::Vxlan`] knows no sender then, and drops it.
    pub fn run_by_hand(&mut self, entry: Entry, ifindex: u32, packet: &[u8]) -> Result<Trial, Error> {
        let context = context(ifindex);
        let mut out = vec![0u8; packet.len() + ROOM];
        let before = self.drops()?;
        let (program, _) = self.programs.tc(entry.as_str())?;
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let refused = |source| Error::Program { program: entry.as_str(), source: Box::new(source) };
        let result = program.test_run(options).map_err(refused)?;
        out.truncate(result.data_size_out as usize);
        Ok(Trial { fate: self.fate(result.return_value as i32, &before)?, packet: out })
    }

    /// Runs [`Entry::Vxlan`] on a packet whose outer headers said this.
    pub fn run_opened(&mut self, ifindex: u32, outer: &Outer, packet: &[u8]) -> Result<Trial, Error> {
        let name = Entry::Vxlan.as_str();
        let mut out = vec![0u8; packet.len() + ROOM];
        let before = self.drops()?;
        let (_, program) = self.programs.tc(name)?;
        let ran = tunneled::run(&program.fd, outer, packet, &context(ifindex), &mut out);
        let ran = ran.map_err(|error| Error::Program {
            program: name,
            source: Box::new(ProgramError::IOError(error)),
        })?;
        out.truncate(ran.length);
        Ok(Trial { fate: self.fate(ran.verdict, &before)?, packet: out })
    }

    /// What a verdict means, with the drops before it.
    fn fate(&self, verdict: i32, before: &[u64]) -> Result<Fate, Error> {
        Ok(match verdict {
            TC_ACT_UNSPEC => Fate::Passed,
            TC_ACT_REDIRECT => Fate::Redirected,
            _ => {
                let after = self.drops()?;
                let more = DropReason::ALL.iter().zip(before.iter().zip(&after)).filter(|(_, (a, b))| a != b);
                let mut more = more.map(|(reason, _)| *reason);
                Fate::Ended(more.next().filter(|_| more.next().is_none()))
            }
        })
    }

    fn drops(&self) -> Result<Vec<u64>, Error> {
        DropReason::ALL.iter().map(|reason| self.maps.drops(*reason as u32)).collect()
    }

    /// What is noted of a flow of the services with these numbers.
    pub fn notes(&self, flow: &FlowId, services: &[u32]) -> Result<Noted, Error> {
        let key = key(flow);
        let known = self.maps.choices.get(&key).is_some() || self.maps.choices_kept.get(&key)?.is_some();
        let clients = services.iter().map(|&service| AffinityKey { client: key.source, service });
        let affinity = clients.map(|client| Ok((client, self.maps.affinity.get(&client)?)));
        Ok(Noted { known, affinity: affinity.collect::<Result<_, Error>>()? })
    }

    /// Forgets what a run by hand has noted of a flow since [`DataPath::notes`].
    pub fn take_back(&self, flow: &FlowId, noted: Noted) -> Result<(), Error> {
        let Noted { known, affinity } = noted;
        if !known {
            self.maps.choices.remove(&key(flow));
        }
        for (client, before) in affinity {
            if self.maps.affinity.get(&client)? == before {
                continue;
            }
            let done = match before {
                Some(before) => self.maps.affinity.put(std::iter::once((client, before))),
                None => self.maps.affinity.delete(std::iter::once(client)),
            };
            done.map_err(|Partly { error, .. }| error)?;
        }
        Ok(())
    }

    /// Forgets how replies of a flow that a run by hand has led to a task of this node go back. One that was spoken in again
    /// after an answer is another's, and stays.
    pub fn forget_reply(
        &self,
        vni: Vni,
        protocol: u8,
        task: SocketAddr,
        client: SocketAddr,
    ) -> Result<(), Error> {
        let reply = key(&FlowId { vni: Some(vni), protocol, client: task, front: client });
        let fresh = |state: u8| state & flow_state::CONFIRMED == 0;
        if self.maps.reverse.get(&reply)?.is_some_and(|entry| fresh(entry.state)) {
            self.maps.reverse.delete(std::iter::once(reply)).map_err(|Partly { error, .. }| error)?;
        }
        Ok(())
    }

    /// Whom a flow was given to.
    pub fn given_to(&self, flow: &FlowId) -> Result<Option<FlowTask>, Error> {
        let key = key(flow);
        let choice = match self.maps.choices.get(&key) {
            Some(choice) => Some(choice),
            None => self.maps.choices_kept.get(&key)?,
        };
        let backend = choice.and_then(|choice| self.held.backends.get(&choice.backend));
        Ok(backend.and_then(|backend| {
            Some(FlowTask {
                vni: Vni::new(u32::from_be_bytes(backend.vni)).ok()?,
                address: ip(&backend.address),
                port: None,
                vtep: ip(&backend.vtep),
                here: backend.ifindex != 0,
            })
        }))
    }
}

/// `struct __sk_buff` of linux/bpf.h, of which a test run takes this field.
fn context(ifindex: u32) -> [u8; 192] {
    const IFINDEX: usize = 40;
    let mut context = [0u8; 192];
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

fn key(flow: &FlowId) -> FlowKey {
    let address = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4_mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    };
    FlowKey {
        source: address(flow.client.ip()),
        destination: address(flow.front.ip()),
        scope: flow.vni.map_or(PUBLISHED, |vni| vni.get().to_be_bytes()),
        source_port: flow.client.port().to_be_bytes(),
        destination_port: flow.front.port().to_be_bytes(),
        protocol: flow.protocol,
        reserved: [0; 3],
    }
}
