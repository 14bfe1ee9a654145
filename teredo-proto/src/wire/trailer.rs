//! Trailers after the IPv6 packet (RFC 6081 section 4).

use teredo_common::address::Endpoint;

/// A trailer that is known and well-formed. Nothing in trailers is obfuscated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer<'a> {
    /// Nonce: random octets that the answering bubble repeats (RFC 6081 section 4.2).
    Nonce([u8; 4]),
    /// Other endpoints that may reach the sender (RFC 6081 section 4.3).
    AlternateAddresses(AlternateAddresses<'a>),
    /// Neighbor discovery option that asks for a sign of life (RFC 6081 section 4.4).
    NeighborSolicitation,
    /// Neighbor discovery option that gives a sign of life (RFC 6081 section 4.4).
    NeighborAdvertisement,
    /// Predicted external port for the random port (RFC 6081 section 4.5), host byte order.
    RandomPort(u16),
}

/// One to four endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateAddresses<'a>(&'a [u8]);

impl<'a> AlternateAddresses<'a> {
    /// Returns the endpoints in their order.
    pub fn endpoints(self) -> impl Iterator<Item = Endpoint> + use<'a> {
        let (endpoints, _) = self.0.as_chunks::<6>();
        endpoints.iter().map(|&[a, b, c, d, p, q]| Endpoint {
            address: [a, b, c, d],
            port: [p, q],
        })
    }
}

/// The error about a trailer because of which the whole packet is to be dropped: it is of an unknown
/// type that says so, or an alternate address list of an impossible length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trailer forbids the packet")]
pub struct Discard;

/// Endpoints in an alternate address trailer.
const MAX_ALTERNATE_ADDRESSES: usize = 4;

const NONCE: u8 = 0x01;
const ALTERNATE_ADDRESSES: u8 = 0x03;
const NEIGHBOR_DISCOVERY: u8 = 0x04;
const RANDOM_PORT: u8 = 0x05;

/// Parses trailers. Unknown ones are skipped or, if their type says so, result in an error; the first
/// malformed one ends the list (RFC 6081 sections 4.1 and 5.1.2).
pub fn parse(trailers: &[u8]) -> impl Iterator<Item = Result<Trailer<'_>, Discard>> {
    let mut rest = trailers;
    std::iter::from_fn(move || {
        loop {
            let &[kind, length] = rest.split_off(..2)? else {
                return None;
            };
            let Some(value) = rest.split_off(..usize::from(length)) else {
                rest = &[];
                return None;
            };
            let item = match (kind, value) {
                (NONCE, &[a, b, c, d]) => Ok(Trailer::Nonce([a, b, c, d])),
                (ALTERNATE_ADDRESSES, &[_, _, ref list @ ..])
                    if matches!(list.len(), 6 | 12 | 18 | 24) =>
                {
                    Ok(Trailer::AlternateAddresses(AlternateAddresses(list)))
                }
                (NEIGHBOR_DISCOVERY, [0, _, _, _]) => Ok(Trailer::NeighborSolicitation),
                (NEIGHBOR_DISCOVERY, [1, _, _, _]) => Ok(Trailer::NeighborAdvertisement),
                (RANDOM_PORT, &[p, q]) => Ok(Trailer::RandomPort(u16::from_be_bytes([p, q]))),
                (ALTERNATE_ADDRESSES | 0x40..=0x7f, _) => Err(Discard),
                (NONCE | NEIGHBOR_DISCOVERY | RANDOM_PORT, _) => {
                    rest = &[];
                    return None;
                }
                _ => continue,
            };
            return Some(item);
        }
    })
}

impl Trailer<'_> {
    /// Appends the trailer.
    pub fn write(self, output: &mut Vec<u8>) {
        match self {
            Self::Nonce([a, b, c, d]) => output.extend([NONCE, 4, a, b, c, d]),
            Self::AlternateAddresses(AlternateAddresses(list)) => {
                output.extend([ALTERNATE_ADDRESSES, list.len() as u8 + 2, 0, 0]);
                output.extend(list);
            }
            Self::NeighborSolicitation => output.extend([NEIGHBOR_DISCOVERY, 4, 0, 0, 0, 0]),
            Self::NeighborAdvertisement => output.extend([NEIGHBOR_DISCOVERY, 4, 1, 0, 0, 0]),
            Self::RandomPort(port) => {
                let [high, low] = port.to_be_bytes();
                output.extend([RANDOM_PORT, 2, high, low]);
            }
        }
    }
}

