//! The tunnel service: clients with a key and a stable prefix, wherever they are (section 7 of the
//! 2002 draft, docs/protocol/tunnel.md, requirements T-01 to T-05).

use std::time::Duration;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use teredo_common::{
    address::Endpoint,
    limiter::Rate,
    scope::{is_global_unicast, is_link_local, may_be_source},
    time::Instant,
    wire::MTU,
};

use super::{
    Event, Route, Server, Transmit,
    authentication::Clients,
    forward::datagram,
    statistics::{DropReason, Service},
};
use crate::{
    shared::limiter::Bucket,
    wire::{encapsulation::NONCE_LENGTH, icmpv6, ipv6::Header, router::Advertisement},
};

/// Without a solicitation for this long a client is taken to be gone (T-04).
pub const LIFETIME: Duration = Duration::from_secs(240);
/// Two moves within this time are flapping (T-03).
const FLAPPING: Duration = Duration::from_secs(60);
/// Nonces remembered of a client (T-05).
const NONCES: usize = 32;
/// Destination Unreachable messages, as those of a relay.
const UNREACHABLE: Rate = Rate::new(10, 10);

type Nonce = [u8; NONCE_LENGTH];

/// The endpoint of a client of the tunnel service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Client identification.
    pub client: Vec<u8>,
    /// The client's /64.
    pub prefix: Ipv6Net,
    /// Mapped endpoint at the last solicitation.
    pub mapped: Endpoint,
    /// Time of the last solicitation.
    pub last_seen: Instant,
}

/// The /64 of a client, and what is remembered of it.
#[derive(Debug)]
struct Lease {
    prefix: Ipv6Net,
    /// The server's own address in the prefix, which errors come from.
    server: [u8; 16],
    advertisement: Advertisement,
    /// Where the client was when it last solicited, and when that was.
    mapped: Option<(Endpoint, Instant)>,
    /// Of its latest solicitations (T-05).
    nonces: [Option<Nonce>; NONCES],
    /// Which of the nonces is the oldest.
    oldest: usize,
    moved: Option<Instant>,
    told_flapping: Option<Instant>,
}

/// What is remembered of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedLease {
    mapped: Option<(Endpoint, Instant)>,
    /// Oldest first.
    nonces: Vec<Nonce>,
    moved: Option<Instant>,
    told_flapping: Option<Instant>,
}

/// The clients of the tunnel service.
#[derive(Debug)]
pub struct Tunnel {
    /// By number of the client; those without a prefix have none.
    leases: Vec<Option<Lease>>,
    /// The first half of the addresses of each /64 and the client's number, sorted.
    networks: Vec<([u8; 8], usize)>,
    unreachable: Bucket,
}

impl Tunnel {
    pub fn new(clients: &Clients, link_local: &[u8; 16], mtu: Option<u16>) -> Self {
        let lease = |prefix| Lease::new(prefix, link_local, mtu);
        let clients = clients.all().iter();
        let leases: Vec<_> = clients.map(|client| client.prefix.map(lease)).collect();
        let numbered = leases.iter().enumerate();
        let mut networks: Vec<_> = numbered
            .filter_map(|(number, lease)| Some((*half(&lease.as_ref()?.server), number)))
            .collect();
        networks.sort_unstable();
        networks.dedup_by_key(|&mut (half, _)| half);
        Self {
            leases,
            networks,
            unreachable: Bucket::default(),
        }
    }

    /// Returns what is remembered of a client, if it ever came.
    pub fn save(&self, number: usize) -> Option<SavedLease> {
        let lease = self.lease(number)?;
        let (newest, oldest) = lease.nonces.split_at(lease.oldest.min(NONCES));
        let nonces: Vec<_> = oldest.iter().chain(newest).flatten().copied().collect();
        (lease.mapped.is_some() || !nonces.is_empty()).then_some(SavedLease {
            mapped: lease.mapped,
            nonces,
            moved: lease.moved,
            told_flapping: lease.told_flapping,
        })
    }

    /// Sets what is remembered of a client.
    pub fn restore(&mut self, number: usize, saved: &SavedLease) {
        let Some(Some(lease)) = self.leases.get_mut(number) else {
            return;
        };
        lease.mapped = saved.mapped;
        lease.moved = saved.moved;
        lease.told_flapping = saved.told_flapping;
        let excess = saved.nonces.len().saturating_sub(NONCES);
        lease.nonces = [None; NONCES];
        lease.oldest = 0;
        for nonce in &saved.nonces[excess..] {
            lease.nonces[lease.oldest] = Some(*nonce);
            lease.oldest = (lease.oldest + 1) % NONCES;
        }
    }

