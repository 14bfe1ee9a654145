//! The search for the default gateway by SSDP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use igd_next::{
    SearchOptions,
    aio::{
        Gateway,
        tokio::{Tokio, search_gateway},
    },
};
use tokio::net::UdpSocket;

use super::GatewayLink;

/// The multicast group of searches and their port.
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);
/// The wait for the answer to a search, for which gateways may take three seconds.
const TIMEOUT: Duration = Duration::from_millis(3_500);
/// Octets of the longest message.
const MESSAGE_MAX: usize = 1_500;

/// Searches for the gateway, by multicast on the link and at its own address.
///
/// The library follows the first answer, which any host on the link can send. So its search goes
/// through a filter on the loopback interface, which passes the gateway's answers alone.
pub async fn search(link: GatewayLink) -> Option<Gateway<Tokio>> {
    let found = async {
        let filter = Filter::open(link).await?;
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        options.broadcast_address = filter.inside.local_addr()?;
        options.timeout = Some(TIMEOUT);
        options.single_search_timeout = Some(TIMEOUT);
        options.allowed_gateway_ips = vec![link.gateway.into()];
        tokio::select! {
            found = search_gateway(options) => found.map_err(io::Error::other),
            failed = filter.run() => Err(failed),
        }
    };
    match found.await {
        Ok(gateway) if gateway.addr.ip() == link.gateway => Some(gateway),
        Ok(gateway) => {
            tracing::debug!("{} is not the default gateway", gateway.addr);
            None
        }
        Err(error) => {
            tracing::debug!("no gateway found at {}: {error}", link.gateway);
            None
        }
    }
}

/// The filter between the search and the link.
struct Filter {
    inside: UdpSocket,
    outside: UdpSocket,
    gateway: Ipv4Addr,
}

impl Filter {
    async fn open(link: GatewayLink) -> io::Result<Self> {
        Ok(Self {
            inside: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            outside: UdpSocket::bind((*link.local.ip(), 0)).await?,
            gateway: link.gateway,
        })
    }

    /// Passes requests to the link and the gateway's answers back, until a socket fails.
    async fn run(self) -> io::Error {
        let Err(error) = self.pass().await else {
            return io::ErrorKind::Other.into();
        };
        error
    }

    async fn pass(&self) -> io::Result<()> {
        let inside = self.inside.local_addr()?.to_string();
        let group = SocketAddr::from(GROUP).to_string();
        let (mut request, mut answer) = ([0; MESSAGE_MAX], [0; MESSAGE_MAX]);
        let mut requester = None;
        loop {
            tokio::select! {
                received = self.inside.recv_from(&mut request) => {
                    let (length, from) = received?;
                    let text = String::from_utf8_lossy(&request[..length]);
                    let text = text.replacen(&inside, &group, 1);
                    requester = Some(from);
                    for to in [GROUP.0, self.gateway] {
                        // One of both ways is enough.
                        let _ = self.outside.send_to(text.as_bytes(), (to, GROUP.1)).await;
                    }
                }
                received = self.outside.recv_from(&mut answer) => {
                    // An ICMP error about a request: nobody listens there.
                    let Ok((length, from)) = received else { continue };
                    match requester {
                        Some(requester) if from.ip() == IpAddr::V4(self.gateway) => {
                            self.inside.send_to(&answer[..length], requester).await?;
                        }
                        _ => tracing::debug!("{} is not the default gateway", from.ip()),
                    }
                }
            }
        }
    }
}