/// Appends an alternate address trailer with at most the first four endpoints; appends nothing if
/// there are none.
pub fn write_alternate_addresses(endpoints: &[Endpoint], output: &mut Vec<u8>) {
    let endpoints = endpoints.iter().take(MAX_ALTERNATE_ADDRESSES);
    let list: Vec<u8> = endpoints
        .flat_map(|endpoint| endpoint.address.into_iter().chain(endpoint.port))
        .collect();
    if !list.is_empty() {
        Trailer::AlternateAddresses(AlternateAddresses(&list)).write(output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::octets;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<Result<Trailer<'static>, Discard>> {
        parse(octets(text).leak()).collect()
    }

    #[test]
    fn v19_nonce_and_random_port() {
        let expected = [
            Ok(Trailer::Nonce([0xde, 0xad, 0xbe, 0xef])),
            Ok(Trailer::RandomPort(1201)),
        ];
        assert_eq!(parsed("0104deadbeef 050204b1"), expected);
    }

    #[test]
    fn v19_alternate_addresses() {
        let trailers = parsed("030e0000 c0a801020ed5 0a00000204d2");
        let [Ok(Trailer::AlternateAddresses(list))] = trailers[..] else {
            panic!("{trailers:?}")
        };
        let endpoints: Vec<_> = list.endpoints().map(|one| one.to_string()).collect();
        assert_eq!(endpoints, ["192.168.1.2:3797", "10.0.0.2:1234"]);
    }

    #[test]
    fn v19_negatives() {
        assert_eq!(parsed("4100"), [Err(Discard)]);
        assert_eq!(
            parsed("8102aaaa 050204b1"),
            [Ok(Trailer::RandomPort(1201))],
            "skipped"
        );
        assert_eq!(
            parsed("0202aaaa"),
            [],
            "the misprinted type of random port is skipped"
        );
        assert_eq!(parsed("0104dead"), [], "malformed");
        assert_eq!(parsed("0309 000000000000000000"), [Err(Discard)]);
        assert_eq!(parsed("05"), [], "malformed");
        assert_eq!(
            parsed("050204b1 0104dead"),
            [Ok(Trailer::RandomPort(1201))],
            "what came before counts"
        );
        assert_eq!(
            parsed("0103ffffff 050204b1"),
            [],
            "a known type of another length ends the list"
        );
    }

    #[test]
    fn v19_what_is_written_is_what_is_parsed() {
        for text in [
            "0104deadbeef 050204b1",
            "030e0000 c0a801020ed5 0a00000204d2",
            "040400000000",
            "040401000000",
        ] {
            let mut written = Vec::new();
            for trailer in parsed(text) {
                trailer.unwrap().write(&mut written);
            }
            assert_eq!(written, octets(text));
        }
    }

    #[test]
    fn v19_alternate_addresses_are_written() {
        let endpoint = |address: [u8; 4], port| Endpoint::new(address.into(), port);
        let list = [
            endpoint([192, 168, 1, 2], 3797),
            endpoint([10, 0, 0, 2], 1234),
        ];
        let mut written = Vec::new();
        write_alternate_addresses(&[], &mut written);
        assert!(written.is_empty());
        write_alternate_addresses(&list, &mut written);
        assert_eq!(written, octets("030e0000 c0a801020ed5 0a00000204d2"));
        written.clear();
        write_alternate_addresses(&[list[0]; 9], &mut written);
        assert_eq!(written.len(), 4 + 4 * 6);
    }

    #[test]
    fn neighbor_discovery() {
        assert_eq!(parsed("040400000000"), [Ok(Trailer::NeighborSolicitation)]);
        assert_eq!(parsed("040401000000"), [Ok(Trailer::NeighborAdvertisement)]);
    }

    proptest! {
        #[test]
        fn any_octets_end(octets: Vec<u8>) {
            prop_assert!(parse(&octets).count() <= octets.len() / 2);
        }
    }
}
