//! The fast path of all roles. It is kept in step with the relay: it has every peer that the relay
//! trusts, and no other.

mod loopback;
mod plan;
mod trial;

use std::{collections::HashSet, mem, net::Ipv4Addr};

use anyhow::Result;
use ipnet::Ipv6Net;
use teredo_common::{
    address::Endpoint,
    maps::{Counter, Peer},
    time::Instant,
    verdict::Verdict,
};
use teredo_proto::{
    relay::{Event, Relay},
    server::Buckets,
};

use crate::{
    config::{Config, XdpMode},
    datapath::{
        route::Routes,
        xdp::{self, Attached, Error, Mode, Options},
    },
    metrics::{self, Attachment},
};
use loopback::Loopback;
use plan::Plan;
pub use plan::{Roles, flags};
pub use trial::load as try_to_load;

/// The fast path, if there is one.
#[derive(Default)]
pub struct FastPath {
    xdp: Option<xdp::FastPath>,
    attachments: Vec<Attachment>,
    /// Whether it gets the relay's peers.
    relays: bool,
    /// Entries that the map has room for.
    max_peers: usize,
    /// Trusted peers that the map had no room for, each time that one was refused.
    refused: u64,
    /// Where routes are looked up without a TUN interface.
    loopback: Option<Loopback>,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FastPath")
            .field("attachments", &self.attachments)
            .finish_non_exhaustive()
    }
}

