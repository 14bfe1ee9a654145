//! The chain of extension headers after the fixed IPv6 header (RFC 8200 section 4, RFC 7045).

use teredo_common::wire::{
    AUTHENTICATION_HEADER, DESTINATION_OPTIONS, EXPERIMENT_1, EXPERIMENT_2, FRAGMENT, HOP_BY_HOP,
    HOST_IDENTITY, IPV6_HEADER, MOBILITY, ROUTING, SHIM6,
};

/// The routing header of Mobile IPv6 (RFC 6275), the one that may cross the tunnel (L-11).
const MOBILE_IPV6: u8 = 2;

/// One header of the chain, or the transport that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainLink<'a> {
    /// A routing header: its type (RFC 8200 section 4.4).
    Routing(u8),
    /// The first fragment of a packet.
    FirstFragment,
    /// An extension header that Teredo has no opinion on.
    Other,
    /// The header that is no extension header and ends the chain: its protocol number, and the octets
    /// from it on.
    Transport(u8, &'a [u8]),
}

/// Walks the extension headers of a packet that [`Header::parse`](super::Header::parse) accepts. Ends early, without
/// [`ChainLink::Transport`], where the chain is cut short or goes on in another fragment.
pub fn chain(packet: &[u8]) -> impl Iterator<Item = ChainLink<'_>> {
    let mut next = packet.get(6).copied();
    let mut rest = packet.get(IPV6_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let current = next.take()?;
        if !is_extension(current) {
            return Some(ChainLink::Transport(current, rest));
        }
        let fixed: &[u8; 8] = rest.first_chunk()?;
        let length = match current {
            FRAGMENT => 8,
            AUTHENTICATION_HEADER => 8 + 4 * usize::from(fixed[1]),
            _ => 8 + 8 * usize::from(fixed[1]),
        };
        let is_later_fragment =
            current == FRAGMENT && u16::from_be_bytes([fixed[2], fixed[3]]) & 0xfff8 != 0;
        if let Some(after) = rest.get(length..)
            && !is_later_fragment
        {
            next = Some(fixed[0]);
            rest = after;
        }
        Some(match current {
            ROUTING => ChainLink::Routing(fixed[2]),
            FRAGMENT if !is_later_fragment => ChainLink::FirstFragment,
            _ => ChainLink::Other,
        })
    })
}

/// Whether a routing header other than that of Mobile IPv6 would lead the packet elsewhere (L-11), or
/// may do so: a first fragment that does not hold all extension headers hides one in the next (RFC 7112).
pub fn has_forbidden_routing(packet: &[u8]) -> bool {
    if !packet.get(6).is_some_and(|&next| is_extension(next)) {
        return false;
    }
    let mut is_hidden = false;
    for link in chain(packet) {
        match link {
            ChainLink::Routing(kind) if kind != MOBILE_IPV6 => return true,
            ChainLink::FirstFragment => is_hidden = true,
            ChainLink::Transport(..) => is_hidden = false,
            ChainLink::Routing(_) | ChainLink::Other => {}
        }
    }
    is_hidden
}

