//! Hash tables whose keys come from the network.

use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// SipHash with a secret key, so that no outsider can choose keys that collide.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Keyed([u64; 2]);

impl Keyed {
    /// Creates a hasher whose key comes from `random`.
    pub fn new(random: &mut impl rand::Rng) -> Self {
        Self([random.next_u64(), random.next_u64()])
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        let [first, second] = self.0;
        SipHasher13::new_with_keys(first, second)
    }
}
