//! The traffic of peers as IPFIX (RFC 7011) for a collector.
//!
//! The encoder is our own: what is needed of the format is one template for each direction and flat records of fixed size,
//! which are some hundred lines without a dependency; crates that encode IPFIX bring the whole registry of
//! information elements with them, generated as code. A parser that is not ours reads the messages in tests.

mod exporter;
mod message;
mod source;
#[cfg(test)]
mod tests;

pub use exporter::{Exporter, WAITING_MAX};
pub use message::{MESSAGE_MAX, Message, RECORD, Record};
pub use source::Source;
