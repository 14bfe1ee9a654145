//! The benchmarks (`cargo xtask bench`): our relay, in XDP and in userspace, against Miredo and
//! against the bare XDP redirect of the same machine, in one run.
//!
//! Each relay stands in a namespace of its own between two veth cables. A generator program, run
//! by the kernel with live frames, redirects forged packets into one cable; a sink program counts
//! them at the far end of the other. A relay in XDP has generator, relay and sink on one core, so
//! nothing is lost and the costs add up; a relay process has a core for itself (and the sink) and
//! gets more than it can forward from the other core.

pub mod cases;
pub mod clients;
pub mod cpu;
pub mod frames;
pub mod memory;
pub mod programs;
pub mod relay;
pub mod report;
pub mod run;
pub mod site;
pub mod test_run;
pub mod throughput;
