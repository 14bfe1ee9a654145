//! A NAT in the terms of RFC 4787: mapping, filtering, port assignment, address pooling, lifetime
//! and hairpinning are set one by one. A stateful firewall is a NAT that changes nothing.

mod kind;

use std::{net::Ipv4Addr, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{address::Endpoint, time::Instant};

pub use kind::Kind;

/// Ports that are assigned at random or in sequence.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65_535;

/// The part of the remote endpoint on which a behaviour depends (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// No part.
    Independent,
    /// The remote address.
    Address,
    /// The remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// The part of a remote endpoint that must be equal for the same treatment.
    fn of(self, remote: Endpoint) -> Endpoint {
        match self {
            Self::Independent => Endpoint::default(),
            Self::Address => Endpoint::new(remote.ip(), 0),
            Self::AddressAndPort => remote,
        }
    }
}

/// The choice of external ports (RFC 4787 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The internal port while it is free, otherwise any other port. Never the same for two
    /// mappings.
    Preserving,
    /// The internal port while it is free towards the remote endpoint, otherwise any other port.
    /// Mappings towards different remote endpoints share a port, as on Linux.
    Overloading,
    /// The next port.
    Sequential,
    /// A random port.
    Random,
}

/// The choice among several external addresses (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The same for all mappings of an internal address.
    Paired,
    /// A different one for each mapping, while there are any.
    Arbitrary,
}

/// The behaviour of a NAT.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Whether packets from one internal endpoint to different destinations have one source.
    pub mapping: Dependence,
    /// The remote endpoints whose packets come in.
    pub filtering: Dependence,
    /// The choice of external ports.
    pub ports: Ports,
    /// The choice of external addresses.
    pub pooling: Pooling,
    /// Silence after which a mapping, or the permission of a remote endpoint, ends.
    pub lifetime: Duration,
    /// Whether packets that come in refresh a mapping, too.
    pub inbound_refresh: bool,
    /// Whether internal endpoints reach each other by their external ones.
    pub hairpinning: bool,
    /// Whether endpoints are left unchanged, as by a stateful firewall.
    pub firewall: bool,
    /// Whether a packet that is not let in leaves an entry, as in the connection tracking of a Linux
    /// router without an input filter. While the entry lives, no new mapping towards the packet's
    /// source gets the external endpoint that it was sent to.
    pub tracks_unsolicited: bool,
}

/// A NAT and its mappings.
#[derive(Debug)]
pub struct Nat {
    /// The behaviour; may be changed at any time.
    pub behaviour: Behaviour,
    addresses: Vec<Ipv4Addr>,
    mappings: Vec<Mapping>,
    /// External and internal endpoints that were joined by UPnP.
    holes: Vec<(Endpoint, Endpoint)>,
    /// The packets that were not let in: source, destination and time of the last one.
    unsolicited: Vec<(Endpoint, Endpoint, Instant)>,
    next_port: u16,
    random: StdRng,
}

#[derive(Debug)]
struct Mapping {
    internal: Endpoint,
    /// The part of the destination on which the mapping depends.
    towards: Endpoint,
    external: Endpoint,
    last_used: Instant,
    /// Remote endpoints that packets went to, and the time of the last traffic.
    permitted: Vec<(Endpoint, Instant)>,
}

impl Nat {
    /// Makes a NAT without mappings. It has at least one address, unless it is a firewall.
    #[must_use]
    pub fn new(behaviour: Behaviour, addresses: Vec<Ipv4Addr>, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self {
            behaviour,
            addresses,
            mappings: Vec::new(),
            holes: Vec::new(),
            unsolicited: Vec::new(),
            next_port: random.random_range(20_000..60_000),
            random,
        }
    }

