//! The handover from one process of the daemon to the next: a restart, an upgrade, a change of the
//! configuration, or a start after a crash.
//!
//! The next process gets the open descriptors, so that no datagram is lost that the kernel has received
//! meanwhile, and the state of the protocol, so that no peer is forgotten. Descriptors are named for what
//! they are ([`descriptors`]). The state is in a file in memory ([`memory`]), in a form that describes
//! itself ([`state`]).
//!
//! There are two ways. Systemd keeps descriptors in its store ([`store`]) while the service restarts, also
//! after a crash, and closes them when the service stops. Without it, the running process starts the next
//! one and hands over to it ([`successor`]).

pub mod descriptors;
pub mod inheritance;
pub mod journal;
pub mod memory;
pub mod state;
pub mod store;
pub mod successor;
mod supervisor;

pub use inheritance::Inheritance;
pub use journal::Journal;
pub use state::State;
pub use store::Store;
