//! The addresses of a fleet's relays, which the configuration may give by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::SocketAddr,
    time::Duration,
};

use teredo_common::time::Instant;
use tokio::task::JoinSet;

use crate::{
    config::Member,
    host::lookup_endpoints,
    node::{clock, timer::Timer},
};

/// The time between two look-ups: relays may be added or removed.
const PAUSE: Duration = Duration::from_secs(30);
/// The time after which a failed one is repeated.
const RETRY: Duration = Duration::from_secs(2);

/// The relays of the configuration, as far as they are known.
#[derive(Debug)]
pub struct Members {
    listen: SocketAddr,
    addresses: Vec<SocketAddr>,
    names: BTreeMap<(String, u16), Name>,
    /// Look-ups under way.
    tasks: JoinSet<Found>,
    /// Time of the next ones.
    next: Instant,
    timer: Timer,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Name {
    /// Its addresses, once they were looked up with success.
    addresses: Option<BTreeSet<SocketAddr>>,
    /// The reason why the last look-up failed.
    failure: Option<String>,
}

/// The result of the look-up of a name.
type Found = ((String, u16), Result<BTreeSet<SocketAddr>, String>);

impl Members {
    /// Creates the members of a relay at `listen`, whose names are looked up by [`Members::changed`].
    /// Needs a tokio runtime.
    pub fn new(members: &[Member], listen: SocketAddr) -> Self {
        let (mut addresses, mut names) = (Vec::new(), BTreeMap::new());
        for member in members {
            match member {
                Member::Address(address) => addresses.push(*address),
                Member::Name { host, port } => {
                    names.insert((host.clone(), *port), Name::default());
                }
            }
        }
        Self {
            listen,
            addresses,
            names,
            tasks: JoinSet::new(),
            next: clock::now(),
            timer: Timer::new(),
        }
    }

    /// Returns the addresses that are known.
    pub fn known(&self) -> Vec<SocketAddr> {
        let named = self
            .names
            .values()
            .filter_map(|name| name.addresses.as_ref());
        let named = named.flatten().copied();
        self.addresses.iter().copied().chain(named).collect()
    }

    /// Whether every name was looked up with success, now or earlier.
    pub fn are_complete(&self) -> bool {
        self.names.values().all(|name| name.addresses.is_some())
    }

    /// Waits until the known addresses change. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        if self.names.is_empty() {
            return pending().await;
        }
        loop {
            if self.tasks.is_empty() {
                self.timer.set(Some(self.next));
                self.timer.expired().await;
                self.look_up();
            }
            let found = self.tasks.join_next().await;
            if let Some(Ok(found)) = found
                && self.accept(found)
            {
                return;
            }
        }
    }

    fn look_up(&mut self) {
        self.next = clock::now() + PAUSE;
        for (host, port) in self.names.keys().cloned() {
            let is_ipv4 = self.listen.is_ipv4();
            self.tasks.spawn(async move {
                let found = lookup_endpoints(&host, port, is_ipv4).await;
                ((host, port), found)
            });
        }
    }

    /// Accepts the result of a look-up, and returns whether the known addresses changed. After a failure the
    /// previous addresses stay.
    fn accept(&mut self, (name, result): Found) -> bool {
        let Some(name) = self.names.get_mut(&name) else {
            return false;
        };
        match result {
            Ok(addresses) => {
                name.failure = None;
                let is_new = name.addresses.as_ref() != Some(&addresses);
                name.addresses = Some(addresses);
                is_new
            }
            Err(reason) => {
                name.failure = Some(reason);
                self.next = self.next.min(clock::now() + RETRY);
                false
            }
        }
    }

    /// Returns a sentence about a name that could not be looked up, if there is one.
    pub fn trouble(&self) -> Option<String> {
        let mut names = self.names.iter();
        let (host, reason, name) = names.find_map(|((host, _), name)| {
            let reason = name.failure.as_deref()?;
            Some((host, reason, name))
        })?;
        let meanwhile = match name.addresses {
            Some(_) => "its relays are those of the last answer",
            None => "its relays are unknown",
        };
        Some(format!(
            "cannot look up \"{host}\" of relay.fleet.members: {reason}; {meanwhile}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 3546).into()
    }

    fn set(numbers: &[u8]) -> BTreeSet<SocketAddr> {
        numbers.iter().map(|&number| address(number)).collect()
    }

    #[tokio::test]
    async fn names_are_known_once_they_were_looked_up() {
        let name = ("relays.example.net".to_owned(), 3546);
        let (host, port) = name.clone();
        let list = [Member::Address(address(1)), Member::Name { host, port }];
        let mut members = Members::new(&list, address(1));
        assert_eq!(members.known(), [address(1)]);
        assert!(!members.are_complete());
        assert!(!members.accept((name.clone(), Err("no answer".into()))));
        let trouble = members.trouble().unwrap();
        assert!(
            trouble.contains("no answer; its relays are unknown"),
            "{trouble}"
        );
        assert!(members.next <= clock::now() + RETRY);

        assert!(members.accept((name.clone(), Ok(set(&[2, 3])))));
        assert!(members.are_complete() && members.trouble().is_none());
        assert_eq!(members.known(), [address(1), address(2), address(3)]);
        assert!(!members.accept((name.clone(), Ok(set(&[3, 2])))));

        // What is known stays when nobody answers.
        assert!(!members.accept((name.clone(), Err("no answer".into()))));
        assert_eq!(members.known().len(), 3);
        let trouble = members.trouble().unwrap();
        assert!(trouble.contains("those of the last answer"), "{trouble}");
        assert!(members.accept((name, Ok(set(&[2])))));
        assert_eq!(members.known(), [address(1), address(2)]);
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let member = |host: &str| Member::Name {
            host: host.into(),
            port: 9,
        };
        let listen = ([127, 0, 0, 1], 9).into();
        let mut members = Members::new(&[member("localhost")], listen);
        members.changed().await;
        assert_eq!(members.known(), [listen]);
    }
}
