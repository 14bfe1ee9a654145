//! Scenes that run at the same time.

use std::{fmt::Display, panic, thread};

use anyhow::{Result, ensure};

/// Runs every case on a thread of its own and prints a line for each.
///
/// # Errors
///
/// Fails when a case fails; all run to their end.
pub fn together<T: Copy + Display + Send + Sync>(
    cases: impl IntoIterator<Item = T>,
    play: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let cases: Vec<T> = cases.into_iter().collect();
    let play = &play;
    let results = thread::scope(|scope| {
        let started = cases.iter().map(|&case| scope.spawn(move || play(case)));
        let started: Vec<_> = started.collect();
        let results = started.into_iter().map(|play| {
            play.join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        });
        results.collect::<Vec<_>>()
    });
    let mut failed = 0;
    for (case, result) in cases.iter().zip(results) {
        match result {
            Ok(()) => println!("{case}  passed"),
            Err(error) => {
                failed += 1;
                println!("{case}  {error:#}");
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} failed", cases.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn one_failure_fails_the_run() {
        assert!(together([1, 2], |_| Ok(())).is_ok());
        let error = together([1, 2, 3], |case| match case {
            2 => bail!("no"),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().to_string(), "1 of 3 failed");
    }
}
