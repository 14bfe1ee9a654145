//! The sandbox: system calls and files that the daemon has no use for are refused by the kernel,
//! whatever the process is made to do.
//!
//! Both restrictions hold for the calling thread, those that it starts, and their children.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;
mod files;
mod filter;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rules;

use std::{
    env, fmt, fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use landlock::{RulesetError, RulesetStatus};

use crate::config::Config;

/// The variable that tells a process that the one which started it passed its sandbox on.
pub(super) const INHERITED: &str = "TEREDO_SANDBOX_INHERITED";

static IS_ACTIVE: AtomicBool = AtomicBool::new(false);

/// The outcome of entering the sandbox.
#[derive(Debug)]
pub struct Outcome {
    calls: Result<(), filter::Error>,
    files: Result<RulesetStatus, RulesetError>,
}

impl Outcome {
    /// Returns whether system calls are restricted.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.calls.is_ok()
    }

    /// Returns whether files are restricted, at least in part.
    #[must_use]
    pub fn has_files(&self) -> bool {
        matches!(&self.files, Ok(status) if *status != RulesetStatus::NotEnforced)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.calls {
            Ok(()) => write!(formatter, "system calls are restricted, ")?,
            Err(error) => write!(formatter, "system calls are not restricted ({error}), ")?,
        }
        match &self.files {
            Ok(RulesetStatus::NotEnforced) => {
                write!(formatter, "files are not (the kernel has no landlock)")
            }
            Ok(RulesetStatus::PartiallyEnforced) => {
                write!(formatter, "files as far as the kernel can")
            }
            Ok(RulesetStatus::FullyEnforced) => write!(formatter, "files, too"),
            Err(error) => write!(formatter, "files are not ({error})"),
        }
    }
}

/// Enters the sandbox of this configuration, unless the process was born in one, and logs the outcome.
/// `file` is that of the configuration.
pub(super) fn enter(config: &Config, file: &Path) {
    files::hold();
    if is_inherited() {
        tracing::debug!("the sandbox is that of the process before this one");
    } else {
        let outcome = restrict(config, file);
        if outcome.has_calls() {
            tracing::debug!("sandbox: {outcome}");
        } else {
            tracing::warn!("sandbox: {outcome}; set node.sandbox = false if that is intended");
        }
    }
    IS_ACTIVE.store(true, Ordering::Relaxed);
}

/// Restricts the calling thread as the daemon of this configuration. The thread must not be able to
/// get new privileges.
#[must_use]
pub fn restrict(config: &Config, file: &Path) -> Outcome {
    Outcome {
        // The filter refuses further rules for files, so that they are first.
        files: files::restrict(config, file),
        calls: filter::install(),
    }
}

/// Returns whether this process is in a sandbox.
pub(super) fn is_active() -> bool {
    IS_ACTIVE.load(Ordering::Relaxed)
}

/// Returns whether this process was started in the sandbox of another daemon. Sandboxes add up, and the
/// kernel permits few of them.
fn is_inherited() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    env::var_os(INHERITED).is_some() && status.lines().any(|line| line == "Seccomp:\t2")
}
