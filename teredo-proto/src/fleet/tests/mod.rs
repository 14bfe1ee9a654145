//! Fleets in virtual time, by requirement.

mod clocks;
mod harness;
mod histories;
mod joining;
mod lies;
mod members;
mod peers;
mod refusals;
mod saying;