impl FastPath {
    /// Starts what the configuration asks for.
    ///
    /// # Errors
    ///
    /// When it asks for what cannot be had. Mode "auto" asks for no more than there is, but its
    /// interfaces must exist and no other daemon may have them.
    pub async fn start(
        config: &Config,
        roles: Roles<'_>,
        routes: &Routes,
        own_ipv4: &[Ipv4Addr],
    ) -> Result<Self> {
        let Some(wanted) = config.fast_path() else {
            xdp::remove_leftovers(&config.node.name)?;
            return Ok(Self::default());
        };
        let plan = Plan::make(&wanted, &roles, routes).await?;
        if let Some(refusal) = plan.refusal {
            if wanted.mode != XdpMode::Auto {
                anyhow::bail!("there is no fast path, since {refusal}");
            }
            if plan.server.is_none() {
                return Ok(Self::off(plan.interfaces, refusal));
            }
            tracing::warn!("no fast path for the relay: {refusal}");
        }
        let served = roles.relay.map(|(relay, _)| relay.serve.clone());
        let options = Options {
            name: config.node.name.clone(),
            settings: plan.settings,
            served: served.unwrap_or_else(|| vec![Ipv6Net::default()]),
            own_ipv4: own_ipv4.to_vec(),
            server: plan.server,
            interfaces: plan.interfaces,
            mode: wanted.mode,
            max_peers: plan.max_peers,
            pin: wanted.pin,
            log: tracing::enabled!(target: "teredo::datapath::xdp", tracing::Level::TRACE),
        };
        let needs_loopback = options.server.is_some() && options.settings.tunnel == 0;
        match xdp::FastPath::start(&options) {
            Ok(xdp) => Ok(Self {
                loopback: needs_loopback.then(loopback).flatten(),
                attachments: xdp.interfaces().iter().map(describe).collect(),
                xdp: Some(xdp),
                relays: plan.relays,
                max_peers: plan.max_peers as usize,
                refused: 0,
            }),
            Err(error) if wanted.mode == XdpMode::Auto && is_bearable(&error) => {
                Ok(Self::off(options.interfaces, &error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn off(interfaces: Vec<String>, reason: &str) -> Self {
        tracing::warn!("no fast path: {reason}");
        let off = |interface| Attachment {
            interface,
            mode: metrics::Mode::Off,
            reason: reason.to_owned(),
        };
        Self {
            attachments: interfaces.into_iter().map(off).collect(),
            ..Self::default()
        }
    }

    /// Where and how the program is attached.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Frames by verdict; none without a program.
    pub fn counters(&self) -> Vec<(Verdict, Counter)> {
        let counters = self.xdp.as_ref().map(xdp::FastPath::counters);
        counters.and_then(Result::ok).unwrap_or_default()
    }

    /// Peers that were trusted while the map had no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether the program has the peer.
    pub fn has(&mut self, address: &[u8; 16]) -> bool {
        self.xdp
            .as_mut()
            .is_some_and(|xdp| matches!(xdp.program().peer(address), Ok(Some(_))))
    }

    /// The buckets of the server's limits, which the program takes from, too; the server's own
    /// without a program.
    pub fn buckets(&self) -> Result<Buckets> {
        let shared = self.xdp.as_ref().map(xdp::FastPath::limits).transpose()?;
        match shared.flatten() {
            Some(shared) => Ok(Buckets::shared(shared)?),
            None => Ok(Buckets::new()),
        }
    }

    /// Has the program answer no more solicitations, and from `end` on forward no more bubbles
    /// (S-27).
    pub fn drain(&mut self, end: Instant) -> Result<(), Error> {
        let xdp = self.xdp.as_mut();
        xdp.map_or(Ok(()), |xdp| xdp.set_draining(Some(end)))
    }

    /// Gives the relay the peers that an earlier run has left.
    pub fn hand_over(&mut self, relay: &mut Relay, now: Instant) -> Result<(), Error> {
        let Some(xdp) = &mut self.xdp else {
            return Ok(());
        };
        let (mut adopted, mut strangers) = (0, Vec::new());
        xdp.sweep(|address, peer| {
            if relay.adopt_peer(now, (*address).into(), peer) {
                adopted += 1;
            } else {
                strangers.push(*address);
            }
        })?;
        for address in &strangers {
            xdp.remove(address)?;
        }
        if adopted > 0 {
            tracing::info!(peers = adopted, "took over the peers of the last run");
        }
        Ok(())
    }

    /// Follows what the relay tells about a peer.
    pub fn follow(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::PeerTrusted {
                address,
                mapped,
                symmetric,
                last_received,
                last_sent,
            } => {
                let entry = entry(mapped, symmetric, last_received, last_sent);
                self.insert(&address.octets(), &entry)
            }
            Event::PeerForgotten { address } => match &mut self.xdp {
                Some(xdp) => xdp.remove(&address.octets()),
                None => Ok(()),
            },
        }
    }

    fn insert(&mut self, address: &[u8; 16], peer: &Peer) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        match xdp.insert(address, peer) {
            Err(Error::Full) => {
                if self.refused == 0 {
                    tracing::warn!(
                        "the fast path has no room for more peers, which go through userspace now: \
                         raise relay.max-peers"
                    );
                }
                self.refused += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// Brings stamps to the relay and makes good what has gone out of step. Call it once a second.
    pub fn sweep(&mut self, relay: &mut Relay) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        let (mut trusted, mut strangers) = (0, Vec::new());
        xdp.sweep(|address, peer| {
            if relay.record_stamps(address, peer.last_received, peer.last_sent) {
                trusted += 1;
            } else {
                strangers.push(*address);
            }
        })?;
        for address in &strangers {
            xdp.remove(address)?;
        }
        if trusted < relay.statistics().trusted_peers.min(self.max_peers) {
            self.insert_missing(relay)?;
        }
        Ok(())
    }

    fn insert_missing(&mut self, relay: &Relay) -> Result<(), Error> {
        let Some(xdp) = &mut self.xdp else {
            return Ok(());
        };
        let mut there = HashSet::new();
        xdp.sweep(|address, _| {
            there.insert(*address);
        })?;
        for peer in relay.peers().filter(|peer| peer.trusted) {
            let address = peer.address.octets();
            if !there.contains(&address) {
                let entry = entry(
                    peer.mapped,
                    peer.symmetric,
                    peer.last_received,
                    peer.last_sent,
                );
                self.insert(&address, &entry)?;
            }
        }
        Ok(())
    }

    /// Logs what the program has noted. Without a relay to sweep for, call it once a second.
    pub fn flush_log(&mut self) {
        if let Some(xdp) = &mut self.xdp {
            xdp.program().flush_log();
        }
    }

    /// Has the program ask the kernel for routes and neighbours again.
    pub fn forget_routes(&mut self) -> Result<(), Error> {
        self.xdp
            .as_mut()
            .map_or(Ok(()), xdp::FastPath::bump_generation)
    }

    /// Whether the program sends through this interface.
    pub fn uses(&self, interface: u32) -> bool {
        self.xdp.as_ref().is_some_and(|xdp| {
            xdp.interfaces()
                .iter()
                .any(|attached| attached.index == interface && attached.mode.is_some())
        })
    }

    /// Tells the program this host's IPv4 addresses.
    pub fn set_own_ipv4(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.xdp
            .as_mut()
            .map_or(Ok(()), |xdp| xdp.set_own_ipv4(addresses))
    }

    /// Detaches the program unless an earlier run had it attached.
    pub fn abandon(self) -> Result<(), Error> {
        match self.xdp {
            Some(xdp) if !xdp.adopted() => xdp.stop(),
            Some(_) => {
                // The program goes on.
                mem::forget(self.loopback);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Detaches the program.
    pub fn stop(self) -> Result<(), Error> {
        self.xdp.map_or(Ok(()), xdp::FastPath::stop)
    }
}

/// Has the program's look-ups start at the loopback interface.
fn loopback() -> Option<Loopback> {
    match Loopback::forwarding() {
        Ok(loopback) => Some(loopback),
        Err(error) => {
            tracing::warn!(
                "the fast path finds no way to other clients, so it forwards no bubbles: {error}"
            );
            None
        }
    }
}

/// What the map holds of a trusted peer.
fn entry(mapped: Endpoint, symmetric: bool, last_received: Instant, last_sent: Instant) -> Peer {
    let symmetric = if symmetric { Peer::SYMMETRIC } else { 0 };
    Peer {
        mapped,
        flags: Peer::TRUSTED | symmetric,
        last_received,
        last_sent,
    }
}

/// Whether userspace alone will do instead.
fn is_bearable(error: &Error) -> bool {
    !matches!(
        error,
        Error::NoInterface { .. } | Error::Permission { .. } | Error::Running { .. }
    )
}

fn describe(attached: &Attached) -> Attachment {
    Attachment {
        interface: attached.name.clone(),
        mode: match attached.mode {
            Some(Mode::Native) => metrics::Mode::Native,
            Some(Mode::Generic) => metrics::Mode::Generic,
            None => metrics::Mode::Off,
        },
        reason: attached.reason.clone().unwrap_or_default(),
    }
}
