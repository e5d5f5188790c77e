//! Small programs, instruction by instruction (RFC 9669), for what a test run needs around a program.

/// One of a program's instructions, as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. 0 takes results, 1 to 5 arguments; 6 to 9 survive calls.
#[derive(Debug, Clone, Copy)]
pub struct Register(pub u8);

/// Numbers of helper functions, from the kernel's `include/uapi/linux/bpf.h`.
pub mod helper {
    /// `bpf_tail_call(ctx, map, index)`.
    pub const TAIL_CALL: i32 = 12;
    /// `bpf_xdp_adjust_head(ctx, delta)`.
    pub const XDP_ADJUST_HEAD: i32 = 44;
}

/// A program in the making.
#[derive(Debug, Default)]
pub struct Assembler(Vec<Instruction>);

/// A jump whose target is not known yet.
#[derive(Debug)]
#[must_use]
pub struct Jump(usize);

const HALF: u8 = 0x08;
const DOUBLE: u8 = 0x18;

impl Assembler {
    /// `to = value`.
    pub fn set(&mut self, to: Register, value: i32) {
        self.push(0xb7, pair(to, Register(0)), 0, value);
    }

    /// `to = from`.
    pub fn copy(&mut self, to: Register, from: Register) {
        self.push(0xbf, pair(to, from), 0, 0);
    }

    /// `to += value`.
    pub fn add(&mut self, to: Register, value: i32) {
        self.push(0x07, pair(to, Register(0)), 0, value);
    }

    /// `to -= from`.
    pub fn subtract(&mut self, to: Register, from: Register) {
        self.push(0x1f, pair(to, from), 0, 0);
    }

    /// `to >>= bits`, without sign.
    pub fn shift_right(&mut self, to: Register, bits: i32) {
        self.push(0x77, pair(to, Register(0)), 0, bits);
    }

    /// `to = *(u32 *)(from + offset)`.
    pub fn load_word(&mut self, to: Register, from: Register, offset: i16) {
        self.push(0x61, pair(to, from), offset, 0);
    }

    /// `to = *(u16 *)(from + offset)`.
    #[cfg(test)]
    pub fn load_half(&mut self, to: Register, from: Register, offset: i16) {
        self.push(0x61 | HALF, pair(to, from), offset, 0);
    }

    /// `to = *(u64 *)(from + offset)`.
    pub fn load_double(&mut self, to: Register, from: Register, offset: i16) {
        self.push(0x61 | DOUBLE, pair(to, from), offset, 0);
    }

    /// `*(u64 *)(to + offset) = from`.
    pub fn store_double(&mut self, to: Register, offset: i16, from: Register) {
        self.push(0x63 | DOUBLE, pair(to, from), offset, 0);
    }

    /// `*(u16 *)(to + offset) = from`.
    pub fn store_half(&mut self, to: Register, offset: i16, from: Register) {
        self.push(0x63 | HALF, pair(to, from), offset, 0);
    }

    /// `to = value`, all 64 bits of it.
    pub fn set_wide(&mut self, to: Register, value: u64) {
        self.wide(pair(to, Register(0)), value as i32, (value >> 32) as i32);
    }

    /// `to =` the map with that descriptor.
    pub fn set_map(&mut self, to: Register, descriptor: i32) {
        const MAP: u8 = 1;
        self.wide(pair(to, Register(MAP)), descriptor, 0);
    }

    /// `to =` the address of the first value of the array map with that descriptor.
    pub fn set_map_value(&mut self, to: Register, descriptor: i32) {
        const MAP_VALUE: u8 = 2;
        self.wide(pair(to, Register(MAP_VALUE)), descriptor, 0);
    }

    /// Calls a helper.
    pub fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, helper);
    }

    /// Ends with what register 0 holds.
    pub fn exit(&mut self) {
        self.push(0x95, 0, 0, 0);
    }

    /// Jumps when `left == value`.
    pub fn jump_if_equal(&mut self, left: Register, value: i32) -> Jump {
        self.push(0x15, pair(left, Register(0)), 0, value);
        Jump(self.0.len() - 1)
    }

    /// Jumps when `left > right`, without sign.
    pub fn jump_if_greater(&mut self, left: Register, right: Register) -> Jump {
        self.push(0x2d, pair(left, right), 0, 0);
        Jump(self.0.len() - 1)
    }

    /// Makes `jump` lead to the next instruction.
    pub fn land(&mut self, jump: Jump) {
        let distance = self.0.len() - jump.0 - 1;
        // Programs here are a hundred instructions long.
        self.0[jump.0].offset = i16::try_from(distance).unwrap_or(i16::MAX);
    }

    /// The program.
    pub fn finish(self) -> Vec<Instruction> {
        self.0
    }

    fn wide(&mut self, registers: u8, low: i32, high: i32) {
        self.push(0x18, registers, 0, low);
        self.push(0, 0, 0, high);
    }

    fn push(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.0.push(Instruction { code, registers, offset, immediate });
    }
}

/// Destination and source as one byte, in the order of the machine's bit fields.
fn pair(to: Register, from: Register) -> u8 {
    if cfg!(target_endian = "big") { (to.0 << 4) | from.0 } else { to.0 | (from.0 << 4) }
}
