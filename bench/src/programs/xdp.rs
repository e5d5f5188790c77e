//! Repeated runs of XDP programs, each on a fresh packet.
//!
//! A test run gives a program the packet of the run before, as that left it. So a program made here stands in front: it
//! puts length and bytes of the packet back, with other ports each time where flows are to be new, and jumps into the
//! program under test. What it costs itself is measured with a program behind it that does nothing, and subtracted.

use std::io;

use anyhow::{Context, Result, ensure};

use super::{
    assemble::{Assembler, Register, helper},
    bpf::{Kind, Map, MapKind, Program},
};

/// `XDP_ABORTED` and `XDP_TX` of the kernel's `enum xdp_action`.
const ABORTED: i32 = 0;
const TX: i32 = 3;

/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;

/// The packet is put back so many bytes at a time, and what is left two at a time.
const STEP: usize = 8;

/// Bytes that the measured programs put in front of a packet.
const ROOM: i32 = 50;

/// Runs in a row.
const REPEAT: u32 = 200_000;

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);
const R3: Register = Register(3);
const CONTEXT: Register = Register(6);
const START: Register = Register(7);
const END: Register = Register(8);

/// The least that a program can do: `return XDP_TX`.
pub fn minimal() -> io::Result<Program> {
    let mut program = Assembler::default();
    program.set(R0, TX);
    program.exit();
    Program::load(Kind::Xdp, &program.finish())
}

/// Makes room and takes it back, which is what putting a packet back costs twice.
fn to_and_fro() -> io::Result<Program> {
    let mut program = Assembler::default();
    program.copy(CONTEXT, R1);
    for delta in [-ROOM, ROOM] {
        program.copy(R1, CONTEXT);
        program.set(R2, delta);
        program.call(helper::XDP_ADJUST_HEAD);
    }
    program.set(R0, TX);
    program.exit();
    Program::load(Kind::Xdp, &program.finish())
}

/// A packet, and where in it flows differ.
#[derive(Debug, Clone)]
pub struct Template {
    /// An even number of bytes.
    pub packet: Vec<u8>,
    /// The interface by which it comes in, one of the calling thread's namespace.
    pub ifindex: Option<u32>,
    /// Where the source port is and where the last two bytes of the source address are, if each run is a new flow.
    pub fresh: Option<(usize, usize)>,
}

/// Programs that stand around the one under test, ready to run.
pub struct Bench {
    minimal: Program,
    to_and_fro: Program,
    /// Flows so far, so that none comes up twice.
    flows: u64,
}

/// What one program takes, in nanoseconds a packet.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Its verdict.
    pub verdict: u32,
    /// By itself.
    pub nanoseconds: f64,
}

impl Bench {
    /// Loads what is needed.
    pub fn new() -> Result<Self> {
        Ok(Self {
            minimal: minimal().context("loading a minimal XDP program")?,
            to_and_fro: to_and_fro().context("loading an XDP program that moves the packet's start")?,
            flows: 0,
        })
    }

    /// The minimal program, as it is.
    pub fn floor(&self, packet: &[u8]) -> Result<f64> {
        timed(&self.minimal, packet, None).map(|taken| taken.nanoseconds)
    }

    /// `program` on packets of `template`.
    pub fn take(&mut self, program: &Program, template: &Template) -> Result<Taken> {
        let packet = &template.packet;
        let timed = |program: &Program| timed(program, packet, template.ifindex);
        let target = timed(&*wrapped(program, template, self.flows)?)?;
        self.flows += u64::from(REPEAT);
        let floor = timed(&self.minimal)?.nanoseconds;
        let wrapper = timed(&*wrapped(&self.minimal, template, 0)?)?.nanoseconds - floor;
        let once = program.run_received(packet, template.ifindex, 1).context("a test run")?;
        let moved = once.length != packet.len();
        let undone = if moved { (timed(&self.to_and_fro)?.nanoseconds - floor) / 2.0 } else { 0.0 };
        Ok(Taken { verdict: target.verdict, nanoseconds: target.nanoseconds - wrapper - undone })
    }
}

fn timed(program: &Program, packet: &[u8], ifindex: Option<u32>) -> Result<Taken> {
    let run = program.run_received(packet, ifindex, REPEAT).context("a test run")?;
    Ok(Taken { verdict: run.verdict, nanoseconds: f64::from(run.nanoseconds) })
}

/// A program that puts the packet back before `behind` gets it.
struct Wrapped {
    program: Program,
    // Its maps live as long as it; this one forgets its programs when nobody holds it from outside.
    _behind: Map,
    _count: Map,
}

