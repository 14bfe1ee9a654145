//! The data structures that the machines share: peers and the packets and bubbles that wait for
//! them, deadlines, token buckets, counters.

pub mod counts;
pub mod limiter;
pub mod peers;
pub mod server_address;
pub mod statistics;

pub(crate) mod keyed;
pub(crate) mod own;
