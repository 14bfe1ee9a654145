//! The keys of a fleet (F-01, F-03, F-04).

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit as _, Mac};
use sha2::Sha256;
use teredo_common::cookie::CookieKey;

use super::wire::{KeyId, TAG};

/// Length of a secret in octets.
pub const SECRET: usize = 32;
/// The number of keys that are valid at a time: the one in use, the next one and the last one (F-04).
pub const MAX_KEYS: usize = 3;

/// The error of [`Keys::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fleet has from one to {MAX_KEYS} keys, all different")]
pub struct WrongKeys;

/// The keys of a fleet. What is sent is signed with the first one; all of them are accepted.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

/// The keys that come from one secret, which is not kept.
#[derive(Clone)]
struct Key {
    id: KeyId,
    authentication: Hmac<Sha256>,
    cookies: CookieKey,
}

impl Keys {
    /// Creates the keys of these secrets.
    ///
    /// # Errors
    ///
    /// Returns [`WrongKeys`] if there is none, if there are too many, or if two are the same.
    pub fn new(secrets: &[[u8; SECRET]]) -> Result<Self, WrongKeys> {
        let keys: Vec<Key> = secrets.iter().map(Key::new).collect();
        let is_repeated = |(place, key): (usize, &Key)| {
            let mut before = keys[..place].iter();
            before.any(|other| other.id == key.id)
        };
        let is_wrong =
            keys.is_empty() || keys.len() > MAX_KEYS || keys.iter().enumerate().any(is_repeated);
        match is_wrong {
            true => Err(WrongKeys),
            false => Ok(Self(keys)),
        }
    }

    /// Returns the keys of the relay's cookies, the one for new ones first.
    #[must_use]
    pub fn cookies(&self) -> Vec<CookieKey> {
        self.0.iter().map(|key| key.cookies).collect()
    }

    /// Returns the name of the key that signs.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.0[0].id
    }

    /// Whether the fleet has a key of this name.
    pub(super) fn has(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Appends the tag of a datagram.
    pub(super) fn sign(&self, from: SocketAddr, to: SocketAddr, datagram: &mut Vec<u8>) {
        let tag = self.0[0].hash(from, to, datagram).finalize().into_bytes();
        datagram.extend_from_slice(&tag[..TAG]);
    }

    /// Whether a datagram, which ends with its tag, was signed with the key of this name, by `from` for
    /// `to`. Takes constant time.
    pub(super) fn verify(
        &self,
        id: KeyId,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        let key = self.0.iter().find(|key| key.id == id);
        let parts = datagram.split_last_chunk::<TAG>();
        key.zip(parts).is_some_and(|(key, (signed, tag))| {
            let hash = key.hash(from, to, signed);
            hash.verify_truncated_left(tag).is_ok()
        })
    }
}

impl Key {
    fn new(secret: &[u8; SECRET]) -> Self {
        const ANY: &str = "HMAC takes keys of any length";
        let derive = |purpose: &str| {
            let hash = Hmac::<Sha256>::new_from_slice(secret).expect(ANY);
            let hash = hash.chain_update(b"teredo fleet 1: ");
            let octets: [u8; 32] = hash.chain_update(purpose).finalize().into_bytes().into();
            octets
        };
        let authentication = derive("authentication");
        let [a, b, c, d, ..] = derive("name");
        let cookies = derive("cookies");
        let word = |at: usize| {
            let octets = std::array::from_fn(|place| cookies[at + place]);
            u64::from_le_bytes(octets)
        };
        Self {
            id: KeyId([a, b, c, d]),
            authentication: Hmac::new_from_slice(&authentication).expect(ANY),
            cookies: CookieKey([word(0), word(8)]),
        }
    }

    /// The addresses are part of what is signed, so that nobody can send a datagram to another relay,
    /// or in the name of another (F-03).
    fn hash(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> Hmac<Sha256> {
        let hash = self.authentication.clone();
        let hash = hash.chain_update(octets(from)).chain_update(octets(to));
        hash.chain_update(datagram)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.0.iter().map(|key| key.id);
        formatter.debug_list().entries(names).finish()
    }
}

fn octets(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut octets = [0; 18];
    octets[..16].copy_from_slice(&ip.octets());
    octets[16..].copy_from_slice(&address.port().to_be_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; SECRET] = [1; SECRET];
    const TWO: [u8; SECRET] = [2; SECRET];

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 3546))
    }

    fn keys(secrets: &[[u8; SECRET]]) -> Keys {
        Keys::new(secrets).expect("keys")
    }

    #[test]
    fn f03_a_tag_is_for_one_sender_one_receiver_and_one_datagram() {
        let keys = keys(&[ONE]);
        let mut datagram = b"news".to_vec();
        keys.sign(address(1), address(2), &mut datagram);
        let verify = |from, to, datagram: &[u8]| keys.verify(keys.id(), from, to, datagram);
        assert!(verify(address(1), address(2), &datagram));
        assert!(!verify(address(2), address(1), &datagram));
        assert!(!verify(address(1), address(3), &datagram));
        assert!(!verify(address(1), address(2), &datagram[1..]));
        for bit in 0..8 * datagram.len() {
            let mut other = datagram.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(address(1), address(2), &other), "bit {bit}");
        }
        assert!(!verify(address(1), address(2), &[]));
    }

    #[test]
    fn f01_keys_depend_on_the_secret_and_the_purpose() {
        let (one, two) = (keys(&[ONE]), keys(&[TWO]));
        assert_ne!(one.id(), two.id());
        assert_ne!(one.cookies(), two.cookies());
        let word = one.cookies()[0].0[0].to_le_bytes();
        assert_ne!(word[..4], one.id().0);
        assert_ne!(word, [1; 8]);
    }

    #[test]
    fn f04_the_first_key_signs_and_all_are_accepted() {
        let (old, both, new) = (keys(&[ONE]), keys(&[TWO, ONE]), keys(&[TWO]));
        let mut datagram = Vec::new();
        old.sign(address(1), address(2), &mut datagram);
        assert!(both.verify(old.id(), address(1), address(2), &datagram));
        assert!(!new.verify(old.id(), address(1), address(2), &datagram));
        assert_eq!(both.id(), new.id());
        assert_eq!(both.cookies(), [new.cookies(), old.cookies()].concat());
    }

    #[test]
    fn f04_there_are_one_to_three_different_keys() {
        assert_eq!(Keys::new(&[]).err(), Some(WrongKeys));
        assert_eq!(Keys::new(&[ONE, ONE]).err(), Some(WrongKeys));
        let many: Vec<_> = (0..4).map(|octet| [octet; SECRET]).collect();
        assert_eq!(Keys::new(&many).err(), Some(WrongKeys));
        assert!(Keys::new(&many[1..]).is_ok());
    }
}
