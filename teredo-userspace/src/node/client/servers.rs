//! The addresses of the servers, which the configuration may give by name.

use std::{future::pending, mem, net::Ipv4Addr, pin::Pin, slice, time::Duration};

use teredo_common::scope::Ipv4Scope;
use teredo_proto::client::ServerEndpoints;
use tokio::{
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};

use crate::{
    config::{ClientSection, Ipv4Choice, ServerHost, ServerName},
    handover::state::ServerNames,
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
    /// Addresses that it had, of which the client may use one until that fails.
    former: Vec<Ipv4Addr>,
    /// The reason why the last look-up failed.
    failure: Option<String>,
}

impl Servers {
    /// Starts looking up the names. Until that succeeds, they have the addresses that the process before
    /// knew.
    pub fn new(config: &ClientSection, before: &ServerNames) -> Self {
        let mut servers = Self::unasked(config, before);
        servers.look_up();
        servers
    }

    fn unasked(config: &ClientSection, before: &ServerNames) -> Self {
        let scope = config.ipv4_scope;
        let entries = config.servers.iter().map(|name| {
            let known = match &name.host {
                ServerHost::Address(address) => slice::from_ref(address),
                ServerHost::Name(name) => before.get(name).map_or(&[][..], Vec::as_slice),
            };
            let known = known.iter().copied();
            Entry {
                name: name.clone(),
                addresses: known
                    .filter(|address| scope.accepts(address.octets()))
                    .collect(),
                former: Vec::new(),
                failure: None,
            }
        });
        Self {
            entries: entries.collect(),
            secondary: config.secondary,
            scope,
            tasks: JoinSet::new(),
            has_failed: false,
            retry: None,
            wait: FIRST_WAIT,
        }
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

    /// Returns the addresses of each name: first that of the server in use, also if the name does not have
    /// it any more.
    pub fn names(&self, in_use: Option<ServerEndpoints>) -> ServerNames {
        let mut names = ServerNames::new();
        for entry in &self.entries {
            let ServerHost::Name(name) = &entry.name.host else {
                continue;
            };
            let known = names.entry(name.clone()).or_default();
            for address in entry.used(in_use).iter().chain(&entry.addresses) {
                if !known.contains(address) {
                    known.push(*address);
                }
            }
        }
        names
    }

    /// Forgets the addresses that names do not have any more, except that of the server in use.
    pub fn forget(&mut self, in_use: Option<ServerEndpoints>) {
        for entry in &mut self.entries {
            let used = entry.used(in_use);
            entry.former.retain(|address| Some(*address) == used);
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
                let before = mem::replace(&mut entry.addresses, addresses);
                entry.former.extend(before);
                let (has, former) = (&entry.addresses, &mut entry.former);
                former.retain(|address| !has.contains(address));
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
            mem::replace(&mut self.wait, next)
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

impl Entry {
    /// Returns the address of the server in use, if this is its name.
    fn used(&self, in_use: Option<ServerEndpoints>) -> Option<Ipv4Addr> {
        let in_use = in_use.filter(|server| server.port == self.name.port)?;
        let mut had = self.addresses.iter().chain(&self.former);
        had.find(|address| **address == in_use.primary).copied()
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 7);

    fn servers(names: &[&str], secondary: &str) -> Servers {
        servers_after(names, secondary, &ServerNames::new())
    }

    fn servers_after(names: &[&str], secondary: &str, before: &ServerNames) -> Servers {
        let names = names.iter().map(|name| name.parse().unwrap());
        let config = ClientSection {
            servers: names.collect(),
            secondary: secondary.parse().unwrap(),
            ..ClientSection::default()
        };
        Servers::unasked(&config, before)
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
    fn the_next_process_knows_the_addresses_of_names_before_it_has_looked_them_up() {
        let names = ["a.example", "b.example:9", "9.0.0.3"];
        let mut before = servers(&names, "auto");
        assert!(before.accept((0, Ok(vec![ONE, OTHER]))));
        assert!(before.accept((1, Ok(vec![[9, 0, 0, 5].into()]))));
        let next = servers_after(&names, "auto", &before.names(None));
        assert_eq!(known(&next), known(&before));
        // Another configuration takes what it has names for, and accepts.
        let left = before.names(None);
        let next = servers_after(&["b.example", "c.example"], "auto", &left);
        assert_eq!(known(&next), "9.0.0.5 9.0.0.6 3544");
        let private = ServerNames::from([("a.example".to_owned(), vec![[10, 0, 0, 1].into()])]);
        assert_eq!(known(&servers_after(&["a.example"], "auto", &private)), "");
    }

    #[test]
    fn the_next_process_goes_on_with_the_server_in_use() {
        let in_use = Some(ServerEndpoints::new(ONE));
        let restart = |servers: &Servers, secondary| {
            servers_after(&["a.example"], secondary, &servers.names(in_use))
        };
        for (secondary, others) in [("auto", ", 9.0.0.7 9.0.0.8 3544"), ("9.0.0.2", "")] {
            let expected = format!("9.0.0.1 9.0.0.2 3544{others}");
            // It comes first, whatever the order of a look-up.
            let mut servers = servers(&["a.example"], secondary);
            assert!(servers.accept((0, Ok(vec![OTHER, ONE]))));
            let mut next = restart(&servers, secondary);
            assert_eq!(known(&next), expected);
            // The name loses its address, and the client uses it until it fails.
            assert!(next.accept((0, Ok(vec![OTHER]))));
            for _ in 0..3 {
                next.forget(in_use);
                assert!(!known(&next).contains("9.0.0.1 "));
                next = restart(&next, secondary);
                assert_eq!(known(&next), expected);
                assert!(!next.accept((0, Err("no answer".to_owned()))));
                assert_eq!(known(&next), expected);
                assert!(next.accept((0, Ok(vec![OTHER]))));
            }
            next.forget(Some(ServerEndpoints::new(OTHER)));
            assert_eq!(next.names(in_use)["a.example"], [OTHER]);
        }
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
