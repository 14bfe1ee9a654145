//! A machine with a Teredo relay: a router, or a host that relays for itself.

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    fleet::{self, Clocks, Fleet, Keys},
    relay::{Config, Event, Relay, Transmit},
    wire::ipv6::{self, Header},
};

use super::{
    Output,
    fast_path::{Fast, FastPath},
};
use crate::stack::Stack;

/// A machine with a Teredo relay.
#[derive(Debug)]
pub struct RelayNode {
    /// The relay.
    pub relay: Relay,
    /// The relay's configuration.
    pub config: Config,
    /// The relay's endpoint.
    pub endpoint: Endpoint,
    /// The machine's IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The machine's own applications; a router has none.
    stack: Option<Stack>,
    /// Peers that the fast path may serve, by the events so far.
    pub fast: BTreeSet<Ipv6Addr>,
    /// The fast path, if the relay has one.
    pub fast_path: Option<FastPath>,
    /// The relay's part in a fleet, if it has one.
    pub membership: Option<Membership>,
    /// Time by which the machine's clock is behind the world's after suspensions.
    behind: Duration,
}

/// A relay's part in a fleet.
#[derive(Debug)]
pub struct Membership {
    /// The machine of the fleet's protocol.
    pub fleet: Fleet,
    /// Its configuration.
    pub config: fleet::Config,
    /// The keys.
    pub keys: Keys,
    /// Milliseconds by which the machine's wall clock is ahead.
    pub ahead: i64,
}

/// Time since 1970 at the start of the world's clock.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

impl Membership {
    /// The clocks of a machine whose monotonic clock shows `clock`, at `now`.
    fn clocks(ahead: i64, now: Instant, clock: Instant) -> Clocks {
        let ahead = Duration::from_secs(10).as_millis() as i64 + ahead;
        let ahead = Duration::from_millis(u64::try_from(ahead).unwrap_or(0));
        let wall = EPOCH + Duration::from_nanos(now.as_nanos()) + ahead;
        Clocks { now: clock, wall }
    }
}

impl RelayNode {
    /// Makes a relay at `config.endpoint`, with a fast path or without, whose errors come from `ipv6`.
    #[must_use]
    pub fn new(mut config: Config, ipv6: Ipv6Addr, seed: [u8; 32], is_fast: bool) -> Self {
        config.own_ipv6 = vec![ipv6];
        Self {
            relay: Relay::new(config.clone(), seed),
            endpoint: config.endpoint,
            ipv6,
            stack: config.host_specific.then(Stack::new),
            fast: BTreeSet::new(),
            fast_path: is_fast.then(|| FastPath::new(&config, ipv6)),
            membership: None,
            behind: Duration::ZERO,
            config,
        }
    }

    /// Resumes after a suspension for this time, during which the machine's clock stood still.
    pub(crate) fn resume(&mut self, now: Instant, duration: Duration, output: &mut Vec<Output>) {
        self.behind += duration;
        self.relay.handle_suspension(duration);
        self.drain(now - self.behind, output);
    }

    /// Starts anew, without memory.
    pub(crate) fn restart(&mut self, now: Instant, seed: [u8; 32]) {
        let is_fast = self.fast_path.is_some();
        let membership = self.membership.take();
        let behind = self.behind;
        *self = Self::new(self.config.clone(), self.ipv6, seed, is_fast);
        if let Some(Membership {
            config,
            keys,
            ahead,
            ..
        }) = membership
        {
            self.behind = behind;
            self.join(now, config, keys, ahead, seed);
        }
    }

