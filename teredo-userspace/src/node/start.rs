//! Setting everything up.

use std::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rand::{TryRng as _, rngs::SysRng};
use teredo_common::maps::Settings;

use super::{
    Losses, Node, clock,
    fast_path::{self, FastPath},
    register,
};
use crate::{
    api::Handle,
    config::{self, Config, Ipv4Choice},
    datapath::{
        route::{self, Addresses, Family, Routes},
        tun::{PacketBatch, Tun},
        udp::{ReceiveBatch, UdpSocket},
        watch::Watch,
    },
    protocol::relay::{self, Relay},
};

pub async fn start(config: Config) -> Result<Node> {
    let (Some(role), None) = (config.relay.clone(), &config.server) else {
        bail!("this version cannot run the role server yet: remove the section [server]");
    };
    let watch = Watch::open().context("cannot watch the kernel's routing")?;
    let routes = Routes::open()?;
    let address = outer_address(&role, &routes).await?;
    let udp = UdpSocket::bind(SocketAddrV4::new(address, role.port))?;
    let addresses = routes.addresses().await?;
    let relay_config = relay_config(&config.node, &role, udp.local, &addresses);
    let peer_lifetime = relay_config.peer_lifetime;
    let relay = Relay::new(relay_config, seed()?, clock::now());
    let tun = Tun::open(&role.tun)?;
    let interface = (!tun.is_taken_over()).then_some(tun.index());
    let mtu = role.mtu;
    let (handle, requests) = Handle::new();
    let mut node = Node {
        started: Instant::now(),
        relay,
        endpoint: udp.local,
        sender: udp.sender,
        receiver: register(udp.receiver)?,
        marked: register(udp.marked)?,
        tun: register(tun)?,
        fast_path: FastPath::default(),
        routes,
        watch,
        requests,
        handle,
        datagrams: ReceiveBatch::new(),
        packets: PacketBatch::new(mtu),
        transmits: Vec::new(),
        losses: Losses::default(),
        is_at_home: true,
        config,
        role,
    };
    match node.set_up(&addresses.ipv4, peer_lifetime).await {
        Ok(()) => Ok(node),
        Err(error) => {
            node.abandon(interface).await;
            Err(error)
        }
    }
}

impl Node {
    /// Makes the TUN interface ready, starts the fast path, and at last has packets come.
    async fn set_up(&mut self, own_ipv4: &[Ipv4Addr], peer_lifetime: Duration) -> Result<()> {
        let tun = self.tun.get_ref();
        let (relay, checksum) = (&self.role, self.role.xdp.outer_checksum);
        self.routes.bring_up(tun.index(), relay.mtu).await?;
        if !relay.host_specific {
            for family in [Family::Ipv4, Family::Ipv6] {
                route::set_forwarding(family, tun.name(), true)?;
            }
        }
        let settings = Settings {
            peer_lifetime: peer_lifetime.as_nanos() as u64,
            relay: self.endpoint().into(),
            mtu: relay.mtu,
            prefix: self.config.node.prefix,
            tunnel: tun.index(),
            flags: fast_path::flags(checksum),
            interface_mask: 0,
        };
        self.fast_path =
            FastPath::start(&self.config, relay, &self.routes, own_ipv4, settings).await?;
        self.fast_path.hand_over(&mut self.relay, clock::now())?;
        self.hold_route().await
    }

    /// Takes back what [`Self::set_up`] did before it failed. What was there before it stays: it
    /// may be of use to the next start.
    async fn abandon(&mut self, new_interface: Option<u32>) {
        if let Err(error) = mem::take(&mut self.fast_path).abandon() {
            tracing::warn!("{error}");
        }
        if let Some(interface) = new_interface
            && let Err(error) = self.routes.remove_link(interface).await
        {
            tracing::warn!("{error}");
        }
    }
}

/// The relay's own IPv4 address.
async fn outer_address(relay: &config::Relay, routes: &Routes) -> Result<Ipv4Addr> {
    match relay.ipv4 {
        Ipv4Choice::Address(address) => Ok(address),
        Ipv4Choice::Auto => routes.default_ipv4_address().await?.context(
            "relay.ipv4 is \"auto\" but there is no IPv4 default route to tell the address: add the \
             route, or set relay.ipv4 to an address of this host",
        ),
    }
}

fn relay_config(
    node: &config::Node,
    relay: &config::Relay,
    endpoint: SocketAddrV4,
    own: &Addresses,
) -> relay::Config {
    relay::Config {
        prefix: node.prefix,
        served: relay.serve.clone(),
        host_specific: relay.host_specific,
        own_ipv4: own.ipv4.clone(),
        own_ipv6: own.ipv6.clone(),
        ipv4_scope: relay.ipv4_scope,
        mtu: relay.mtu,
        max_peers: relay.max_peers,
        queue_per_peer: relay.queue_per_peer,
        queue_total_bytes: relay.queue_total_bytes,
        ..relay::Config::new(endpoint.into())
    }
}

/// Randomness that nobody can guess.
fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .context("the system has no random numbers")?;
    Ok(seed)
}
