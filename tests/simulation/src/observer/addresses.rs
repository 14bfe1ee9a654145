//! The addresses that a client uses.

use std::net::Ipv6Addr;

use teredo_common::scope::is_link_local;
use teredo_proto::wire::{encapsulation::Encapsulation, ipv6::Header};

use super::Violation;
use crate::node::Node;

/// The address that a client's interface had before its current action.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    before: Option<Ipv6Addr>,
}

impl Addresses {
    /// Checks that the source is an address that the client has, or had when it was asked to send.
    pub fn sent(&self, node: &Node, parts: &Encapsulation<'_>) -> Result<(), Violation> {
        let (Node::Client(client), Ok(header)) = (node, Header::parse(parts.packet)) else {
            return Ok(());
        };
        let source = header.source();
        let own = [self.before, client.address].into_iter().flatten();
        if is_link_local(&source) || own.map(|own| own.octets()).any(|own| own == source) {
            return Ok(());
        }
        let (source, own) = (Ipv6Addr::from(source), client.address);
        Err(format!("a client with {own:?} sends from {source} (C-45)"))
    }

    /// Checks that the interface has the client's address and no other. Returns whether that
    /// differs from before.
    pub fn settled(&mut self, node: &Node) -> Result<bool, Violation> {
        let Node::Client(client) = node else {
            return Ok(false);
        };
        let before = std::mem::replace(&mut self.before, client.address);
        let identity = client.client.identity().map(|own| own.address);
        if identity != client.address {
            let has = client.address;
            return Err(format!(
                "the interface has {has:?}, the client {identity:?} (C-45)"
            ));
        }
        Ok(before != client.address)
    }
}
