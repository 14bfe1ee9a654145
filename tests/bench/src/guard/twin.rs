//! A second XDP program with the maps of the first, whose executed instructions are counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{MapFd, MapInfo},
    programs::ProgramInfo,
};
use aya_obj::{Object, generated::bpf_insn};
use serde::Serialize;
use teredo::datapath::xdp;

use super::{
    code::Code,
    counters,
    instruction::{Call, call},
    kernel::{Counters, Program, Run, Size},
    lines::Lines,
};

/// Helpers by which a program looks something up in a map.
const LOOKUP: i32 = 1;

/// The two copies of the program.
#[derive(Debug)]
pub struct Twin {
    /// The program as the daemon loads it.
    pub plain: Program,
    counted: Program,
    counters: Counters,
    code: Code,
    lines: Lines,
}

/// The work of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Executed instructions of the object, without those of the kernel's helpers.
    pub instructions: u64,
    /// Look-ups in maps.
    pub lookups: u64,
    /// Calls of other helpers of the kernel.
    pub helpers: u64,
    /// Calls of helpers, by their numbers in the kernel.
    pub calls: BTreeMap<i32, u64>,
    /// Executed instructions by the line of the source that they were made from.
    #[serde(skip)]
    pub lines: BTreeMap<String, u64>,
}

impl Twin {
    /// Makes the twin of the daemon's program, which has been loaded with these facts about it.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses the program.
    pub fn of(program: &ProgramInfo) -> Result<Self> {
        // Open until both programs hold them.
        let maps = maps(program)?;
        let (instructions, lines) = link(&maps)?;
        let code = Code::new(instructions)?;
        let plain = Program::load(&code.slots)?;
        let counters = Counters::new(code.blocks.len())?;
        // The deepest one's, as the verifier lists no function that it has removed.
        let depth = plain.size.stack.iter().copied().max().unwrap_or_default();
        let counted = counters::insert(&code, counters.descriptor(), depth)?;
        let counted = Program::load(&counted).context("with counters")?;
        Ok(Self {
            plain,
            counted,
            counters,
            code,
            lines,
        })
    }

    /// The sizes of the program.
    #[must_use]
    pub const fn size(&self) -> &Size {
        &self.plain.size
    }

    /// Runs the program once on a frame from this interface, and counts.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn run(&self, interface: u32, frame: &[u8]) -> Result<(Run, Work)> {
        self.counters.reset()?;
        let run = self.counted.run(interface, frame)?;
        let mut work = Work::default();
        for (at, count) in self.executed()? {
            work.instructions += count;
            if let Some(Call::Helper(number)) = call(&self.code.slots[at]) {
                match number {
                    LOOKUP => work.lookups += count,
                    _ => work.helpers += count,
                }
                *work.calls.entry(number).or_default() += count;
            }
            *work.lines.entry(self.lines.of(at)).or_default() += count;
        }
        Ok((run, work))
    }

    /// The slots of the instructions that the last run has executed, and how often.
    fn executed(&self) -> Result<Vec<(usize, u64)>> {
        let counts = self.counters.read()?;
        let blocks = self.code.blocks.iter().zip(counts);
        let executed = blocks.filter(|(_, count)| *count > 0);
        let slots = executed.flat_map(|(block, count)| {
            let slots = self.code.instructions(block);
            slots.map(move |at| (at, count))
        });
        Ok(slots.collect())
    }
}

/// The maps of a program, by their names.
fn maps(program: &ProgramInfo) -> Result<HashMap<String, MapFd>> {
    let numbers = program
        .map_ids()?
        .context("the kernel does not list its maps")?;
    let maps = numbers.into_iter().map(|number| {
        let info = MapInfo::from_id(number)?;
        let name = info.name_as_str().context("a map's name is no text")?;
        Ok((name.to_owned(), info.fd()?))
    });
    maps.collect()
}

/// The instructions of the object with these maps, and their lines.
fn link(maps: &HashMap<String, MapFd>) -> Result<(Vec<bpf_insn>, Lines)> {
    let mut object = Object::parse(xdp::OBJECT)?;
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let known = object.maps.clone();
    let known = known.iter().map(|(name, map)| {
        // Those of the object's other programs are not this one's.
        let fd = maps.get(name).map_or(-1, |map| map.as_fd().as_raw_fd());
        (name.as_str(), fd, map)
    });
    object.relocate_maps(known, &sections)?;
    object.relocate_calls(&sections)?;
    let program = object.programs.get(xdp::PROGRAM);
    let program = program.context("the object has no such program")?;
    let function = object.functions.get(&program.function_key());
    let function = function.context("the program has no code")?;
    let lines = Lines::new(&function.line_info.line_info, object.btf.as_ref());
    Ok((function.instructions.clone(), lines))
}
