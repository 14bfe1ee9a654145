//! The client's tunnel interface with its address and routes.

use std::{fs, net::Ipv6Addr, path::Path};

use anyhow::Result;
use ipnet::Ipv6Net;
use teredo_common::wire::MTU;
use tokio::io::unix::AsyncFd;

use crate::{
    datapath::{route::Routes, tun::Tun},
    node::port::register,
};

/// The metric of the default route, larger than that of any other.
const METRIC: u32 = 1_000_000;
/// The prefix length of the address. On-link routes are added separately.
const ADDRESS_PREFIX: u8 = 128;

/// The tunnel interface. It disappears with the process, and has at most one address. Without an
/// address it has no routes, so the host sends no packets to it.
#[derive(Debug)]
pub struct TunnelInterface {
    pub tun: AsyncFd<Tun>,
    /// The service prefix.
    prefix: Ipv6Net,
    /// Whether it should have the default route while there is no other.
    wants_default: bool,
    address: Option<Ipv6Addr>,
    has_default: bool,
}

impl TunnelInterface {
    pub fn open(name: &str, prefix: Ipv6Net, wants_default: bool) -> Result<Self> {
        let tun = Tun::open(name)?;
        tun.end_with_process()?;
        tun.coalesce()?;
        Ok(Self {
            tun: register(tun)?,
            prefix,
            wants_default,
            address: None,
            has_default: false,
        })
    }

    /// Brings the interface up, without the addresses and routes that an earlier owner left.
    pub async fn bring_up(&self, routes: &Routes) -> Result<()> {
        let tun = self.tun.get_ref();
        routes.take_down(tun.index()).await?;
        for (setting, value) in [
            // The host may have disabled IPv6 elsewhere.
            ("disable_ipv6", "0"),
            // Neither a link-local address nor routers are of use here.
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
        ] {
            let file = Path::new("/proc/sys/net/ipv6/conf").join(tun.name());
            if let Err(error) = fs::write(file.join(setting), value) {
                tracing::debug!("cannot set {setting} of {}: {error}", tun.name());
            }
        }
        Ok(routes.bring_up(tun.index(), MTU).await?)
    }

    /// Sets the only address of the interface, and adds the routes to peers and, if `is_needed`, to
    /// native hosts.
    pub async fn set_address(
        &mut self,
        routes: &Routes,
        address: Ipv6Addr,
        mtu: u16,
        is_needed: bool,
    ) -> Result<()> {
        if self.address != Some(address) {
            self.clear(routes).await?;
        }
        let index = self.tun.get_ref().index();
        routes.bring_up(index, mtu).await?;
        routes
            .add_address(index, address.into(), ADDRESS_PREFIX)
            .await?;
        self.address = Some(address);
        routes.add_route(self.prefix, index).await?;
        self.update_default_route(routes, is_needed).await
    }

    /// Removes the address and the routes.
    pub async fn clear(&mut self, routes: &Routes) -> Result<()> {
        let Some(address) = self.address.take() else {
            return Ok(());
        };
        let index = self.tun.get_ref().index();
        self.update_default_route(routes, false).await?;
        routes.remove_route(self.prefix, index).await?;
        routes
            .remove_address(index, address.into(), ADDRESS_PREFIX)
            .await?;
        Ok(())
    }

    /// Adds or removes the default route. `is_needed` tells whether the host has no other.
    pub async fn update_default_route(&mut self, routes: &Routes, is_needed: bool) -> Result<()> {
        let wanted = self.wants_default && is_needed && self.address.is_some();
        if wanted == self.has_default {
            return Ok(());
        }
        let index = self.tun.get_ref().index();
        if wanted {
            routes.add_default_route(index, METRIC).await?;
        } else {
            routes.remove_default_route(index, METRIC).await?;
        }
        self.has_default = wanted;
        Ok(())
    }
}
