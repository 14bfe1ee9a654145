//! The state machines, in random histories.
//!
//! Each target reads the configuration and then steps from its input. After every step, and at the end,
//! it checks the rules that hold in all histories.

pub mod client;
pub mod dual;
pub mod fast_relay;
pub mod fast_server;
pub mod fleet;
pub mod probe;
pub mod relay;
pub mod scenery;
pub mod server;
mod world;

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use teredo_proto::Instant;

use crate::bytes::Bytes;

/// The start of a history.
const START: Instant = Instant::from_nanos(1_000_000_000_000);
/// The most steps of a history, so that one input does not take long.
const STEPS: usize = 150;
/// The most calls for one moment, and for one step.
const CALLS: [usize; 2] = [64, 20_000];

/// Lets time pass: calls `step` whenever `deadline` says, up to the end.
///
/// # Panics
///
/// If a machine wants to be called for ever.
fn pass<M>(
    machine: &mut M,
    now: &mut Instant,
    duration: Duration,
    deadline: impl Fn(&M) -> Option<Instant>,
    mut step: impl FnMut(&mut M, Instant),
) {
    let end = *now + duration;
    let (mut calls, mut at_once) = (0, 0);
    while let Some(due) = deadline(machine).filter(|&due| due <= end) {
        at_once = if due <= *now { at_once + 1 } else { 0 };
        calls += 1;
        assert!(at_once < CALLS[0] && calls < CALLS[1], "it never ends");
        *now = due.max(*now);
        step(machine, *now);
    }
    *now = end;
}

/// Reads which of some steps is next, and whether another process goes on before it.
fn next_step(bytes: &mut Bytes<'_>, steps: u8) -> (u8, bool) {
    let octet = bytes.octet();
    (octet % steps, octet >> 4 == 0xf)
}

/// Returns the state of a machine as the next process reads it.
fn handed_over<T: Serialize + DeserializeOwned>(state: &T) -> T {
    let octets = rmp_serde::to_vec_named(state).expect("everything has a form");
    rmp_serde::from_slice(&octets).expect("it was just written")
}

/// Reads a duration: mostly short, sometimes minutes.
fn duration(bytes: &mut Bytes<'_>) -> Duration {
    let [unit, count] = bytes.array();
    let count = u64::from(count);
    match unit % 8 {
        0..=2 => Duration::from_millis(count * 8),
        3..=5 => Duration::from_millis(count * 250),
        6 => Duration::from_secs(count * 4),
        _ => Duration::from_nanos(count),
    }
}
