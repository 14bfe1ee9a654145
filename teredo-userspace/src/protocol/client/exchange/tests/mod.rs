//! The half of the client that talks with peers, in virtual time.

mod discovery;
mod harness;
mod native;
mod reception;
mod transmission;
