//! Authentication values: keyed hashes over what a client and its server send each other (RFC 4380
//! section 5.2.2).

use hmac::{Hmac, KeyInit as _, Mac};
use md5::Md5;
use sha1::Sha1;

use super::encapsulation::{Authentication, NONCE_LENGTH};

/// Shortest secret, in octets.
pub const MIN_SECRET: usize = 16;

/// The algorithm that makes authentication values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-MD5, of the draft of 2002.
    #[default]
    HmacMd5,
    /// HMAC-SHA1, of RFC 4380.
    HmacSha1,
}

impl Algorithm {
    /// Returns the length of an authentication value in octets.
    pub const fn value_length(self) -> usize {
        match self {
            Self::HmacMd5 => 16,
            Self::HmacSha1 => 20,
        }
    }
}

/// The error of [`Key::new`]: a secret of fewer than [`MIN_SECRET`] octets could be found by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret has at least {MIN_SECRET} octets")]
pub struct ShortSecret;

/// A secret that a client and its server share, for use with one algorithm.
#[derive(Clone)]
pub struct Key(State);

/// The hash after it took the secret in: the secret itself is not kept.
#[derive(Clone)]
enum State {
    Md5(Hmac<Md5>),
    Sha1(Hmac<Sha1>),
}

impl Key {
    /// Creates the key of this secret.
    ///
    /// # Errors
    ///
    /// Returns [`ShortSecret`] if the secret is shorter than [`MIN_SECRET`].
    pub fn new(algorithm: Algorithm, secret: &[u8]) -> Result<Self, ShortSecret> {
        if secret.len() < MIN_SECRET {
            return Err(ShortSecret);
        }
        Ok(Self::of_any_length(algorithm, secret))
    }

    fn of_any_length(algorithm: Algorithm, secret: &[u8]) -> Self {
        const ANY: &str = "HMAC takes keys of any length";
        Self(match algorithm {
            Algorithm::HmacMd5 => State::Md5(Hmac::new_from_slice(secret).expect(ANY)),
            Algorithm::HmacSha1 => State::Sha1(Hmac::new_from_slice(secret).expect(ANY)),
        })
    }

    /// Returns the algorithm that the key is for.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Md5(_) => Algorithm::HmacMd5,
            State::Sha1(_) => Algorithm::HmacSha1,
        }
    }

    /// Returns `true` if an authentication header proves that its sender has the key. `covered`
    /// follows the header and ends with the IPv6 packet: the origin indication, if there is one, and
    /// the packet, without trailers. Takes constant time.
    pub fn verify(&self, header: &Authentication<'_>, covered: &[u8]) -> bool {
        let (nonce, confirmation) = (header.nonce, header.confirmation);
        let verified = match &self.0 {
            State::Md5(state) => {
                hash(state, nonce, confirmation, covered).verify_slice(header.value)
            }
            State::Sha1(state) => {
                hash(state, nonce, confirmation, covered).verify_slice(header.value)
            }
        };
        verified.is_ok()
    }

    /// Writes the authentication value of a payload with this nonce and confirmation into `value`, as
    /// many octets as [`Algorithm::value_length`] says. `covered` is as in [`Key::verify`].
    pub fn sign(
        &self,
        nonce: [u8; NONCE_LENGTH],
        confirmation: u8,
        covered: &[u8],
        value: &mut [u8],
    ) {
        match &self.0 {
            State::Md5(state) => {
                let hash = hash(state, nonce, confirmation, covered).finalize();
                fill(value, &hash.into_bytes());
            }
            State::Sha1(state) => {
                let hash = hash(state, nonce, confirmation, covered).finalize();
                fill(value, &hash.into_bytes());
            }
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Key({:?}, ..)", self.algorithm())
    }
}

/// The hash of nonce, confirmation and what they come with, in this order.
fn hash<M: Mac + Clone>(
    state: &M,
    nonce: [u8; NONCE_LENGTH],
    confirmation: u8,
    covered: &[u8],
) -> M {
    let mut hash = state.clone();
    hash.update(&nonce);
    hash.update(&[confirmation]);
    hash.update(covered);
    hash
}

