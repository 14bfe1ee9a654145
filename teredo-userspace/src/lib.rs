//! Teredo.

pub mod api;
pub mod check;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod host;
pub mod metrics;
pub mod node;
pub mod privileges;
pub mod sunset;