    /// The external addresses.
    #[must_use]
    pub fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }

    /// Loses all state, as at a power failure.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.holes.clear();
        self.unsolicited.clear();
    }

    /// Reboots with other external addresses.
    pub fn renumber(&mut self, addresses: Vec<Ipv4Addr>) {
        self.addresses = addresses;
        self.reboot();
    }

    /// Joins the internal endpoint with the same port of the first external address, as UPnP does:
    /// packets from every remote endpoint come in through it.
    pub fn map_port(&mut self, internal: Endpoint) -> Option<Endpoint> {
        let external = Endpoint::new(*self.addresses.first()?, internal.port());
        let taken = |&(other, _): &(Endpoint, Endpoint)| other == external;
        if self.holes.iter().any(taken) {
            return None;
        }
        self.holes.push((external, internal));
        Some(external)
    }

    /// Translates the source of a packet from inside.
    pub fn outbound(&mut self, now: Instant, internal: Endpoint, to: Endpoint) -> Endpoint {
        self.expire(now);
        let towards = self.behaviour.mapping.of(to);
        let known =
            |mapping: &&mut Mapping| mapping.internal == internal && mapping.towards == towards;
        if let Some(mapping) = self.mappings.iter_mut().find(known) {
            mapping.last_used = now;
            mapping.permit(now, to);
            return mapping.external;
        }
        let external = self.allocate(internal, to);
        self.mappings.push(Mapping {
            internal,
            towards,
            external,
            last_used: now,
            permitted: vec![(to, now)],
        });
        external
    }

    /// The internal destination of a packet that arrived for the external endpoint `to`, if it may
    /// enter.
    pub fn inbound(&mut self, now: Instant, from: Endpoint, to: Endpoint) -> Option<Endpoint> {
        self.expire(now);
        let internal = self.admit(now, from, to).or_else(|| {
            let mut holes = self.holes.iter();
            holes.find(|hole| hole.0 == to).map(|hole| hole.1)
        });
        if internal.is_none() && self.behaviour.tracks_unsolicited {
            self.unsolicited
                .retain(|entry| (entry.0, entry.1) != (from, to));
            self.unsolicited.push((from, to, now));
        }
        internal
    }

    /// The internal endpoint of a mapping that admits a packet.
    fn admit(&mut self, now: Instant, from: Endpoint, to: Endpoint) -> Option<Endpoint> {
        let refresh = self.behaviour.inbound_refresh;
        let filtering = self.behaviour.filtering;
        let mut mappings = self.mappings.iter_mut();
        mappings.find_map(|mapping| {
            if mapping.external != to {
                return None;
            }
            let mut alike = mapping
                .permitted
                .iter_mut()
                .filter(|permitted| filtering.of(permitted.0) == filtering.of(from))
                .peekable();
            let permitted = alike.peek().is_some() || filtering == Dependence::Independent;
            if permitted && refresh {
                alike.for_each(|permitted| permitted.1 = now);
                mapping.last_used = now;
            }
            permitted.then_some(mapping.internal)
        })
    }

    /// Number of mappings.
    pub fn mappings(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.mappings.len()
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.behaviour.lifetime;
        let lives = |since: Instant| now.saturating_since(since) < lifetime;
        self.mappings.retain_mut(|mapping| {
            mapping.permitted.retain(|permitted| lives(permitted.1));
            lives(mapping.last_used)
        });
        self.unsolicited.retain(|entry| lives(entry.2));
    }

    /// The external endpoint of a new mapping towards `to`.
    fn allocate(&mut self, internal: Endpoint, to: Endpoint) -> Endpoint {
        if self.behaviour.firewall {
            return internal;
        }
        let hole = self.holes.iter().find(|hole| hole.1 == internal);
        if let Some(&(external, _)) = hole
            && (self.behaviour.mapping == Dependence::Independent || self.is_free(external, to))
        {
            return external;
        }
        let address = self.pool(internal);
        if matches!(self.behaviour.ports, Ports::Preserving | Ports::Overloading) {
            let same = Endpoint::new(address, internal.port());
            if self.may_give(same, to) {
                return same;
            }
        }
        loop {
            let port = match self.behaviour.ports {
                Ports::Sequential => {
                    self.next_port = self.next_port.checked_add(1).unwrap_or(*PORTS.start());
                    self.next_port
                }
                Ports::Preserving | Ports::Overloading | Ports::Random => {
                    self.random.random_range(PORTS)
                }
            };
            let external = Endpoint::new(address, port);
            if self.may_give(external, to) {
                return external;
            }
        }
    }

    /// Whether a mapping towards `to` may have this external endpoint.
    fn is_free(&self, external: Endpoint, to: Endpoint) -> bool {
        let towards = self.behaviour.mapping.of(to);
        let shares = |mapping: &Mapping| {
            self.behaviour.ports == Ports::Overloading && mapping.towards != towards
        };
        let is_taken = |mapping: &Mapping| mapping.external == external && !shares(mapping);
        let is_tracked =
            |entry: &(Endpoint, Endpoint, Instant)| (entry.0, entry.1) == (to, external);
        !self.mappings.iter().any(is_taken) && !self.unsolicited.iter().any(is_tracked)
    }

    fn may_give(&self, external: Endpoint, to: Endpoint) -> bool {
        self.is_free(external, to) && self.holes.iter().all(|hole| hole.0 != external)
    }

    /// The external address of a new mapping.
    fn pool(&mut self, internal: Endpoint) -> Ipv4Addr {
        let same_host = |mapping: &&Mapping| mapping.internal.address == internal.address;
        let used = |address: Ipv4Addr| {
            let mappings = self.mappings.iter().filter(same_host);
            mappings
                .filter(|mapping| mapping.external.ip() == address)
                .count()
        };
        let by_use = self
            .addresses
            .iter()
            .map(|&address| (used(address), address));
        let chosen = match self.behaviour.pooling {
            Pooling::Paired => by_use.rev().max_by_key(|&(used, _)| used),
            Pooling::Arbitrary => by_use.min_by_key(|&(used, _)| used),
        };
        chosen.map_or(Ipv4Addr::UNSPECIFIED, |(_, address)| address)
    }
}

impl Mapping {
    fn permit(&mut self, now: Instant, to: Endpoint) {
        match self
            .permitted
            .iter_mut()
            .find(|permitted| permitted.0 == to)
        {
            Some(permitted) => permitted.1 = now,
            None => self.permitted.push((to, now)),
        }
    }
}
