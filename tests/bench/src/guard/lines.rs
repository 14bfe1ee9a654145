//! The lines of the source that instructions were made from.

use aya_obj::{btf::Btf, generated::bpf_line_info};

/// The lines of a program's source.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// The slot of the first instruction of a line, and its name, in the order of the slots.
    lines: Vec<(usize, String)>,
}

impl Lines {
    /// Reads what the compiler has noted, if it has.
    #[must_use]
    pub fn new(records: &[bpf_line_info], types: Option<&Btf>) -> Self {
        let types = types.map(Btf::to_bytes).unwrap_or_default();
        let strings = strings(&types).unwrap_or_default();
        let mut lines: Vec<_> = records
            .iter()
            .filter_map(|record| {
                let name = strings.get(record.file_name_off as usize..)?;
                let name = name.split(|octet| *octet == 0).next()?;
                let name = own(str::from_utf8(name).ok()?)?;
                // The column is in the lower bits.
                let line = record.line_col >> 10;
                Some((record.insn_off as usize, format!("{name}:{line}")))
            })
            .collect();
        lines.sort();
        Self { lines }
    }

    /// The file and line of the instruction at this slot.
    #[must_use]
    pub fn of(&self, slot: usize) -> String {
        let behind = self.lines.partition_point(|(start, _)| *start <= slot);
        let line = behind.checked_sub(1).map(|last| &self.lines[last].1);
        line.cloned().unwrap_or_else(|| "?".to_owned())
    }
}

/// A path of the project from its crate on. Instructions that come from other crates count as those
/// of the line before, which has called them.
fn own(path: &str) -> Option<&str> {
    path.rfind("/teredo-").map(|at| &path[at + 1..])
}

/// The strings of type information, from its header on.
fn strings(types: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let octets = types.get(at..at + 4)?;
        Some(u32::from_ne_bytes(octets.try_into().ok()?) as usize)
    };
    let (header, start, length) = (word(4)?, word(16)?, word(20)?);
    types.get(header + start..)?.get(..length)
}
