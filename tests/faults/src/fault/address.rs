//! The address of the relay.

use anyhow::Result;
use teredo_lab::scene::{IPV4_INTERFACE, RELAY};

use super::{Fault, Takes};
use crate::site::Site;

/// The address of the relay is removed.
#[derive(Debug)]
pub struct AddressGone;

impl AddressGone {
    fn change(site: &Site, act: &str) -> Result<()> {
        let command = format!("addr {act} {}/16 dev {IPV4_INTERFACE}", RELAY.ip());
        site.scene.relay.ip(&command).map(drop)
    }
}

impl Fault for AddressGone {
    fn name(&self) -> &'static str {
        "address removed"
    }

    fn condition(&self) -> Option<&'static str> {
        Some("address-missing")
    }

    fn takes(&self) -> Takes {
        Takes::Anything
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        Self::change(site, "del")
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        Self::change(site, "add")
    }
}
