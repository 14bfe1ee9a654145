//! The addresses of the servers, which the configuration may give by name.

use std::{future::pending, net::Ipv4Addr, pin::Pin, time::Duration};

use teredo_common::scope::Ipv4Scope;
use teredo_proto::client::ServerEndpoints;
use tokio::{
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};

use crate::{
    config::{Ipv4Choice, ServerHost, ServerName},
    host::lookup_ipv4,
};

/// The wait before a failed look-up is repeated; it doubles from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The wait before a successful look-up is repeated, since servers may move.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// The servers of the configuration, as far as they are known.
#[derive(Debug)]
pub struct Servers {
    entries: Vec<Entry>,
    secondary: Ipv4Choice,
    scope: Ipv4Scope,
    /// Look-ups under way, one task for each name, since a single answer may take long.
    tasks: JoinSet<Found>,
    has_failed: bool,
    /// The time of the next look-up, if there are names.
    retry: Option<Pin<Box<Sleep>>>,
    wait: Duration,
}

/// The result of the look-up of the name with this index.
type Found = (usize, Result<Vec<Ipv4Addr>, String>);

#[derive(Debug)]
struct Entry {
    name: ServerName,
    addresses: Vec<Ipv4Addr>,
    /// The reason why the last look-up failed.
    failure: Option<String>,
}

impl Servers {
    /// Starts looking up the names.
    pub fn new(names: &[ServerName], secondary: Ipv4Choice, scope: Ipv4Scope) -> Self {
        let entries = names.iter().map(|name| Entry {
            name: name.clone(),
            addresses: match name.host {
                ServerHost::Address(address) => vec![address],
                ServerHost::Name(_) => Vec::new(),
            },
            failure: None,
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

    /// Returns the known servers in the order of the configuration.
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
            // It belongs to one server, so only the first address of the name is used.
            Ipv4Choice::Address(secondary) => known
                .take(1)
                .map(|server| ServerEndpoints {
                    secondary,
                    ..server
                })
                .collect(),
        }
    }

    /// Looks all names up again, unless a look-up is under way.
    pub fn look_up(&mut self) {
        if !self.tasks.is_empty() {
            return;
        }
        self.retry = None;
        self.has_failed = false;
        for (index, entry) in self.entries.iter().enumerate() {
            if let ServerHost::Name(name) = &entry.name.host {
                let found = lookup_ipv4(name.clone(), self.scope);
                self.tasks.spawn(async move { (index, found.await) });
            }
        }
    }

    /// Waits until the known servers change. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        loop {
            if let Some(found) = self.tasks.join_next().await {
                let is_new = found.is_ok_and(|found| self.accept(found));
                if self.tasks.is_empty() {
                    self.schedule();
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

    /// Accepts the result of a look-up and returns whether the addresses changed. After a failure the
    /// previous addresses stay.
    fn accept(&mut self, (index, result): Found) -> bool {
        let entry = &mut self.entries[index];
        match result {
            Ok(addresses) => {
                entry.failure = None;
                let is_new = entry.addresses != addresses;
                entry.addresses = addresses;
                is_new
            }
            Err(reason) => {
                self.has_failed = true;
                entry.failure = Some(reason);
                false
            }
        }
    }

    /// Iterates over the names whose last look-up failed, with the reasons.
    pub fn failures(&self) -> impl Iterator<Item = (String, &str)> {
        self.entries
            .iter()
            .filter_map(|entry| Some((entry.name.to_string(), entry.failure.as_deref()?)))
    }

    /// Schedules the next look-up.
    fn schedule(&mut self) {
        let wait = if self.has_failed {
            let next = (self.wait * 2).min(LONGEST_WAIT);
            std::mem::replace(&mut self.wait, next)
        } else {
            self.wait = FIRST_WAIT;
            LIFETIME
        };
        self.retry = Some(Box::pin(sleep(wait)));
    }

    /// Repeats the look-ups now, because the network has changed.
    pub fn retry_now(&mut self) {
        self.wait = FIRST_WAIT;
        if let Some(retry) = &mut self.retry {
            retry.as_mut().reset(Instant::now());
        }
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
            failure: None,
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
        let known = known.map(|server| {
            let ServerEndpoints {
                primary,
                secondary,
                port,
                ..
            } = server;
            format!("{primary} {secondary} {port}")
        });
        known.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn c01_servers_are_tried_in_the_order_of_the_file() {
        let mut servers = servers(&["a.example", "b.example:9"], "auto");
        assert!(servers.accept((1, Ok(vec![[9, 0, 0, 3].into()]))));
        assert_eq!(known(&servers), "9.0.0.3 9.0.0.4 9");
        let two = vec![[9, 0, 0, 1].into(), [9, 0, 0, 7].into()];
        assert!(servers.accept((0, Ok(two.clone()))));
        let all = "9.0.0.1 9.0.0.2 3544, 9.0.0.7 9.0.0.8 3544, 9.0.0.3 9.0.0.4 9";
        assert_eq!(known(&servers), all);
        // Known addresses stay after a failure.
        assert!(!servers.accept((0, Ok(two))));
        assert!(!servers.accept((0, Err("no answer".to_owned()))));
        assert_eq!(known(&servers), all);
        assert_eq!(servers.failures().count(), 1);
        assert!(servers.has_failed);
    }

    #[test]
    fn failed_look_ups_are_repeated_less_and_less_often() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut servers = servers(&["a.example"], "auto");
            let mut waits = Vec::new();
            servers.has_failed = true;
            for _ in 0..10 {
                servers.schedule();
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
            servers.retry_now();
            assert!(servers.retry.as_ref().unwrap().deadline() <= Instant::now());
            servers.has_failed = false;
            servers.schedule();
            assert_eq!(servers.wait, FIRST_WAIT);
        });
    }

    #[test]
    fn c01_a_secondary_address_is_that_of_one_server() {
        let mut servers = servers(&["a.example"], "9.0.0.200");
        let two = vec![[9, 0, 0, 1].into(), [9, 0, 0, 7].into()];
        assert!(servers.accept((0, Ok(two))));
        assert_eq!(known(&servers), "9.0.0.1 9.0.0.200 3544");
    }
}
