//! Teredo.

pub mod config;
