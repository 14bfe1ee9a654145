//! A host on which `teredo probe` measures.

use std::net::Ipv4Addr;

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    client::ServerEndpoints,
    probe::{Measurement, NatProbe},
};

use super::Output;

/// A host with a measurement of server and NAT.
#[derive(Debug)]
pub struct ProbeNode {
    /// The measurement.
    pub probe: NatProbe,
    /// The host's address.
    pub ipv4: Ipv4Addr,
    sockets: [Endpoint; NatProbe::SOCKETS],
}

impl ProbeNode {
    /// Starts a measurement from these ports. It begins with the next call of `handle_timeout`.
    #[must_use]
    pub fn new(
        server: ServerEndpoints,
        ipv4: Ipv4Addr,
        ports: [u16; NatProbe::SOCKETS],
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let sockets = ports.map(|port| Endpoint::new(ipv4, port));
        Self {
            probe: NatProbe::new(server, sockets, seed, now),
            ipv4,
            sockets,
        }
    }

    /// The endpoint of the service socket.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.sockets[0]
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        payload: &[u8],
        output: &mut Vec<Output>,
    ) {
        if let Some(socket) = self.sockets.iter().position(|&socket| socket == to) {
            self.probe.handle_datagram(now, socket, from, payload);
            self.drain(output);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, output: &mut Vec<Output>) {
        self.probe.handle_timeout(now);
        self.drain(output);
    }

    fn drain(&mut self, output: &mut Vec<Output>) {
        while let Some(transmit) = self.probe.poll_transmit() {
            output.push(Output::Datagram {
                from: self.sockets[transmit.socket],
                to: transmit.to,
                payload: transmit.payload,
            });
        }
    }
}
