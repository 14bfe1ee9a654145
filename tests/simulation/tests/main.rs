//! The protocol in virtual time, behind every kind of NAT. The documentation of `teredo_simulation`
//! describes how to replay a history that failed.

mod fleet;
mod histories;
mod local;
mod many;
mod matrix;
mod nat;
mod native;
mod probe;
mod qualification;
mod recovery;
mod restarts;
