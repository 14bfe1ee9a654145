//! The handover from one process of the daemon to the next, under a service manager and without one.

mod client;
mod new_peers;
mod relay;
mod replace;
mod server;
mod world;
