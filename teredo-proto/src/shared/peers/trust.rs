//! The life of a trusted peer: packets keep it fresh, silence ends it (P-03, P-12).

use std::time::Duration;

use teredo_common::time::Instant;

use super::{
    peer::RoleState,
    table::{PeerIndex, Peers},
};

/// The time after which a packet moves a busy peer to the front of its list again.
const TOUCH_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that was sent something within this time is still sent to (P-12).
const STILL_SENDING: Duration = Duration::from_secs(5);

/// Deadlines that tolerate delay are rounded up to a multiple of this (2^28 ns, a quarter of a
/// second), so that many peers do not wake the daemon one by one.
const COARSE: u64 = 1 << 28;

/// The times that end trust.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Silence after which a trusted peer has to prove itself again (P-03).
    pub lifetime: Duration,
    /// Silence after which a peer that is still sent to is asked for a sign of life (P-12).
    pub refresh_after: Duration,
    /// The time by which the news of a packet may come late. A timer alone does not end trust
    /// before [`Timing::lifetime`] and this; a packet does.
    pub grace: Duration,
}

/// The action that is due when a peer's deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// None: the next deadline is set.
    Nothing,
    /// Trust ends. Another chore may be due after that.
    Distrust,
    /// The next step of the procedure under way.
    Step,
    /// A procedure that asks for a sign of life.
    Refresh,
    /// The entry goes.
    Remove,
}

/// The actions that are due when a packet is sent to a usable peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendChores {
    /// A procedure that asks for a sign of life.
    pub refresh: bool,
    /// [`Peers::touch_busy`].
    pub touch: bool,
}

impl<State: RoleState> Peers<State> {
    /// Whether packets may be sent to the mapping of a peer (P-03).
    pub fn is_usable(&self, now: Instant, index: PeerIndex) -> bool {
        let peer = &self[index];
        peer.is_trusted() && now.saturating_since(peer.last_received) < self.timing.lifetime
    }

    /// Records that a packet, not a bubble, goes to a usable peer.
    pub fn note_sent(&mut self, now: Instant, index: PeerIndex) -> SendChores {
        let timing = self.timing;
        let peer = &mut self[index];
        peer.last_sent = now;
        let silence = now.saturating_since(peer.last_received);
        SendChores {
            refresh: silence >= timing.refresh_after
                && State::may_refresh(peer, now, timing.lifetime),
            touch: now >= peer.next_touch,
        }
    }

    /// Moves a busy peer to the front of its list, which is due once a second.
    pub fn touch_busy(&mut self, now: Instant, index: PeerIndex) {
        self.put_off_touch(now, index);
        self.touch(index);
    }

    /// Lets a peer stay at its place in the list for a second.
    pub fn put_off_touch(&mut self, now: Instant, index: PeerIndex) {
        self[index].next_touch = now + TOUCH_INTERVAL;
    }

    /// Whether a packet of the peer arrived within the last second.
    pub fn is_busy(&self, now: Instant, index: PeerIndex) -> bool {
        now.saturating_since(self[index].last_received) < TOUCH_INTERVAL
    }

    /// Decides what is due for a peer whose deadline has come, and sets the next deadline if
    /// nothing is. `needs_refresh` is called for a silent peer that is not sent to, and returns
    /// whether to ask it for a sign of life all the same.
    pub fn next_chore(
        &mut self,
        now: Instant,
        index: PeerIndex,
        needs_refresh: impl FnOnce(&mut State) -> bool,
    ) -> Chore {
        let (timing, is_full) = (self.timing, self.is_untrusted_full());
        let peer = &mut self[index];
        let silence = now.saturating_since(peer.last_received);
        if peer.is_trusted() && silence >= timing.lifetime + timing.grace {
            return match is_full && !State::displaces_untrusted(peer) {
                true => Chore::Remove,
                false => Chore::Distrust,
            };
        }
        if peer.is_asked() {
            return Chore::Step;
        }
        if !peer.is_trusted() {
            if now >= peer.retirement() {
                return Chore::Remove;
            }
            self.arm_removal(index);
            return Chore::Nothing;
        }
        let is_sending = now.saturating_since(peer.last_sent) < STILL_SENDING
            || peer.last_sent >= peer.last_received + timing.refresh_after;
        if silence >= timing.refresh_after
            && (is_sending || needs_refresh(&mut peer.state))
            && State::may_refresh(peer, now, timing.lifetime)
        {
            return Chore::Refresh;
        }
        self.arm_trusted(now, index);
        Chore::Nothing
    }

    /// Takes trust away: the peer stays as a hint and for the memory of its bubbles, as the first
    /// of the untrusted to go. Call [`Peers::make_room`] before.
    pub fn distrust(&mut self, index: PeerIndex) {
        self.move_to_untrusted(index);
        self.arm_removal(index);
    }

    /// Sets the deadline of a trusted peer: when it was silent for long enough to be asked for a
    /// sign of life, or, after that, to be trusted no longer.
    pub fn arm_trusted(&mut self, now: Instant, index: PeerIndex) {
        let Timing {
            lifetime,
            refresh_after,
            grace,
        } = self.timing;
        let last_received = self[index].last_received;
        let refresh_at = coarse(last_received + refresh_after);
        let distrust_at = coarse(last_received + lifetime + grace);
        let next = if now < refresh_at {
            refresh_at
        } else {
            distrust_at
        };
        self.arm(index, next);
    }

    /// Sets the deadline of an untrusted peer: when the entry is of no use any more.
    pub fn arm_removal(&mut self, index: PeerIndex) {
        let retirement = self[index].retirement();
        self.arm(index, coarse(retirement));
    }
}

/// Rounds up a deadline that tolerates delay.
fn coarse(deadline: Instant) -> Instant {
    let nanoseconds = deadline.as_nanos();
    Instant::from_nanos(nanoseconds.saturating_add(COARSE - 1) & !(COARSE - 1))
}
