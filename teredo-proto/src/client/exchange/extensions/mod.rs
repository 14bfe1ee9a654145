//! The extensions of RFC 6081, as far as they concern peers.

mod hairpinning;
mod load_reduction;
mod port_mapping;
pub mod port_preserving;
pub mod ports;
pub mod sequential;
pub mod symmetric;

use crate::{
    client::statistics::DropReason,
    wire::trailer::{self, AlternateAddresses, Trailer},
};

/// The contents of a bubble's trailers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trailers<'a> {
    pub nonce: Option<[u8; 4]>,
    pub alternates: Option<AlternateAddresses<'a>>,
    pub random_port: Option<u16>,
    pub is_solicitation: bool,
    pub is_advertisement: bool,
}

impl<'a> Trailers<'a> {
    /// Parses trailers. The last of each kind counts.
    ///
    /// # Errors
    ///
    /// If a trailer forbids the packet.
    pub fn parse(trailers: &'a [u8]) -> Result<Self, DropReason> {
        let mut all = Self::default();
        for trailer in trailer::parse(trailers) {
            match trailer.map_err(|_| DropReason::Trailer)? {
                Trailer::Nonce(nonce) => all.nonce = Some(nonce),
                Trailer::AlternateAddresses(list) => all.alternates = Some(list),
                Trailer::RandomPort(port) => all.random_port = Some(port),
                Trailer::NeighborSolicitation => all.is_solicitation = true,
                Trailer::NeighborAdvertisement => all.is_advertisement = true,
            }
        }
        Ok(all)
    }
}
