//! Facts about this host that the running client and `teredo check` both need.

mod names;
mod network;

pub use names::lookup_ipv4;
pub use network::HostNetwork;
