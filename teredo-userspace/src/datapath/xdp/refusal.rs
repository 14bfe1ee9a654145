//! Why the kernel refused the program: a diagnosis from its error, its verifier's log and its release.

use std::{error, fmt, fs, io};

/// The oldest Linux release that the program is tested with.
const MINIMUM: Release = Release(6, 1);
/// Lines at the end of a log that are shown in a message.
const SHOWN: usize = 2;

/// Complaints of verifiers about instructions and helpers that they do not know, with the missing
/// feature and the release that brought it.
const FEATURES: &[(&str, &str, Release)] = &[
    (
        "BPF_STX uses reserved fields",
        "atomic compare-and-exchange for BPF programs",
        Release(5, 12),
    ),
    ("#160", "the helper bpf_ktime_get_coarse_ns", Release(5, 11)),
];

/// A version of Linux: major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Release(u32, u32);

impl Release {
    /// Reads the start of a release string such as `6.12.95+deb13-amd64`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|character: char| !character.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// Returns the running kernel's release; empty where /proc is not mounted, and the message lacks the number.
fn running() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Whether the running kernel is one that the program is tested with.
pub(super) fn is_tested_with() -> bool {
    Release::parse(&running()).is_some_and(|release| release >= MINIMUM)
}

/// The kernel's refusal of the program. The message is the whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    release: String,
    error: String,
    log: String,
}

impl Refusal {
    /// Describes a refusal by the running kernel.
    pub(super) fn new(error: &io::Error, log: String) -> Self {
        Self::by(&running(), &error.to_string(), log)
    }

    fn by(release: &str, error: &str, log: String) -> Self {
        Self {
            release: release.to_owned(),
            error: error.to_owned(),
            log,
        }
    }

    /// The whole log of the verifier; empty if the kernel refused before its verifier ran.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The verifier's last words, without its statistics and its trace of instructions.
    fn words(&self) -> String {
        let mut words: Vec<_> = self
            .log
            .lines()
            .map(str::trim)
            .rev()
            .filter(|line| !line.is_empty() && !is_statistics(line))
            .take_while(|line| !is_trace(line))
            .take(SHOWN)
            .collect();
        words.reverse();
        if words.is_empty() {
            words.push(&self.error);
        }
        words.join("; ")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = format!("Linux {}", self.release);
        let words = self.words();
        let release = Release::parse(&self.release);
        // A newer kernel has the feature and refuses for another reason.
        let missing = FEATURES.iter().find(|(complaint, _, since)| {
            words.contains(complaint) && release.is_none_or(|release| release < *since)
        });
        if let Some((_, feature, since)) = missing {
            return write!(
                formatter,
                "{kernel} lacks {feature}, which came with Linux {since}: run Linux {MINIMUM} or \
                 newer, or set xdp.mode = \"off\" to do without the fast path"
            );
        }
        write!(
            formatter,
            "the verifier of {kernel} refuses the XDP program ({words})"
        )?;
        match release {
            Some(release) if release < MINIMUM => write!(
                formatter,
                ": run Linux {MINIMUM} or newer, or set xdp.mode = \"off\" to do without the fast \
                 path"
            ),
            _ => formatter.write_str(
                ": this is a defect of teredo, please report it with the output of `teredo check \
                 --verbose`; until it is fixed, set xdp.mode = \"off\" to do without the fast path",
            ),
        }
    }
}

impl error::Error for Refusal {}

