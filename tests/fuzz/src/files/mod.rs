//! What the daemon reads: its files, the texts of other programs, and requests to its API.

pub mod api;
pub mod config;
pub mod explain;
pub mod firewall;
pub mod import;
pub mod texts;
