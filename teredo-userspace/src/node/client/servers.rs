//! The addresses of the servers, of which the configuration may have only names.

use std::{
    future::pending,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    time::Duration,
};

use teredo_common::scope::Ipv4Scope;
use teredo_proto::client::ServerEndpoints;
use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};

use crate::config::{Ipv4Choice, ServerHost, ServerName};

/// The wait before a name is looked up again, at first and at last.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The wait before names that were found are looked up again: servers move, if seldom.
const LIFETIME: Duration = Duration::from_secs(3_600);
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
    /// When names are looked up again, if there are any.
    retry: Option<Pin<Box<Sleep>>>,
    wait: Duration,
}

/// What the name with this index was found to mean.
type Found = (usize, Result<Vec<Ipv4Addr>, String>);

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
    pub fn known(&self) -> Vec<ServerEndpoints> {
        let known = self.entries.iter().flat_map(|entry| {
            let servers = entry.addresses.iter().map(|&address| ServerEndpoints {
                port: entry.name.port,
                ..ServerEndpoints::new(address)
            });
            servers.collect::<Vec<_>>()
        });
        match self.secondary {
            Ipv4Choice::Auto => known.collect(),
            // It is that of one server, so only the first address of its name is meant.
            Ipv4Choice::Address(secondary) => known
                .take(1)
                .map(|server| ServerEndpoints {
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
                let found = find(name.clone(), self.scope);
                self.tasks.spawn(async move { (index, found.await) });
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
        match result {
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

    /// Sets the time of the next look.
    fn plan(&mut self) {
        let wait = if self.has_failed {
            let next = (self.wait * 2).min(LONGEST_WAIT);
            std::mem::replace(&mut self.wait, next)
        } else {
            self.wait = FIRST_WAIT;
            LIFETIME
        };
        self.retry = Some(Box::pin(sleep(wait)));
    }

    /// The network has changed: names may mean something else now, or anything at all.
    pub fn hurry(&mut self) {
        self.wait = FIRST_WAIT;
        if let Some(retry) = &mut self.retry {
            retry.as_mut().reset(Instant::now());
        }
    }
}

/// The addresses of the host with this name that can be used, or why there are none.
pub async fn find(name: String, scope: Ipv4Scope) -> Result<Vec<Ipv4Addr>, String> {
    let found = lookup_host((name, 0)).await;
    let found = found.map_err(|error| error.to_string())?;
    usable(found.map(|address| address.ip()), scope)
}

/// What can be used of what was found.
fn usable(found: impl Iterator<Item = IpAddr>, scope: Ipv4Scope) -> Result<Vec<Ipv4Addr>, String> {
    let (mut addresses, mut refused) = (Vec::new(), None);
    for address in found {
        let IpAddr::V4(address) = address else {
            continue;
        };
        if !scope.accepts(address.octets()) {
            refused = Some(address);
        } else if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    match refused {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(refused) => Err(format!(
            "its address {refused} is not acceptable under client.ipv4-scope"
        )),
        None => Err("it has no IPv4 address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    fn servers(names: &[&str], secondary: &str) -> Servers {
        let entries = names.iter().map(|name| Entry {
            name: name.parse().unwrap(),
            addresses: Vec::new(),
            is_told: false,
        });
        Servers {
            entries: entries.collect(),
            secondary: secondary.parse().unwrap(),
            scope: Ipv4Scope::Strict,
            tasks: JoinSet::new(),
            has_failed: false,
            retry: None,
            wait: FIRST_WAIT,
        }
    }

    fn known(servers: &Servers) -> String {
        let known = servers.known().into_iter();
        let known = known.map(|one| format!("{} {} {}", one.primary, one.secondary, one.port));
        known.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn c01_servers_are_tried_in_the_order_of_the_file() {
        let mut servers = servers(&["a.example", "b.example:9"], "auto");
        assert!(servers.take_in((1, Ok(vec![[9, 0, 0, 3].into()]))));
        assert_eq!(known(&servers), "9.0.0.3 9.0.0.4 9");
        let two = vec![[9, 0, 0, 1].into(), [9, 0, 0, 7].into()];
        assert!(servers.take_in((0, Ok(two.clone()))));
        let all = "9.0.0.1 9.0.0.2 3544, 9.0.0.7 9.0.0.8 3544, 9.0.0.3 9.0.0.4 9";
        assert_eq!(known(&servers), all);
        // What is known stays, as long as nothing else is.
        assert!(!servers.take_in((0, Ok(two))));
        assert!(!servers.take_in((0, Err("no answer".to_owned()))));
        assert_eq!(known(&servers), all);
        assert!(servers.entries[0].is_told && servers.has_failed);
    }

    #[test]
    fn what_cannot_be_looked_up_is_tried_again_and_less_often() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut servers = servers(&["a.example"], "auto");
            let mut waits = Vec::new();
            servers.has_failed = true;
            for _ in 0..10 {
                servers.plan();
                let retry = servers.retry.as_ref().unwrap();
                waits.push(
                    retry
                        .deadline()
                        .duration_since(Instant::now())
                        .as_secs_f64()
                        .round(),
                );
            }
            assert_eq!(waits[..4], [2.0, 4.0, 8.0, 16.0]);
            assert_eq!(waits[9], LONGEST_WAIT.as_secs_f64());
            servers.hurry();
            assert!(servers.retry.as_ref().unwrap().deadline() <= Instant::now());
            servers.has_failed = false;
            servers.plan();
            assert_eq!(servers.wait, FIRST_WAIT);
        });
    }

    #[test]
    fn c01_a_secondary_address_is_that_of_one_server() {
        let mut servers = servers(&["a.example"], "9.0.0.200");
        let two = vec![[9, 0, 0, 1].into(), [9, 0, 0, 7].into()];
        assert!(servers.take_in((0, Ok(two))));
        assert_eq!(known(&servers), "9.0.0.1 9.0.0.200 3544");
    }

    #[test]
    fn c01_servers_are_global_unicast() {
        let found = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            usable(addresses, Ipv4Scope::Strict)
        };
        let one: Ipv4Addr = [9, 0, 0, 1].into();
        assert_eq!(
            found(&["2001:db8::1", "192.168.0.1", "9.0.0.1", "9.0.0.1"]),
            Ok(vec![one])
        );
        assert!(found(&["192.168.0.1"]).unwrap_err().contains("192.168.0.1"));
        assert!(found(&["2001:db8::1"]).unwrap_err().contains("no IPv4"));
        assert!(found(&[]).is_err());
    }
}
