//! The fast path of all roles, as the event loop sees it. Its map is kept in sync with the relay: it
//! holds every peer that the relay trusts, and no other.

mod capture;
mod copy;
mod input;
mod looks;
mod missing;
mod next_hops;
mod peers;
mod plan;
mod sweep;
mod traffic;
mod trial;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::Ipv4Addr,
};

use teredo_common::{
    maps::Counter, peers::Peer, time::Instant, traffic::Traffic, verdict::Verdict,
};
use teredo_proto::{relay::Relay, server::Buckets};

use crate::{
    condition::{Condition, Kind},
    config::Config,
    datapath::xdp::{
        self, AttachPolicy, AttachedProgram, Error, Interface, InterfaceStatus, Mode, Options,
        Remains, TagKeeper,
    },
    handover::descriptors::Named,
    host::Snapshot,
    metrics::{self, Attachment, Role},
    node::{clock, parameters},
    plan::{FastPathItem, Refusal},
};
use capture::Capturing;
pub use input::Input;
use missing::Missing;
use plan::ProgramPlan;
pub use plan::{Roles, flags};
pub use sweep::PAUSE as SWEEP_PAUSE;
use sweep::Sweep;
pub use trial::load as try_to_load;

/// The fast path of this node; the default is none.
#[derive(Default)]
pub struct FastPath {
    xdp: Option<AttachedProgram>,
    /// The number of the program in the kernel.
    program: Option<u32>,
    /// The plan that the program was loaded for.
    item: Option<FastPathItem>,
    attachments: Vec<Attachment>,
    /// Whether the program forwards for the relay, and so gets its peers.
    relays: bool,
    /// Most peers that the map holds.
    max_peers: usize,
    /// How often the map had no room for a trusted peer.
    refused: u64,
    /// The value of [`Self::refused`] at the sweep before the last.
    refused_before: u64,
    missing: Missing,
    sweep: Sweep,
    /// Changes of the map by the relay, and by sweeps.
    changes: u64,
    /// Whether a trusted peer was refused between the last two sweeps.
    is_full: bool,
    /// The moment from which the server forwards no bubbles, if it drains.
    draining: Option<Instant>,
    /// The frames that earlier programs of this process counted and the present one does not.
    counted: Vec<(Verdict, Counter)>,
    /// The frames of earlier programs that drivers dropped, by interface.
    dropped: BTreeMap<String, u64>,
    /// The reason why the program left native mode.
    obstacle: Option<String>,
    /// The reason why a map could not be used at the last attempt.
    failure: Option<String>,
    /// Calls of [`Self::collect_stations`].
    sweeps: u32,
    tags: TagKeeper,
    /// The interfaces whose VLAN tags are hidden from the program.
    hidden: BTreeSet<u32>,
    /// The parts of the program of an earlier process.
    remains: Remains,
    /// The number of that program.
    left: Option<u32>,
    /// The traffic that a program has counted which is gone.
    uncollected: Vec<([u8; 16], Traffic)>,
    /// The traffic of peers that the relay had forgotten when it was collected.
    strays: Vec<([u8; 16], Traffic)>,
    /// Whether descriptors outlive the process, so that nothing need be pinned.
    is_kept: bool,
    /// The capture at the program.
    capturing: Option<Capturing>,
    /// The number of the program that captures or was the last to do so.
    last_capturing: Option<u32>,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FastPath")
            .field("item", &self.item)
            .field("attachments", &self.attachments)
            .finish_non_exhaustive()
    }
}

/// The reason why the program does not run as planned.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The program is not loaded, or attached to no interface.
    #[error(transparent)]
    Off(#[from] Error),
    /// The program is not attached to one of the interfaces.
    #[error("the XDP program is not attached to {interface}: {reason}")]
    Partly {
        /// The interface.
        interface: String,
        /// The reason.
        reason: String,
    },
}

impl FastPath {
    /// Creates a fast path that takes the place of the program whose remains these are. If `is_kept`,
    /// descriptors outlive the process, and nothing is pinned.
    pub fn new(remains: Remains, is_kept: bool) -> Self {
        Self {
            left: remains.program(),
            remains,
            is_kept,
            ..Self::default()
        }
    }

