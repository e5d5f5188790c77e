//! Nanoseconds a packet by test runs (BPF_PROG_TEST_RUN) of the programs that a cluster's daemons have loaded, with the
//! maps as they are filled.
//!
//! A tc program cannot be given the same packet twice in a row, since what it sent off cannot be put back. So each run
//! is a system call of its own, and the median of what an empty program takes then is subtracted. XDP programs run many
//! times in a row on packets that are put back in between (see [`xdp`]), which keeps caches warm as a loaded NIC does.

mod assemble;
mod bpf;
mod counting;
mod nodes;
mod object;
mod packets;
mod talk;
mod uncounted;
mod watched;
mod xdp;

use anyhow::{Context, Result, ensure};

use self::{
    assemble::{Assembler, Register},
    bpf::{Kind, Program},
    nodes::{Host, NEXT, REDIRECT, Seat},
    packets::{End, OUTER, SOURCE_ADDRESS, SOURCE_PORT, Segment, renumber, tcp, udp},
    talk::{Entry, Packets, Talk},
    xdp::Template,
};
use crate::{datapath::World, path::Ports, pinning, stats::median};

pub use counting::Counting;
pub use uncounted::build as build_uncounted;
pub use watched::Looking;

/// Bytes of each frame, without outer headers.
const FRAME: usize = 64;
/// System calls for each row and round.
const RUNS: u16 = 4000;
/// What XDP programs may say when they send a packet on: `XDP_TX`, `XDP_REDIRECT`.
const SENT: [u32; 2] = [3, 4];
const UPLINK_XDP: &str = "uplink_xdp";

/// A program on a path.
pub struct Row {
    /// The program.
    pub program: &'static str,
    /// Which way the packet takes.
    pub what: &'static str,
    /// What it is to stay below.
    pub at_most: Option<f64>,
    /// What it took, round by round.
    pub nanoseconds: Vec<f64>,
    host: usize,
    how: How,
}

enum How {
    /// One run a system call.
    Alone { ifindex: u32, packet: Vec<u8>, verdict: u32, fresh: Option<Fresh> },
    /// Many runs in a row.
    Repeated(Template),
    /// The least that an XDP program can take.
    Floor,
}

/// How each packet becomes one of a new flow: by its source port, since a task must not change its address.
struct Fresh {
    /// Where its headers begin.
    offset: usize,
    /// The last port used. When all were, the oldest come up again, which are opened anew.
    last: u16,
}

/// All rows, and what they are measured with.
pub struct Programs {
    hosts: Vec<Host>,
    empty: Program,
    xdp: xdp::Bench,
    processor: usize,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Programs that are not there.
    pub absent: Vec<&'static str>,
}

impl Programs {
    /// Plays connections until they are established.
    pub fn prepare(world: &World, processor: usize) -> Result<Self> {
        let hosts: Result<Vec<Host>> = world.nodes().map(|(node, path)| Host::of(node, path)).collect();
        let mut programs = Self {
            hosts: hosts?,
            empty: empty().context("loading an empty tc program")?,
            xdp: xdp::Bench::new()?,
            processor,
            rows: Vec::new(),
            absent: Vec::new(),
        };
        if !programs.hosts.get_mut(World::NEAR).context("no such node")?.load_xdp(UPLINK_XDP)? {
            programs.absent.push(UPLINK_XDP);
        }
        programs.overlay(world).context("the overlay by test runs")?;
        programs.published(world).context("published ports by test runs")?;
        programs.vip(world).context("a VIP by test runs")?;
        Ok(programs)
    }

    /// Measures each row once.
    pub fn round(&mut self) -> Result<()> {
        let Self { hosts, empty, xdp, processor, rows, .. } = self;
        for row in rows {
            mesh_tests::interrupt::check()?;
            let host = hosts.get(row.host).context("no such node")?;
            let taken = host.inside(|| {
                pinning::pin(*processor)?;
                row.take(host, empty, xdp)
            });
            row.nanoseconds.push(taken?.with_context(|| format!("{}: {}", row.program, row.what))?);
        }
        Ok(())
    }

    fn overlay(&mut self, world: &World) -> Result<()> {
        let (asker, far) = (Seat::of(&world.asker)?, Seat::of(&world.far)?);
        let end = |seat: Seat, port| End { mac: seat.mac, address: seat.address, port };
        let packet = udp(end(asker, 4000), end(far, 4001), FRAME)?;
        let outer = self.host(World::ASKER)?.forwards("from_task", asker.ifindex, &packet)?;
        let uplink = self.host(World::FAR)?.uplink;
        self.alone(World::ASKER, "from_task", "overlay, out", asker.ifindex, packet);
        self.alone(World::FAR, "uplink", "overlay, in", uplink, outer);
        Ok(())
    }

