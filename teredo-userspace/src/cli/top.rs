//! `teredo top`: the view of a running daemon in the terminal.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Daemon, ask::address, start_runtime};
use crate::top;

/// The permitted intervals, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.2..=60.0;

/// The options of `teredo top`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    /// Seconds between two looks at the daemon, 0.2 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print one picture as text, with the rates of one interval, and end
    #[arg(long)]
    once: bool,
}

/// Shows a daemon until the user ends the view.
pub fn run(arguments: &Arguments) -> Result<()> {
    let address = address(&arguments.daemon)?;
    let runtime = start_runtime()?;
    match arguments.once {
        true => runtime.block_on(top::print_once(address, arguments.interval)),
        false => runtime.block_on(top::run(address, arguments.interval)),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| INTERVALS.contains(seconds));
    let seconds = seconds.ok_or("it must be a number of seconds from 0.2 to 60")?;
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_bounded() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "0.1", "61", "NaN", "-1", "x", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
