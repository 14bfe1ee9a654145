//! Symmetric NAT support (RFC 6081 section 5.2): a nonce in an indirect bubble comes back in a
//! direct one, which may then come from anywhere.

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// Bubbles with wrong nonces after which none is accepted in a procedure.
const MAX_GUESSES: u8 = 8;

/// The nonces of one peer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Nonces {
    /// Those of the last two indirect bubbles sent, newest first; zeroes if there was none, or it
    /// was answered. A bubble that answers the last but one may be under way.
    sent: [[u8; 4]; 2],
    /// That of the last indirect bubble received; zeroes if it had none.
    pub received: [u8; 4],
    /// Bubbles with other nonces than those sent.
    guesses: u8,
}

impl Nonces {
    /// Returns a new nonce for an indirect bubble.
    pub fn next(&mut self, random: &mut impl Rng) -> [u8; 4] {
        let nonce = loop {
            let nonce = random.random();
            if nonce != [0; 4] {
                break nonce;
            }
        };
        self.sent = [nonce, self.sent[0]];
        nonce
    }

    /// Whether a direct bubble brings a nonce back. Too many wrong ones, and none is
    /// accepted before the next procedure.
    pub fn accept(&mut self, nonce: [u8; 4]) -> bool {
        let is_sent = nonce != [0; 4] && self.sent.contains(&nonce);
        if !is_sent {
            self.guesses = self.guesses.saturating_add(1);
        }
        is_sent && self.guesses < MAX_GUESSES
    }

    /// Begins another procedure: wrong nonces count anew.
    pub fn begin(&mut self) {
        self.guesses = 0;
    }

    /// Ends the procedure: no nonce is accepted any more.
    pub fn end(&mut self) {
        self.sent = Default::default();
        self.guesses = 0;
    }
}
