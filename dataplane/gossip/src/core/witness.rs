//! Suspects are asked about: who accuses a member asks others whether they can reach it, before it condemns.
//!
//! It takes what Lifeguard (Dadgar, Phillips, Currey 2018) is after, by other means than its own, since foca tells of
//! suspicions but not whose they are. The accuser tells the suspect at once, and asks [`WITNESSES`] others to ask it. A suspect
//! that hears of it on any way refutes, and each witness hands the refutation on to the accuser. Witnesses without an answer
//! confirm the suspicion, and shorten its time. Without a word of any witness the accuser itself may be cut off or slow: then
//! the time is long, and its next probes are slower. See `docs/adr/0011-suspicion.md`.

use std::{collections::BTreeMap, time::Duration};

use mesh_types::NodeId;
use rand::seq::IndexedRandom;

use super::Core;
use crate::{MemberState, Message, swim::Identity};

/// Members asked about a suspect.
const WITNESSES: usize = 3;
/// A witness waits so long for the suspect's answer.
const ANSWER_TIME: Duration = Duration::from_millis(350);
/// Witnesses that have not been heard after this are not there, or this node is not.
const REPORT_TIME: Duration = Duration::from_millis(650);
/// After these times a suspect is told again, and witnesses that are silent are asked again.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(450)];
/// Questions that a witness keeps in mind.
const INQUIRIES: usize = 128;

/// A suspicion of this node's own.
#[derive(Debug)]
struct Accusation {
    suspect: Identity,
    since: Duration,
    ticket: u64,
    /// What each witness said: whether the suspect answered it.
    witnesses: BTreeMap<NodeId, Option<bool>>,
    /// How often it was asked.
    rounds: usize,
    judged: bool,
}

/// What another wants to know.
#[derive(Debug)]
struct Inquiry {
    asker: NodeId,
    ticket: u64,
    about: NodeId,
    until: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Witnesses {
    tickets: u64,
    accusations: BTreeMap<NodeId, Accusation>,
    inquiries: BTreeMap<u64, Inquiry>,
}

impl Witnesses {
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let accusations = self.accusations.values().map(Accusation::next);
        accusations.chain(self.inquiries.values().map(|inquiry| inquiry.until)).min()
    }

    /// The suspicion is over, this way or that.
    pub(super) fn settled(&mut self, suspect: NodeId) {
        self.accusations.remove(&suspect);
    }
}

impl Accusation {
    fn next(&self) -> Duration {
        match AGAIN.get(self.rounds - 1) {
            Some(after) => self.since + *after,
            None if !self.judged => self.since + REPORT_TIME,
            None => Duration::MAX,
        }
    }

    fn denied(&self) -> usize {
        self.witnesses.values().filter(|report| **report == Some(false)).count()
    }

    /// How long the suspicion lasts: as Lifeguard has it, from the longest time down to the shortest with the logarithm of the
    /// confirmations, and at the shortest once all that were asked have confirmed.
    fn lasts(&self, base: Duration) -> Duration {
        let (longest, shortest) = (base.mul_f64(1.3), base.mul_f64(0.7));
        if self.witnesses.is_empty() {
            return base;
        }
        let share = (self.denied() as f64 + 1.0).ln() / (self.witnesses.len() as f64 + 1.0).ln();
        longest - (longest - shortest).mul_f64(share.min(1.0))
    }
}

