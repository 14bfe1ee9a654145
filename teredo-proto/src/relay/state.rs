//! The state of a relay that outlives the process, so that the next one goes on where it ended.

use std::time::Duration;

use rand::{Rng, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, cookie::CookieKey, time::Instant};

use super::{Config, Relay, proof::Proof, unproved::SavedUnproved};
use crate::shared::{
    keyed::Keyed,
    limiter::{Bucket, SavedBuckets},
    peers::{History, SavedPeer},
    turns::SavedTurns,
};

/// The secrets of a relay. With them, the next process recognises the answers to bubbles that are on
/// their way, even if it knows nothing else.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Secrets {
    cookies: [u64; 2],
    /// The time by which cookies are older than the clock says.
    skipped: Duration,
    pub(super) tables: Keyed,
}

/// The state of a relay. Its moments are those of one boot of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    secrets: Secrets,
    peers: Vec<SavedPeer<Proof>>,
    #[serde(default)]
    unreachable: Bucket,
    #[serde(default)]
    new_peers: Vec<SavedBuckets>,
    #[serde(default)]
    direct_bubbles: Vec<SavedBuckets>,
    #[serde(default)]
    questions: Vec<SavedBuckets>,
    #[serde(default)]
    unproved: SavedUnproved,
    #[serde(default)]
    turns: SavedTurns,
    #[serde(default)]
    histories: Vec<(Endpoint, History)>,
}

impl Secrets {
    pub(super) fn new(random: &mut impl Rng) -> Self {
        Self {
            cookies: [random.next_u64(), random.next_u64()],
            skipped: Duration::ZERO,
            tables: Keyed::new(random),
        }
    }

    pub(super) fn cookie_key(&self) -> CookieKey {
        CookieKey(self.cookies)
    }
}

impl State {
    /// Returns the state of a relay of which only the secrets outlived the process.
    #[must_use]
    pub fn of_secrets(secrets: Secrets) -> Self {
        Self {
            secrets,
            peers: Vec::new(),
            unreachable: Bucket::default(),
            new_peers: Vec::new(),
            direct_bubbles: Vec::new(),
            questions: Vec::new(),
            unproved: SavedUnproved::default(),
            turns: SavedTurns::default(),
            histories: Vec::new(),
        }
    }

    /// Returns the number of peers.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }
}

impl Relay {
    /// Returns the secrets.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets {
            cookies: self.cookie.key().0,
            skipped: self.cookie.skipped(),
            tables: self.keyed,
        }
    }

    /// Returns the state, without the packets and events that [`Relay::poll_transmit`] and
    /// [`Relay::poll_event`] have not returned yet.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        self.state_with(now, self.peers.save(Clone::clone))
    }

    /// Returns a relay that decides about packets from and to these addresses as this one would now. What
    /// it does changes nothing here. It has no other peers and nothing that waits for other peers, so that
    /// copying takes a bounded time. `seed` is as for [`Relay::new`].
    #[must_use]
    pub fn copy(&self, now: Instant, seed: [u8; 32], addresses: &[[u8; 16]]) -> Self {
        let known = addresses.iter().filter_map(|one| self.peers.find(one));
        let peers = known.map(|index| self.peers.save_one(index, Clone::clone));
        let state = self.state_with(now, peers.collect());
        let config = Config {
            own_ipv4: self.own_ipv4.iter().collect(),
            own_ipv6: self.own_ipv6.iter().copied().map(Into::into).collect(),
            ..self.config.clone()
        };
        let mut copy = Self::restore(config, seed, now, state);
        copy.draining = self.draining;
        copy
    }

    fn state_with(&self, now: Instant, peers: Vec<SavedPeer<Proof>>) -> State {
        State {
            secrets: self.secrets(),
            peers,
            unreachable: self.unreachable_bucket,
            new_peers: self.new_peer_rates.save(now),
            direct_bubbles: self.direct_bubble_rates.save(now),
            questions: self.question_rates.save(now),
            unproved: self.unproved.save(now),
            turns: self.turns.save(now),
            histories: self.direct_bubble_histories.save(),
        }
    }

    /// Creates a relay that goes on from a state, without the peers that `config` does not permit. There
    /// is no event for those that it has; the fast path has to be given all that are proved. `seed` is as
    /// for [`Relay::new`].
    #[must_use]
    pub fn restore(config: Config, seed: [u8; 32], now: Instant, state: State) -> Self {
        let secrets = state.secrets;
        let mut relay = Self::with_secrets(config, StdRng::from_seed(seed), secrets);
        relay.cookie.skip(secrets.skipped);
        relay.unreachable_bucket = state.unreachable;
        relay.new_peer_rates.restore(&state.new_peers);
        relay.direct_bubble_rates.restore(&state.direct_bubbles);
        relay.question_rates.restore(&state.questions);
        relay.unproved.restore(&state.unproved);
        relay.turns.restore(&state.turns);
        relay.direct_bubble_histories.restore(&state.histories);
        for peer in state.peers {
            let is_permitted = relay.config.prefix.contains(&peer.address)
                && relay.may_be_peer(&peer.address)
                && relay.own_ipv4.may_send_to(peer.mapped);
            if !is_permitted {
                continue;
            }
            let restored = (relay.peers).restore(now, peer, &mut relay.queues, |proof| proof);
            if let Some(index) = restored
                && relay.peers[index].state.holds()
            {
                if relay.peers[index].is_trusted() {
                    relay.statistics.proved_peers += 1;
                    relay.arm_proof(index);
                } else {
                    relay.peers[index].state = Proof::default();
                }
            }
        }
        relay
    }
}
