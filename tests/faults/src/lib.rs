//! Faults that are injected under load, and soak runs in which every packet is accounted for.
//!
//! A [`site::Site`] is a scene with our relay, server and client, and a [`load::Load`] of mixed traffic
//! whose packets are counted where they are sent and where they arrive. A [`ledger`] compares both
//! with the counters of the daemons and the kernel.

pub mod account;
pub mod fault;
pub mod ledger;
pub mod load;
pub mod metrics;
pub mod refusal;
pub mod report;
pub mod runner;
pub mod samples;
pub mod site;
pub mod soak;
