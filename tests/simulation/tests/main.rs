//! The protocol in virtual time, behind every kind of NAT: `teredo_simulation` says how to
//! replay a history that failed.

mod histories;
mod local;
mod matrix;
mod nat;
mod native;
mod qualification;
mod recovery;
