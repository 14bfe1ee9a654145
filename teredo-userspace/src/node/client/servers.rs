//! The addresses of the servers, of which the configuration may have only names.

use std::{
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    time::Duration,
};

use teredo_common::scope::Ipv4Scope;
use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};

use crate::{
    config::{Ipv4Choice, ServerHost, ServerName},
    protocol::client::Server,
};

/// The wait before a name is looked up again, at first and at last.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Addresses that one name may have.
const ADDRESSES_MAX: usize = 8;

/// The servers of the configuration, as far as they are known.
#[derive(Debug)]
pub struct Servers {
    entries: Vec<Entry>,
    secondary: Ipv4Choice,
    scope: Ipv4Scope,
    /// Names that are being looked up, each by itself: one may have to wait long for an answer.
    tasks: JoinSet<Found>,
    has_failed: bool,
    /// When names are looked up again; armed only after a failure.
    retry: Option<Pin<Box<Sleep>>>,
    wait: Duration,
}

/// What the name with this index was found to mean.
type Found = (usize, io::Result<Vec<Ipv4Addr>>);

#[derive(Debug)]
struct Entry {
    name: ServerName,
    addresses: Vec<Ipv4Addr>,
    /// Whether the operator knows that it cannot be looked up.
    is_told: bool,
}

impl Servers {
    /// Begins to look up what has to be.
    pub fn new(names: &[ServerName], secondary: Ipv4Choice, scope: Ipv4Scope) -> Self {
        let entries = names.iter().map(|name| Entry {
            name: name.clone(),
            addresses: match name.host {
                ServerHost::Address(address) => vec![address],
                ServerHost::Name(_) => Vec::new(),
            },
            is_told: false,
        });
        let mut servers = Self {
            entries: entries.collect(),
            secondary,
            scope,
            tasks: JoinSet::new(),
            has_failed: false,
            retry: None,
            wait: FIRST_WAIT,
        };
        servers.look_up();
        servers
    }

    /// The servers that are known, in the order of the configuration.
    pub fn known(&self) -> Vec<Server> {
        let known = self.entries.iter().flat_map(|entry| {
            let servers = entry.addresses.iter().map(|&address| Server {
                port: entry.name.port,
                ..Server::new(address)
            });
            servers.collect::<Vec<_>>()
        });
        match self.secondary {
            Ipv4Choice::Auto => known.collect(),
            // It is that of one server, so only the first address of its name is meant.
            Ipv4Choice::Address(secondary) => known
                .take(1)
                .map(|server| Server {
                    secondary,
                    ..server
                })
                .collect(),
        }
    }

    /// Looks all names up again, unless that is being done.
    pub fn look_up(&mut self) {
        if !self.tasks.is_empty() {
            return;
        }
        self.retry = None;
        self.has_failed = false;
        for (index, entry) in self.entries.iter().enumerate() {
            if let ServerHost::Name(name) = &entry.name.host {
                self.tasks.spawn(look_up(index, name.clone()));
            }
        }
    }

    /// Waits until other servers are known. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        loop {
            if let Some(found) = self.tasks.join_next().await {
                let is_new = found.is_ok_and(|found| self.take_in(found));
                if self.tasks.is_empty() {
                    self.plan();
                }
                if is_new {
                    return;
                }
            } else if let Some(retry) = &mut self.retry {
                retry.await;
                self.look_up();
            } else {
                return pending().await;
            }
        }
    }

    /// Takes in what a name was found to mean, and tells whether that is something new. What was
    /// known before stays known while nothing else is.
    fn take_in(&mut self, (index, result): Found) -> bool {
        let entry = &mut self.entries[index];
        let name = &entry.name;
        match usable(result, self.scope) {
            Ok(addresses) => {
                if entry.is_told {
                    tracing::info!("the server {name} is found");
                }
                entry.is_told = false;
                let is_new = entry.addresses != addresses;
                entry.addresses = addresses;
                is_new
            }
            Err(reason) => {
                self.has_failed = true;
                if !entry.is_told {
                    tracing::warn!(
                        "the server {name} cannot be looked up: {reason}; that is tried again, or set \
                         another in client.server"
                    );
                }
                entry.is_told = true;
                false
            }
        }
    }

    /// Sets the time of the next look, if there has to be one.
    fn plan(&mut self) {
        if self.has_failed {
            self.retry = Some(Box::pin(sleep(self.wait)));
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        } else {
            self.wait = FIRST_WAIT;
        }
    }

    /// The network has changed: what could not be looked up may be now.
    pub fn hurry(&mut self) {
        self.wait = FIRST_WAIT;
        if let Some(retry) = &mut self.retry {
            retry.as_mut().reset(Instant::now());
        }
    }
}

/// What can be used of what was found.
fn usable(found: io::Result<Vec<Ipv4Addr>>, scope: Ipv4Scope) -> Result<Vec<Ipv4Addr>, String> {
    let mut found = found.map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err("it has no IPv4 address".to_owned());
    }
    let refused = found[0];
    found.retain(|address| scope.accepts(address.octets()));
    found.truncate(ADDRESSES_MAX);
    if found.is_empty() {
        return Err(format!(
            "its address {refused} is not acceptable under client.ipv4-scope"
        ));
    }
    Ok(found)
}

async fn look_up(index: usize, name: String) -> Found {
    let result = lookup_host((name, 0)).await.map(|addresses| {
        let mut ipv4 = Vec::new();
        for address in addresses {
            if let IpAddr::V4(address) = address.ip()
                && !ipv4.contains(&address)
            {
                ipv4.push(address);
            }
        }
        ipv4
    });
    (index, result)
}
