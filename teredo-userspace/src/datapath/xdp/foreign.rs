//! Programs that others have loaded, and their links.
//!
//! Only a process with `CAP_SYS_ADMIN` may list them, which the daemon gives up. So it remembers those that
//! there were at its start.

use std::{collections::BTreeMap, sync::OnceLock};

use aya::programs::{ProgramError, links::LinkType, loaded_links, loaded_programs};

static REMEMBERED: OnceLock<Found> = OnceLock::new();

/// What the kernel lists.
#[derive(Debug, Default)]
struct Found {
    /// The names of programs, by number.
    programs: BTreeMap<u32, String>,
    /// Programs and links of XDP.
    links: Vec<(u32, u32)>,
}

/// Remembers the programs and links that there are, for the time when this process may not list them.
pub fn remember() {
    if let Some(found) = list() {
        let _ = REMEMBERED.set(found);
    }
}

/// Returns the name of the program with this number, if this process may know it.
#[must_use]
pub fn program_name(number: u32) -> Option<String> {
    ask(|found| found.programs.get(&number).cloned())
}

/// Returns the XDP links of the program with this number, if this process may know them.
pub(super) fn links_of(number: u32) -> Option<Vec<u32>> {
    ask(|found| {
        found.programs.get(&number)?;
        let links = found.links.iter().filter(|(program, _)| *program == number);
        Some(links.map(|&(_, link)| link).collect())
    })
}

fn ask<T>(question: impl FnOnce(&Found) -> Option<T>) -> Option<T> {
    match list() {
        Some(found) => question(&found),
        None => question(REMEMBERED.get()?),
    }
}

/// Lists programs and links; `None` without permission.
fn list() -> Option<Found> {
    let mut found = Found::default();
    for program in loaded_programs() {
        match program {
            Ok(program) => {
                let name = String::from_utf8_lossy(program.name()).into_owned();
                found.programs.insert(program.id(), name);
            }
            Err(error) if is_refusal(&error) => return None,
            // It has gone in this moment.
            Err(_) => {}
        }
    }
    let links = loaded_links().filter_map(Result::ok);
    found.links = links
        .filter(|link| matches!(link.link_type(), Ok(LinkType::Xdp)))
        .map(|link| (link.program_id(), link.id()))
        .collect();
    Some(found)
}

fn is_refusal(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if matches!(error.io_error.raw_os_error(), Some(libc::EPERM | libc::EACCES)))
}
