//! The protocol of Teredo (RFC 4380): the formats on the wire, and the state machines of relay,
//! server, client and probe. No sockets and no clocks: packets, time and randomness come in as
//! arguments, and what is to be sent, to be told and to be woken for is polled.

#![forbid(unsafe_code)]

pub mod client;
pub mod dual;
pub mod probe;
pub mod relay;
pub mod server;
pub mod wire;

mod shared;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::Client;
pub use relay::Relay;
pub use server::Server;
pub use shared::{
    counts::{Count, Counts, Named},
    peers::OVERHEAD as QUEUE_OVERHEAD,
    server_address::ServerAddress,
    statistics::{Traffic, Unreachable},
};
pub use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    limiter::{Limits, Rate},
    scope::Ipv4Scope,
    time::Instant,
};
