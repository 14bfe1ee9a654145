//! One instruction of a BPF program: where it leads, and which registers it reads and writes.

use aya_obj::generated::bpf_insn;

/// Registers as a set: register 0 is bit 0.
pub type Registers = u16;

/// Registers that a program may use as it likes: all but the frame pointer.
pub const ORDINARY: Registers = 0x03ff;
/// The arguments of a call.
pub const ARGUMENTS: Registers = 0x003e;
/// Registers whose contents a call destroys, and the one in which it returns its value.
const CLOBBERED: Registers = ARGUMENTS | RESULT;
/// The value that a call or the program returns.
pub const RESULT: Registers = 1;

// Classes of instructions.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;

// Operations of jumps.
const ALWAYS: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

// Operations of arithmetic that do not read their destination, or nothing else.
const MOV: u8 = 0xb0;
const NEG: u8 = 0x80;
const END: u8 = 0xd0;

/// The bit of operations whose second operand is a register.
const BY_REGISTER: u8 = 0x08;
/// An instruction of two slots, which loads a number or an address of 64 bits.
const LOAD_64: u8 = 0x18;
/// The mode of atomic operations, as all bits of their code but the size.
const ATOMIC: u8 = 0xc0;
/// Atomic operations that return the former value have this bit.
const FETCH: i32 = 0x01;
/// Compares with register 0 and exchanges.
const COMPARE_EXCHANGE: i32 = 0xf1;

/// The next instruction to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The one behind.
    Following,
    /// The one at this distance from the one behind.
    Jump(i32),
    /// That one or the one behind.
    Branch(i32),
    /// None of this function.
    Exit,
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A helper of the kernel, by its number.
    Helper(i32),
    /// A function of the program, at this distance from the instruction behind.
    Function(i32),
}

const fn class(instruction: &bpf_insn) -> u8 {
    instruction.code & 0x07
}

const fn operation(instruction: &bpf_insn) -> u8 {
    instruction.code & 0xf0
}

const fn is_jump(instruction: &bpf_insn) -> bool {
    matches!(class(instruction), JMP | JMP32)
}

/// Number of slots that the instruction takes: 2 for one with a 64-bit number.
#[must_use]
pub const fn slots(instruction: &bpf_insn) -> usize {
    if instruction.code == LOAD_64 { 2 } else { 1 }
}

/// Where the instruction leads.
#[must_use]
pub fn next(instruction: &bpf_insn) -> Next {
    let distance = i32::from(instruction.off);
    match (class(instruction), operation(instruction)) {
        (JMP, ALWAYS) => Next::Jump(distance),
        // The form for great distances.
        (JMP32, ALWAYS) => Next::Jump(instruction.imm),
        (JMP, EXIT) => Next::Exit,
        (JMP, CALL) => Next::Following,
        (JMP | JMP32, _) => Next::Branch(distance),
        _ => Next::Following,
    }
}

/// Changes the distance of a jump or of a call of a function.
///
/// Returns `None` if there is no room for the distance.
#[must_use]
pub fn set_distance(instruction: &mut bpf_insn, distance: i32) -> Option<()> {
    match (class(instruction), operation(instruction)) {
        (JMP, CALL) | (JMP32, ALWAYS) => instruction.imm = distance,
        _ => instruction.off = distance.try_into().ok()?,
    }
    Some(())
}

/// The call, if the instruction is one.
#[must_use]
pub fn call(instruction: &bpf_insn) -> Option<Call> {
    /// Mark of calls of functions of the program.
    const FUNCTION: u8 = 1;
    (class(instruction) == JMP && operation(instruction) == CALL).then(|| {
        match instruction.src_reg() {
            FUNCTION => Call::Function(instruction.imm),
            _ => Call::Helper(instruction.imm),
        }
    })
}

/// The registers that an instruction reads, and those that it writes. A call reads all arguments, as
/// far as they were written before.
#[must_use]
pub fn registers(instruction: &bpf_insn) -> (Registers, Registers) {
    let destination = 1 << instruction.dst_reg();
    let source = 1 << instruction.src_reg();
    let by_register = instruction.code & BY_REGISTER != 0;
    let operand = if by_register { source } else { 0 };
    match class(instruction) {
        LD => (0, destination),
        LDX => (source, destination),
        ST => (destination, 0),
        STX if instruction.code & !0x1f == ATOMIC => {
            let read = destination | source;
            match instruction.imm {
                COMPARE_EXCHANGE => (read | RESULT, RESULT),
                with if with & FETCH != 0 => (read, source),
                _ => (read, 0),
            }
        }
        STX => (destination | source, 0),
        _ if is_jump(instruction) => match operation(instruction) {
            ALWAYS => (0, 0),
            CALL => (ARGUMENTS, CLOBBERED),
            EXIT => (RESULT, 0),
            _ => (destination | operand, 0),
        },
        _ => match operation(instruction) {
            MOV if by_register => (source, destination),
            MOV => (0, destination),
            NEG | END => (destination, destination),
            _ => (destination | operand, destination),
        },
    }
}

/// Makes an instruction.
#[must_use]
pub fn instruction(code: u8, destination: u8, source: u8, off: i16, imm: i32) -> bpf_insn {
    // SAFETY: every bit pattern is valid for the structure of integers.
    let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
    instruction.code = code;
    instruction.set_dst_reg(destination);
    instruction.set_src_reg(source);
    instruction.off = off;
    instruction.imm = imm;
    instruction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_every_class() {
        let of = |code, destination, source, imm| {
            registers(&instruction(code, destination, source, 0, imm))
        };
        let r = |number: u8| 1 << number;
        // r3 = 5; r3 = r4; r3 += r4; r3 += 5; r3 = -r3
        assert_eq!(of(0xb7, 3, 0, 5), (0, r(3)));
        assert_eq!(of(0xbf, 3, 4, 0), (r(4), r(3)));
        assert_eq!(of(0x0f, 3, 4, 0), (r(3) | r(4), r(3)));
        assert_eq!(of(0x07, 3, 0, 5), (r(3), r(3)));
        assert_eq!(of(0x87, 3, 0, 0), (r(3), r(3)));
        // r3 = address; r3 = *r4; *r3 = 5; *r3 = r4
        assert_eq!(of(0x18, 3, 1, 0), (0, r(3)));
        assert_eq!(of(0x79, 3, 4, 0), (r(4), r(3)));
        assert_eq!(of(0x7a, 3, 0, 5), (r(3), 0));
        assert_eq!(of(0x7b, 3, 4, 0), (r(3) | r(4), 0));
        // lock *r3 += r4; the same with r4 = the former value; r0 = cmpxchg(*r3, r0, r4)
        assert_eq!(of(0xdb, 3, 4, 0), (r(3) | r(4), 0));
        assert_eq!(of(0xdb, 3, 4, 1), (r(3) | r(4), r(4)));
        assert_eq!(of(0xdb, 3, 4, 0xf1), (r(0) | r(3) | r(4), r(0)));
        // if r3 == r4; if r3 == 5; call; exit
        assert_eq!(of(0x1d, 3, 4, 0), (r(3) | r(4), 0));
        assert_eq!(of(0x15, 3, 0, 5), (r(3), 0));
        assert_eq!(of(0x85, 0, 0, 1), (ARGUMENTS, ARGUMENTS | RESULT));
        assert_eq!(of(0x95, 0, 0, 0), (RESULT, 0));
    }
}