/// Whether a line of the log counts something.
fn is_statistics(line: &str) -> bool {
    [
        "processed ",
        "verification time ",
        "stack depth ",
        "mark_read ",
        "subprog ",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

/// Whether a line of the log shows an instruction, registers, or source code.
fn is_trace(line: &str) -> bool {
    let is_instruction = line
        .split_once(':')
        .is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    let starts = [
        ";",
        "regs=",
        "last_idx ",
        "mark_precise",
        "parent ",
        "from ",
        "frame",
        "func#",
        "caller:",
        "callee:",
    ];
    is_instruction || is_registers(line) || starts.iter().any(|start| line.starts_with(start))
}

/// Returns whether a line shows the state of registers, such as `R1_w=ctx(off=0,imm=0) R10=fp0`.
fn is_registers(line: &str) -> bool {
    line.split_once('=').is_some_and(|(register, _)| {
        let name = register.split('_').next().unwrap_or_default();
        let number = name.strip_prefix('R').map(str::parse::<u8>);
        matches!(number, Some(Ok(0..=10)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID: &str = "Invalid argument (os error 22)";

    #[test]
    fn a_missing_instruction_is_named() {
        let log = "BPF_STX uses reserved fields\nprocessed 0 insns (limit 1000000) \
                   max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n";
        let refusal = Refusal::by("5.10.0-46-cloud-amd64", INVALID, log.to_owned());
        assert_eq!(
            refusal.to_string(),
            "Linux 5.10.0-46-cloud-amd64 lacks atomic compare-and-exchange for BPF programs, which \
             came with Linux 5.12: run Linux 6.1 or newer, or set xdp.mode = \"off\" to do without \
             the fast path"
        );
    }

    #[test]
    fn a_missing_helper_is_named() {
        let log = "12: (85) call bpf_ktime_get_coarse_ns#160\ninvalid func unknown#160\n";
        let refusal = Refusal::by("5.10.0", INVALID, log.to_owned());
        assert!(
            refusal
                .to_string()
                .contains("bpf_ktime_get_coarse_ns, which came with Linux 5.11")
        );
    }

    #[test]
    fn a_newer_kernel_lacks_no_older_feature() {
        let log = "12: (85) call bpf_ktime_get_coarse_ns#160\nprogram of this type cannot use helper \
                   bpf_ktime_get_coarse_ns#160\n";
        let text = Refusal::by("6.12.95+deb12-cloud-amd64", INVALID, log.to_owned()).to_string();
        assert!(!text.contains("lacks"), "{text}");
        assert!(text.contains("defect of teredo"), "{text}");
        let text = Refusal::by("custom", INVALID, log.to_owned()).to_string();
        assert!(text.contains("lacks the helper"), "{text}");
    }

    #[test]
    fn registers_are_no_complaint() {
        let log = "0: R1=ctx(off=0,imm=0) R10=fp0\nR0_w=inv(id=0) R1_rw=ctx(id=0,off=0) R10=fp0\n\
                   R1 type=scalar expected=ctx\nprocessed 2 insns (limit 1000000)\n";
        let words = Refusal::by("6.1.0", INVALID, log.to_owned()).words();
        assert_eq!(words, "R1 type=scalar expected=ctx");
    }

    #[test]
    fn a_verifier_of_a_tested_release_shows_a_defect() {
        let log = "986: (0f) r1 += r2\nlast_idx 986 first_idx 975\n\
                   regs=4 stack=0 before 981: (69) r2 = *(u16 *)(r6 +18)\n\
                   math between pkt pointer and register with unbounded min value is not allowed\n\
                   verification time 53112 usec\nstack depth 0+360+0+0\n\
                   subprog 0 (teredo) main insns_self 978 insns_total 978 stack 280\n\
                   processed 6320 insns (limit 1000000) max_states_per_insn 10 total_states 235\n";
        let refusal = Refusal::by("6.12.95+deb12-cloud-amd64", INVALID, log.to_owned());
        let text = refusal.to_string();
        assert!(
            text.starts_with(
                "the verifier of Linux 6.12.95+deb12-cloud-amd64 refuses the XDP program (math \
                 between pkt pointer and register with unbounded min value is not allowed): this is \
                 a defect of teredo"
            ),
            "{text}"
        );
        assert!(!text.contains("or newer"), "{text}");
        assert_eq!(refusal.log(), log);
    }

    #[test]
    fn the_last_two_complaints_are_shown() {
        let log = "; crate::intrinsics::read_via_copy(src)\n4013: (71) r1 = *(u8 *)(r6 +42)\n\
                   invalid access to packet, off=42 size=1, R6(id=0,off=42,r=42)\n\
                   R6 offset is outside of the packet\n\
                   processed 156 insns (limit 1000000) max_states_per_insn 0 mark_read 8\n";
        let words = Refusal::by("6.1.0", "Permission denied", log.to_owned()).words();
        assert_eq!(
            words,
            "invalid access to packet, off=42 size=1, R6(id=0,off=42,r=42); R6 offset is outside of \
             the packet"
        );
    }

    #[test]
    fn an_old_release_is_told_to_be_old() {
        let log = "math between pkt pointer and register with unbounded min value".to_owned();
        let text = Refusal::by("5.15.0-204-generic", INVALID, log).to_string();
        assert!(text.contains("run Linux 6.1 or newer"), "{text}");
        assert!(!text.contains("defect"), "{text}");
    }

    #[test]
    fn without_a_log_the_error_is_shown() {
        let refusal = Refusal::by(
            "6.12.0",
            "Argument list too long (os error 7)",
            String::new(),
        );
        let text = refusal.to_string();
        assert!(
            text.contains("(Argument list too long (os error 7))"),
            "{text}"
        );
    }

    #[test]
    fn strange_release_strings_are_no_obstacle() {
        for release in ["", "next", "6", "6.x", "99999999999.1"] {
            assert_eq!(Release::parse(release), None, "{release}");
            let text = Refusal::by(release, INVALID, String::new()).to_string();
            assert!(text.contains("refuses the XDP program"), "{text}");
        }
        assert_eq!(Release::parse("6.18.44-fc-v769"), Some(Release(6, 18)));
    }
}
