//! Code that counts how often each of its blocks is executed.

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::bpf_insn;

use super::{
    code::{Block, Code},
    instruction::{Call, Next, Registers, call, instruction, next, set_distance},
};

/// Octets of a counter.
const COUNTER: usize = size_of::<u64>();
/// Octets that a program may have on its stack.
const STACK: u16 = 512;

/// Returns the code with an instruction in each block that raises its counter: block 0 has the first
/// one in the value of an array, whose descriptor is `counters`. Nothing else changes. `depth` is the
/// number of octets that a function has on its stack at most.
///
/// # Errors
///
/// Fails when there is no room for the distance of a jump, or on the stack.
pub fn insert(code: &Code, counters: i32, depth: u16) -> Result<Vec<bpf_insn>> {
    // The slots in front of which a counter is raised, by block.
    let mut raises = vec![None; code.slots.len()];
    for (number, block) in code.blocks.iter().enumerate() {
        let (at, free) = place(code, block)?;
        raises[at] = Some(raise(counters, number * COUNTER, free, depth)?);
    }

    let mut counted = Vec::new();
    let mut moved = vec![0; code.slots.len()];
    for (at, slot) in code.slots.iter().enumerate() {
        moved[at] = counted.len();
        counted.extend(raises[at].iter().flatten().copied());
        counted.push(*slot);
    }
    // The slot of an instruction itself, behind the counter.
    let own = |at: usize| moved[at] + raises[at].as_ref().map_or(0, Vec::len);
    for block in &code.blocks {
        for at in code.instructions(block) {
            let distance = match (call(&code.slots[at]), next(&code.slots[at])) {
                (Some(Call::Function(distance)), _) => distance,
                (_, Next::Jump(distance) | Next::Branch(distance)) => distance,
                _ => continue,
            };
            let target = moved[code.target(at, distance)?];
            let distance = i32::try_from(target)? - i32::try_from(own(at))? - 1;
            let jump = set_distance(&mut counted[own(at)], distance);
            jump.with_context(|| format!("the jump at {at} has become too long"))?;
        }
    }
    Ok(counted)
}

/// The place in a block with the most free registers, and these.
fn place(code: &Code, block: &Block) -> Result<(usize, Registers)> {
    let places = code.instructions(block).map(|at| (at, code.free(at)));
    let most = places.reduce(
        |best, other| match best.1.count_ones() < other.1.count_ones() {
            true => other,
            false => best,
        },
    );
    most.context("a block is empty")
}

/// The instructions that raise the counter at this offset, with two registers: free ones if there are,
/// or others that are kept on the stack meanwhile.
fn raise(counters: i32, offset: usize, free: Registers, depth: u16) -> Result<Vec<bpf_insn>> {
    const FRAME: u8 = 10;
    const LOAD_64: u8 = 0x18;
    const MAP_VALUE: u8 = 2;
    const MOVE: u8 = 0xb7;
    const ADD_ATOMICALLY: u8 = 0xdb;
    const STORE: u8 = 0x7b;
    const LOAD: u8 = 0x79;
    let is_free = |register: &u8| free & (1 << register) != 0;
    let chosen = (0..FRAME).filter(is_free);
    let chosen = chosen.chain((0..FRAME).filter(|register| !is_free(register)));
    let [address, one] = [0, 1].map(|place| chosen.clone().nth(place).unwrap_or_default());

    let mut kept = Vec::new();
    let mut bottom = depth.next_multiple_of(8);
    for register in [address, one].into_iter().filter(|one| !is_free(one)) {
        bottom += 8;
        kept.push((register, -i16::try_from(bottom)?));
    }
    ensure!(bottom <= STACK, "the stack has no room for a register");
    let mut instructions = Vec::new();
    for &(register, at) in &kept {
        instructions.push(instruction(STORE, FRAME, register, at, 0));
    }
    instructions.extend([
        instruction(LOAD_64, address, MAP_VALUE, 0, counters),
        instruction(0, 0, 0, 0, offset.try_into()?),
        instruction(MOVE, one, 0, 0, 1),
        instruction(ADD_ATOMICALLY, address, one, 0, 0),
    ]);
    for &(register, at) in &kept {
        instructions.push(instruction(LOAD, register, FRAME, at, 0));
    }
    Ok(instructions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// r2 = 5; loop: r2 -= 1; if r2 != 0 goto loop; r0 = 2; exit
    fn countdown() -> Code {
        Code::new(vec![
            instruction(0xb7, 2, 0, 0, 5),
            instruction(0x07, 2, 0, 0, -1),
            instruction(0x55, 2, 0, -2, 0),
            instruction(0xb7, 0, 0, 0, 2),
            instruction(0x95, 0, 0, 0, 0),
        ])
        .unwrap()
    }

    #[test]
    fn blocks_begin_at_targets_and_behind_jumps() {
        let code = countdown();
        let blocks = code.blocks.iter().map(|block| (block.start, block.end));
        assert!(blocks.eq([(0, 1), (1, 3), (3, 5)]));
        // The context in register 1 is not read any more.
        assert_eq!(code.free(1), 0x3ff & !(1 << 2));
        assert_eq!(code.free(4), 0x3fe);
    }

    #[test]
    fn a_jump_leads_to_the_counter_of_its_block() {
        let code = countdown();
        let counted = insert(&code, 7, 0).unwrap();
        assert_eq!(counted.len(), 5 + 3 * 4);
        let jump = counted.iter().position(|slot| slot.code == 0x55).unwrap();
        let target = jump as i32 + 1 + i32::from(counted[jump].off);
        // The load of the address of the second counter.
        let counter = &counted[target as usize..];
        assert_eq!((counter[0].code, counter[0].imm), (0x18, 7));
        assert_eq!(counter[1].imm, 8);
    }

    #[test]
    fn without_free_registers_two_are_kept_on_the_stack() {
        let raised = raise(7, 0, 1 << 3, 12).unwrap();
        let kept = (raised[0].code, raised[0].src_reg(), raised[0].off);
        assert_eq!(kept, (0x7b, 0, -24));
        let last = raised.last().unwrap();
        assert_eq!((last.code, last.dst_reg(), last.off), (0x79, 0, -24));
        assert_eq!(raised[1].dst_reg(), 3);
        assert!(raise(7, 0, 0, 500).is_err());
    }
}
