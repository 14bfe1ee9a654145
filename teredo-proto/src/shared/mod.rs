//! The toolbox of the machines: the engine for peers, token buckets, counters.

pub mod counts;
pub mod durations;
pub mod limiter;
pub mod party;
pub mod peers;
pub mod server_address;
pub mod statistics;
pub mod turns;

pub(crate) mod gradual;
pub(crate) mod keyed;
pub(crate) mod own;
