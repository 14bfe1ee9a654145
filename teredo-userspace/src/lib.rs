//! The Teredo daemon and its command: everything around the protocol of [`teredo_proto`].
//!
//! # Rooms
//!
//! In the order of dependence; each module uses only those above it, except for [`cli`] and `check`,
//! which also use the node:
//!
//! | module | purpose |
//! |---|---|
//! | `sunset` | dates on which roles end |
//! | [`datapath`] | UDP sockets, TUN interfaces, the kernel's routes, and the XDP program with its maps |
//! | [`host`] | this host as it is: a snapshot of its interfaces, addresses, routes and settings |
//! | [`config`] | the configuration file and the files with keys |
//! | [`import`] | configurations of Miredo, turned into ours |
//! | `privileges` | the capabilities that a configuration needs, the change of user, the sandbox |
//! | [`metrics`] | all statistics at one moment, and their form for Prometheus |
//! | [`condition`] | the named ways in which a role does not do its whole job |
//! | `plan` | this host as it should be: items and conditions, and the reconciler that decides on acts |
//! | [`explain`] | what the daemon would do with a packet, and why |
//! | [`ipfix`] | the traffic of peers for a collector |
//! | [`capture`] | packets at chosen points of their way, as a file that other programs read |
//! | [`api`] | HTTP on a unix socket or TCP, and the channel to the node |
//! | [`node`] | the event loop: roles, fast path, timers, upkeep of the host |
//! | `check` | whether a configuration can run on this host |
//! | `top` | the terminal view of a running daemon |
//! | [`cli`] | the command `teredo` |
//!
//! # The way of a packet
//!
//! [`node::Node`] waits for input in one thread. Packets from native hosts arrive at the TUN interface
//! ([`datapath::tun`]), datagrams from clients at the UDP port ([`datapath::udp`]), both in batches. The
//! role passes each packet to its state machine in [`teredo_proto`], sends the packets that the machine
//! returns, and applies its events: a relay's peer that has become trusted is written into the map of the
//! XDP program ([`datapath::xdp`]). From then on the program forwards the packets of that peer by
//! itself; the node copies the timestamps from the map to the relay once a second.

pub mod api;
pub mod capture;
mod check;
pub mod cli;
pub mod condition;
pub mod config;
pub mod datapath;
pub mod explain;
pub mod handover;
pub mod host;
pub mod import;
pub mod ipfix;
pub mod metrics;
pub mod node;
mod plan;
pub mod privileges;
mod sunset;
#[cfg(feature = "testing")]
pub mod testing;
mod top;
