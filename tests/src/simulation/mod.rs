//! A network in virtual time: our server, relay and client, unmodified, behind every kind of NAT.

pub mod nat;
pub mod network;
pub mod node;
pub mod observer;
pub mod packet;
pub mod scenery;
pub mod stack;
pub mod world;
