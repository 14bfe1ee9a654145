//! The client's packets for those that capture.

use std::net::{Ipv4Addr, SocketAddrV4};

use teredo_common::{address::Endpoint, time::Instant, wire::SERVER_PORT};
use teredo_proto::{
    Counts,
    client::{Client, DropReason, Transmit},
};

use super::discovery::Multicast;
use crate::{
    capture::{Reason, Tap, Tapped},
    datapath::udp::{DISCOVERY_GROUP, Datagram},
};

/// The tap of the client, with the addresses that its sockets do not tell.
#[derive(Debug)]
pub struct ClientTap {
    tap: Tap,
    /// This host's address.
    address: Ipv4Addr,
    service_port: u16,
}

/// A packet that is of interest, and the drops until it came.
#[derive(Debug)]
struct Looked(Tapped, Counts<DropReason>);

impl ClientTap {
    /// Returns a tap that nobody captures at.
    pub fn new(service_port: u16) -> Self {
        Self {
            tap: Tap::default(),
            address: Ipv4Addr::UNSPECIFIED,
            service_port,
        }
    }

    /// Gives packets to those that capture from now on.
    pub fn set_tap(&mut self, tap: Tap) {
        self.tap = tap;
    }

    /// Sets this host's address, if it has one.
    pub fn set_address(&mut self, address: Option<Ipv4Addr>) {
        self.address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    }

    /// Lets the protocol handle a datagram to a local port.
    #[inline]
    pub fn handle_datagram<'p>(
        &self,
        client: &mut Client,
        now: Instant,
        to: u16,
        datagram: Datagram<'p>,
    ) -> Option<&'p mut [u8]> {
        let from = datagram.source.into();
        let tapped = (self.tap).datagram(from, self.endpoint(to), datagram.payload);
        let looked = tapped.map(|tapped| Looked::new(tapped, client));
        let packet = client.handle_datagram(now, to, from, datagram.ecn, datagram.payload);
        if let Some(looked) = looked {
            self.received(client, &looked, packet.as_deref().map(Tapped::packet));
        }
        packet
    }

    /// Lets the protocol handle a datagram to the discovery address.
    pub fn handle_discovery(
        &self,
        client: &mut Client,
        now: Instant,
        multicast: Multicast,
        payload: &[u8],
    ) {
        let from = multicast.source.into();
        let tapped = self.tap.datagram(from, discovery(), payload);
        let looked = tapped.map(|tapped| Looked::new(tapped, client));
        client.handle_discovery(now, multicast.interface, from, payload);
        if let Some(looked) = looked {
            self.received(client, &looked, None);
        }
    }

    /// Lets the protocol handle a packet from the kernel.
    #[inline]
    pub fn handle_ipv6<'p>(
        &self,
        client: &mut Client,
        now: Instant,
        packet: &'p mut [u8],
    ) -> Option<(u16, Endpoint, &'p [u8])> {
        let tapped = self.tap.packet(packet);
        let looked = tapped.map(|tapped| Looked::new(tapped, client));
        let datagram = client.handle_ipv6(now, packet);
        if let Some(looked) = looked {
            let forwarded = datagram
                .map(|(from, to, payload)| Tapped::datagram(self.endpoint(from), to, payload));
            self.received(client, &looked, forwarded);
        }
        datagram
    }

    /// Captures a packet of a super-packet, headers and data, that leaves from a local port.
    #[inline]
    pub fn segment(&self, parts: [&[u8]; 2], from: u16, to: Endpoint) {
        if self.tap.is_on() {
            let packet = parts.concat();
            if let Some(tapped) = self.tap.packet(&packet) {
                let datagram = Tapped::datagram(self.endpoint(from), to, &packet);
                self.tap.received(&tapped, None, Some(datagram));
            }
        }
    }

    /// Captures a packet that the protocol sends.
    #[inline]
    pub fn sent(&self, transmit: &Transmit) {
        let tapped = match transmit {
            Transmit::Datagram { from, to, payload } => {
                self.tap.datagram(self.endpoint(*from), *to, payload)
            }
            Transmit::Ipv6(packet) => self.tap.packet(packet),
            Transmit::Discovery { interface, payload } => {
                let from = SocketAddrV4::new(*interface, self.service_port);
                self.tap.datagram(from.into(), discovery(), payload)
            }
            Transmit::OpenPort(_) | Transmit::ClosePort(_) => None,
        };
        if let Some(tapped) = tapped {
            self.tap.sent(tapped);
        }
    }

    #[cold]
    fn received(&self, client: &Client, looked: &Looked, forwarded: Option<Tapped>) {
        let Looked(tapped, before) = looked;
        let reason = Reason::counted(before, &client.statistics().dropped);
        self.tap.received(tapped, reason, forwarded);
    }

    fn endpoint(&self, port: u16) -> Endpoint {
        SocketAddrV4::new(self.address, port).into()
    }
}

impl Looked {
    fn new(tapped: Tapped, client: &Client) -> Self {
        Self(tapped, client.statistics().dropped)
    }
}

fn discovery() -> Endpoint {
    SocketAddrV4::new(DISCOVERY_GROUP, SERVER_PORT).into()
}
