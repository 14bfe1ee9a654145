//! The state machines of RFC 4380. No sockets and no clocks: packets, time and randomness come in
//! as arguments, and what is to be sent, to be told and to be woken for is polled.

pub mod bubble;
pub mod client;
pub mod cookie;
pub mod dual;
pub mod limiter;
pub mod peers;
pub mod probe;
pub mod queue;
pub mod relay;
pub mod server;
pub mod statistics;

mod keyed;
mod named;
mod own;
mod timers;