impl Core {
    /// This node's own probe of a member failed.
    pub(super) fn accuse(&mut self, suspect: Identity) {
        let node = suspect.node;
        if self.witnesses.accusations.get(&node).is_some_and(|known| known.suspect == suspect) {
            return;
        }
        let others: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(n, m)| **n != node && m.state == MemberState::Alive)
            .map(|(n, _)| *n)
            .collect();
        let witnesses = others.choose_multiple(&mut self.rng, WITNESSES).map(|n| (*n, None)).collect();
        let ticket = self.witnesses.ticket();
        let accusation = Accusation { suspect, since: self.now, ticket, witnesses, rounds: 1, judged: false };
        self.swim.condemn_at(suspect, self.now + accusation.lasts(self.timing.suspect_timeout));
        self.witnesses.accusations.insert(node, accusation);
        self.inquire(node);
    }

    /// Tells the suspect, and asks the witnesses that have not reported.
    fn inquire(&mut self, node: NodeId) {
        let Some(accusation) = self.witnesses.accusations.get(&node) else { return };
        let (suspect, ticket) = (accusation.suspect, accusation.ticket);
        let silent = accusation.witnesses.iter().filter(|(_, report)| report.is_none());
        let silent: Vec<NodeId> = silent.map(|(node, _)| *node).collect();
        let swim = self.swim.word(suspect, node);
        for witness in silent {
            let swim = swim.clone();
            self.send_to(witness, Message::Inquire { node, addr: suspect.addr, swim, ticket }, false);
        }
        self.send(suspect.addr, Message::Probe { swim, ticket }, false);
    }

    pub(super) fn witnesses_due(&mut self) {
        let now = self.now;
        let due = self.witnesses.accusations.iter().filter(|(_, accusation)| accusation.next() <= now);
        for node in due.map(|(node, _)| *node).collect::<Vec<_>>() {
            let Some(accusation) = self.witnesses.accusations.get_mut(&node) else { continue };
            if accusation.rounds <= AGAIN.len() {
                accusation.rounds += 1;
                self.inquire(node);
                continue;
            }
            accusation.judged = true;
            let reports = accusation.witnesses.values();
            if !accusation.witnesses.is_empty() && reports.flatten().next().is_none() {
                self.swim.health().worse();
            }
        }
        let over = self.witnesses.inquiries.iter().filter(|(_, inquiry)| inquiry.until <= now);
        for ticket in over.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            if let Some(Inquiry { asker, ticket, .. }) = self.witnesses.inquiries.remove(&ticket) {
                self.send_to(asker, Message::Witness { swim: Vec::new(), ticket }, false);
            }
        }
    }

    /// Somebody asks about a suspect: it is asked.
    pub(super) fn receive_inquiry(
        &mut self,
        asker: NodeId,
        about: NodeId,
        addr: std::net::SocketAddr,
        swim: Vec<u8>,
        ticket: u64,
    ) {
        let known = |i: &Inquiry| i.asker == asker && i.about == about;
        self.witnesses.inquiries.retain(|_, inquiry| !known(inquiry));
        if about == self.node || self.witnesses.inquiries.len() >= INQUIRIES {
            return;
        }
        let own = self.witnesses.ticket();
        self.witnesses.inquiries.insert(own, Inquiry { asker, ticket, about, until: self.now + ANSWER_TIME });
        self.send(addr, Message::Probe { swim, ticket: own }, false);
    }

    /// This node is suspected.
    pub(super) fn receive_probe(&mut self, from: NodeId, swim: &[u8], ticket: u64) {
        let outcome = self.swim.data(swim, self.now);
        self.take_swim(outcome);
        let swim = match self.swim.find(from) {
            Some(identity) => self.swim.word(identity, self.node),
            None => Vec::new(),
        };
        self.send_to(from, Message::Probed { swim, ticket }, false);
    }

    /// A suspect answers.
    pub(super) fn receive_probed(&mut self, from: NodeId, swim: &[u8], ticket: u64) {
        let outcome = self.swim.data(swim, self.now);
        self.take_swim(outcome);
        if self.witnesses.inquiries.get(&ticket).is_none_or(|inquiry| inquiry.about != from) {
            return;
        }
        let Some(Inquiry { asker, ticket, .. }) = self.witnesses.inquiries.remove(&ticket) else { return };
        if let Some(identity) = self.swim.find(asker) {
            let swim = self.swim.word(identity, from);
            self.send_to(asker, Message::Witness { swim, ticket }, false);
        }
    }

    /// A witness reports.
    pub(super) fn receive_witness(&mut self, from: NodeId, swim: &[u8], ticket: u64) {
        let base = self.timing.suspect_timeout;
        let accusations = &mut self.witnesses.accusations;
        let Some(accusation) = accusations.values_mut().find(|accusation| accusation.ticket == ticket) else {
            return;
        };
        let Some(report) = accusation.witnesses.get_mut(&from) else { return };
        *report = Some(!swim.is_empty());
        let (suspect, at) = (accusation.suspect, accusation.since + accusation.lasts(base));
        self.swim.condemn_at(suspect, at);
        if !swim.is_empty() {
            let outcome = self.swim.data(swim, self.now);
            self.take_swim(outcome);
        }
    }
}
