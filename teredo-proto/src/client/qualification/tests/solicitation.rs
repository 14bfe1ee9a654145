//! Solicitations, and the advertisements that answer them.

use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::{address::Endpoint, checksum, wire::ICMPV6};

use super::{
    super::solicitation::{Advertised, Solicitation},
    harness::{MAPPED, PORT, PRIMARY, advertisement, credentials, endpoint, link_local},
};
use crate::{
    ServerAddress,
    client::{Config, DropReason, ServerEndpoints},
    testing::octets,
    wire::{encapsulation, router::Advertisement},
};

const SERVER: ServerEndpoints = ServerEndpoints::new(PRIMARY);
/// Octets of authentication header and origin indication before the packet.
const NONCE_AND_ORIGIN: usize = 13 + 8;

/// A solicitation, and the advertisement that answers it.
struct Case {
    config: Config,
    solicitation: Solicitation,
    payload: Vec<u8>,
    answer: Vec<u8>,
}

impl Case {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(vec![SERVER], PORT);
        change(&mut config);
        let mut random = StdRng::from_seed([3; 32]);
        let (solicitation, payload) =
            Solicitation::new(&config, &mut random, SERVER, ServerAddress::Primary, false);
        let answer = advertisement(&payload, MAPPED);
        Self {
            config,
            solicitation,
            payload,
            answer,
        }
    }

    fn verify(&self) -> Result<Advertised, DropReason> {
        self.verify_from(SERVER.primary())
    }

    fn verify_from(&self, from: Endpoint) -> Result<Advertised, DropReason> {
        let parts = encapsulation::parse(&self.answer).unwrap();
        self.solicitation.verify(&self.config, from, &parts)
    }

    /// Changes one octet of the advertisement's packet, and makes its checksum right again.
    fn set(&mut self, at: usize, octet: u8) {
        self.answer[NONCE_AND_ORIGIN + at] = octet;
        self.repair();
    }

    fn repair(&mut self) {
        let packet = &mut self.answer[NONCE_AND_ORIGIN..];
        packet[42..44].fill(0);
        let (source, destination): ([u8; 16], [u8; 16]) = (
            *packet[8..].first_chunk().unwrap(),
            *packet[24..].first_chunk().unwrap(),
        );
        let sum = checksum::ipv6_transport(&source, &destination, ICMPV6, &packet[40..]);
        packet[42..44].copy_from_slice(&sum);
    }

    /// Replaces the options.
    fn options(&mut self, options: &[&[u8]]) {
        self.answer.truncate(NONCE_AND_ORIGIN + 40 + 16);
        self.answer.extend(options.concat());
        let length = (self.answer.len() - NONCE_AND_ORIGIN - 40) as u16;
        self.answer[NONCE_AND_ORIGIN + 4..][..2].copy_from_slice(&length.to_be_bytes());
        self.repair();
    }

    /// The answer signed with this key.
    fn sign(&mut self, octet: u8, confirmation: u8) {
        let key = credentials(octet).key;
        let covered = self.answer[13..].to_vec();
        let nonce = *self.payload[25..].first_chunk().unwrap();
        let mut output = vec![];
        let value =
            encapsulation::write_authentication(b"alice", 16, nonce, confirmation, &mut output);
        key.sign(nonce, confirmation, &covered, &mut output[value]);
        self.answer = [output, covered].concat();
    }
}

fn prefix(octets: [u8; 8], length: u8) -> Vec<u8> {
    let head = [
        3, 4, length, 0x40, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
    ];
    [&head[..], &octets, &[0; 8]].concat()
}

const TEREDO: [u8; 8] = [0x20, 1, 0, 0, 1, 2, 3, 4];

#[test]
fn v15_a02_nonce_and_nothing_else() {
    let case = Case::new(|_| ());
    assert_eq!(case.payload.len(), 13 + 48);
    assert_eq!(case.payload[..4], [0, 1, 0, 0]);
    assert_eq!(case.payload[12], 0, "confirmation");
    assert_eq!(
        case.payload[13..],
        octets(
            "6000000000083aff fe800000000000000000ffffffffffff ff020000000000000000000000000002 \
             85007d3700000000"
        )
    );
    assert_eq!(case.solicitation.destination(), SERVER.primary());
    assert_eq!(
        case.verify(),
        Ok(Advertised {
            mapped: endpoint(MAPPED),
            tunnel: None,
            mtu: 1280,
            renew_key: false,
        })
    );
}

