//! Router solicitations and their answers (RFC 4380 section 5.3.2).

use teredo_common::{
    address::has_cone_flag, scope::is_link_local, time::Instant, wire::ALL_ROUTERS,
};

use super::{
    Route, Server, ServerAddress,
    authentication::{self, Identity},
    reception::Packet,
    statistics::{DropReason, Service},
};
use crate::wire::{
    encapsulation::{Authentication, write_authentication},
    router,
};

/// The confirmation octet: the key is valid.
const VALID: u8 = 0;
/// The confirmation octet: the client should get another key.
const RENEW: u8 = 1;

impl Server {
    /// Rule 4 (S-07): answers a solicitation with an advertisement.
    pub(super) fn advertise(
        &mut self,
        now: Instant,
        to: ServerAddress,
        packet: &Packet<'_>,
        header: Option<Authentication<'_>>,
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        if !is_link_local(&packet.source) || packet.destination != ALL_ROUTERS {
            return Err(DropReason::SolicitationAddress);
        }
        if !router::is_valid_solicitation(packet.header, packet.octets) {
            return Err(DropReason::SolicitationInvalid);
        }
        let identity = self.clients.identify(header, packet.octets)?;
        if let Identity::Client { number, header, .. } = identity {
            self.tunnel.check(now, number, packet.from, header.nonce)?;
        }
        if self.is_draining() {
            return Err(DropReason::Draining);
        }
        self.admit(now, packet.from)?;
        let service = self.write_advertisement(now, packet, identity, output);
        let from = if has_cone_flag(&packet.source) {
            to.other()
        } else {
            to
        };
        let to = packet.from;
        Ok((service, Route::Datagram { from, to }))
    }

    /// Authentication header if there was one (S-19, A-03), origin indication, advertisement.
    fn write_advertisement(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        identity: Identity<'_>,
        output: &mut Vec<u8>,
    ) -> Service {
        let origin = packet.from.origin_indication();
        let (number, key, header) = match identity {
            Identity::Client {
                number,
                key,
                header,
            } => (number, key, header),
            Identity::Anonymous | Identity::Nonce(_) => {
                if let Identity::Nonce(nonce) = identity {
                    write_authentication(&[], 0, nonce, VALID, output);
                }
                output.extend_from_slice(&origin);
                self.advertisement.write(&packet.source, output);
                return Service::Advertised;
            }
        };
        self.note_key(now, number, key, packet.from);
        self.bind(now, number, packet.from, header.nonce);
        let confirmation = match key {
            authentication::VALID => VALID,
            _ => RENEW,
        };
        let (client, nonce) = (header.client, header.nonce);
        let value = write_authentication(client, header.value.len(), nonce, confirmation, output);
        let covered = output.len();
        output.extend_from_slice(&origin);
        let advertisement = self.tunnel.advertisement(number);
        advertisement
            .unwrap_or(&self.advertisement)
            .write(&packet.source, output);
        let (header, covered) = output.split_at_mut(covered);
        if let Some(key) = self.clients.keys(number).nth(key) {
            key.sign(nonce, confirmation, covered, &mut header[value]);
        }
        Service::AdvertisedSecure
    }
}
