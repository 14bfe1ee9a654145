//! The fast path of all roles, as the event loop sees it. Its map is kept in sync with the relay: it
//! holds every peer that the relay trusts, and no other.

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
    config::Config,
    datapath::{
        route::Routes,
        xdp::{self, AttachPolicy, AttachedProgram, Error, InterfaceStatus, Mode, Options},
    },
    metrics::{self, Attachment},
};
use loopback::Loopback;
use plan::ProgramPlan;
pub use plan::{Roles, flags};
pub use trial::load as try_to_load;

/// The fast path of this node; the default is none.
#[derive(Default)]
pub struct FastPath {
    xdp: Option<AttachedProgram>,
    attachments: Vec<Attachment>,
    /// Whether the program forwards for the relay, and so gets its peers.
    relays: bool,
    /// Most peers that the map holds.
    max_peers: usize,
    /// How often the map had no room for a trusted peer.
    refused: u64,
    /// Keeps the interface forwarding at which route look-ups start without a TUN interface.
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
    /// Starts the fast path that the configuration asks for.
    ///
    /// # Errors
    ///
    /// If the requested mode is unavailable. Mode "auto" falls back to userspace instead, but its
    /// interfaces must exist and no other daemon may use them.
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
        let plan = ProgramPlan::make(&wanted, &roles, routes).await?;
        if let Some(refusal) = plan.refusal {
            if wanted.mode != AttachPolicy::Auto {
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
        match AttachedProgram::start(&options) {
            Ok(xdp) => Ok(Self {
                loopback: needs_loopback.then(loopback).flatten(),
                attachments: xdp.interfaces().iter().map(attachment).collect(),
                xdp: Some(xdp),
                relays: plan.relays,
                max_peers: plan.max_peers as usize,
                refused: 0,
            }),
            Err(error) if wanted.mode == AttachPolicy::Auto && allows_fallback(&error) => {
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

    /// Returns how the program is attached to each interface.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Returns the frames by verdict; empty without a program.
    pub fn counters(&self) -> Vec<(Verdict, Counter)> {
        let counters = self.xdp.as_ref().map(|xdp| xdp.program.counters());
        counters.and_then(Result::ok).unwrap_or_default()
    }

    /// Returns how often the map had no room for a trusted peer.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns whether the map holds the peer.
    pub fn has(&mut self, address: &[u8; 16]) -> bool {
        self.xdp
            .as_mut()
            .is_some_and(|xdp| matches!(xdp.program.peer(address), Ok(Some(_))))
    }

    /// Returns the token buckets of the server's rate limits: those shared with the program, or new
    /// ones without a program.
    pub fn buckets(&self) -> Result<Buckets> {
        let shared = self
            .xdp
            .as_ref()
            .map(|xdp| xdp.program.limits())
            .transpose()?;
        match shared.flatten() {
            Some(shared) => Ok(Buckets::shared(shared)?),
            None => Ok(Buckets::new()),
        }
    }

    /// Makes the program answer no more solicitations and, from `end` on, forward no more bubbles
    /// (S-27).
    pub fn drain(&mut self, end: Instant) -> Result<(), Error> {
        let xdp = self.xdp.as_mut();
        xdp.map_or(Ok(()), |xdp| xdp.program.set_draining(Some(end)))
    }

    /// Hands the peers that an earlier run left in the map to the relay.
    pub fn hand_over(&mut self, relay: &mut Relay, now: Instant) -> Result<(), Error> {
        let Some(xdp) = &mut self.xdp else {
            return Ok(());
        };
        let (mut adopted, mut unknown) = (0, Vec::new());
        xdp.program.for_each_peer(|address, peer| {
            if relay.adopt_peer(now, (*address).into(), peer) {
                adopted += 1;
            } else {
                unknown.push(*address);
            }
        })?;
        for address in &unknown {
            xdp.program.remove(address)?;
        }
        if adopted > 0 {
            tracing::info!(peers = adopted, "took over the peers of the last run");
        }
        Ok(())
    }

    /// Applies an event of the relay to the map.
    pub fn apply(&mut self, event: Event) -> Result<(), Error> {
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
                Some(xdp) => xdp.program.remove(&address.octets()),
                None => Ok(()),
            },
        }
    }

    fn insert(&mut self, address: &[u8; 16], peer: &Peer) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        match xdp.program.insert(address, peer) {
            Err(Error::Full) => {
                if self.refused == 0 {
                    tracing::warn!(
                        "the fast path has no room for more peers, whose packets go through userspace \
                         now: raise relay.max-peers"
                    );
                }
                self.refused += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// Attaches the program in generic mode if frames are lost in native mode. Call it once a second.
    pub fn examine_drops(&mut self) {
        let Some(xdp) = &mut self.xdp else {
            return;
        };
        match xdp.examine_drops() {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.attachments = xdp.interfaces().iter().map(attachment).collect();
            }
            Err(error) => tracing::debug!("cannot tell whether frames arrive: {error}"),
        }
    }

    /// Copies timestamps to the relay and reconciles the map with it. Call it once a second.
    pub fn sweep(&mut self, relay: &mut Relay) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        xdp.program.flush_log();
        let (mut trusted, mut unknown) = (0, Vec::new());
        xdp.program.for_each_peer(|address, peer| {
            if relay.record_stamps(address, peer.last_received, peer.last_sent) {
                trusted += 1;
            } else {
                unknown.push(*address);
            }
        })?;
        for address in &unknown {
            xdp.program.remove(address)?;
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
        let mut present = HashSet::new();
        xdp.program.for_each_peer(|address, _| {
            present.insert(*address);
        })?;
        for peer in relay.peers().filter(|peer| peer.trusted) {
            let address = peer.address.octets();
            if !present.contains(&address) {
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

    /// Logs the records of the program. Without a relay, call it once a second.
    pub fn flush_log(&mut self) {
        if let Some(xdp) = &mut self.xdp {
            xdp.program.flush_log();
        }
    }

    /// Makes the program ask the kernel for routes and neighbours again.
    pub fn invalidate_routes(&mut self) -> Result<(), Error> {
        self.xdp
            .as_mut()
            .map_or(Ok(()), AttachedProgram::invalidate_routes)
    }

    /// Returns whether the program sends through this interface.
    pub fn uses(&self, interface: u32) -> bool {
        self.xdp.as_ref().is_some_and(|xdp| {
            xdp.interfaces()
                .iter()
                .any(|attached| attached.index == interface && attached.mode.is_some())
        })
    }

    /// Sets this host's IPv4 addresses in the program.
    pub fn set_own_ipv4(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.xdp
            .as_mut()
            .map_or(Ok(()), |xdp| xdp.program.set_own_ipv4(addresses))
    }

    /// Undoes [`Self::start`]: detaches the program unless an earlier run had attached it.
    pub fn abandon(self) -> Result<(), Error> {
        match self.xdp {
            Some(xdp) if !xdp.adopted() => xdp.stop(),
            Some(_) => {
                // The program stays attached.
                mem::forget(self.loopback);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Detaches the program.
    pub fn stop(self) -> Result<(), Error> {
        self.xdp.map_or(Ok(()), AttachedProgram::stop)
    }
}

/// Prepares the loopback interface as the start of the program's route look-ups.
fn loopback() -> Option<Loopback> {
    match Loopback::forwarding() {
        Ok(loopback) => Some(loopback),
        Err(error) => {
            tracing::warn!(
                "the fast path cannot look up routes to other clients, so it forwards no bubbles: {error}"
            );
            None
        }
    }
}

/// Returns the map entry of a trusted peer.
fn entry(mapped: Endpoint, symmetric: bool, last_received: Instant, last_sent: Instant) -> Peer {
    let symmetric = if symmetric { Peer::SYMMETRIC } else { 0 };
    Peer {
        mapped,
        flags: Peer::TRUSTED | symmetric,
        last_received,
        last_sent,
    }
}

/// Returns whether mode "auto" falls back to userspace after this error.
fn allows_fallback(error: &Error) -> bool {
    !matches!(
        error,
        Error::NoInterface { .. } | Error::Permission { .. } | Error::Running { .. }
    )
}

fn attachment(status: &InterfaceStatus) -> Attachment {
    Attachment {
        interface: status.name.clone(),
        mode: match status.mode {
            Some(Mode::Native) => metrics::Mode::Native,
            Some(Mode::Generic) => metrics::Mode::Generic,
            None => metrics::Mode::Off,
        },
        reason: status.reason.clone().unwrap_or_default(),
    }
}