impl std::ops::Deref for Wrapped {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

/// `flows` is the number of the last flow that was used.
fn wrapped(behind: &Program, template: &Template, flows: u64) -> Result<Wrapped> {
    ensure!(template.packet.len().is_multiple_of(2), "a packet of {} bytes", template.packet.len());
    let programs = Map::create(MapKind::Programs, 4, 1).context("a map of programs")?;
    let count = Map::create(MapKind::Array, 8, 1).context("a map for a count")?;
    count.put(0, &flows.to_ne_bytes()).context("a map for a count")?;
    let code = wrapper(template, programs.descriptor(), count.descriptor());
    let program = Program::load(Kind::Xdp, &code).context("loading what puts packets back")?;
    programs
        .put(0, &behind.descriptor().to_ne_bytes())
        .context("the kernel lets no other XDP program call this one")?;
    Ok(Wrapped { program, _behind: programs, _count: count })
}

fn wrapper(template: &Template, programs: i32, count: i32) -> Vec<super::assemble::Instruction> {
    let length = template.packet.len() as i32;
    let mut code = Assembler::default();
    code.copy(CONTEXT, R1);
    code.load_word(START, CONTEXT, DATA);
    code.load_word(END, CONTEXT, DATA_END);
    // What the packet has grown by is cut off in front, what it has shrunk by is put back.
    code.copy(R2, END);
    code.subtract(R2, START);
    code.add(R2, -length);
    let unchanged = code.jump_if_equal(R2, 0);
    code.copy(R1, CONTEXT);
    code.call(helper::XDP_ADJUST_HEAD);
    code.land(unchanged);
    code.load_word(START, CONTEXT, DATA);
    code.load_word(END, CONTEXT, DATA_END);
    code.copy(R1, START);
    code.add(R1, length);
    let short = code.jump_if_greater(R1, END);
    let (doubles, rest) = template.packet.as_chunks::<STEP>();
    for (index, bytes) in doubles.iter().enumerate() {
        code.set_wide(R2, u64::from_ne_bytes(*bytes));
        code.store_double(START, (index * STEP) as i16, R2);
    }
    for (index, bytes) in rest.as_chunks::<2>().0.iter().enumerate() {
        code.set(R2, u16::from_ne_bytes(*bytes).into());
        code.store_half(START, (doubles.len() * STEP + index * 2) as i16, R2);
    }
    if let Some((port, address)) = template.fresh {
        code.set_map_value(R1, count);
        code.load_double(R2, R1, 0);
        code.add(R2, 1);
        code.store_double(R1, 0, R2);
        code.store_half(START, port as i16, R2);
        code.shift_right(R2, 16);
        code.store_half(START, address as i16, R2);
    }
    code.copy(R1, CONTEXT);
    code.set_map(R2, programs);
    code.set(R3, 0);
    code.call(helper::TAIL_CALL);
    code.land(short);
    code.set(R0, ABORTED);
    code.exit();
    code.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts room in front of the packet, and aborts on one that has some already.
    fn growing(length: i32) -> Program {
        let mut code = Assembler::default();
        code.copy(CONTEXT, R1);
        code.load_word(START, CONTEXT, DATA);
        code.load_word(END, CONTEXT, DATA_END);
        code.copy(R1, START);
        code.add(R1, length + 1);
        let short = code.jump_if_greater(R1, END);
        code.set(R0, ABORTED);
        code.exit();
        code.land(short);
        code.copy(R1, CONTEXT);
        code.set(R2, -ROOM);
        code.call(helper::XDP_ADJUST_HEAD);
        code.set(R0, TX);
        code.exit();
        Program::load(Kind::Xdp, &code.finish()).unwrap()
    }

    /// Passes on the two bytes at `offset` as the verdict.
    fn reading(offset: i16, length: i32) -> Program {
        let mut code = Assembler::default();
        code.load_word(START, R1, DATA);
        code.load_word(END, R1, DATA_END);
        code.set(R0, ABORTED);
        code.copy(R1, START);
        code.add(R1, length);
        let short = code.jump_if_greater(R1, END);
        code.load_half(R0, START, offset);
        code.land(short);
        code.exit();
        Program::load(Kind::Xdp, &code.finish()).unwrap()
    }

    #[test]
    fn each_run_gets_the_packet_as_it_was() {
        const LENGTH: usize = 70;
        let packet: Vec<u8> = (0..LENGTH as u8).collect();
        let template = Template { packet: packet.clone(), ifindex: None, fresh: None };
        let mut bench = Bench::new().unwrap();
        let growing = growing(LENGTH as i32);
        assert_eq!(
            growing.run(&packet, None, 2, &mut []).unwrap().verdict,
            ABORTED as u32,
            "the second run sees the first's"
        );
        let taken = bench.take(&growing, &template).unwrap();
        assert_eq!(taken.verdict, TX as u32);
        assert!(bench.floor(&packet).unwrap() > 0.0);

        let mut out = [0; 128];
        let run = wrapped(&growing, &template, 0).unwrap().run(&packet, None, 3, &mut out).unwrap();
        assert_eq!((run.verdict, run.length), (TX as u32, LENGTH + ROOM as usize));
        assert_eq!(out[ROOM as usize..][..LENGTH], packet);
    }

    #[test]
    fn flows_are_new_each_time() {
        let template = Template { packet: vec![0; 64], ifindex: None, fresh: Some((34, 28)) };
        let wrapped = wrapped(&reading(34, 64), &template, 5).unwrap();
        let verdict = |repeat| wrapped.run(&template.packet, None, repeat, &mut []).unwrap().verdict;
        assert_eq!((verdict(3), verdict(1)), (8, 9));
    }
}
