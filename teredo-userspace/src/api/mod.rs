//! The API of a running daemon: HTTP on a unix socket, on TCP, or both.
//!
//! On all sockets: `GET /status`, `GET /peers`, `GET /metrics`, `GET /healthz` and `GET /readyz`. On the
//! unix socket also `GET /v1/capture`, which sends packets as they come, `POST /drain`, which makes the daemon drain,
//! and `POST /replace`, which starts another process in its place.

pub mod client;
mod connections;
pub mod handle;
mod health;
pub mod listener;
mod origin;
mod server;
mod thread;
pub mod types;

pub use handle::{Gate, Handle, Page, Request, Requests, Stopped};
pub use listener::{Listeners, listen};
#[cfg(feature = "testing")]
pub(crate) use server::converse;
pub use server::serve;
pub use thread::ApiThread;

#[cfg(test)]
mod tests;
