//! Waiting for conditions, with a deadline.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// The longest pause between two checks of a condition.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The most that a check and the pause after it count for: when the whole machine stands still, nothing that is awaited
/// goes on either.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// Calls `probe` until it returns a value.
///
/// # Errors
///
/// Returns the probe's own error at once, or an error that `what` did not come within `timeout`.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(1);
    loop {
        let start = Instant::now();
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if waited >= timeout {
            bail!("waited {timeout:?} in vain: {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        waited += start.elapsed().min(LONGEST_TURN);
    }
}

/// Calls `condition` until it holds.
///
/// # Errors
///
/// Returns the condition's own error at once, or an error that `what` did not hold within
/// `timeout`.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(what, timeout, || Ok(condition()?.then_some(())))
}

/// Makes a call that waits for no longer than `timeout` once more when it is interrupted, until that time is over. A receiver
/// with a timeout needs that even without a handler of signals: the kernel interrupts it when the process is stopped, or its
/// control group frozen, and goes on.
///
/// # Errors
///
/// Those of the call, [`io::ErrorKind::WouldBlock`] instead of an interruption.
pub fn uninterrupted<T>(
    timeout: Duration,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let start = Instant::now();
    loop {
        // What has come while the process was stopped counts, too.
        let is_last = start.elapsed() >= timeout;
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                if is_last {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_again_until_there_is_a_value() {
        let mut asked = 0;
        let value = wait_for("three", Duration::from_secs(5), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn the_error_names_the_condition() {
        let error = wait_until("never", Duration::from_millis(5), || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("never"), "{error}");
    }

    #[test]
    fn time_in_which_nothing_goes_on_counts_for_little() {
        let mut asked = 0;
        let value = wait_for("three", 2 * LONGEST_TURN, || {
            asked += 1;
            thread::sleep(2 * LONGEST_TURN);
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn an_error_ends_the_waiting() {
        let error = wait_until("never", Duration::from_secs(60), || bail!("broken")).unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}
