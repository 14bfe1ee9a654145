//! The tunnel service: clients with a key and a stable prefix, wherever they are (section 7 of the
//! 2002 draft, requirements T-01 to T-05).

use std::time::Duration;

use ipnet::Ipv6Net;
use teredo_common::{
    address::Endpoint,
    limiter::Rate,
    scope::{is_global_unicast, is_link_local, may_be_source},
    time::Instant,
    wire::MTU,
};

use super::{
    Event, Output, Server,
    authentication::Clients,
    forward::datagram,
    statistics::{DropReason, Service},
};
use crate::{
    protocol::limiter::Bucket,
    wire::{encapsulation::NONCE_LENGTH, icmpv6, ipv6::Header, router::Advertisement},
};

/// Without a solicitation for this long a client is taken to be gone (T-04).
pub const LIFETIME: Duration = Duration::from_secs(240);
/// Two moves within this time are flapping (T-03).
const FLAPPING: Duration = Duration::from_secs(60);
/// A retired key is told of again after this time.
const RETIRED: Duration = Duration::from_secs(3600);
/// Nonces remembered of a client (T-05).
const NONCES: usize = 32;
/// Destination Unreachable messages, as those of a relay.
const UNREACHABLE: Rate = Rate::new(10, 10);

type Nonce = [u8; NONCE_LENGTH];

/// Where a client of the tunnel service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Client identification.
    pub client: Vec<u8>,
    /// Its /64.
    pub prefix: Ipv6Net,
    /// Where it is or was last.
    pub mapped: Endpoint,
    /// When it last solicited.
    pub last_seen: Instant,
}

/// What is remembered of each client that has a key.
#[derive(Debug)]
struct Lease {
    network: Option<Network>,
    mapped: Option<(Endpoint, Instant)>,
    /// The latest first come to be overwritten at `next_nonce`.
    nonces: [Option<Nonce>; NONCES],
    next_nonce: usize,
    moved: Option<Instant>,
    told_flapping: Option<Instant>,
    told_retired: Option<Instant>,
}

#[derive(Debug)]
struct Network {
    prefix: Ipv6Net,
    /// The server's own address in it, which errors come from.
    server: [u8; 16],
    advertisement: Advertisement,
}

/// The clients of the tunnel service.
#[derive(Debug)]
pub struct Tunnel {
    /// By number of the client.
    leases: Vec<Lease>,
    /// The first half of the addresses of each network and the client's number, sorted.
    networks: Vec<([u8; 8], usize)>,
    unreachable: Bucket,
}

impl Tunnel {
    pub fn new(clients: &Clients, link_local: &[u8; 16], mtu: Option<u16>) -> Self {
        let mut networks = Vec::new();
        let mut leases = Vec::new();
        for (number, client) in clients.all().iter().enumerate() {
            let network = client.prefix.map(|prefix| {
                let mut server = prefix.network().octets();
                let half = *half(&server);
                server[8..].copy_from_slice(&link_local[8..]);
                networks.push((half, number));
                Network {
                    prefix,
                    server,
                    advertisement: Advertisement::new(link_local, half, mtu),
                }
            });
            leases.push(Lease {
                network,
                mapped: None,
                nonces: [None; NONCES],
                next_nonce: 0,
                moved: None,
                told_flapping: None,
                told_retired: None,
            });
        }
        networks.sort_unstable();
        networks.dedup_by_key(|&mut (half, _)| half);
        Self {
            leases,
            networks,
            unreachable: Bucket::default(),
        }
    }

    /// The client that an IPv6 address belongs to.
    pub fn find(&self, address: &[u8; 16]) -> Option<usize> {
        let found = self
            .networks
            .binary_search_by(|(one, _)| one.cmp(half(address)));
        found.ok().map(|index| self.networks[index].1)
    }

    /// The advertisement of the client's own prefix (T-02).
    pub fn advertisement(&self, number: usize) -> Option<&Advertisement> {
        let network = self.leases[number].network.as_ref();
        network.map(|network| &network.advertisement)
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
        let lease = &self.leases[number];
        let is_elsewhere = lease.mapped_at(now) != Some(from);
        if lease.network.is_some() && is_elsewhere && lease.nonces.contains(&Some(nonce)) {
            return Err(DropReason::Replayed);
        }
        Ok(())
    }

    pub fn bindings(&self, clients: &Clients) -> impl Iterator<Item = Binding> {
        let leases = self.leases.iter().zip(clients.all());
        leases.filter_map(|(lease, client)| {
            let (mapped, last_seen) = lease.mapped?;
            Some(Binding {
                client: client.id.clone(),
                prefix: lease.network.as_ref()?.prefix,
                mapped,
                last_seen,
            })
        })
    }
}

impl Lease {
    /// Where the client is, unless it is gone.
    fn mapped_at(&self, now: Instant) -> Option<Endpoint> {
        let mapped = self.mapped;
        let (mapped, _) = mapped.filter(|&(_, seen)| now.saturating_since(seen) < LIFETIME)?;
        Some(mapped)
    }

    fn remember(&mut self, nonce: Nonce) {
        self.nonces[self.next_nonce] = Some(nonce);
        self.next_nonce = (self.next_nonce + 1) % NONCES;
    }
}

