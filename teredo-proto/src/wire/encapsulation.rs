//! The UDP payload: `[authentication] [origin indication] IPv6-packet [trailers]` (RFC 4380
//! section 5.1.1, RFC 6081 section 4).

use std::ops::Range;

use teredo_common::{
    address::Endpoint,
    wire::{AUTHENTICATION, ORIGIN_INDICATION, ORIGIN_INDICATION_LENGTH},
};

use super::ipv6;

/// Length of the nonce in an authentication header, in octets.
pub const NONCE_LENGTH: usize = 8;

/// The reason why a UDP payload is not Teredo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An element is repeated, out of order, or of no known type (W-01).
    #[error("unexpected element")]
    Element,
    /// An element is cut short.
    #[error("element cut short")]
    Truncated,
    /// No IPv6 packet follows the elements.
    #[error("no IPv6 packet: {0}")]
    Ipv6(#[from] ipv6::Malformed),
}

/// An authentication header (RFC 4380 section 5.1.1), not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication<'a> {
    /// Client identification, at most 255 octets; may be empty.
    pub client: &'a [u8],
    /// Authentication value, at most 255 octets; may be empty.
    pub value: &'a [u8],
    /// Nonce that the client chose.
    pub nonce: [u8; NONCE_LENGTH],
    /// Confirmation: zero as long as the key is valid.
    pub confirmation: u8,
}

/// The parts of a UDP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation<'a> {
    /// Authentication header, if there is one.
    pub authentication: Option<Authentication<'a>>,
    /// Endpoint of the origin indication, without obfuscation, if there is one.
    pub origin: Option<Endpoint>,
    /// IPv6 packet, exactly as long as its header says.
    pub packet: &'a [u8],
    /// Octets after the packet; [`super::trailer::parse`] reads them.
    pub trailers: &'a [u8],
}

/// Parses a UDP payload (W-01 to W-05).
///
/// # Errors
///
/// Returns the reason if the payload is not Teredo.
pub fn parse(payload: &[u8]) -> Result<Encapsulation<'_>, Malformed> {
    let mut rest = payload;
    let mut authentication = None;
    let mut origin = None;
    while let [0, kind, ..] = *rest {
        match kind {
            AUTHENTICATION if authentication.is_none() && origin.is_none() => {
                authentication = Some(parse_authentication(&mut rest)?);
            }
            ORIGIN_INDICATION if origin.is_none() => {
                origin = Some(parse_origin(&mut rest)?);
            }
            _ => return Err(Malformed::Element),
        }
    }
    let header = ipv6::Header::parse(rest)?;
    let (packet, trailers) = rest.split_at(header.packet_length());
    Ok(Encapsulation {
        authentication,
        origin,
        packet,
        trailers,
    })
}

fn parse_authentication<'a>(rest: &mut &'a [u8]) -> Result<Authentication<'a>, Malformed> {
    let &[_, _, client_length, value_length] = take(rest, 4)? else {
        return Err(Malformed::Truncated);
    };
    let client = take(rest, client_length.into())?;
    let value = take(rest, value_length.into())?;
    let &[nonce @ .., confirmation] = take_array::<{ NONCE_LENGTH + 1 }>(rest)?;
    Ok(Authentication {
        client,
        value,
        nonce,
        confirmation,
    })
}

fn parse_origin(rest: &mut &[u8]) -> Result<Endpoint, Malformed> {
    let &[_, _, port @ .., a, b, c, d] = take_array::<ORIGIN_INDICATION_LENGTH>(rest)?;
    Ok(Endpoint {
        port: port.map(|octet| !octet),
        address: [a, b, c, d].map(|octet| !octet),
    })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    rest.split_off(..length).ok_or(Malformed::Truncated)
}

fn take_array<'a, const LENGTH: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; LENGTH], Malformed> {
    take(rest, LENGTH)?
        .first_chunk()
        .ok_or(Malformed::Truncated)
}

