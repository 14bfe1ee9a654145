//! Facts about this host that the running daemon and `teredo check` both need.

pub mod bgp;
mod names;
mod network;
mod read;
pub mod setting;
mod snapshot;

pub use names::{lookup_endpoints, lookup_ipv4};
pub use network::HostNetwork;
pub use read::{LookError, Scope};
pub use setting::Setting;
pub use snapshot::{Link, Route, Snapshot, VlanTag};
