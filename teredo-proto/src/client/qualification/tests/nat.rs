//! A NAT, as far as a client and its server notice it.

use std::{collections::HashSet, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};

/// How local ports are mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No NAT, but a firewall that admits only answers.
    Absent,
    /// One mapping for all destinations; every endpoint may answer.
    Cone,
    /// One mapping for all destinations; only endpoints that were asked may answer.
    Restricted,
    /// A mapping for each destination.
    Symmetric,
}

pub struct Nat {
    pub kind: Kind,
    /// The outer address; inner, too, if there is no NAT.
    pub address: [u8; 4],
    /// Mappings have the local port.
    pub preserves_ports: bool,
    /// How long a mapping lives after the last packet that went out.
    pub lifetime: Duration,
    next_port: u16,
    mappings: Vec<Mapping>,
}

struct Mapping {
    local_port: u16,
    /// Of a symmetric NAT.
    destination: Option<Endpoint>,
    outside: Endpoint,
    asked: HashSet<Endpoint>,
    used: Instant,
}

impl Nat {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            address: [9, 0, 0, 1],
            preserves_ports: false,
            lifetime: Duration::from_secs(300),
            next_port: 4096,
            mappings: Vec::new(),
        }
    }

    /// Forgets every mapping.
    pub fn reboot(&mut self) {
        self.mappings.clear();
    }

    /// Returns the outside endpoint of a datagram from this local port.
    pub fn leaves(&mut self, now: Instant, local_port: u16, to: Endpoint) -> Endpoint {
        self.forget(now);
        let destination = (self.kind == Kind::Symmetric).then_some(to);
        let known = self.mappings.iter().position(|mapping| {
            mapping.local_port == local_port && mapping.destination == destination
        });
        let index = known.unwrap_or_else(|| {
            let port = match self.kind {
                Kind::Absent => local_port,
                _ if self.preserves_ports && destination.is_none() => local_port,
                _ => self.next_port,
            };
            self.next_port += 1;
            self.mappings.push(Mapping {
                local_port,
                destination,
                outside: Endpoint::new(self.address.into(), port),
                asked: HashSet::new(),
                used: now,
            });
            self.mappings.len() - 1
        });
        let mapping = &mut self.mappings[index];
        mapping.asked.insert(to);
        mapping.used = now;
        mapping.outside
    }

    /// The local port for a datagram that comes to this endpoint.
    pub fn arrives(&mut self, now: Instant, from: Endpoint, to: Endpoint) -> Option<u16> {
        self.forget(now);
        let mapping = self.mappings.iter().find(|mapping| mapping.outside == to)?;
        let is_let_in = self.kind == Kind::Cone || mapping.asked.contains(&from);
        is_let_in.then_some(mapping.local_port)
    }

    fn forget(&mut self, now: Instant) {
        let lifetime = self.lifetime;
        self.mappings
            .retain(|mapping| now.saturating_since(mapping.used) <= lifetime);
    }
}
