//! Asking the gateway to forward the service port: UPnP (RFC 6081 section 5.3).
//!
//! Nobody but the default gateway is trusted with that. What it was asked for is written down, so
//! that it is taken back even after a crash.

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

/// What the gateway shows to whoever looks at its list.
const DESCRIPTION: &str = "TEREDO";
/// Where gateways listen for searches.
const SEARCH_PORT: u16 = 1900;
const SEARCH_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// For how long one search waits for an answer: gateways may take three seconds.
const SEARCH: Duration = Duration::from_millis(3_500);
/// For how long a gateway may take for one request.
const ANSWER: Duration = Duration::from_secs(3);

/// Between this host and the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// This host's address there, with the service port.
    pub local: SocketAddrV4,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
}

/// The mapping of the service port, while there is one.
#[derive(Debug)]
pub struct PortMapping {
    record: Record,
    /// Where a mapping is wanted.
    link: Option<Link>,
    task: Option<JoinHandle<Option<Mapping>>>,
    mapping: Option<Mapping>,
}

/// What the gateway does for us.
#[derive(Debug)]
struct Mapping {
    gateway: Gateway<Tokio>,
    external: SocketAddrV4,
}

impl PortMapping {
    /// None yet, for the instance of this name.
    pub fn new(instance: &str) -> Self {
        Self {
            record: Record::of(instance),
            link: None,
            task: None,
            mapping: None,
        }
    }

    /// The endpoint from which the gateway forwards to the service port.
    pub fn external(&self) -> Option<Endpoint> {
        self.mapping.as_ref().map(|mapping| mapping.external.into())
    }

    /// Whether the gateway is being asked.
    pub fn is_pending(&self) -> bool {
        self.task.is_some()
    }

    /// Wants a mapping on this link, or none. What there was elsewhere is taken back.
    pub fn follow(&mut self, link: Option<Link>) {
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

    /// Waits until the gateway has answered, or will not. Cancelling loses nothing.
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

    /// Takes the mapping back.
    pub async fn stop(&mut self) {
        self.link = None;
        if let Some(task) = self.task.take() {
            task.abort();
            // What it may have made is in the record.
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

/// first what a crash has left, then the mapping, then the gateway's address.
async fn establish(link: Link, record: &Record) -> Option<Mapping> {
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
                Ok(address) => format!("{address} is no address to be reached at"),
                Err(error) => error,
            };
            let gateway_address = link.gateway;
            tracing::info!("the gateway {gateway_address} does not tell its address: {why}");
            delete(&gateway, port).await;
            record.clear();
            None
        }
    }
}

/// Looks for the gateway: among all who answer on the link, and else where it must be.
async fn search(link: Link) -> Option<Gateway<Tokio>> {
    for to in [SEARCH_GROUP, link.gateway] {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new((*link.local.ip()).into(), 0);
        options.broadcast_address = SocketAddr::new(to.into(), SEARCH_PORT);
        options.timeout = Some(SEARCH);
        options.single_search_timeout = Some(SEARCH);
        match search_gateway(options).await {
            Ok(gateway) if gateway.addr.ip() == IpAddr::V4(link.gateway) => return Some(gateway),
            Ok(gateway) => tracing::debug!("{} is not the gateway", gateway.addr.ip()),
            Err(error) => tracing::debug!("no gateway is found at {to}: {error}"),
        }
    }
    None
}

async fn remove(mapping: &Mapping, record: &Record) {
    if delete(&mapping.gateway, mapping.port()).await {
        record.clear();
    }
}

/// Deletes a mapping, and tells whether it is gone.
async fn delete(gateway: &Gateway<Tokio>, port: u16) -> bool {
    let removed = within(gateway.remove_port(PortMappingProtocol::UDP, port)).await;
    if let Err(error) = &removed {
        tracing::debug!("UDP port {port} is not given back: {error}");
    }
    removed.is_ok()
}

/// The answer of a gateway, if it comes in time.
async fn within<T, E: std::fmt::Display>(
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(ANSWER, request).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).to_string()),
    }
}
