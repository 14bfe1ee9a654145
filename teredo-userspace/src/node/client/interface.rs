//! The client's tunnel interface, as the host sees it: its address and its routes.

use std::{fs, net::Ipv6Addr, path::Path};

use anyhow::Result;
use ipnet::Ipv6Net;
use teredo_common::wire::MTU;
use tokio::io::unix::AsyncFd;

use crate::{
    datapath::{route::Routes, tun::Tun},
    node::port::register,
};

/// The metric of our default route: larger than that of whoever else may have one.
const METRIC: u32 = 1_000_000;
/// Bits of an address's own prefix: what is on the link is no matter of the address.
const HOST: u8 = 128;

/// The tunnel interface. It has at most one address, ends with the process, and what the host
/// should not send there it cannot: without address there are no routes.
#[derive(Debug)]
pub struct Interface {
    pub tun: AsyncFd<Tun>,
    /// The service prefix, in which peers are.
    prefix: Ipv6Net,
    /// Whether native hosts are reached through it while nothing else leads to them.
    wants_default: bool,
    address: Option<Ipv6Addr>,
    has_default: bool,
}

impl Interface {
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

    /// Makes the interface ready, without what an earlier owner has left.
    pub async fn bring_up(&self, routes: &Routes) -> Result<()> {
        let tun = self.tun.get_ref();
        routes.take_down(tun.index()).await?;
        for (setting, value) in [
            // The host may be without IPv6 elsewhere.
            ("disable_ipv6", "0"),
            // A link-local address is of no use here, nor are routers.
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

    /// Gives the interface this address and no other, and has the kernel send there what is for
    /// peers and, if `is_only_way`, for native hosts.
    pub async fn set_address(
        &mut self,
        routes: &Routes,
        address: Ipv6Addr,
        mtu: u16,
        is_only_way: bool,
    ) -> Result<()> {
        if self.address != Some(address) {
            self.clear(routes).await?;
        }
        let index = self.tun.get_ref().index();
        routes.bring_up(index, mtu).await?;
        routes.add_address(index, address.into(), HOST).await?;
        self.address = Some(address);
        routes.add_route(self.prefix, index).await?;
        self.hold_default(routes, is_only_way).await
    }

    /// Takes the address away, with the routes.
    pub async fn clear(&mut self, routes: &Routes) -> Result<()> {
        let Some(address) = self.address.take() else {
            return Ok(());
        };
        let index = self.tun.get_ref().index();
        self.hold_default(routes, false).await?;
        routes.remove_route(self.prefix, index).await?;
        routes.remove_address(index, address.into(), HOST).await?;
        Ok(())
    }

    /// Holds the default route, if it is wanted, while nothing else leads to native hosts.
    pub async fn hold_default(&mut self, routes: &Routes, is_only_way: bool) -> Result<()> {
        let wanted = self.wants_default && is_only_way && self.address.is_some();
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
