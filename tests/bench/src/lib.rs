//! The benchmarks (`cargo xtask bench`): our relay, server and client, in XDP and in userspace,
//! against Miredo and against the bare XDP redirect of the same machine, in one run.
//!
//! Each relay stands in a namespace of its own between two veth cables. A generator program, run by
//! the kernel with live frames, redirects forged packets into one cable; a sink program counts them
//! at the far end of the other. A relay in XDP has generator, relay and sink on one core, so no
//! packet is lost and the costs add up; a relay process has a core for itself (and the sink) and
//! gets more packets than it can forward from the other core.
//!
//! Servers are compared in the same way, with router solicitations of many clients and a cable for
//! the answers. The answers of a server process are counted and dropped at the egress of its host,
//! so that their arrival costs its core nothing.
//!
//! Clients take the place of relay processes, on a host that forwards into the tunnel and out of
//! it; then they carry a TCP connection through a relay to a native host.

pub mod attack;
pub mod calls;
pub mod cases;
pub mod churn;
pub mod client;
pub mod clients;
pub mod device;
pub mod duration;
pub mod ends;
pub mod frames;
pub mod guard;
pub mod loss;
pub mod machine;
pub mod memory;
pub mod relay;
pub mod report;
pub mod restarts;
pub mod run;
pub mod server;
pub mod site;
pub mod stream;
pub mod svg;
pub mod test_run;
pub mod throughput;