fn fill(value: &mut [u8], hash: &[u8]) {
    value
        .iter_mut()
        .zip(hash)
        .for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing::octets, wire::encapsulation};

    const SOLICITATION: &str = "6000000000083aff fe800000000000000000ffffffffffff \
        ff020000000000000000000000000002 85007d3700000000";
    const ADVERTISEMENT: &str = "0000effff6fffffe 6000000000383aff \
        fe800000000000008000f227fefdfcfb fe800000000000000000ffffffffffff \
        8600954c 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
        20010000010203040000000000000000 0501000000000500";
    const NONCE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

    fn key(algorithm: Algorithm) -> Key {
        Key::new(algorithm, &[0x0b; 16]).unwrap()
    }

    fn sign(key: &Key, confirmation: u8, covered: &str) -> Vec<u8> {
        let mut value = vec![0; key.algorithm().value_length()];
        key.sign(NONCE, confirmation, &octets(covered), &mut value);
        value
    }

    /// The bare hash.
    fn mac(state: State, data: &[u8]) -> Vec<u8> {
        match state {
            State::Md5(state) => state.chain_update(data).finalize().into_bytes().to_vec(),
            State::Sha1(state) => state.chain_update(data).finalize().into_bytes().to_vec(),
        }
    }

    #[test]
    fn v17_worked_values() {
        let md5 = key(Algorithm::HmacMd5);
        let sha1 = key(Algorithm::HmacSha1);
        let cases = [
            (&md5, 0, SOLICITATION, "01b150b8fda6c659d0a7ef7255aa64dd"),
            (&md5, 0, ADVERTISEMENT, "7b514d16b2b622514be9d12a47c41048"),
            (&md5, 1, ADVERTISEMENT, "7d9f0ad0479b477601a0f0f4cdab8a34"),
            (
                &sha1,
                0,
                SOLICITATION,
                "9e1de28d28c2fa40ea91900dc74531828aa5b54a",
            ),
            (
                &sha1,
                0,
                ADVERTISEMENT,
                "e77aa0fe291f9e574905a3bb8ce7ea25d9cd8d77",
            ),
            (
                &sha1,
                1,
                ADVERTISEMENT,
                "c081ce8ed574add86e14518c31d8deff487e256a",
            ),
        ];
        for (key, confirmation, covered, value) in cases {
            assert_eq!(sign(key, confirmation, covered), octets(value), "{key:?}");
            let header = Authentication {
                client: b"alice",
                value: &octets(value),
                nonce: NONCE,
                confirmation,
            };
            assert!(key.verify(&header, &octets(covered)));
        }
    }

    /// Key, data, HMAC-MD5 and HMAC-SHA1 of RFC 2202; the first four keys by algorithm.
    #[test]
    fn v18_rfc_2202() {
        let repeated = |octet: u8, count| vec![octet; count];
        let long = b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec();
        let longer =
            b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data".to_vec();
        let counted: Vec<u8> = (1..=25).collect();
        #[rustfmt::skip]
        let cases = [
            (repeated(0x0b, 16), repeated(0x0b, 20), b"Hi There".to_vec(),
             "9294727a3638bb1c13f48ef8158bfc9d", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (b"Jefe".to_vec(), b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec(),
             "750c783e6ab0b503eaa86e310a5db738", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (repeated(0xaa, 16), repeated(0xaa, 20), repeated(0xdd, 50),
             "56be34521d144c88dbb8c733f0e8b3f6", "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
            (counted.clone(), counted, repeated(0xcd, 50),
             "697eaf0aca3a3aea3a75164746ffaa79", "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
            (repeated(0x0c, 16), repeated(0x0c, 20), b"Test With Truncation".to_vec(),
             "56461ef2342edc00f9bab995690efd4c", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
            (repeated(0xaa, 80), repeated(0xaa, 80), long,
             "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd", "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
            (repeated(0xaa, 80), repeated(0xaa, 80), longer,
             "6f630fad67cda0ee1fb1f562db3aa53e", "e8e99d0f45237d786d6bbaa7965c7808bbff1a91"),
        ];
        for (md5_secret, sha1_secret, data, md5, sha1) in cases {
            let state = Key::of_any_length(Algorithm::HmacMd5, &md5_secret).0;
            assert_eq!(mac(state, &data), octets(md5));
            let state = Key::of_any_length(Algorithm::HmacSha1, &sha1_secret).0;
            assert_eq!(mac(state, &data), octets(sha1));
        }
    }

    #[test]
    fn v17_any_flipped_bit_is_noticed() {
        for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha1] {
            let key = key(algorithm);
            let value = sign(&key, 0, ADVERTISEMENT);
            let head = [
                &[0, 1, 5, value.len() as u8][..],
                b"alice",
                &value,
                &NONCE,
                &[0],
            ]
            .concat();
            let whole = [head.clone(), octets(ADVERTISEMENT)].concat();
            let is_valid = |payload: &[u8]| {
                encapsulation::parse(payload).is_ok_and(|parts| {
                    let header = parts.authentication.unwrap();
                    key.verify(&header, &payload[head.len()..])
                })
            };
            assert!(is_valid(&whole));
            for bit in 9 * 8..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_valid(&flipped), "{algorithm:?}, bit {bit}");
            }
        }
    }

    #[test]
    fn a05_no_value_of_another_length() {
        let key = key(Algorithm::HmacSha1);
        let value = sign(&key, 0, SOLICITATION);
        let covered = octets(SOLICITATION);
        let verify = |value: &[u8]| {
            let header = Authentication {
                client: &[],
                value,
                nonce: NONCE,
                confirmation: 0,
            };
            key.verify(&header, &covered)
        };
        assert!(verify(&value));
        for length in 0..value.len() {
            assert!(!verify(&value[..length]), "{length}");
        }
        assert!(!verify(&[&value[..], &[0]].concat()));
    }

    #[test]
    fn a09_short_secrets_are_refused() {
        assert_eq!(
            Key::new(Algorithm::HmacMd5, &[1; 15]).unwrap_err(),
            ShortSecret
        );
        assert!(Key::new(Algorithm::HmacMd5, &[1; 16]).is_ok());
    }

    #[test]
    fn a09_nothing_shows_the_secret() {
        let text = format!("{:?}", key(Algorithm::HmacSha1));
        assert_eq!(text, "Key(HmacSha1, ..)");
    }
}
