//! The client and real servers with a NAT between them, in virtual time.

mod failure;
mod harness;
mod interval;
mod maintenance;
mod nat;
mod properties;
mod secure;
mod solicitation;
mod states;
