//! The API of a running daemon: HTTP on a unix socket, on TCP, or both.
//!
//! `routes.rs` lists the requests. All sockets answer those that only read; the unix socket also those that
//! change something, such as `POST /v1/drain`.

mod capture;
pub mod client;
mod connections;
pub mod events;
pub mod explain;
pub mod filter;
mod forms;
pub mod handle;
mod health;
pub mod history;
pub mod listener;
mod openapi;
mod origin;
mod page;
mod parameters;
mod peers;
pub mod problem;
mod routes;
mod server;
mod thread;
pub mod types;

pub use handle::{Gate, Handle, Page, Request, Requests, Stopped};
pub use listener::{Listeners, listen};
#[cfg(any(test, feature = "testing"))]
pub(crate) use server::converse;
pub use server::serve;
pub use thread::ApiThread;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;