impl Server {
    /// Takes an IPv6 packet that the kernel routed to the tunnel service, with its hop limit
    /// decremented. `output` as in [`Server::handle_datagram`].
    pub fn handle_ipv6(
        &mut self,
        now: Instant,
        packet: &[u8],
        output: &mut Vec<u8>,
    ) -> Option<Output> {
        output.clear();
        let outcome = self.send_into_tunnel(now, packet, output);
        if let Err(DropReason::TunnelUnreachable) = outcome
            && self.write_unreachable(now, packet, output)
        {
            self.statistics.count_drop(DropReason::TunnelUnreachable);
            self.statistics.unreachable_sent += 1;
            return Some(Output::Tunnel);
        }
        self.count(outcome, output.len())
    }

    /// T-04: plain encapsulation to where the client is.
    fn send_into_tunnel(
        &self,
        now: Instant,
        packet: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(Service, Output), DropReason> {
        let header = Header::parse(packet).map_err(|_| DropReason::TunnelPacket)?;
        let (source, destination) = (header.source(), header.destination());
        if !may_be_source(&source) || is_link_local(&source) || source == destination {
            return Err(DropReason::TunnelPacket);
        }
        let number = self.tunnel.find(&destination);
        let number = number.ok_or(DropReason::TunnelDestination)?;
        if self.leads_back(&source) {
            return Err(DropReason::SourceLoop);
        }
        let length = header.packet_length();
        if length > usize::from(self.config.mtu.unwrap_or(MTU)) {
            return Err(DropReason::TunnelTooBig);
        }
        if self.is_stopped(now) {
            return Err(DropReason::Draining);
        }
        let mapped = self.tunnel.leases[number].mapped_at(now);
        let mapped = mapped.filter(|&mapped| self.may_send_to(mapped));
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
    ) -> Result<(Service, Output), DropReason> {
        if self.tunnel.leases[number].mapped_at(now) != Some(from) {
            return Err(DropReason::TunnelSource);
        }
        let destination = header.destination();
        if !is_global_unicast(&destination) {
            return Err(DropReason::DestinationScope);
        }
        if self.leads_back(&destination) {
            return Err(DropReason::DestinationLoop);
        }
        if self.is_stopped(now) {
            return Err(DropReason::Draining);
        }
        output.extend_from_slice(packet);
        Ok((Service::TunnelReceived, Output::Tunnel))
    }

    /// Tells the sender of a packet that the client is gone, if that is allowed.
    fn write_unreachable(&mut self, now: Instant, packet: &[u8], output: &mut Vec<u8>) -> bool {
        let destination = Header::parse(packet).map(Header::destination);
        let number = destination.ok().and_then(|one| self.tunnel.find(&one));
        let Some(network) = number.and_then(|number| self.tunnel.leases[number].network.as_ref())
        else {
            return false;
        };
        if !icmpv6::may_answer(packet) || !self.tunnel.unreachable.take(UNREACHABLE, now) {
            return false;
        }
        let error = icmpv6::address_unreachable(&network.server, packet);
        output.extend(error.unwrap_or_default());
        !output.is_empty()
    }

    /// Notes that a client proved to have a key, and where it is (T-03).
    pub(super) fn welcome(
        &mut self,
        now: Instant,
        number: usize,
        key: usize,
        from: Endpoint,
        nonce: Nonce,
    ) {
        let lease = &mut self.tunnel.leases[number];
        let id = &self.clients.all()[number].id;
        let is_due = |told: Option<Instant>, pause| {
            told.is_none_or(|told| now.saturating_since(told) >= pause)
        };
        let mut events = [None, None];
        if key != 0 && is_due(lease.told_retired, RETIRED) {
            lease.told_retired = Some(now);
            events[0] = Some(Event::RetiredKey {
                client: id.clone(),
                mapped: from,
            });
        }
        // An old solicitation says nothing about where the client is now.
        if lease.network.is_some() && !lease.nonces.contains(&Some(nonce)) {
            lease.remember(nonce);
            match lease.mapped_at(now) {
                Some(mapped) if mapped == from => (),
                Some(mapped) => {
                    let is_flapping = !is_due(lease.moved, FLAPPING);
                    lease.moved = Some(now);
                    if !is_flapping {
                        events[1] = Some(Event::TunnelMoved {
                            client: id.clone(),
                            from: mapped,
                            to: from,
                        });
                    } else if is_due(lease.told_flapping, FLAPPING) {
                        lease.told_flapping = Some(now);
                        events[1] = Some(Event::TunnelFlapping {
                            client: id.clone(),
                            mapped: from,
                        });
                    }
                }
                None => {
                    events[1] = Some(Event::TunnelBound {
                        client: id.clone(),
                        mapped: from,
                    });
                }
            }
            lease.mapped = Some((from, now));
        }
        events.into_iter().flatten().for_each(|one| self.emit(one));
    }
}

/// The first half of an address: its /64.
fn half(address: &[u8; 16]) -> &[u8; 8] {
    let (halves, _) = address.as_chunks::<8>();
    &halves[0]
}