    /// The number of the client that an IPv6 address belongs to.
    pub fn find(&self, address: &[u8; 16]) -> Option<usize> {
        let half = half(address);
        let found = self.networks.binary_search_by(|(one, _)| one.cmp(half));
        found.ok().map(|index| self.networks[index].1)
    }

    /// The advertisement of the client's own prefix (T-02).
    pub fn advertisement(&self, number: usize) -> Option<&Advertisement> {
        self.lease(number).map(|lease| &lease.advertisement)
    }

    /// Whether a verified solicitation is to be answered: it may not be an old one from another
    /// place (T-05).
    pub fn check(
        &self,
        now: Instant,
        number: usize,
        from: Endpoint,
        nonce: Nonce,
    ) -> Result<(), DropReason> {
        match self.lease(number) {
            Some(lease) if lease.knows(nonce) && lease.mapped_at(now) != Some(from) => {
                Err(DropReason::Replayed)
            }
            _ => Ok(()),
        }
    }

    /// Lets everything that is remembered age by a time that the clock does not count.
    pub fn age(&mut self, now: Instant, duration: Duration) {
        for lease in self.leases.iter_mut().flatten() {
            let is_here = |&(_, seen): &(Endpoint, Instant)| {
                now.saturating_since(seen).saturating_add(duration) < LIFETIME
            };
            let mapped = lease.mapped.filter(is_here);
            lease.mapped = mapped.map(|(mapped, seen)| (mapped, seen - duration));
            lease.moved = lease.moved.map(|at| at - duration);
            lease.told_flapping = lease.told_flapping.map(|at| at - duration);
        }
    }

    pub fn bindings(&self, clients: &Clients) -> impl Iterator<Item = Binding> {
        let leases = self.leases.iter().zip(clients.all());
        leases.filter_map(|(lease, client)| {
            let lease = lease.as_ref()?;
            let (mapped, last_seen) = lease.mapped?;
            Some(Binding {
                client: client.id.clone(),
                prefix: lease.prefix,
                mapped,
                last_seen,
            })
        })
    }

    /// Where a client is, unless it is gone.
    fn mapped_at(&self, now: Instant, number: usize) -> Option<Endpoint> {
        self.lease(number)?.mapped_at(now)
    }

    fn lease(&self, number: usize) -> Option<&Lease> {
        self.leases.get(number)?.as_ref()
    }
}

impl Lease {
    fn new(prefix: Ipv6Net, link_local: &[u8; 16], mtu: Option<u16>) -> Self {
        let mut server = prefix.network().octets();
        server[8..].copy_from_slice(&link_local[8..]);
        Self {
            prefix,
            server,
            advertisement: Advertisement::new(link_local, *half(&server), mtu),
            mapped: None,
            nonces: [None; NONCES],
            oldest: 0,
            moved: None,
            told_flapping: None,
        }
    }

    /// Where the client is, unless it is gone.
    fn mapped_at(&self, now: Instant) -> Option<Endpoint> {
        let (mapped, seen) = self.mapped?;
        (now.saturating_since(seen) < LIFETIME).then_some(mapped)
    }

    fn knows(&self, nonce: Nonce) -> bool {
        self.nonces.contains(&Some(nonce))
    }

    fn remember(&mut self, nonce: Nonce) {
        self.nonces[self.oldest] = Some(nonce);
        self.oldest = (self.oldest + 1) % NONCES;
    }

    /// Notes that the client is at `from`; what the operator should know of that (T-03).
    fn bind(&mut self, now: Instant, id: &[u8], from: Endpoint) -> Option<Event> {
        let before = self.mapped_at(now);
        self.mapped = Some((from, now));
        let client = || id.to_vec();
        let Some(before) = before else {
            return Some(Event::TunnelBound {
                client: client(),
                mapped: from,
            });
        };
        if before == from {
            return None;
        }
        let is_recent =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_since(at) < FLAPPING);
        if !is_recent(self.moved.replace(now)) {
            return Some(Event::TunnelMoved {
                client: client(),
                from: before,
                to: from,
            });
        }
        if is_recent(self.told_flapping) {
            return None;
        }
        self.told_flapping = Some(now);
        Some(Event::TunnelFlapping {
            client: client(),
            mapped: from,
        })
    }
}

