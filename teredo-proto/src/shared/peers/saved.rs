//! Peers as they outlive the process.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use teredo_common::{address::Endpoint, time::Instant, traffic::Traffic};

use super::{
    accounts::Account,
    history::History,
    peer::{NO_TIMER, Peer, Pending, RoleState},
    procedure::Procedure,
    queue::{Budget, Queue},
    table::{PeerIndex, Peers},
};
use crate::shared::party::Party;

/// The entry of one peer. `State` is the part that only one role needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPeer<State> {
    /// The address, network byte order.
    pub address: [u8; 16],
    /// The peer's endpoint, or, while the peer is not trusted, its last or claimed one.
    pub mapped: Endpoint,
    /// Whether packets are sent to [`SavedPeer::mapped`].
    pub trusted: bool,
    symmetric: bool,
    party: Party,
    last_received: Instant,
    last_sent: Instant,
    #[serde(default)]
    traffic: Traffic,
    /// The part of it that was reported.
    #[serde(default)]
    reported: Traffic,
    next_touch: Instant,
    timer: Option<Instant>,
    pending: Option<SavedPending>,
    /// The part that only one role needs.
    pub state: State,
}

/// The part of an entry that lasts only until the peer answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SavedPending {
    history: History,
    procedure: Option<Procedure>,
    queue: SavedQueue,
    allowance: u16,
}

/// Packets that wait, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedQueue(Vec<ByteBuf>);

impl SavedQueue {
    /// Copies a queue.
    pub fn of(queue: &Queue) -> Self {
        Self(queue.packets().map(ByteBuf::from).collect())
    }

    /// Returns the queue, without the packets for which there is no room any more.
    pub fn restore(&self, budget: &mut Budget) -> Queue {
        let mut queue = Queue::default();
        for packet in &self.0 {
            // The bounds of the new process may be lower.
            let _ = budget.push(Instant::ZERO, &mut queue, packet);
        }
        queue
    }
}

impl<State: RoleState> Peers<State> {
    /// Returns all peers as they can be stored, in the order in which [`Peers::restore`] takes them.
    pub fn save<Saved>(&self, state: impl Fn(&State) -> Saved) -> Vec<SavedPeer<Saved>> {
        let peers = self.oldest_first();
        peers
            .map(|(index, peer)| SavedPeer::of(peer, self.accounts.saved(index.slot()), &state))
            .collect()
    }

    /// Returns one peer as it can be stored.
    pub fn save_one<Saved>(
        &self,
        index: PeerIndex,
        state: impl Fn(&State) -> Saved,
    ) -> SavedPeer<Saved> {
        SavedPeer::of(&self[index], self.accounts.saved(index.slot()), &state)
    }

    /// Inserts a peer that was stored, unless it is there already or there is no room.
    pub fn restore<Saved>(
        &mut self,
        now: Instant,
        saved: SavedPeer<Saved>,
        queues: &mut Budget,
        state: impl FnOnce(Saved) -> State,
    ) -> Option<PeerIndex> {
        let has_room = !(self.is_untrusted_full() || saved.trusted && self.is_trusted_full());
        if !has_room || self.find(&saved.address).is_some() {
            return None;
        }
        let index = self.insert(saved.address, saved.mapped, saved.party);
        if saved.trusted {
            self.trust(index);
        }
        *self.accounts.get_mut(index.slot()) = Account {
            total: saved.traffic,
            reported: saved.reported,
        };
        let peer = &mut self[index];
        peer.symmetric = saved.symmetric;
        peer.last_received = saved.last_received.min(now);
        peer.last_sent = saved.last_sent.min(now);
        peer.next_touch = saved.next_touch;
        peer.state = state(saved.state);
        let mut timer = saved.timer;
        if let Some(pending) = saved.pending {
            let mut procedure = pending.procedure;
            if procedure.as_mut().is_some_and(|one| one.forget_turn(now)) {
                // It waits for another one.
                timer = Some(now);
            }
            peer.pending = Some(Box::new(Pending {
                history: pending.history,
                procedure,
                queue: pending.queue.restore(queues),
                allowance: pending.allowance,
            }));
        }
        if let Some(timer) = timer {
            self.arm(index, timer);
        }
        match saved.trusted {
            true => self.arm_trusted(now, index),
            false if self[index].is_asked() => self.arm(index, now),
            false => self.arm_removal(index),
        }
        Some(index)
    }
}

impl<Saved> SavedPeer<Saved> {
    fn of<State: RoleState>(
        peer: &Peer<State>,
        account: Account,
        state: impl Fn(&State) -> Saved,
    ) -> Self {
        Self {
            address: peer.address,
            mapped: peer.mapped,
            trusted: peer.is_trusted(),
            symmetric: peer.symmetric,
            party: peer.party,
            last_received: peer.last_received,
            last_sent: peer.last_sent,
            traffic: account.total,
            reported: account.reported,
            next_touch: peer.next_touch,
            timer: (peer.timer != NO_TIMER).then_some(peer.timer),
            pending: peer.pending.as_deref().map(|pending| SavedPending {
                history: pending.history,
                procedure: pending.procedure,
                queue: SavedQueue::of(&pending.queue),
                allowance: pending.allowance,
            }),
            state: state(&peer.state),
        }
    }
}
