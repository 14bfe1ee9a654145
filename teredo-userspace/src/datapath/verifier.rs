//! Calls of the kernel's verifier, which gives up with `EAGAIN` when the thread that waits for it gets a signal.

use std::{
    io,
    time::{Duration, Instant},
};

use aya::programs::ProgramError;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// Time for which an interrupted load is repeated. Freezers and debuggers leave seconds between two stops.
const PATIENCE: Duration = Duration::from_secs(20);
/// Number of attempts, however long the process was stopped.
const ATTEMPTS: u32 = 5;

/// An error that can report an interruption by a signal.
pub trait MayBeInterrupted {
    /// Whether it reports one.
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

/// Blocks all signals of this thread while `load` runs, and repeats it when a stop of the process interrupts the verifier.
///
/// # Errors
///
/// Those of `load`; an interruption if attempts and patience are at an end.
pub fn undisturbed<T, E: MayBeInterrupted>(mut load: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let _blocked = Blocked::all();
    let start = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match load() {
            Err(error)
                if error.is_interruption()
                    && (attempts < ATTEMPTS || start.elapsed() < PATIENCE) => {}
            result => return result,
        }
    }
}

/// The block of all signals of this thread, until the value is dropped.
struct Blocked {
    /// The thread's previous mask; `None` if it could not be changed.
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

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    fn is_blocked() -> bool {
        let mask = SigSet::thread_get_mask().expect("a mask");
        mask.contains(Signal::SIGTERM) && mask.contains(Signal::SIGHUP)
    }

    fn error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn no_signal_disturbs_a_load() {
        assert!(!is_blocked());
        let was_blocked = undisturbed(|| io::Result::Ok(is_blocked()));
        assert!(was_blocked.expect("no error"));
        assert!(!is_blocked());
    }

    #[test]
    fn an_interrupted_load_is_repeated_and_a_refused_one_is_not() {
        let mut attempts = 0;
        let loaded = undisturbed(|| {
            attempts += 1;
            match attempts < 2 * ATTEMPTS {
                true => Err(error(libc::EAGAIN)),
                false => Ok(()),
            }
        });
        loaded.expect("it is loaded in the end");
        assert_eq!(attempts, 2 * ATTEMPTS);
        let mut attempts = 0;
        let refused = undisturbed(|| -> io::Result<()> {
            attempts += 1;
            Err(error(libc::EINVAL))
        });
        assert_eq!(
            refused.expect_err("refused").raw_os_error(),
            Some(libc::EINVAL)
        );
        assert_eq!(attempts, 1);
    }
}
