//! The data path of the XDP program on copies of its maps, in this process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use teredo_common::{address::Endpoint, time::Instant, verdict::Verdict};
use teredo_datapath::{
    Addresses, Way,
    host::{Arrival, Cpu, Network},
};

use super::{FastPathFacts, HostFacts};

/// The code that decides, for the reader.
pub const SOURCE: &str = "the code of the XDP program, on entries from its maps";

/// The kernel's routes and neighbours, as they were looked up.
struct LookedUp<'a> {
    host: &'a HostFacts,
    facts: &'a FastPathFacts,
}

impl LookedUp<'_> {
    fn way(&self, destination: IpAddr) -> Option<Way> {
        let way = self.host.way(destination)?;
        let station = self.facts.station(way.interface)?;
        Some(Way {
            interface: way.interface,
            mtu: u16::try_from(way.mtu).unwrap_or(u16::MAX),
            addresses: Addresses::new(way.station?, station),
            has_gateway: way.gateway.is_some(),
        })
    }
}

impl Network for LookedUp<'_> {
    fn look_up_ipv4(&self, _from: u32, _source: Endpoint, destination: Endpoint) -> Option<Way> {
        self.way(destination.ip().into())
    }

    fn look_up_ipv6(&self, _from: u32, _source: Ipv6Addr, destination: Ipv6Addr) -> Option<Way> {
        self.way(destination.into())
    }
}

impl FastPathFacts {
    /// Returns the Ethernet address of an interface.
    fn station(&self, interface: u32) -> Option<[u8; 6]> {
        let mut interfaces = self.interfaces.iter();
        interfaces.find_map(|&(index, station)| (index == interface).then_some(station))
    }

    /// Returns the interface by which frames from a source arrive, if routes are symmetric, or any; with
    /// its Ethernet address.
    fn ingress(&self, host: &HostFacts, source: IpAddr) -> Option<(u32, [u8; 6])> {
        let way = host.way(source);
        let known = way.and_then(|way| Some((way.interface, self.station(way.interface)?)));
        known.or_else(|| self.interfaces.first().copied())
    }

    /// Returns the verdict about an IPv6 packet that arrives.
    pub fn judge_packet(
        &self,
        now: Instant,
        host: &HostFacts,
        source: Ipv6Addr,
        packet: &[u8],
    ) -> Option<Verdict> {
        let (ingress, station) = self.ingress(host, source.into())?;
        let frame = super::frames::of_packet(station, packet);
        Some(self.judge(now, host, ingress, &frame))
    }

    /// Returns the verdict about a datagram that arrives.
    pub fn judge_datagram(
        &self,
        now: Instant,
        host: &HostFacts,
        source: Ipv4Addr,
        frame: impl FnOnce([u8; 6]) -> Vec<u8>,
    ) -> Option<Verdict> {
        let (ingress, station) = self.ingress(host, source.into())?;
        Some(self.judge(now, host, ingress, &frame(station)))
    }

    fn judge(&self, now: Instant, host: &HostFacts, ingress: u32, frame: &[u8]) -> Verdict {
        let network = LookedUp { host, facts: self };
        let arrival = Arrival {
            frame,
            ingress,
            now,
        };
        self.maps.run(&Cpu::default(), &network, arrival).verdict
    }
}