    fn published(&mut self, world: &World) -> Result<()> {
        let (near, far) = (Seat::of(&world.near)?, Seat::of(&world.far)?);
        let entry = self.host(World::NEAR)?;
        let client = world.client();
        entry.inside(|| meet(client))?.context("a packet to the client")?;
        let home = self.host(World::FAR)?;
        let (uplink, home_uplink) = (entry.uplink, home.uplink);
        let client = End { mac: [2, 0, 0, 0, 0, 0xc1], address: world.client(), port: 4000 };
        let talk = |port, task, home| Talk {
            client,
            dialled: End { mac: entry.mac, address: entry.address, port },
            entry: Entry { host: entry, program: "uplink", ifindex: uplink },
            home,
            task,
            port: Ports::USUAL.http,
            length: FRAME,
        };
        let here = talk(World::NEAR_PORTS.http, near, None).establish().context("a task of the node")?;
        let there = talk(World::FAR_PORTS.http, far, Some(home)).establish().context("a task elsewhere")?;
        let other = End { mac: entry.mac, address: entry.address, port: 22 };
        let not_ours = tcp(client, other, Segment::Ack, FRAME)?;

        self.alone(World::NEAR, "uplink", "not for the data path", uplink, not_ours);
        self.set_verdict(NEXT);
        let Packets { request, opening, reply, .. } = here;
        self.alone(World::NEAR, "uplink", "published, task here", uplink, request);
        self.alone(World::NEAR, "uplink", "published, task here, new flow", uplink, opening);
        self.set_fresh(0);
        self.alone(World::NEAR, "from_task", "published, reply to the client", near.ifindex, reply);

        let Packets { request, opening, steered, reply, returned } = there;
        let ([steered, first], returned) =
            steered.zip(returned).context("a task elsewhere is on the node of the entry")?;
        self.alone(World::NEAR, "uplink", "published, task elsewhere", uplink, request.clone());
        self.alone(World::NEAR, "uplink", "published, task elsewhere, new flow", uplink, opening.clone());
        self.set_fresh(0);
        self.alone(World::FAR, "uplink", "published, at the task's node", home_uplink, steered);
        self.alone(World::FAR, "uplink", "published, at the task's node, new flow", home_uplink, first);
        self.set_fresh(OUTER);
        self.alone(World::FAR, "from_task", "published, reply to the entry", far.ifindex, reply);
        self.alone(World::NEAR, "uplink", "published, reply at the entry", uplink, returned.clone());

        self.rows.push(Row::new(World::NEAR, "minimal", "return XDP_TX", How::Floor));
        self.repeated("published, task elsewhere", request, false, Some(60.0));
        self.repeated("published, task elsewhere, new flow", opening, true, Some(150.0));
        self.repeated("published, reply at the entry", returned, false, None);
        Ok(())
    }

    fn vip(&mut self, world: &World) -> Result<()> {
        let (asker, far) = (Seat::of(&world.asker)?, Seat::of(&world.far)?);
        let vip = world.vip()?;
        let talk = Talk {
            client: End { mac: asker.mac, address: asker.address, port: 4000 },
            dialled: End { mac: far.mac, address: vip, port: Ports::USUAL.http },
            entry: Entry { host: self.host(World::ASKER)?, program: "from_task", ifindex: asker.ifindex },
            home: Some(self.host(World::FAR)?),
            task: far,
            port: Ports::USUAL.http,
            length: FRAME,
        };
        let Packets { request, opening, .. } = talk.establish()?;
        self.alone(World::ASKER, "from_task", "VIP, task elsewhere", asker.ifindex, request);
        self.alone(World::ASKER, "from_task", "VIP, task elsewhere, new flow", asker.ifindex, opening);
        self.set_fresh(0);
        Ok(())
    }

    fn host(&self, index: usize) -> Result<&Host> {
        self.hosts.get(index).context("no such node")
    }

    fn alone(
        &mut self,
        host: usize,
        program: &'static str,
        what: &'static str,
        ifindex: u32,
        packet: Vec<u8>,
    ) {
        let how = How::Alone { ifindex, packet, verdict: REDIRECT, fresh: None };
        self.rows.push(Row::new(host, program, what, how));
    }