/// Whether another header follows one with this protocol number: the extension headers of RFC 7045 but
/// ESP, which hides what follows.
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION_HEADER
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
            | EXPERIMENT_1
            | EXPERIMENT_2
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv6::header;
    use proptest::prelude::*;
    use teredo_common::wire::UDP;

    fn with_payload(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let fixed = header(
            payload.len() as u16,
            next_header,
            64,
            &[0x20; 16],
            &[0x21; 16],
        );
        [&fixed[..], payload].concat()
    }

    #[test]
    fn chain_of_extension_headers() {
        let payload = [
            &[ROUTING, 0, 0, 0, 0, 0, 0, 0][..],
            &[FRAGMENT, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[UDP, 0, 0, 1, 0, 0, 0, 7],
            &[0xaa; 9],
        ]
        .concat();
        let packet = with_payload(HOP_BY_HOP, &payload);
        let links: Vec<_> = chain(&packet).collect();
        assert_eq!(
            links,
            [
                ChainLink::Other,
                ChainLink::Routing(4),
                ChainLink::FirstFragment,
                ChainLink::Transport(UDP, &[0xaa; 9])
            ]
        );
    }

    #[test]
    fn l11_only_the_routing_header_of_mobile_ipv6_passes() {
        for kind in 0..=u8::MAX {
            let routing = [UDP, 0, kind, 0, 0, 0, 0, 0];
            let first = with_payload(ROUTING, &routing);
            assert_eq!(has_forbidden_routing(&first), kind != 2, "{kind}");
            let later = with_payload(
                HOP_BY_HOP,
                &[&[ROUTING, 0, 0, 0, 0, 0, 0, 0], &routing[..]].concat(),
            );
            assert_eq!(has_forbidden_routing(&later), kind != 2, "{kind}");
        }
        let plain = with_payload(UDP, &[0; 8]);
        assert!(!has_forbidden_routing(&plain));
        assert_eq!(
            chain(&plain).collect::<Vec<_>>(),
            [ChainLink::Transport(UDP, &[0; 8])]
        );
    }

    #[test]
    fn chain_ends_at_a_later_fragment_and_where_it_is_cut() {
        let packet = with_payload(FRAGMENT, &[UDP, 0, 0, 8, 0, 0, 0, 7, 1, 2]);
        assert_eq!(chain(&packet).collect::<Vec<_>>(), [ChainLink::Other]);
        let packet = with_payload(ROUTING, &[UDP, 9, 2, 0, 0, 0, 0, 0]);
        assert_eq!(chain(&packet).collect::<Vec<_>>(), [ChainLink::Routing(2)]);
        let packet = with_payload(ROUTING, &[UDP, 9, 2]);
        assert_eq!(chain(&packet).count(), 0);
    }

    /// Extension headers without meaning, with their length in the second octet.
    const PLAIN: [u8; 7] = [0, 60, 135, 139, 140, 253, 254];

    /// A header of a chain as a test describes it: its number and the octets behind the number of the
    /// next header. `Fragment` has the offset in units of eight octets.
    #[derive(Clone, Debug)]
    enum Piece {
        Routing { kind: u8, units: u8 },
        Fragment { offset: u16, more: bool },
        Authentication { words: u8 },
        Plain { number: u8, units: u8 },
    }

    impl Piece {
        fn number(&self) -> u8 {
            match *self {
                Self::Routing { .. } => 43,
                Self::Fragment { .. } => 44,
                Self::Authentication { .. } => 51,
                Self::Plain { number, .. } => number,
            }
        }

        fn octets(&self, next: u8) -> Vec<u8> {
            match *self {
                Self::Routing { kind, units } => [
                    vec![next, units, kind, 1],
                    vec![0; 4 + 8 * usize::from(units)],
                ]
                .concat(),
                Self::Fragment { offset, more } => {
                    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                    vec![next, 43, high, low, 0, 0, 0, 9]
                }
                Self::Authentication { words } => {
                    [vec![next, words, 0, 0], vec![0; 4 + 4 * usize::from(words)]].concat()
                }
                // Octets that would be a routing header if a length were read wrongly.
                Self::Plain { units, .. } => {
                    [vec![next, units], vec![43; 6 + 8 * usize::from(units)]].concat()
                }
            }
        }
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![
            (prop_oneof![Just(0), Just(2), any::<u8>()], 0..4_u8)
                .prop_map(|(kind, units)| Piece::Routing { kind, units }),
            (prop_oneof![Just(0), 0..8192_u16], any::<bool>())
                .prop_map(|(offset, more)| Piece::Fragment { offset, more }),
            (0..8_u8).prop_map(|words| Piece::Authentication { words }),
            (prop::sample::select(&PLAIN[..]), 0..4_u8)
                .prop_map(|(number, units)| Piece::Plain { number, units }),
        ]
    }

    /// Returns whether the chain is forbidden, from its description alone.
    fn is_forbidden(pieces: &[Piece]) -> bool {
        let visible = pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Fragment { offset: 1.., .. }));
        let seen = &pieces[..visible.unwrap_or(pieces.len())];
        let is_routed = |piece: &Piece| matches!(piece, Piece::Routing { kind, .. } if *kind != 2);
        let is_first = |piece: &Piece| matches!(piece, Piece::Fragment { .. });
        seen.iter().any(is_routed) || visible.is_some() && seen.iter().any(is_first)
    }

    fn chain_of(pieces: &[Piece], end: u8) -> Vec<u8> {
        let mut payload = vec![0x2b; 16];
        let mut next = end;
        for piece in pieces.iter().rev() {
            payload = [piece.octets(next), payload].concat();
            next = piece.number();
        }
        with_payload(next, &payload)
    }

    #[test]
    fn l11_no_extension_header_hides_a_routing_header() {
        for number in PLAIN {
            for units in 0..3 {
                let plain = Piece::Plain { number, units };
                let routing = Piece::Routing { kind: 0, units: 0 };
                let packet = chain_of(&[plain.clone(), routing], UDP);
                assert!(has_forbidden_routing(&packet), "{number}");
                assert!(!has_forbidden_routing(&chain_of(&[plain], UDP)), "{number}");
            }
        }
        for words in 0..6 {
            let pieces = [
                Piece::Authentication { words },
                Piece::Routing { kind: 0, units: 0 },
            ];
            assert!(has_forbidden_routing(&chain_of(&pieces, UDP)), "{words}");
        }
    }

    #[test]
    fn l11_a_first_fragment_holds_all_extension_headers() {
        let first = Piece::Fragment {
            offset: 0,
            more: true,
        };
        let options = Piece::Plain {
            number: 60,
            units: 9,
        };
        let whole = chain_of(&[first, options], UDP);
        assert!(!has_forbidden_routing(&whole));
        // The next fragment could go on with a routing header.
        let cut = with_payload(44, &whole[IPV6_HEADER..IPV6_HEADER + 40]);
        assert!(has_forbidden_routing(&cut));
    }

    proptest! {
        #[test]
        fn l11_the_verdict_on_any_chain_is_that_of_its_description(
            pieces in prop::collection::vec(piece(), 0..8),
            end in prop::sample::select(&[6_u8, 17, 33, 50, 58, 59, 132, 136, 4, 41, 200][..]),
        ) {
            let packet = chain_of(&pieces, end);
            prop_assert_eq!(has_forbidden_routing(&packet), is_forbidden(&pieces));
        }

        #[test]
        fn the_walk_of_any_octets_ends(octets in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(chain(&octets).count() <= 16);
        }
    }
}
