//! The API of a running daemon: HTTP on a unix socket, on TCP, or both.
//!
//! Whoever reaches it may read: `GET /status`, `GET /peers`, `GET /metrics`. Whoever may use the
//! unix socket may also have the daemon drain: `POST /drain`.

pub mod client;
pub mod handle;
pub mod listener;
mod server;
pub mod types;

pub use handle::{Handle, Page, Request};
pub use listener::{Listeners, listen};
pub use server::serve;

#[cfg(test)]
mod tests;