#[test]
fn a02_nonces_are_new_each_time() {
    let config = Config::new(vec![SERVER], PORT);
    let mut random = StdRng::from_seed([3; 32]);
    let nonces: std::collections::HashSet<Vec<u8>> = (0..1000)
        .map(|_| {
            let (_, payload) =
                Solicitation::new(&config, &mut random, SERVER, ServerAddress::Secondary, true);
            payload[4..12].to_vec()
        })
        .collect();
    assert_eq!(nonces.len(), 1000);
}

#[test]
fn a02_another_nonce_or_none() {
    for bit in 0..64 {
        let mut case = Case::new(|_| ());
        case.answer[4 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(case.verify(), Err(DropReason::AdvertisementNonce));
    }
    let mut case = Case::new(|_| ());
    case.answer.drain(..13);
    assert_eq!(case.verify(), Err(DropReason::AdvertisementNonce));
    case.config.legacy_server = true;
    assert!(case.verify().is_ok());
}

#[test]
fn a08_a_confirmation_that_is_not_proven_means_nothing() {
    let mut case = Case::new(|_| ());
    case.answer[12] = 1;
    assert!(!case.verify().unwrap().renew_key);
}

#[test]
fn c11_from_the_expected_endpoint_alone() {
    let case = Case::new(|_| ());
    for from in ["1.2.3.5:3544", "1.2.3.4:3545", "9.9.9.9:3544"] {
        let dropped = case.verify_from(endpoint(from));
        assert_eq!(dropped, Err(DropReason::AdvertisementSource), "{from}");
    }
}

#[test]
fn c11_c13_the_origin_is_there_and_global() {
    let mut case = Case::new(|_| ());
    case.answer.drain(13..21);
    assert_eq!(case.verify(), Err(DropReason::AdvertisementOrigin));
    for origin in [
        "10.0.0.1:4096",
        "9.0.0.1:0",
        "224.0.0.253:3544",
        "127.0.0.1:1",
        "0.0.0.0:1",
    ] {
        let mut case = Case::new(|_| ());
        case.answer[13..21].copy_from_slice(&endpoint(origin).origin_indication());
        assert_eq!(
            case.verify(),
            Err(DropReason::AdvertisementOrigin),
            "{origin}"
        );
    }
}

#[test]
fn c11_valid_for_neighbor_discovery_and_for_us() {
    let invalid = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::new(|_| ());
        change(&mut case);
        assert_eq!(case.verify(), Err(DropReason::AdvertisementInvalid));
    };
    // The helper itself changes nothing.
    let mut case = Case::new(|_| ());
    case.set(7, 255);
    assert!(case.verify().is_ok());
    invalid(&|case| case.set(7, 254));
    invalid(&|case| case.set(41, 1));
    invalid(&|case| case.set(8, 0x20));
    invalid(&|case| case.set(39, 0xfe));
    invalid(&|case| case.answer[NONCE_AND_ORIGIN + 43] ^= 1);
    invalid(&|case| case.options(&[&prefix(TEREDO, 64), &[5, 0, 0, 0, 0, 0, 5, 0]]));
    invalid(&|case| case.options(&[&prefix(TEREDO, 64), &[5]]));
}

#[test]
fn c11_exactly_one_prefix_of_the_server() {
    let verify = |options: &[&[u8]]| {
        let mut case = Case::new(|_| ());
        case.options(options);
        case.verify()
    };
    let good = prefix(TEREDO, 64);
    let mut other_server = TEREDO;
    other_server[7] = 5;
    let mut other_service = TEREDO;
    other_service[3] = 1;
    assert!(verify(&[&good]).is_ok());
    // Options of other kinds do not matter.
    assert!(verify(&[&[1, 1, 0, 0, 0, 0, 0, 0], &good, &[99, 1, 0, 0, 0, 0, 0, 0]]).is_ok());
    for options in [
        &[][..],
        &[&good[..], &good],
        &[&good[..], &good, &good],
        &[&good[..], &prefix(TEREDO, 48)],
        &[&prefix(TEREDO, 48)[..]],
        &[&prefix(other_server, 64)[..]],
        &[&prefix(other_service, 64)[..]],
        &[&prefix([0x3f, 0xfe, 0x83, 0x1f, 1, 2, 3, 4], 64)[..]],
        &[&prefix([0x2a, 0, 1, 2, 3, 4, 5, 6], 64)[..]],
        &[&[3, 1, 64, 0, 0, 0, 0, 0][..]],
    ] {
        assert_eq!(
            verify(options),
            Err(DropReason::AdvertisementPrefix),
            "{options:?}"
        );
    }
}

