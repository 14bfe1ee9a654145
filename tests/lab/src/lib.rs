//! Network laboratories in namespaces: an IPv4 and an IPv6 internet on bridges, NATs, hosts, Teredo
//! servers, relays and clients (Miredo's and ours), traffic between them, and captures of it.
//!
//! Everything is removed when it is dropped, also while a failed test unwinds.

pub mod bird;
pub mod browser;
pub mod caller;
pub mod capture;
pub mod cpu;
pub mod echo;
pub mod fixture;
pub mod fleet;
pub mod flood;
pub mod frames;
pub mod frr;
mod generator;
pub mod heartbeat;
pub mod links;
pub mod miredo;
pub mod names;
pub mod namespace;
pub mod nat;
pub mod peers;
pub mod process;
pub mod programs;
pub mod qualification;
pub mod scene;
pub mod service;
pub mod teredo;
pub mod together;
pub mod traffic;
pub mod trunk;
pub mod wait;

pub use teredo_differential::packet;

pub use browser::Browser;
pub use capture::Capture;
pub use links::Internet;
pub use namespace::Namespace;
pub use nat::{Nat, NatKind};
pub use process::Daemon;
pub use scene::{Scene, Topology};
pub use teredo::Teredo;
pub use together::together;
pub use wait::{uninterrupted, wait_for, wait_until};
