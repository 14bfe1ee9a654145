//! The station of a next hop.

use std::time::Duration;

use anyhow::Result;
use teredo_lab::{
    links::Interface,
    scene::{IPV4_INTERFACE, IPV6_INTERFACE},
};

use super::{Fault, Takes};
use crate::site::Site;

/// The next hops of both internets get another Ethernet address, as when a standby router takes over.
#[derive(Debug)]
pub struct GatewayMoves {
    /// Whether the new stations announce themselves, as they should.
    is_announced: bool,
}

impl GatewayMoves {
    /// The new stations announce themselves.
    #[must_use]
    pub fn announced() -> Self {
        Self { is_announced: true }
    }

    /// The new stations say nothing, so that the kernel of the relay has to find out.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            is_announced: false,
        }
    }
}

impl Fault for GatewayMoves {
    fn name(&self) -> &'static str {
        match self.is_announced {
            true => "next hop moved",
            false => "next hop moved silently",
        }
    }

    fn takes(&self) -> Takes {
        Takes::Anything
    }

    fn bound(&self) -> Duration {
        match self.is_announced {
            true => Duration::from_secs(5),
            // Confirmed for 1.5 times this, then five seconds of delay and three attempts.
            false => Duration::from_secs(20),
        }
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        let relay = &site.scene.relay;
        for (family, interface) in [("ipv4", IPV4_INTERFACE), ("ipv6", IPV6_INTERFACE)] {
            let key = format!("net.{family}.neigh.{interface}");
            relay.sysctl(&format!("{key}.base_reachable_time_ms"), 4000)?;
            relay.sysctl(&format!("{key}.delay_first_probe_time"), 1)?;
        }
        for (namespace, interface) in [
            (&site.load.peers, IPV4_INTERFACE),
            (&site.scene.host().namespace, IPV6_INTERFACE),
        ] {
            let announces = u8::from(self.is_announced);
            for key in ["ipv4.conf.all.arp_notify", "ipv6.conf.all.ndisc_notify"] {
                namespace.sysctl(&format!("net.{key}"), announces)?;
            }
            let mut station = Interface::named(namespace, interface)?.station;
            // A station of somebody, made up by the host.
            station[0] = 2;
            station[5] = station[5].wrapping_add(1);
            let station = station.map(|octet| format!("{octet:02x}")).join(":");
            namespace.ip(&format!("link set {interface} address {station}"))?;
        }
        Ok(())
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        // The relay has to notice by itself. The server's host sends little by this next hop: its kernel would keep the
        // former station for up to a minute, and lose a packet of a later stretch, without a counter.
        site.scene.server_namespace().ip("neigh flush all")?;
        Ok(())
    }
}