    /// Becomes one of a fleet.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        config: fleet::Config,
        keys: Keys,
        ahead: i64,
        seed: [u8; 32],
    ) {
        let clocks = Membership::clocks(ahead, now, now - self.behind);
        let fleet = Fleet::new(config.clone(), keys.clone(), seed, clocks);
        fleet.enlist(clocks, &mut self.relay);
        self.membership = Some(Membership {
            fleet,
            config,
            keys,
            ahead,
        });
    }

    /// Lets the machine's monotonic clock begin later than those of others.
    pub(crate) fn start_late(&mut self, duration: Duration) {
        self.behind += duration;
    }

    /// Whether the relay may draw packets.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let membership = self.membership.as_ref();
        membership.is_none_or(|membership| membership.fleet.has_joined())
    }

    /// Handles a datagram of another relay of the fleet.
    pub(crate) fn handle_fleet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        payload: &[u8],
        output: &mut Vec<Output>,
    ) {
        let clock = now - self.behind;
        if let Some(membership) = &mut self.membership {
            let clocks = Membership::clocks(membership.ahead, now, clock);
            (membership.fleet).handle_datagram(clocks, from, payload, &mut self.relay);
        }
        self.drain(clock, output);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let sweep = self.fast_path.as_ref().and_then(FastPath::poll_timeout);
        let fleet = self.membership.as_ref();
        let fleet = fleet.map(|membership| membership.fleet.poll_timeout());
        let relay = self.relay.poll_timeout();
        let next = relay.into_iter().chain(sweep).chain(fleet).min()?;
        Some(next + self.behind)
    }

    pub(super) fn stack(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        mut payload: Vec<u8>,
        output: &mut Vec<Output>,
    ) {
        if to != self.endpoint {
            return;
        }
        let clock = now - self.behind;
        if let Some(fast_path) = &mut self.fast_path {
            match fast_path.receive(clock, from, to, &payload) {
                Fast::Sent(packet) => return output.push(Output::Ipv6(packet)),
                Fast::Dropped => return,
                Fast::Passed => {}
            }
        }
        let packet = self.relay.handle_datagram(clock, from, 0, &mut payload);
        let packet = packet.map(|packet| packet.to_vec());
        self.drain(clock, output);
        let Some(mut packet) = packet else { return };
        if self.stack.is_some() {
            self.deliver(now, &packet, output);
        } else if Header::parse(&packet).is_ok_and(|header| header.hop_limit() > 1) {
            ipv6::decrement_hop_limit(&mut packet);
            output.push(Output::Ipv6(packet));
        }
    }

    /// Handles a packet from native IPv6 as a router does, unless the relay serves itself alone.
    pub(super) fn handle_ipv6(
        &mut self,
        now: Instant,
        mut packet: Vec<u8>,
        output: &mut Vec<Output>,
    ) {
        if let Some(fast_path) = &mut self.fast_path {
            match fast_path.route(now - self.behind, &packet) {
                Fast::Sent((to, payload)) => {
                    let from = self.endpoint;
                    return output.push(Output::Datagram { from, to, payload });
                }
                Fast::Dropped => return,
                Fast::Passed => {}
            }
        }
        let Ok(header) = Header::parse(&packet) else {
            return;
        };
        if header.destination() == self.ipv6.octets() {
            self.deliver(now, &packet, output);
        } else if self.stack.is_none() && header.hop_limit() > 1 {
            ipv6::decrement_hop_limit(&mut packet);
            self.send(now, packet, output);
        }
    }

    /// Handles a packet for the machine itself.
    fn deliver(&mut self, now: Instant, packet: &[u8], output: &mut Vec<Output>) {
        let Some(stack) = &mut self.stack else { return };
        if let Some(answer) = stack.handle(now, self.ipv6, packet) {
            self.send(now, answer, output);
        }
    }

    /// Handles a packet for the tunnel.
    pub(crate) fn send(&mut self, now: Instant, mut packet: Vec<u8>, output: &mut Vec<Output>) {
        let clock = now - self.behind;
        let sent = self.relay.handle_ipv6(clock, &mut packet);
        output.extend(sent.map(|(to, payload)| Output::Datagram {
            from: self.endpoint,
            to,
            payload: payload.to_vec(),
        }));
        self.drain(clock, output);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, output: &mut Vec<Output>) {
        let clock = now - self.behind;
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.handle_timeout(clock, &mut self.relay);
        }
        self.relay.handle_timeout(clock);
        if let Some(membership) = &mut self.membership {
            let clocks = Membership::clocks(membership.ahead, now, clock);
            membership.fleet.handle_timeout(clocks, &mut self.relay);
        }
        self.drain(clock, output);
    }

    fn drain(&mut self, clock: Instant, output: &mut Vec<Output>) {
        if let Some(membership) = &mut self.membership {
            let now = clock + self.behind;
            let clocks = Membership::clocks(membership.ahead, now, clock);
            membership.fleet.flush(clocks, &mut self.relay);
            let transmits = std::iter::from_fn(|| membership.fleet.poll_transmit());
            output.extend(transmits.map(Output::Fleet));
        }
        while let Some(transmit) = self.relay.poll_transmit() {
            output.extend(match transmit {
                Transmit::Datagram { to, payload } => Some(Output::Datagram {
                    from: self.endpoint,
                    to,
                    payload,
                }),
                Transmit::Ipv6(packet) => Some(Output::Ipv6(packet)),
                Transmit::OwnServer { .. } => None,
            });
        }
        while let Some(event) = self.relay.poll_event() {
            if let Some(fast_path) = &mut self.fast_path {
                fast_path.apply(clock, &event);
            }
            match event {
                Event::PeerTrusted { address, .. } => self.fast.insert(address),
                Event::PeerForgotten { address } => self.fast.remove(&address),
            };
        }
    }
}
