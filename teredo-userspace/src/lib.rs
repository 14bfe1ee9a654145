//! Teredo.

pub mod api;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod metrics;
pub mod protocol;
pub mod wire;