    /// Detaches the program that an earlier process has left, and removes its pins.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] if another daemon of this name runs, or [`Error::Pin`].
    pub fn discard(&mut self, name: &str) -> Result<(), Error> {
        self.left = None;
        let mut remains = mem::take(&mut self.remains);
        let lock = remains.lock.take();
        remains.detach();
        xdp::remove_leftovers(name, lock)
    }

    /// Returns the descriptors that outlive the process.
    pub fn descriptors(&self) -> Vec<Named<'_>> {
        let xdp = self.xdp.as_ref();
        xdp.map_or_else(Vec::new, AttachedProgram::descriptors)
    }

    /// Loads and attaches the planned program, in place of that which runs, or which an earlier process has
    /// left. No frame misses both, and the map has the peers of `relay` from the beginning.
    ///
    /// # Errors
    ///
    /// When the program does not run as planned. Userspace does its work then.
    pub fn place(
        &mut self,
        config: &Config,
        item: &FastPathItem,
        host: &Snapshot,
        roles: &Roles<'_>,
        relay: Option<&Relay>,
    ) -> Result<(), PlaceError> {
        let Some(wanted) = config.fast_path() else {
            return Ok(());
        };
        let plan = ProgramPlan::of(item, host, roles);
        let options = Options {
            name: config.node.name.clone(),
            settings: plan.settings,
            budget: parameters::budget(config),
            served: plan.served,
            own_ipv4: host.own_addresses().ipv4,
            server: plan.server,
            interfaces: plan.interfaces,
            trunks: plan.trunks,
            vlans: plan.vlans,
            mode: wanted.mode,
            max_peers: plan.max_peers,
            accounting: plan.accounting,
            pin: wanted.pin && !self.is_kept,
        };
        for status in self.xdp.iter().flat_map(AttachedProgram::interfaces) {
            *self.dropped.entry(status.name.clone()).or_default() += status.dropped;
        }
        if let Some(Ok(left)) = self.xdp.as_mut().map(|xdp| xdp.program.take_left()) {
            self.uncollected.extend(left);
        }
        // The program stays attached until the new one takes its place.
        let (remains, before) = match self.xdp.take().map(AttachedProgram::dismantle) {
            Some((remains, program)) => (remains, Some(program)),
            None => (mem::take(&mut self.remains), None),
        };
        self.capturing = None;
        self.left = None;
        self.item = None;
        self.obstacle = None;
        let interfaces = options.interfaces.iter();
        let interfaces: Vec<_> = interfaces
            .filter_map(|name| Interface::named(name).ok())
            .collect();
        let kept = self.tags.keep(&interfaces);
        let now = clock::now();
        let peers = relay.into_iter().filter(|_| plan.relays);
        let peers = peers.flat_map(Relay::peers).filter(|peer| peer.proved);
        let peers = peers.map(|peer| {
            let entry = Peer {
                mapped: peer.mapped,
                last_received: peer.last_received,
                last_sent: peer.last_sent,
            };
            (peer.address.octets(), entry)
        });
        let started = kept.and_then(|()| AttachedProgram::resume(&options, remains, peers, now));
        if let Some(before) = &before
            && !options.pin
            && let Ok(counters) = before.counters()
        {
            // A pinned map goes on counting.
            add(&mut self.counted, &counters);
        }
        match started {
            Ok(mut xdp) => {
                self.attachments = xdp.interfaces().iter().map(attachment).collect();
                if let Some(end) = self.draining {
                    xdp.program.set_draining(Some(end))?;
                }
                self.program = xdp.program_number();
                xdp.program.keep_next_hops(clock::now());
                self.xdp = Some(xdp);
                self.relays = plan.relays;
                self.missing = Missing::default();
                self.sweep = Sweep::default();
                self.max_peers = plan.max_peers as usize;
                self.item = Some(item.clone());
                let seen = self.tagged();
                self.tags.begin(seen);
            }
            Err(error) => {
                let reason = error.to_string();
                let off = |interface| Attachment {
                    interface,
                    mode: metrics::Mode::Off,
                    reason: reason.clone(),
                    dropped: 0,
                };
                self.attachments = options.interfaces.into_iter().map(off).collect();
                if !matches!(error, Error::Running { .. }) {
                    // Nothing would keep the peers of a program that an earlier run has left.
                    remove_leftovers(&options.name);
                }
                return Err(PlaceError::Off(error));
            }
        }
        let off = self
            .attachments
            .iter()
            .find(|attachment| attachment.mode == metrics::Mode::Off);
        match off {
            Some(off) => Err(PlaceError::Partly {
                interface: off.interface.clone(),
                reason: off.reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Shows the reason why no program is wanted, while none is loaded.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if self.xdp.is_some() {
            return;
        }
        let interfaces = refusal.interfaces.iter();
        let attachments = interfaces.map(|interface| Attachment {
            interface: interface.clone(),
            mode: metrics::Mode::Off,
            reason: refusal.reason.clone(),
            dropped: 0,
        });
        self.attachments = attachments.collect();
    }

    /// Detaches the program, without which userspace does the work, and removes everything that an
    /// earlier run left.
    pub fn remove(&mut self, config: &Config) {
        self.detach();
        self.attachments.clear();
        remove_leftovers(&config.node.name);
    }

    fn detach(&mut self) {
        self.capturing = None;
        self.item = None;
        self.relays = false;
        self.sweep = Sweep::default();
        let Some(xdp) = self.xdp.take() else {
            return;
        };
        if let Ok(counters) = xdp.program.counters() {
            add(&mut self.counted, &counters);
        }
        let before = xdp.program.copy_of_peer_map();
        for status in xdp.interfaces() {
            *self.dropped.entry(status.name.clone()).or_default() += status.dropped;
        }
        if let Err(error) = xdp.stop() {
            tracing::warn!("{error}");
        }
        self.collect_last(before.as_ref());
    }

    /// Makes the program be placed again: another process may have put its own in the place of ours.
    pub fn doubt(&mut self) {
        self.item = None;
    }

    /// Returns the plan that the program was loaded for.
    pub fn item(&self) -> Option<&FastPathItem> {
        self.item.as_ref()
    }

    /// Returns the number of the program in the kernel.
    pub fn program(&self) -> Option<u32> {
        let own = self.xdp.as_ref().and(self.program);
        own.or(self.left)
    }

    /// Returns how the program is attached to each interface.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Shows the names that the interfaces have now.
    pub fn set_names(&mut self, host: &Snapshot) {
        let Some(xdp) = &self.xdp else {
            return;
        };
        for (attachment, status) in self.attachments.iter_mut().zip(xdp.interfaces()) {
            if let Some(link) = host.link_numbered(status.index) {
                attachment.interface.clone_from(&link.name);
            }
        }
    }

    /// Returns the frames by verdict; empty without a program.
    pub fn counters(&self) -> Vec<(Verdict, Counter)> {
        let mut sum = self.counted.clone();
        if let Some(Ok(counters)) = self.xdp.as_ref().map(|xdp| xdp.program.counters()) {
            add(&mut sum, &counters);
        }
        sum
    }

    /// Returns the frames that the program sent natively and that a driver dropped, by interface.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        let mut dropped = self.dropped.clone();
        for status in self.xdp.iter().flat_map(AttachedProgram::interfaces) {
            *dropped.entry(status.name.clone()).or_default() += status.dropped;
        }
        dropped
    }

    /// Returns the token buckets of the server's rate limits: those shared with the program, or new
    /// ones without a program.
    pub fn buckets(&self) -> Buckets {
        let shared = self.xdp.as_ref().map(|xdp| xdp.program.limits());
        let shared = shared.and_then(Result::ok).flatten();
        let shared = shared.and_then(|shared| Buckets::shared(shared).ok());
        shared.unwrap_or_default()
    }

    /// Makes the program answer no more solicitations and, from `end` on, forward no more bubbles
    /// (S-27); nothing without an end.
    pub fn set_drain_end(&mut self, end: Option<Instant>) {
        if end == self.draining {
            return;
        }
        self.draining = end;
        let result = self.attached(|xdp| xdp.program.set_draining(end));
        self.note(result);
    }

    /// Makes the program recognise the relay's cookies (L-20).
    fn set_cookies(&mut self, relay: &Relay) {
        let (key, skipped) = relay.cookies();
        let result = self.attached(|xdp| xdp.program.set_cookies(key, skipped));
        self.note(result);
    }

    /// Does something with the program, if there is one.
    fn attached(
        &mut self,
        work: impl FnOnce(&mut AttachedProgram) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.xdp.as_mut().map_or(Ok(()), work)
    }

    /// Keeps the reason why a map cannot be used, as a condition.
    fn note(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.failure = Some(error.to_string());
        }
    }

    /// Returns the conditions besides that of a program which is not attached.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let mut add = |kind, subject: &str, text: String| {
            conditions.push(Condition {
                kind,
                role: if self.relays {
                    Role::Relay
                } else {
                    Role::Server
                },
                subject: subject.to_owned(),
                text,
            });
        };
        if self.is_full {
            let text = "the map of the fast path has no room for more peers, whose packets go through \
                        userspace: raise relay.max-peers";
            add(Kind::MapFull, "peers", text.to_owned());
        }
        if self
            .xdp
            .as_ref()
            .is_some_and(|xdp| !xdp.program.knows_own_ipv4())
        {
            let text = "the map of the fast path has no room for this host's IPv4 addresses, so that all \
                        packets go through userspace until the program is loaded again: restart the daemon";
            add(Kind::MapFull, "addresses", text.to_owned());
        }
        if let Some(obstacle) = &self.obstacle {
            add(
                Kind::FastPathDrops,
                "",
                format!("the fast path has left native mode: {obstacle}; restart the daemon then"),
            );
        }
        if let Some(failure) = &self.failure {
            add(Kind::Resources, "maps", failure.clone());
        }
        conditions
    }

    /// Sets this host's IPv4 addresses in the program.
    pub fn set_own_ipv4(&mut self, addresses: &[Ipv4Addr]) {
        let result = self.attached(|xdp| xdp.program.set_own_ipv4(addresses));
        self.note(result);
    }

    /// Undoes a start that has failed: detaches the program unless an earlier run had attached it.
    pub fn abandon(mut self) -> Result<(), Error> {
        self.tags.restore();
        match self.xdp {
            Some(xdp) if !xdp.adopted() && !self.is_kept => xdp.stop(),
            // The program stays attached.
            Some(_) | None => Ok(()),
        }
    }

    /// Detaches the program.
    pub fn stop(mut self) -> Result<(), Error> {
        self.tags.restore();
        self.xdp.map_or(Ok(()), AttachedProgram::stop)
    }
}

/// Removes the pins that a daemon of this name left, and detaches its program.
fn remove_leftovers(name: &str) {
    if let Err(error) = xdp::remove_leftovers(name, None) {
        tracing::debug!("{error}");
    }
}

/// Adds counters to those of the same verdicts.
fn add(sum: &mut Vec<(Verdict, Counter)>, counters: &[(Verdict, Counter)]) {
    if sum.is_empty() {
        sum.extend_from_slice(counters);
        return;
    }
    for ((_, sum), (_, counter)) in sum.iter_mut().zip(counters) {
        sum.packets += counter.packets;
        sum.bytes += counter.bytes;
    }
}

impl PlaceError {
    /// Returns whether a daemon that has this trouble at its start does not start.
    pub fn is_fatal(&self, mode: AttachPolicy) -> bool {
        match self {
            Self::Off(Error::Permission { .. } | Error::Running { .. }) => true,
            // The interface has gone since it was looked at, or the next attempt may succeed.
            Self::Off(Error::NoInterface { .. } | Error::Interrupted) => false,
            _ => mode != AttachPolicy::Auto,
        }
    }
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
        dropped: status.dropped,
    }
}