#[test]
fn c16_an_mtu_that_cannot_be_is_not_followed() {
    for (mtu, expected) in [
        (0_u32, 1280),
        (1279, 1280),
        (1280, 1280),
        (1500, 1500),
        (65507, 65507),
        (65508, 1280),
        (u32::MAX, 1280),
    ] {
        let mut case = Case::new(|_| ());
        let option = [&[5, 1, 0, 0][..], &mtu.to_be_bytes()].concat();
        case.options(&[&prefix(TEREDO, 64), &option]);
        assert_eq!(case.verify().unwrap().mtu, expected, "{mtu}");
    }
}

#[test]
fn v17_a01_a04_with_credentials() {
    let secure = |config: &mut Config| config.credentials = Some(credentials(0x0b));
    let mut case = Case::new(secure);
    assert_eq!(case.payload.len(), 82);
    assert_eq!(case.payload[..9], octets("00010510 616c696365"));
    let parts = encapsulation::parse(&case.payload).unwrap();
    let header = parts.authentication.unwrap();
    assert!(credentials(0x0b).key.verify(&header, parts.packet));
    // the nonce alone is not enough.
    assert_eq!(case.verify(), Err(DropReason::AdvertisementAuthentication));
    let bare = case.answer.clone();
    case.answer.drain(..13);
    case.config.legacy_server = true;
    assert_eq!(case.verify(), Err(DropReason::AdvertisementAuthentication));
    // another key.
    case.answer = bare.clone();
    case.sign(0x0c, 0);
    assert_eq!(case.verify(), Err(DropReason::AdvertisementAuthentication));
    case.answer = bare.clone();
    case.sign(0x0b, 0);
    assert!(!case.verify().unwrap().renew_key);
    //
    case.answer = bare;
    case.sign(0x0b, 1);
    assert!(case.verify().unwrap().renew_key);
}

#[test]
fn a04_every_bit_is_covered() {
    let mut case = Case::new(|config| config.credentials = Some(credentials(0x0b)));
    case.sign(0x0b, 0);
    let whole = case.answer.clone();
    // From the value on; the octets before are not covered.
    for bit in 9 * 8..whole.len() * 8 {
        case.answer = whole.clone();
        case.answer[bit / 8] ^= 1 << (bit % 8);
        let Ok(parts) = encapsulation::parse(&case.answer) else {
            continue;
        };
        let verified = case
            .solicitation
            .verify(&case.config, SERVER.primary(), &parts);
        assert!(verified.is_err(), "bit {bit}");
    }
    // Trailers are not covered either.
    case.answer = [&whole[..], &[1, 0]].concat();
    assert!(case.verify().is_ok());
}

#[test]
fn t11_a_prefix_of_the_tunnel_service() {
    const PREFIX: [u8; 8] = [0x2a, 0, 1, 2, 3, 4, 5, 6];
    let verify = |prefix: [u8; 8], change: &dyn Fn(&mut Config)| {
        let mut case = Case::new(|config| {
            config.credentials = Some(credentials(0x0b));
            config.allow_tunnel = true;
            change(config);
        });
        let to = *case.payload[42..].first_chunk().unwrap();
        case.answer.truncate(NONCE_AND_ORIGIN);
        Advertisement::new(&link_local(), prefix, None).write(&to, &mut case.answer);
        if case.config.credentials.is_some() {
            case.sign(0x0b, 0);
        }
        case.verify().map(|advertised| advertised.tunnel)
    };
    assert_eq!(verify(TEREDO, &|_| ()), Ok(None));
    assert_eq!(verify(PREFIX, &|_| ()), Ok(Some(PREFIX)));
    let refused = Err(DropReason::AdvertisementPrefix);
    assert_eq!(
        verify(PREFIX, &|config| config.allow_tunnel = false),
        refused
    );
    // No global unicast, or another Teredo service.
    for prefix in [
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0],
        [0xfd, 0, 1, 2, 3, 4, 5, 6],
        [0; 8],
        [0xff; 8],
    ] {
        assert_eq!(verify(prefix, &|_| ()), refused);
    }
    for prefix in [
        [0x20, 1, 0, 0, 9, 9, 9, 9],
        [0x3f, 0xfe, 0x83, 0x1f, 1, 2, 3, 4],
    ] {
        assert_eq!(verify(prefix, &|_| ()), refused);
    }
}

#[test]
fn t11_not_without_credentials() {
    let mut case = Case::new(|config| config.allow_tunnel = true);
    case.options(&[&prefix([0x2a, 0, 1, 2, 3, 4, 5, 6], 64)]);
    assert_eq!(case.verify(), Err(DropReason::AdvertisementPrefix));
}
