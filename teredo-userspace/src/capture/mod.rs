//! Captures: packets at chosen points of their way, each with the reason for its fate, as a file in the format pcapng.
//!
//! One capture runs at a time. It gets the packets of the XDP program from [`crate::datapath::xdp::capture`], and
//! those of the daemon from a [`Tap`] of each role, which costs one branch while nobody captures.

mod pcapng;
mod reason;
mod selection;
mod stream;
mod tap;

pub use reason::Reason;
pub use selection::{Query, Selection, SelectionError};
pub use stream::{Refusal, start};
pub use tap::{Tap, Tapped, Taps};