    /// What the row that was added last has to end with.
    fn set_verdict(&mut self, wanted: u32) {
        if let Some(Row { how: How::Alone { verdict, .. }, .. }) = self.rows.last_mut() {
            *verdict = wanted;
        }
    }

    /// The row that was added last has a new flow each time, whose headers begin at `offset`.
    fn set_fresh(&mut self, offset: usize) {
        if let Some(Row { how: How::Alone { fresh, .. }, .. }) = self.rows.last_mut() {
            *fresh = Some(Fresh { offset, last: 0 });
        }
    }

    /// A row of the XDP program, if there is one.
    fn repeated(&mut self, what: &'static str, packet: Vec<u8>, fresh: bool, at_most: Option<f64>) {
        if self.absent.is_empty() {
            let ifindex = self.hosts.get(World::NEAR).map(|host| host.uplink);
            let fresh = fresh.then_some((SOURCE_PORT, SOURCE_ADDRESS));
            let how = How::Repeated(Template { packet, ifindex, fresh });
            self.rows.push(Row { at_most, ..Row::new(World::NEAR, UPLINK_XDP, what, how) });
        }
    }
}

/// Makes the kernel learn the Ethernet address of a neighbour, which the XDP program asks it for.
fn meet(neighbour: std::net::Ipv4Addr) -> Result<()> {
    const DISCARD: u16 = 9;
    std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?.send_to(b"?", (neighbour, DISCARD))?;
    Ok(())
}

impl Row {
    fn new(host: usize, program: &'static str, what: &'static str, how: How) -> Self {
        Self { program, what, at_most: None, nanoseconds: Vec::new(), host, how }
    }

    fn take(&mut self, host: &Host, empty: &Program, xdp: &mut xdp::Bench) -> Result<f64> {
        let loaded = |name| host.program(name).with_context(|| format!("{name} is not loaded"));
        match &mut self.how {
            How::Floor => xdp.floor(&[0; FRAME]),
            How::Repeated(template) => {
                let taken = xdp.take(loaded(self.program)?, template)?;
                ensure!(SENT.contains(&taken.verdict), "the packet is not sent on: {}", taken.verdict);
                Ok(taken.nanoseconds)
            }
            How::Alone { ifindex, packet, verdict, fresh } => {
                let floor = alone(empty, *ifindex, packet, 0, &mut None)?;
                let taken = alone(loaded(self.program)?, *ifindex, packet, *verdict, fresh)?;
                Ok(taken - floor)
            }
        }
    }
}

/// The median of single runs, each of which has to end with `verdict`.
fn alone(
    program: &Program,
    ifindex: u32,
    packet: &mut [u8],
    verdict: u32,
    fresh: &mut Option<Fresh>,
) -> Result<f64> {
    runs(program, ifindex, packet, verdict, fresh, RUNS).map(|times| median(&times))
}

/// Nanoseconds of so many single runs.
fn runs(
    program: &Program,
    ifindex: u32,
    packet: &mut [u8],
    verdict: u32,
    fresh: &mut Option<Fresh>,
    count: u16,
) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count.into());
    for _ in 0..count {
        if let Some(fresh) = fresh {
            fresh.last = fresh.last.wrapping_add(1);
            renumber(packet, fresh.offset, fresh.last);
        }
        let run = program.run(packet, Some(ifindex), 1, &mut []).context("a test run")?;
        ensure!(run.verdict == verdict, "the verdict is {}, not {}", run.verdict as i32, verdict as i32);
        times.push(f64::from(run.nanoseconds));
    }
    Ok(times)
}

/// The least that a tc program can do: `return TC_ACT_OK`.
fn empty() -> std::io::Result<Program> {
    let mut program = Assembler::default();
    program.set(Register(0), 0);
    program.exit();
    Program::load(Kind::Tc, &program.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_checked_and_flows_counted_on() {
        let empty = empty().unwrap();
        let mut fresh = Some(Fresh { offset: 0, last: 7 });
        let mut packet = vec![0; FRAME];
        assert!(alone(&empty, 1, &mut packet, 0, &mut fresh).unwrap() > 0.0);
        assert_eq!(fresh.map(|fresh| fresh.last), Some(7 + RUNS));
        assert_eq!(packet[SOURCE_PORT..][..2], (7 + RUNS).to_be_bytes());
        let error = alone(&empty, 1, &mut packet, REDIRECT, &mut None).unwrap_err();
        assert_eq!(error.to_string(), "the verdict is 0, not 7");
    }
}
