//! Interfaces that go and come back.

use anyhow::{Context as _, Result};
use teredo_lab::{
    links,
    scene::{IPV4_INTERFACE, RELAY},
};

use super::{Fault, Takes};
use crate::site::Site;

/// The interface to the IPv4 internet is set down.
#[derive(Debug)]
pub struct InterfaceDown;

impl Fault for InterfaceDown {
    fn name(&self) -> &'static str {
        "interface down"
    }

    fn condition(&self) -> Option<&'static str> {
        Some("interface-missing")
    }

    fn takes(&self) -> Takes {
        Takes::Anything
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        let down = format!("link set {IPV4_INTERFACE} down");
        site.scene.relay.ip(&down).map(drop)
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        let up = format!("link set {IPV4_INTERFACE} up");
        site.scene.relay.ip(&up).map(drop)
    }
}

/// The interface to the IPv4 internet is removed and made anew, as a network card is reset.
#[derive(Debug, Default)]
pub struct InterfaceReplaced {
    station: Option<[u8; 6]>,
}

impl Fault for InterfaceReplaced {
    fn name(&self) -> &'static str {
        "interface removed"
    }

    fn condition(&self) -> Option<&'static str> {
        Some("address-missing")
    }

    fn takes(&self) -> Takes {
        Takes::Anything
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        let relay = &site.scene.relay;
        let interface = links::Interface::named(relay, IPV4_INTERFACE)?;
        self.station = Some(interface.station);
        relay.ip(&format!("link del {IPV4_INTERFACE}")).map(drop)
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        let station = self.station.take().context("it was not removed")?;
        let station = station.map(|octet| format!("{octet:02x}")).join(":");
        site.scene
            .ipv4
            .plug_xdp(&site.scene.relay, IPV4_INTERFACE)?;
        site.scene.relay.ip_batch(&format!(
            "link set {IPV4_INTERFACE} address {station}
             addr add {}/16 dev {IPV4_INTERFACE}",
            RELAY.ip()
        ))
    }
}
