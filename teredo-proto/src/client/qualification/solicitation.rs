//! Solicitations, and the check that an advertisement answers one (RFC 4380 sections 5.2.1 and
//! 5.2.2).

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};
use teredo_common::{
    address::{CONE_FLAG, Endpoint, ServicePrefix},
    scope::is_global_unicast,
    wire::MTU,
};

use super::super::{Config, ServerEndpoints, statistics::DropReason};

use crate::{
    ServerAddress,
    wire::{
        encapsulation::{Encapsulation, NONCE_LENGTH, write_authentication},
        ipv6::Header,
        router::{self, Contents},
    },
};

/// The source address of solicitations, but for the cone flag.
const LINK_LOCAL: [u8; 16] = [
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];
/// Universal and group bit of an interface identifier, in its first octet.
const UNIVERSAL_AND_GROUP: u8 = 0x03;
/// The largest IPv6 packet that fits into a UDP payload, in octets.
const MAX_MTU: u32 = 65507;

/// A solicitation that was sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Solicitation {
    server: ServerEndpoints,
    asked: ServerAddress,
    /// The answer is to come from the server's other address (S-18).
    cone: bool,
    source: [u8; 16],
    nonce: [u8; NONCE_LENGTH],
}

/// The contents of an advertisement that answers a solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertised {
    /// The client's endpoint as the server sees it.
    pub mapped: Endpoint,
    /// The /64 of the tunnel service that the client has (T-11); `None`: it is a Teredo client.
    pub tunnel: Option<[u8; 8]>,
    /// The largest IPv6 packet in the tunnel, in octets (C-16).
    pub mtu: u16,
    /// The server wants the client to use a new key.
    pub renew_key: bool,
}

impl Solicitation {
    /// Creates a solicitation to one of the server's addresses, with or without the cone flag
    /// (C-10), and its UDP payload. Its nonce is new.
    pub fn new(
        config: &Config,
        random: &mut impl Rng,
        server: ServerEndpoints,
        asked: ServerAddress,
        cone: bool,
    ) -> (Self, Vec<u8>) {
        let solicitation = Self {
            server,
            asked,
            cone,
            source: link_local(config.random_link_local, random, cone),
            nonce: random.random(),
        };
        (solicitation, solicitation.payload(config))
    }

    /// Returns the destination.
    pub const fn destination(&self) -> Endpoint {
        self.server.endpoint(self.asked)
    }

    /// Returns the UDP payload: the authentication header, with identification and value if the
    /// client has credentials, and the packet.
    fn payload(&self, config: &Config) -> Vec<u8> {
        const CONFIRMATION: u8 = 0;
        let packet = router::solicitation(&self.source);
        let (client, length) = config
            .credentials
            .as_ref()
            .map_or((&[][..], 0), |credentials| {
                (
                    &credentials.id[..],
                    credentials.key.algorithm().value_length(),
                )
            });
        let mut payload = Vec::new();
        let value = write_authentication(client, length, self.nonce, CONFIRMATION, &mut payload);
        if let Some(credentials) = &config.credentials {
            let key = &credentials.key;
            key.sign(self.nonce, CONFIRMATION, &packet, &mut payload[value]);
        }
        payload.extend_from_slice(&packet);
        payload
    }

    /// Returns the contents of an advertisement that came from `from`, if it answers this
    /// solicitation.
    ///
    /// # Errors
    ///
    /// The reason why the advertisement has to be dropped.
    pub fn verify(
        &self,
        config: &Config,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<Advertised, DropReason> {
        if from != self.answers_from() {
            return Err(DropReason::AdvertisementSource);
        }
        let confirmation = self.authenticate(config, parts)?;
        let mapped = parts.origin.ok_or(DropReason::AdvertisementOrigin)?;
        if mapped.port() == 0 || !config.ipv4_scope.accepts(mapped.address) {
            return Err(DropReason::AdvertisementOrigin);
        }
        let contents = Header::parse(parts.packet)
            .ok()
            .filter(|header| header.destination() == self.source)
            .and_then(|header| router::parse_advertisement(header, parts.packet))
            .ok_or(DropReason::AdvertisementInvalid)?;
        Ok(Advertised {
            mapped,
            tunnel: self.prefix(config, &contents)?,
            mtu: mtu(&contents),
            renew_key: confirmation != 0,
        })
    }

    /// The one address that a valid answer comes from (C-12).
    const fn answers_from(&self) -> Endpoint {
        let from = match self.cone {
            true => self.asked.other(),
            false => self.asked,
        };
        self.server.endpoint(from)
    }

    /// The confirmation octet, 0 if the advertisement is not proven to come from the server.
    fn authenticate(&self, config: &Config, parts: &Encapsulation<'_>) -> Result<u8, DropReason> {
        let Some(header) = &parts.authentication else {
            return match &config.credentials {
                None if config.legacy_server => Ok(0),
                Some(_) => Err(DropReason::AdvertisementAuthentication),
                None => Err(DropReason::AdvertisementNonce),
            };
        };
        if header.nonce != self.nonce {
            return Err(DropReason::AdvertisementNonce);
        }
        let Some(credentials) = &config.credentials else {
            return Ok(0);
        };
        if !credentials.key.verify(header, &covered(parts)) {
            return Err(DropReason::AdvertisementAuthentication);
        }
        Ok(header.confirmation)
    }

    /// The prefix, if it is one of the tunnel service; `None` if it is the Teredo prefix with the
    /// server's address.
    fn prefix(&self, config: &Config, contents: &Contents) -> Result<Option<[u8; 8]>, DropReason> {
        let prefix = contents.prefix.ok_or(DropReason::AdvertisementPrefix)?;
        let [a, b, c, d, server @ ..] = prefix;
        let service = ServicePrefix([a, b, c, d]);
        let is_legacy = config.legacy_prefix && service == ServicePrefix::DRAFT;
        if (service == config.prefix || is_legacy) && server == self.server.primary.octets() {
            return Ok(None);
        }
        let teredo = [config.prefix, ServicePrefix::STANDARD, ServicePrefix::DRAFT];
        let mut network = [0; 16];
        network[..8].copy_from_slice(&prefix);
        let is_tunnel = config.allow_tunnel
            && config.credentials.is_some()
            && !teredo.contains(&service)
            && is_global_unicast(&network);
        is_tunnel
            .then_some(Some(prefix))
            .ok_or(DropReason::AdvertisementPrefix)
    }
}

/// The source of a solicitation: any link-local address will do, with the cone flag or without.
fn link_local(is_random: bool, random: &mut impl Rng, cone: bool) -> [u8; 16] {
    let mut address = LINK_LOCAL;
    if is_random {
        random.fill_bytes(&mut address[8..]);
        address[8] &= !UNIVERSAL_AND_GROUP;
    }
    let [cone_flag, _] = CONE_FLAG.to_be_bytes();
    address[8] &= !cone_flag;
    if cone {
        address[8] |= cone_flag;
    }
    address
}

/// Returns the octets that the authentication value covers after nonce and confirmation.
fn covered(parts: &Encapsulation<'_>) -> Vec<u8> {
    let origin = parts.origin.map(Endpoint::origin_indication);
    [
        origin.as_ref().map_or(&[][..], |origin| origin),
        parts.packet,
    ]
    .concat()
}

/// The MTU of the tunnel (C-16).
fn mtu(contents: &Contents) -> u16 {
    let is_possible = |mtu: &u32| (u32::from(MTU)..=MAX_MTU).contains(mtu);
    let mtu = contents.mtu.filter(is_possible);
    mtu.and_then(|mtu| mtu.try_into().ok()).unwrap_or(MTU)
}
