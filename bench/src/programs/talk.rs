//! A connection, played by test runs from program to program and node to node until it is established.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{
    nodes::{Host, Seat},
    packets::{End, Segment, sender, tcp},
};

/// After so long a connection counts as one that stays.
const SETTLED: Duration = Duration::from_millis(1200);

/// Where a packet of the client enters the data path.
pub struct Entry<'a> {
    /// The node.
    pub host: &'a Host,
    /// The program.
    pub program: &'static str,
    /// The interface that it is at.
    pub ifindex: u32,
}

/// Who talks to whom.
pub struct Talk<'a> {
    /// The client; its Ethernet address is that of its packets.
    pub client: End,
    /// What the client dials.
    pub dialled: End,
    /// Where its packets enter.
    pub entry: Entry<'a>,
    /// The task's node, unless that is the one of the entry.
    pub home: Option<&'a Host>,
    /// The task, on either.
    pub task: Seat,
    /// The port that it listens on.
    pub port: u16,
    /// The length of each segment.
    pub length: usize,
}

/// Packets of an established connection, each as a program gets it.
pub struct Packets {
    /// At the entry.
    pub request: Vec<u8>,
    /// At the entry, a connection's first.
    pub opening: Vec<u8>,
    /// At the task's node, if that is another, and a connection's first there.
    pub steered: Option<[Vec<u8>; 2]>,
    /// From the task.
    pub reply: Vec<u8>,
    /// Back at the entry's node, if the task's is another.
    pub returned: Option<Vec<u8>>,
}

impl Talk<'_> {
    /// Opens the connection and says something each way.
    pub fn establish(&self) -> Result<Packets> {
        let opening = self.ask(Segment::Syn)?;
        let (first, arrived) = self.deliver(&opening).context("the first segment")?;
        self.answer(&arrived, Segment::SynAck).context("the answer to the first segment")?;
        let request = self.ask(Segment::Ack)?;
        self.deliver(&request).context("the client's answer")?;
        std::thread::sleep(SETTLED);
        let (steered, arrived) = self.deliver(&request).context("a later segment")?;
        let (reply, returned) =
            self.answer(&arrived, Segment::Ack).context("the answer to a later segment")?;
        Ok(Packets { opening, request, steered: steered.zip(first).map(|(a, b)| [a, b]), reply, returned })
    }

    fn ask(&self, segment: Segment) -> Result<Vec<u8>> {
        tcp(self.client, self.dialled, segment, self.length)
    }

    /// What reaches the task's node, if that is another, and what reaches the task.
    fn deliver(&self, packet: &[u8]) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
        let entry = &self.entry;
        let sent = entry.host.forwards(entry.program, entry.ifindex, packet)?;
        match self.home {
            None => Ok((None, sent)),
            Some(home) => {
                let arrived = home.forwards("uplink", home.uplink, &sent)?;
                Ok((Some(sent), arrived))
            }
        }
    }

    /// What the task says to what arrived, and what of it reaches the entry's node, if that is another.
    fn answer(&self, arrived: &[u8], segment: Segment) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        let (mac, port) = sender(arrived).context("what arrives is too short")?;
        let source = arrived.get(26..).and_then(|rest| rest.first_chunk::<4>());
        let to = End { mac, address: (*source.context("what arrives is too short")?).into(), port };
        let from = End { mac: self.task.mac, address: self.task.address, port: self.port };
        let reply = tcp(from, to, segment, self.length)?;
        let home = self.home.unwrap_or(self.entry.host);
        let sent = home.forwards("from_task", self.task.ifindex, &reply)?;
        if self.home.is_some() {
            let host = self.entry.host;
            host.forwards("uplink", host.uplink, &sent)?;
            return Ok((reply, Some(sent)));
        }
        Ok((reply, None))
    }
}
