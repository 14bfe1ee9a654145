//! The memory of the machines, whatever arrives: their allocations are counted.

mod relay;
mod server;