/// Appends an authentication header for this client, whose authentication value is still zeroes, and
/// returns the range of the value in `output`. Both lengths are at most 255 octets.
pub fn write_authentication(
    client: &[u8],
    value_length: usize,
    nonce: [u8; NONCE_LENGTH],
    confirmation: u8,
    output: &mut Vec<u8>,
) -> Range<usize> {
    output.extend_from_slice(&[0, AUTHENTICATION, client.len() as u8, value_length as u8]);
    output.extend_from_slice(client);
    let start = output.len();
    let value = start..start + value_length;
    output.resize(value.end, 0);
    output.extend_from_slice(&nonce);
    output.push(confirmation);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, octets};
    use proptest::prelude::*;

    const BUBBLE: &str =
        "6000000000003bff 20010000010203040000effff6fffffe 20010000090a0b0c0000fbfff7fffffe";
    const ORIGIN: &str = "0000effff6fffffe";
    const AUTHENTICATION: &str = "00010000 0123456789abcdef 00";

    #[test]
    fn v03_and_v07_origin_indications() {
        for (encoded, decoded) in [
            ("0000feaefefdfcfb", "1.2.3.4:337"),
            ("0000effff6fffffe", "9.0.0.1:4096"),
            ("0000f227faf9f8f7", "5.6.7.8:3544"),
        ] {
            assert_eq!(octets(encoded), endpoint(decoded).origin_indication());
            let payload = octets(&format!("{encoded}{BUBBLE}"));
            assert_eq!(parse(&payload).unwrap().origin, Some(endpoint(decoded)));
        }
    }

    #[test]
    fn v11_router_solicitation_with_nonce() {
        let payload = octets(
            "00010000cd5669400b22df8800 6000000000183aff fe800000000000008000fffffffffffd \
             ff020000000000000000000000000002 8500a91d00000000 01020000000000008000f12ab9c82815",
        );
        assert_eq!(payload.len(), 77);
        let parts = parse(&payload).unwrap();
        let authentication = parts.authentication.unwrap();
        assert_eq!(authentication.nonce[..], octets("cd5669400b22df88"));
        assert_eq!(authentication.confirmation, 0);
        assert!(authentication.client.is_empty() && authentication.value.is_empty());
        assert_eq!(parts.origin, None);
        assert_eq!(parts.packet, &payload[13..]);
        assert!(parts.trailers.is_empty());
    }

    #[test]
    fn v12_router_advertisement_with_nonce_and_origin() {
        let payload = octets(
            "00010000cd5669400b22df8800 0000f12ab9c82815 6000000000303aff \
             fe800000000000008000f227bec861af fe800000000000008000fffffffffffd \
             86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
             2001000041379e500000000000000000",
        );
        assert_eq!(payload.len(), 109);
        let parts = parse(&payload).unwrap();
        assert!(parts.authentication.is_some());
        assert_eq!(parts.origin, Some(endpoint("70.55.215.234:3797")));
        assert_eq!(parts.packet, &payload[21..]);
    }

    #[test]
    fn v13_indirect_bubble_of_a_relay() {
        let payload = octets(
            "00007f7bac55fed9 6000000000003b00 fe80000000000000708dfe834114a512 \
             2001000041379e508000f12ab9c82815",
        );
        let parts = parse(&payload).unwrap();
        assert_eq!(parts.origin, Some(endpoint("83.170.1.38:32900")));
        assert!(ipv6::Header::parse(parts.packet).unwrap().is_bubble());
    }

    #[test]
    fn v17_identification_and_value() {
        let solicitation = "6000000000083aff fe800000000000000000ffffffffffff \
            ff020000000000000000000000000002 85007d3700000000";
        let payload = octets(&format!(
            "00010510 616c696365 01b150b8fda6c659d0a7ef7255aa64dd 0123456789abcdef 00 {solicitation}"
        ));
        let authentication = parse(&payload).unwrap().authentication.unwrap();
        assert_eq!(authentication.client, b"alice");
        assert_eq!(
            authentication.value,
            octets("01b150b8fda6c659d0a7ef7255aa64dd")
        );
    }

    #[test]
    fn w01_order_and_repetition() {
        let refused = [
            format!("{ORIGIN}{AUTHENTICATION}{BUBBLE}"),
            format!("{ORIGIN}{ORIGIN}{BUBBLE}"),
            format!("{AUTHENTICATION}{AUTHENTICATION}{BUBBLE}"),
            format!("0002{BUBBLE}"),
        ];
        for payload in refused {
            assert_eq!(
                parse(&octets(&payload)),
                Err(Malformed::Element),
                "{payload}"
            );
        }
        let accepted = octets(&format!("{AUTHENTICATION}{ORIGIN}{BUBBLE}"));
        assert!(parse(&accepted).is_ok());
    }

    #[test]
    fn w03_octets_after_the_packet_are_trailers() {
        let payload = octets(&format!("{BUBBLE}0104deadbeef"));
        let parts = parse(&payload).unwrap();
        assert_eq!(parts.packet.len(), 40);
        assert_eq!(parts.trailers, octets("0104deadbeef"));
    }

    #[test]
    fn every_cut_is_refused() {
        let payload = octets(&format!("{AUTHENTICATION}{ORIGIN}{BUBBLE}"));
        for length in 0..payload.len() {
            assert!(parse(&payload[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_written_authentication_header_is_parsed() {
        let mut output = vec![];
        let value = write_authentication(b"alice", 3, [7; 8], 1, &mut output);
        output[value].copy_from_slice(b"abc");
        output.extend(octets(BUBBLE));
        let expected = Authentication {
            client: b"alice",
            value: b"abc",
            nonce: [7; 8],
            confirmation: 1,
        };
        assert_eq!(parse(&output).unwrap().authentication, Some(expected));
    }

    proptest! {
        #[test]
        fn any_octets_are_parsed_without_panic(
            head in prop::sample::select(vec![vec![], vec![0], vec![0, 0], vec![0, 1, 3, 2], vec![0x60]]),
            tail in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let payload = [head, tail].concat();
            if let Ok(parts) = parse(&payload) {
                prop_assert!(parts.packet.len() >= 40);
                prop_assert!(payload.ends_with(parts.trailers));
            }
        }

        #[test]
        fn w02_the_packet_may_start_anywhere(client: Vec<u8>, value: Vec<u8>, nonce: [u8; 8]) {
            prop_assume!(client.len() < 256 && value.len() < 256);
            let bubble = octets(BUBBLE);
            let head = [0, 1, client.len() as u8, value.len() as u8];
            let payload = [&head[..], &client, &value, &nonce, &[7], &bubble].concat();
            let parts = parse(&payload).unwrap();
            prop_assert_eq!(parts.packet, &bubble);
            let expected = Authentication { client: &client, value: &value, nonce, confirmation: 7 };
            prop_assert_eq!(parts.authentication, Some(expected));
        }
    }
}
