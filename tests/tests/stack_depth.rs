//! No way through the programs takes more of the stack than older kernels allow, whatever kernel runs here: 512 bytes for all
//! functions that have called each other, each taken for a multiple of 32 (`check_max_stack_depth` in Linux 6.1's
//! `kernel/bpf/verifier.c`; newer kernels round less).
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind, read::elf::ElfFile64,
};

const STACK: u32 = 512;
const STEP: u32 = 32;

/// Codes of instructions, and the register that holds the frame (RFC 9669).
const CALL: u8 = 0x85;
const OF_THE_PROGRAM: u8 = 1;
const MOVE: u8 = 0xbf;
const ADD_NUMBER: u8 = 0x07;
const WIDE: u8 = 0x18;
const FRAME: u8 = 10;

#[test]
fn the_longest_way_fits_the_stack() {
    let elf = ElfFile64::<LittleEndian>::parse(mesh_lb::OBJECT).expect("the object");
    let functions = functions(&elf);
    let programs: Vec<_> = functions.values().filter(|function| function.is_program).collect();
    assert!(programs.len() > 8, "the object holds only {} programs", programs.len());
    let ways: Vec<_> = programs.iter().map(|program| deepest(program, &functions)).collect();
    assert!(ways.iter().any(|(_, way)| way.len() > 3), "no calls are seen: {ways:?}");
    let too_deep: Vec<_> = ways.iter().filter(|(depth, _)| *depth > STACK).collect();
    assert!(too_deep.is_empty(), "{too_deep:?}");
}

#[derive(Debug)]
struct Function {
    name: String,
    is_program: bool,
    /// Bytes of its frame.
    frame: u32,
    /// Where the functions that it calls begin.
    calls: BTreeSet<Place>,
}

type Place = (usize, u64);

/// By where they begin.
fn functions(elf: &ElfFile64<'_, LittleEndian>) -> BTreeMap<Place, Function> {
    let mut found = BTreeMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = symbol.section_index().expect("a function's section");
        let code = elf.section_by_index(section).expect("a function's section");
        let moved: BTreeMap<u64, RelocationTarget> =
            code.relocations().map(|(at, relocation)| (at, relocation.target())).collect();
        let mut function = Function {
            name: symbol.name().expect("a function's name").to_owned(),
            is_program: code.name() != Ok(".text"),
            frame: 0,
            calls: BTreeSet::new(),
        };
        let bytes = code.data().expect("a section's code");
        let mut copies = BTreeSet::new();
        let (mut at, end) = (symbol.address(), symbol.address() + symbol.size());
        while at < end {
            let start = usize::try_from(at).expect("a small object");
            let instruction: [u8; 8] = bytes[start..start + 8].try_into().expect("eight bytes");
            let [code, registers, low, high, number @ ..] = instruction;
            let (to, from) = (registers & 15, registers >> 4);
            let (offset, number) = (i16::from_le_bytes([low, high]), i32::from_le_bytes(number));
            let class = code & 7;
            let touches = class == 1 && from == FRAME || matches!(class, 2 | 3) && to == FRAME;
            if touches {
                function.frame = function.frame.max(u32::from(offset.min(0).unsigned_abs()));
            }
            if code == ADD_NUMBER && copies.contains(&to) {
                function.frame = function.frame.max(number.min(0).unsigned_abs());
            }
            if code == MOVE && from == FRAME {
                copies.insert(to);
            } else if matches!(class, 0 | 1 | 4 | 7) {
                copies.remove(&to);
            }
            if code == CALL && from == OF_THE_PROGRAM {
                let next = |from: u64| from.wrapping_add_signed((i64::from(number) + 1) * 8);
                function.calls.insert(match moved.get(&at) {
                    Some(RelocationTarget::Symbol(index)) => {
                        let called = elf.symbol_by_index(*index).expect("a called symbol");
                        let section = called.section_index().expect("a called function's section");
                        // A section's symbol stands for its beginning.
                        let is_section = called.kind() == SymbolKind::Section;
                        (section.0, if is_section { next(called.address()) } else { called.address() })
                    }
                    _ => (section.0, next(at)),
                });
            }
            at += if code == WIDE { 16 } else { 8 };
        }
        found.insert((section.0, symbol.address()), function);
    }
    found
}

/// The most stack of a way through a function, and the functions of that way with their frames.
fn deepest<'f>(function: &'f Function, all: &'f BTreeMap<Place, Function>) -> (u32, Vec<(&'f str, u32)>) {
    let called = function.calls.iter().map(|place| deepest(all.get(place).expect("a called function"), all));
    let (below, way) = called.max_by_key(|(depth, _)| *depth).unwrap_or_default();
    let own = function.frame.max(1).next_multiple_of(STEP);
    (own + below, [vec![(function.name.as_str(), function.frame)], way].concat())
}
