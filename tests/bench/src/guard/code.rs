//! The code of a BPF program: its blocks, and the registers that are free at each of its places.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::bpf_insn;

use super::instruction::{
    ARGUMENTS, Call, Next, ORDINARY, Registers, call, next, registers, slots,
};

/// Instructions that are always executed together, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The slot of the first instruction.
    pub start: usize,
    /// The slot behind the last instruction.
    pub end: usize,
}

/// Code with the knowledge about its slots.
#[derive(Debug)]
pub struct Code {
    /// The instructions, as they are given to the kernel. Some take two slots.
    pub slots: Vec<bpf_insn>,
    /// The blocks, in the order of their slots.
    pub blocks: Vec<Block>,
    /// The slots at which functions begin.
    pub functions: BTreeSet<usize>,
    /// For each slot, the registers whose contents are needed there or later.
    needed: Vec<Registers>,
}

impl Code {
    /// Examines code, which begins with the program's main function.
    ///
    /// # Errors
    ///
    /// Fails when a jump leads out of the code, or has no room for its distance.
    pub fn new(slots: Vec<bpf_insn>) -> Result<Self> {
        let mut code = Self {
            needed: vec![0; slots.len()],
            slots,
            blocks: Vec::new(),
            functions: BTreeSet::from([0]),
        };
        code.find_blocks()?;
        code.find_needed()?;
        Ok(code)
    }

    /// The slots of the instructions in a block.
    pub fn instructions(&self, block: &Block) -> impl Iterator<Item = usize> {
        let end = block.end;
        let first = (block.start < end).then_some(block.start);
        std::iter::successors(first, move |&at| {
            Some(at + slots(&self.slots[at])).filter(|&at| at < end)
        })
    }

    /// The registers that may be overwritten in front of the instruction at this slot.
    #[must_use]
    pub fn free(&self, at: usize) -> Registers {
        ORDINARY & !self.needed[at]
    }

    /// The slot at this distance from the one behind the instruction at `at`.
    ///
    /// # Errors
    ///
    /// Fails when there is no such slot.
    pub fn target(&self, at: usize, distance: i32) -> Result<usize> {
        let target = i32::try_from(at)? + 1 + distance;
        let target = usize::try_from(target).ok();
        let target = target.filter(|target| *target < self.slots.len());
        target.with_context(|| format!("the jump at {at} leads out of the program"))
    }

    fn places(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let mut places = Vec::new();
        let mut at = 0;
        while at < self.slots.len() {
            places.push(at);
            at += slots(&self.slots[at]);
        }
        places.into_iter()
    }

    fn find_blocks(&mut self) -> Result<()> {
        let mut starts = BTreeSet::from([0]);
        for at in self.places() {
            let following = at + slots(&self.slots[at]);
            match next(&self.slots[at]) {
                Next::Following => {}
                Next::Jump(distance) | Next::Branch(distance) => {
                    starts.insert(self.target(at, distance)?);
                    starts.insert(following);
                }
                Next::Exit => {
                    starts.insert(following);
                }
            }
            if let Some(Call::Function(distance)) = call(&self.slots[at]) {
                let function = self.target(at, distance)?;
                starts.insert(function);
                self.functions.insert(function);
            }
        }
        ensure!(
            starts.remove(&self.slots.len()),
            "the program does not end with an exit or a jump"
        );
        let ends = starts.iter().copied().skip(1).chain([self.slots.len()]);
        let blocks = starts.iter().zip(ends);
        self.blocks = blocks.map(|(&start, end)| Block { start, end }).collect();
        Ok(())
    }

    /// Finds the registers that are needed: those that are read later, as far as something was written to
    /// them before. Otherwise the verifier would have refused the program, so that it is only a call that
    /// takes fewer arguments than five.
    fn find_needed(&mut self) -> Result<()> {
        let written = self.written()?;
        let places: Vec<usize> = self.places().rev().collect();
        loop {
            let mut is_changed = false;
            for &at in &places {
                let instruction = &self.slots[at];
                let following = at + slots(instruction);
                let after = match next(instruction) {
                    Next::Following => self.needed[following],
                    Next::Jump(distance) => self.needed[self.target(at, distance)?],
                    Next::Branch(distance) => {
                        self.needed[following] | self.needed[self.target(at, distance)?]
                    }
                    Next::Exit => 0,
                };
                let (read, write) = registers(instruction);
                let needed = (after & !write | read) & written[at];
                is_changed |= needed != self.needed[at];
                self.needed[at] = needed;
            }
            if !is_changed {
                return Ok(());
            }
        }
    }

    /// For each slot, the registers that were written on every way there.
    fn written(&self) -> Result<Vec<Registers>> {
        const CONTEXT: Registers = 1 << 1;
        const FRAME: Registers = 1 << 10;
        const UNKNOWN: Registers = Registers::MAX;
        let mut written = vec![UNKNOWN; self.slots.len()];
        written[0] = CONTEXT | FRAME;
        let mut waiting = vec![0];
        let reach = |written: &mut Vec<Registers>, at: usize, with: Registers| {
            let now = written[at] & with;
            (now != written[at]).then(|| written[at] = now).is_some()
        };
        while let Some(at) = waiting.pop() {
            let instruction = &self.slots[at];
            let following = at + slots(instruction);
            let (_, write) = registers(instruction);
            let after = match call(instruction) {
                None => written[at] | write,
                Some(called) => {
                    if let Call::Function(distance) = called {
                        let function = self.target(at, distance)?;
                        let arguments = written[at] & ARGUMENTS | FRAME;
                        if reach(&mut written, function, arguments) {
                            waiting.push(function);
                        }
                    }
                    // Only the result is left in those that a call destroys.
                    written[at] & !ARGUMENTS | write & !ARGUMENTS
                }
            };
            let targets = match next(instruction) {
                Next::Following => [Some(following), None],
                Next::Jump(distance) => [Some(self.target(at, distance)?), None],
                Next::Branch(distance) => [Some(following), Some(self.target(at, distance)?)],
                Next::Exit => [None, None],
            };
            for target in targets.into_iter().flatten() {
                if reach(&mut written, target, after) {
                    waiting.push(target);
                }
            }
        }
        Ok(written)
    }
}
