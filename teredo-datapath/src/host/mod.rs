//! An environment in the memory of a process, in which the data path runs without a kernel.
//!
//! [`Maps`] are what all CPUs and the daemon share, a [`Cpu`] has the maps of one CPU, and a [`Network`]
//! stands for the kernel's routes and neighbours. [`Maps::run`] decides about one frame.

mod cpu;
mod frame;
mod maps;
mod network;
mod run;

pub use self::{
    cpu::Cpu,
    frame::{Buffer, HEADROOM},
    maps::Maps,
    network::{Network, RouteTable},
    run::{Arrival, Outcome},
};
