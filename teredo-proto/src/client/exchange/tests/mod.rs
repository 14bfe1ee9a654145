//! The half of the client that talks with peers, in virtual time.

mod discovery;
mod hairpinning;
mod harness;
mod limits;
mod load_reduction;
mod native;
mod port_preserving;
mod properties;
mod reception;
mod relays;
mod sequential;
mod silence;
mod symmetric;
mod transmission;
