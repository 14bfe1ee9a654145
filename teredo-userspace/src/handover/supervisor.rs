//! The processes that cannot follow from one process of the daemon to the next.
//!
//! They take the end of the process that they have started for the end of the daemon. Systemd is told of the next one.

use std::{fs, os::unix::process::parent_id, process};

/// The first process of a container.
const FIRST: u32 = 1;
/// The reason why a container has to be restarted.
const CONTAINER: &str = "the container would end with this process: restart the container";
/// The programs, by their names, each with the reason.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "procd",
        "procd would start another daemon beside the new process: use `service teredo reload`",
    ),
    // Those that containers begin with, for a program that is not made to be the first.
    ("catatonit", CONTAINER),
    ("docker-init", CONTAINER),
    ("dumb-init", CONTAINER),
    ("tini", CONTAINER),
];

/// Returns the reason why no other process may take over from this one, if there is one.
pub fn objection() -> Option<&'static str> {
    let parent = fs::read_to_string(format!("/proc/{}/comm", parent_id()));
    // A parent without a name is like any other.
    objection_of(process::id(), parent.unwrap_or_default().trim_end())
}

/// Returns the same for the process with this number and the name of its parent.
fn objection_of(process: u32, parent: &str) -> Option<&'static str> {
    if process == FIRST {
        return Some(CONTAINER);
    }
    let mut programs = PROGRAMS.iter();
    let (_, reason) = programs.find(|(name, _)| *name == parent)?;
    Some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_end_is_that_of_its_container_is_not_replaced() {
        for (process, parent) in [(1, ""), (7, "tini"), (7, "catatonit")] {
            assert_eq!(objection_of(process, parent), Some(CONTAINER), "{parent}");
        }
    }

    #[test]
    fn others_may_be_replaced_unless_their_parent_starts_them_again() {
        let reason = objection_of(7, "procd");
        assert!(reason.is_some_and(|reason| reason.contains("`service teredo reload`")));
        for parent in ["", "systemd", "bash", "init"] {
            assert_eq!(objection_of(7, parent), None, "{parent}");
        }
    }
}
