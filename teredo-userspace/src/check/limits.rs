//! Limits of the process, and the clock.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use nix::sys::resource::{Resource, getrlimit};

use super::{Host, Report};

/// The files that a daemon may have open: connections of the API, and sockets, maps and links.
const FILES: u64 = 512;
/// Seconds from the Unix epoch to 2024, before which no such daemon existed.
const YEAR_2024: Duration = Duration::from_secs(1_704_067_200);
/// The first kernel that does not count BPF maps as locked memory.
const UNLOCKED: (u32, u32) = (5, 11);

/// The facts that were read.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// The most open files, as far as the daemon may raise it.
    files: u64,
    /// Octets that may be locked.
    locked: u64,
    /// Octets of maps that the kernel counts as locked; 0 on those that do not.
    maps: u64,
    /// Time since the Unix epoch.
    time: Duration,
    /// Whether the roles compare times with the world: by a date of sunset.
    needs_clock: bool,
    is_synchronised: bool,
}

/// Examines limits and clock. `maps` is the size of the maps, octets.
pub fn examine(host: &Host<'_>, maps: u64, report: &mut Report) {
    let hard = |resource| getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let config = host.config;
    let sunset = config
        .relay
        .as_ref()
        .is_some_and(|relay| relay.sunset.is_some())
        || config
            .server
            .as_ref()
            .is_some_and(|server| server.sunset.is_some());
    let facts = Facts {
        files: hard(Resource::RLIMIT_NOFILE),
        locked: hard(Resource::RLIMIT_MEMLOCK),
        maps: if counts_maps(&release) { maps } else { 0 },
        time: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
        needs_clock: sunset,
        is_synchronised: is_synchronised(),
    };
    for (subject, is_defect, text) in judge(facts) {
        if is_defect {
            report.degraded(subject, text);
        } else {
            report.note(subject, text);
        }
    }
}

/// Returns whether a kernel of this release counts maps as locked memory.
fn counts_maps(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < UNLOCKED,
        _ => false,
    }
}

/// Returns whether the kernel's clock follows a reference.
fn is_synchronised() -> bool {
    // SAFETY: the structure has integers only, for which zeros are valid.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid for writes, and without modes nothing is changed.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    // An error means that this cannot be found out.
    result < 0 || state.status & libc::STA_UNSYNC == 0
}

/// Returns subject, whether it is a defect, and a sentence of each finding.
fn judge(facts: Facts) -> Vec<(&'static str, bool, String)> {
    let mut findings = Vec::new();
    if facts.files < FILES {
        findings.push((
            "files",
            false,
            format!(
                "this process may have {} open files, but the daemon may need {FILES}: `ulimit -Hn \
                 4096`, or LimitNOFILE=4096 in the unit",
                facts.files
            ),
        ));
    }
    if facts.locked < facts.maps {
        findings.push((
            "memory",
            true,
            format!(
                "this process may lock {} octets, but this kernel counts {} octets of maps: `ulimit -l \
                 unlimited`, or LimitMEMLOCK=infinity in the unit",
                facts.locked, facts.maps
            ),
        ));
    }
    if facts.time < YEAR_2024 {
        findings.push((
            "clock",
            facts.needs_clock,
            "the clock of this host is years behind, so dates of sunset and the log are wrong: set it, for \
             example with `chronyd -q`"
                .to_owned(),
        ));
    } else if facts.needs_clock && !facts.is_synchronised {
        findings.push((
            "clock",
            false,
            "the clock of this host follows no reference, and roles end by date: run a time service, for \
             example chrony"
                .to_owned(),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Facts = Facts {
        files: 524_288,
        locked: 8 << 20,
        maps: 0,
        time: Duration::from_secs(1_800_000_000),
        needs_clock: true,
        is_synchronised: true,
    };

    fn subjects(facts: Facts) -> Vec<(&'static str, bool)> {
        let findings = judge(facts).into_iter();
        findings
            .map(|(subject, is_defect, _)| (subject, is_defect))
            .collect()
    }

    #[test]
    fn each_limit_is_told() {
        assert_eq!(subjects(GOOD), []);
        assert_eq!(subjects(Facts { files: 100, ..GOOD }), [("files", false)]);
        assert_eq!(
            subjects(Facts {
                maps: 64 << 20,
                ..GOOD
            }),
            [("memory", true)]
        );
        let old = Facts {
            time: Duration::from_secs(1_000),
            ..GOOD
        };
        assert_eq!(subjects(old), [("clock", true)]);
        let alone = Facts {
            is_synchronised: false,
            ..GOOD
        };
        assert_eq!(subjects(alone), [("clock", false)]);
        assert_eq!(
            subjects(Facts {
                needs_clock: false,
                ..alone
            }),
            []
        );
    }

    #[test]
    fn old_kernels_count_maps() {
        for (release, counts) in [
            ("5.10.0-30-amd64", true),
            ("5.11.0", false),
            ("6.18.1", false),
            ("", false),
        ] {
            assert_eq!(counts_maps(release), counts, "{release}");
        }
    }
}
