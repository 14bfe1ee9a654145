//! The entry of one peer.

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    time::Instant,
};

use super::{
    history::{History, Patience, WINDOW},
    procedure::Procedure,
    queue::Queue,
    table::{List, NONE},
};
use crate::shared::party::Party;

/// The entry of one IPv6 address. `State` is the part that only one role needs.
#[derive(Debug)]
pub struct Peer<State> {
    /// The address, network byte order.
    pub address: [u8; 16],
    /// The peer's endpoint, or, while the peer is not trusted, its last or claimed one.
    pub mapped: Endpoint,
    /// [`Peer::mapped`] was proved by a cookie and is not the endpoint in the address.
    pub symmetric: bool,
    /// The network that the entry's place in its list is counted for.
    pub(super) party: Party,
    /// The place among the members of the list.
    pub(super) place: u32,
    pub(super) list: List,
    pub(super) next: u32,
    pub(super) previous: u32,
    /// When a packet last arrived.
    pub last_received: Instant,
    /// When a packet, not a bubble, was last sent.
    pub last_sent: Instant,
    /// When a packet next moves the peer to the front of its list.
    pub next_touch: Instant,
    /// The earliest deadline that holds; [`NO_TIMER`] if none does.
    pub(super) timer: Instant,
    /// Bubbles and waiting packets, while there are any to remember.
    pub pending: Option<Box<Pending>>,
    /// The part that only one role needs.
    pub state: State,
}

/// The deadline of a peer without any.
pub const NO_TIMER: Instant = Instant::from_nanos(u64::MAX);

/// The part of an entry that lasts only until the peer answers.
#[derive(Debug, Default)]
pub struct Pending {
    /// The bursts sent to the peer.
    pub history: History,
    /// The procedure under way.
    pub procedure: Option<Procedure>,
    /// The packets that wait.
    pub queue: Queue,
    /// Octets of bubbles that the packets so far have paid for (L-19).
    pub allowance: u16,
}

/// The part of an entry that only one role needs, and its bearing on the peer's life.
pub trait RoleState: Default {
    /// The treatment of peers that do not answer.
    const PATIENCE: Patience;

    /// Until when the entry of an untrusted peer is needed, its bubbles aside.
    fn needed_until(&self) -> Instant {
        Instant::ZERO
    }

    /// Whether a trusted peer may be asked for a sign of life: not if an earlier procedure is under
    /// way or, so far, in vain (P-12).
    fn may_refresh(peer: &Peer<Self>, now: Instant, lifetime: Duration) -> bool
    where
        Self: Sized;

    /// Whether a peer gives its place before all that are not.
    fn is_expendable(&self) -> bool {
        false
    }

    /// Whether a peer whose trust ends takes the place of the oldest untrusted one when there is no
    /// other, instead of being removed.
    fn displaces_untrusted(peer: &Peer<Self>) -> bool
    where
        Self: Sized;
}

impl<State: RoleState> Peer<State> {
    /// A peer that nothing was received from (P-02): never fresh, and never too recent for a
    /// bubble.
    pub(super) fn new(address: [u8; 16], mapped: Endpoint, party: Party) -> Self {
        Self {
            address,
            mapped,
            symmetric: false,
            party,
            place: 0,
            list: List::Free,
            next: NONE,
            previous: NONE,
            last_received: Instant::ZERO,
            last_sent: Instant::ZERO,
            next_touch: Instant::ZERO,
            timer: NO_TIMER,
            pending: None,
            state: State::default(),
        }
    }

    /// Whether the mapping is proved. Packets go there only while the peer is usable
    /// ([`super::Peers::is_usable`]).
    pub fn is_trusted(&self) -> bool {
        self.list == List::Trusted
    }

    /// Whether a procedure is under way.
    pub fn is_asked(&self) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.procedure.is_some())
    }

    /// Number of packets that wait.
    pub fn queued(&self) -> usize {
        let pending = self.pending.as_ref();
        pending.map_or(0, |pending| pending.queue.len())
    }

    /// When the last burst was sent; [`Instant::ZERO`] if none is remembered.
    pub fn last_burst(&self) -> Instant {
        let pending = self.pending.as_ref();
        pending.map_or(Instant::ZERO, |pending| pending.history.last())
    }

    /// Bubbles and waiting packets, created if there are none.
    pub fn pending_mut(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// Sets the proved mapping.
    pub fn set_mapped(&mut self, mapped: Endpoint) {
        self.mapped = mapped;
        self.symmetric = mapped != embedded_mapping(&self.address);
    }

    /// When the peer may be removed if it is untrusted and no procedure is under way: its bubbles no
    /// longer count, and the role does not need it.
    pub fn retirement(&self) -> Instant {
        let bubbles = self.last_received.max(self.last_burst()) + WINDOW;
        bubbles.max(self.state.needed_until())
    }
}