impl Server {
    /// Handles an IPv6 packet that the kernel routed to the tunnel service, with its hop limit
    /// decremented.
    ///
    /// Returns the packet to send because of it, if any: itself, for the client, or an ICMPv6 error
    /// for its sender.
    pub fn handle_ipv6(&mut self, now: Instant, packet: &[u8]) -> Option<Transmit<'_>> {
        let mut output = self.room();
        let outcome = self.send_into_tunnel(now, packet, &mut output);
        if let Err(DropReason::TunnelUnreachable) = outcome
            && self.write_unreachable(now, packet, &mut output)
        {
            self.statistics.dropped[DropReason::TunnelUnreachable] += 1;
            self.statistics.unreachable_sent += 1;
            self.output = output;
            return Some(Transmit::Tunnel(&self.output));
        }
        self.finish(output, outcome)
    }

    /// T-04: plain encapsulation to where the client is.
    fn send_into_tunnel(
        &self,
        now: Instant,
        packet: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        let header = Header::parse(packet).map_err(|_| DropReason::TunnelPacket)?;
        let (source, destination) = (header.source(), header.destination());
        if !may_be_source(&source) || is_link_local(&source) || source == destination {
            return Err(DropReason::TunnelPacket);
        }
        let number = self.tunnel.find(&destination);
        let number = number.ok_or(DropReason::TunnelDestination)?;
        if self.own_ipv4.leads_back(&source) {
            return Err(DropReason::SourceLoop);
        }
        let length = header.packet_length();
        if length > usize::from(self.config.mtu.unwrap_or(MTU)) {
            return Err(DropReason::TunnelTooBig);
        }
        if self.is_stopped(now) {
            return Err(DropReason::Draining);
        }
        let mapped = self.tunnel.mapped_at(now, number);
        let mapped = mapped.filter(|&mapped| self.own_ipv4.may_send_to(mapped));
        let mapped = mapped.ok_or(DropReason::TunnelUnreachable)?;
        output.extend_from_slice(&packet[..length]);
        Ok((Service::TunnelSent, datagram(mapped)))
    }

    /// T-04: from where the client is, anything to anywhere but back to this host.
    pub(super) fn receive_from_tunnel(
        &self,
        now: Instant,
        number: usize,
        from: Endpoint,
        header: Header<'_>,
        packet: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        if self.tunnel.mapped_at(now, number) != Some(from) {
            return Err(DropReason::TunnelSource);
        }
        let destination = header.destination();
        if !is_global_unicast(&destination) {
            return Err(DropReason::DestinationScope);
        }
        if self.own_ipv4.leads_back(&destination) {
            return Err(DropReason::DestinationLoop);
        }
        if self.is_stopped(now) {
            return Err(DropReason::Draining);
        }
        output.extend_from_slice(packet);
        Ok((Service::TunnelReceived, Route::Tunnel))
    }

    /// Tells the sender of a packet that the client is gone, if that is allowed.
    fn write_unreachable(&mut self, now: Instant, packet: &[u8], output: &mut Vec<u8>) -> bool {
        let lease = Header::parse(packet)
            .ok()
            .and_then(|header| self.tunnel.find(&header.destination()))
            .and_then(|number| self.tunnel.lease(number));
        let Some(source) = lease.map(|lease| lease.server) else {
            return false;
        };
        if !icmpv6::may_answer(packet) || !self.tunnel.unreachable.take(UNREACHABLE, now) {
            return false;
        }
        let error = icmpv6::address_unreachable(&source, packet);
        output.extend(error.unwrap_or_default());
        !output.is_empty()
    }

    /// Notes where a client that proved to have a key is, if it has a prefix (T-03). An old
    /// solicitation says nothing of where it is now (T-05).
    pub(super) fn bind(&mut self, now: Instant, number: usize, from: Endpoint, nonce: Nonce) {
        let lease = self.tunnel.leases[number].as_mut();
        let Some(lease) = lease.filter(|lease| !lease.knows(nonce)) else {
            return;
        };
        lease.remember(nonce);
        let event = lease.bind(now, &self.clients.all()[number].id, from);
        event.into_iter().for_each(|event| self.emit(event));
    }
}

/// The first half of an address: its /64.
fn half(address: &[u8; 16]) -> &[u8; 8] {
    let (halves, _) = address.as_chunks::<8>();
    &halves[0]
}
