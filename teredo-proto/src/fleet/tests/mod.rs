//! Fleets in virtual time, by requirement.

mod harness;
mod histories;
mod joining;
mod members;
mod peers;
