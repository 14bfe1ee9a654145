//! Calls of the kernel's verifier, which gives up with `EAGAIN` when the thread that waits for it gets a signal.

use std::{
    io,
    time::{Duration, Instant},
};

use aya::programs::ProgramError;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// Time after which an interrupted program is not tried again. One that is stopped again and again, by a freezer or a
/// debugger, has seconds in between.
const PATIENCE: Duration = Duration::from_secs(20);

/// An error that may say that a signal came.
pub trait MayBeInterrupted {
    /// Whether it does.
    fn is_interruption(&self) -> bool;
}

impl MayBeInterrupted for io::Error {
    fn is_interruption(&self) -> bool {
        self.raw_os_error() == Some(libc::EAGAIN)
    }
}

impl MayBeInterrupted for ProgramError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::LoadError { io_error, .. } if io_error.is_interruption())
    }
}

/// Loads programs without being disturbed by signals: this thread gets them afterwards, and other threads meanwhile. What
/// stops the process all the same, such as a freezer, makes it load them again.
///
/// # Errors
///
/// Those of `load`; an interruption if there was always another.
pub fn undisturbed<T, E: MayBeInterrupted>(mut load: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let _blocked = Blocked::all();
    let start = Instant::now();
    loop {
        match load() {
            Err(error) if error.is_interruption() && start.elapsed() < PATIENCE => {}
            result => return result,
        }
    }
}

/// Signals that this thread does not get until the value is dropped.
struct Blocked {
    /// Those that it did not get before, either; `None` if the kernel changed nothing.
    before: Option<SigSet>,
}

impl Blocked {
    fn all() -> Self {
        let mut before = SigSet::empty();
        let all = SigSet::all();
        let blocked = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before));
        Self {
            before: blocked.is_ok().then_some(before),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}
