//! A machine with a Teredo server.

use std::{net::Ipv4Addr, sync::atomic::AtomicU64};

use teredo_common::{address::Endpoint, limiter::BUCKETS, time::Instant};
use teredo_proto::{
    ServerAddress,
    server::{Buckets, Config, Server, Transmit},
};

use super::Output;

/// A machine with a Teredo server.
#[derive(Debug)]
pub struct ServerNode {
    /// The server.
    pub server: Server,
    addresses: [Ipv4Addr; 2],
    port: u16,
}

impl ServerNode {
    /// A server that has a route for the service prefix.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (addresses, port) = ([config.primary, config.secondary], config.port);
        let mut server = Server::new(config, buckets());
        server.set_native_reachable(true);
        Self {
            server,
            addresses,
            port,
        }
    }

    pub(super) const fn addresses(&self) -> [Ipv4Addr; 2] {
        self.addresses
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        payload: &[u8],
        output: &mut Vec<Output>,
    ) {
        if to.port() != self.port {
            return;
        }
        let at = if to.ip() == self.addresses[0] {
            ServerAddress::Primary
        } else {
            ServerAddress::Secondary
        };
        let sent = self.server.handle_datagram(now, at, from, payload);
        output.extend(match sent {
            Some(Transmit::Datagram { from, to, payload }) => {
                let address = self.addresses[usize::from(from == ServerAddress::Secondary)];
                Some(Output::Datagram {
                    from: Endpoint::new(address, self.port),
                    to,
                    payload: payload.to_vec(),
                })
            }
            Some(Transmit::Native(packet)) => Some(Output::Ipv6(packet.to_vec())),
            Some(Transmit::Tunnel(_)) | None => None,
        });
    }
}

/// Full buckets, from memory that is zero already: thousands of servers live shortly.
fn buckets() -> Buckets {
    let storage = Box::<[AtomicU64]>::new_zeroed_slice(BUCKETS as usize);
    // SAFETY: all zeroes is an `AtomicU64`.
    let storage = unsafe { storage.assume_init() };
    Buckets::shared(storage).unwrap_or_default()
}
