//! The port mapping that the gateway is asked for by UPnP (RFC 6081 section 5.3).
//!
//! Only the default gateway is asked. The mapping is recorded in a file, so that it is removed even
//! after a crash.

use std::{
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use igd_next::{
    PortMappingProtocol, SearchOptions,
    aio::{
        Gateway,
        tokio::{Tokio, search_gateway},
    },
};
use teredo_common::address::Endpoint;
use tokio::{task::JoinHandle, time::timeout};

use super::record::{Record, Recorded};

/// The description in the gateway's list of mappings.
const DESCRIPTION: &str = "TEREDO";
/// The port at which gateways listen for searches.
const SEARCH_PORT: u16 = 1900;
/// The multicast group of searches.
const SEARCH_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The wait for the answer to a search, for which gateways may take three seconds.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(3_500);
/// The wait for the answer to another request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The link between this host and the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLink {
    /// This host's address on the link, with the service port.
    pub local: SocketAddrV4,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
}

/// The mapping of the service port, while there is one.
#[derive(Debug)]
pub struct PortMapping {
    record: Record,
    /// The link on which a mapping is wanted.
    link: Option<GatewayLink>,
    task: Option<JoinHandle<Option<Mapping>>>,
    mapping: Option<Mapping>,
}

/// A mapping in the gateway.
#[derive(Debug)]
struct Mapping {
    gateway: Gateway<Tokio>,
    external: SocketAddrV4,
}

impl PortMapping {
    /// Returns the state without a mapping, for the instance of this name.
    pub fn new(instance: &str) -> Self {
        Self {
            record: Record::of(instance),
            link: None,
            task: None,
            mapping: None,
        }
    }

    /// Returns the endpoint that the gateway forwards to the service port.
    pub fn external(&self) -> Option<Endpoint> {
        self.mapping.as_ref().map(|mapping| mapping.external.into())
    }

    /// Returns whether a request to the gateway is pending.
    pub fn is_pending(&self) -> bool {
        self.task.is_some()
    }

    /// Sets the link on which a mapping is wanted. A mapping on another link is removed.
    pub fn set_link(&mut self, link: Option<GatewayLink>) {
        if link == self.link {
            return;
        }
        self.link = link;
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let old = self.mapping.take();
        let record = self.record.clone();
        self.task = Some(tokio::spawn(async move {
            if let Some(old) = old {
                remove(&old, &record).await;
            }
            establish(link?, &record).await
        }));
    }

    /// Waits until the gateway has answered or failed to. Cancelling loses nothing.
    pub async fn answered(&mut self) {
        let Some(task) = &mut self.task else {
            return pending().await;
        };
        let mapping = task.await.ok().flatten();
        self.task = None;
        if let Some(mapping) = &mapping {
            tracing::info!(
                "the gateway {} forwards {} to this host",
                mapping.gateway.addr.ip(),
                mapping.external
            );
        }
        self.mapping = mapping;
    }

    /// Removes the mapping.
    pub async fn stop(&mut self) {
        self.link = None;
        if let Some(task) = self.task.take() {
            task.abort();
            // A mapping that it may have made is in the record.
            if let Ok(Some(mapping)) = task.await {
                self.mapping = Some(mapping);
            }
        }
        if let Some(mapping) = self.mapping.take() {
            remove(&mapping, &self.record).await;
        }
    }
}

impl Mapping {
    fn port(&self) -> u16 {
        self.external.port()
    }
}

/// Removes the mapping that a crash left, requests the new one, and asks for the gateway's external
/// address.
async fn establish(link: GatewayLink, record: &Record) -> Option<Mapping> {
    let gateway = search(link).await?;
    if let Some(left) = record.read().filter(|left| left.gateway == link.gateway) {
        delete(&gateway, left.port).await;
        record.clear();
    }
    let port = link.local.port();
    record.write(Recorded {
        gateway: link.gateway,
        port,
    });
    let local = SocketAddr::V4(link.local);
    let added = gateway.add_port(PortMappingProtocol::UDP, port, local, 0, DESCRIPTION);
    if let Err(error) = within(added).await {
        tracing::info!("the gateway {} forwards no port: {error}", link.gateway);
        record.clear();
        return None;
    }
    match within(gateway.get_external_ip()).await {
        Ok(IpAddr::V4(address)) if !address.is_unspecified() => Some(Mapping {
            gateway,
            external: SocketAddrV4::new(address, port),
        }),
        unusable => {
            let why = match unusable {
                Ok(address) => format!("{address} is not reachable"),
                Err(error) => error,
            };
            let gateway_address = link.gateway;
            tracing::info!(
                "the gateway {gateway_address} reports no usable external address: {why}"
            );
            delete(&gateway, port).await;
            record.clear();
            None
        }
    }
}

/// Searches for the gateway: by multicast on the link, then at its own address.
async fn search(link: GatewayLink) -> Option<Gateway<Tokio>> {
    for to in [SEARCH_GROUP, link.gateway] {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new((*link.local.ip()).into(), 0);
        options.broadcast_address = SocketAddr::new(to.into(), SEARCH_PORT);
        options.timeout = Some(SEARCH_TIMEOUT);
        options.single_search_timeout = Some(SEARCH_TIMEOUT);
        match search_gateway(options).await {
            Ok(gateway) if gateway.addr.ip() == IpAddr::V4(link.gateway) => return Some(gateway),
            Ok(gateway) => tracing::debug!("{} is not the default gateway", gateway.addr.ip()),
            Err(error) => tracing::debug!("no gateway found at {to}: {error}"),
        }
    }
    None
}

async fn remove(mapping: &Mapping, record: &Record) {
    if delete(&mapping.gateway, mapping.port()).await {
        record.clear();
    }
}

/// Deletes a mapping and returns whether that succeeded.
async fn delete(gateway: &Gateway<Tokio>, port: u16) -> bool {
    let removed = within(gateway.remove_port(PortMappingProtocol::UDP, port)).await;
    if let Err(error) = &removed {
        tracing::debug!("cannot remove the mapping of UDP port {port}: {error}");
    }
    removed.is_ok()
}

/// Waits for the answer of a gateway, with a timeout.
async fn within<T, E: std::fmt::Display>(
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).to_string()),
    }
}
