//! The accounts of all packets: what was sent equals what arrived plus what counters name.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    account::{Account, Side},
    load::tally::Class,
    metrics::{self, Numbers},
    site::{Site, Who},
};

/// Counters that go on when what counts is started again.
#[derive(Debug, Default)]
struct Total {
    total: i64,
    last: u64,
}

/// All counters since the beginning, over restarts.
#[derive(Debug, Default)]
pub struct Ledger {
    counters: BTreeMap<String, Total>,
    gauges: Numbers,
}

/// Counters of packets that nobody counts as sent, or that are counted otherwise.
const ELSEWHERE: [&str; 11] = [
    // Answers of the server.
    "advertisement-",
    "Icmp6OutEchoReplies",
    "multicasts to interface",
    "own packets to interface",
    // What the kernel itself sends.
    "Ip6OutNoRoutes",
    "Ip6OutDiscards",
    // The daemons count these themselves.
    "relay: teredo send drops",
    "client: teredo send drops",
    "relay: UdpInErrors",
    "relay: IpOutNoRoutes",
    "client: UdpInErrors",
];

impl Ledger {
    /// Reads all counters.
    ///
    /// # Errors
    ///
    /// Fails when a daemon does not answer.
    pub fn read(&mut self, site: &Site) -> Result<()> {
        for who in Who::ALL {
            self.read_daemon(site, who)?;
        }
        let scene = &site.scene;
        for (name, namespace) in [
            ("relay", &scene.relay),
            ("server", scene.server_namespace()),
            ("host", &scene.host().namespace),
            ("client", &scene.site().client),
            ("peers", &site.load.peers),
            ("callers", &site.load.callers),
            ("IPv4 internet", scene.ipv4.namespace()),
            ("IPv6 internet", scene.ipv6().namespace()),
        ] {
            for (counter, value) in metrics::of_kernel(namespace)? {
                self.set(format!("kernel of {name}: {counter}"), value);
            }
        }
        Ok(())
    }

    /// Reads the counters of one daemon.
    ///
    /// # Errors
    ///
    /// Fails when it does not answer.
    pub fn read_daemon(&mut self, site: &Site, who: Who) -> Result<()> {
        for (name, value) in site.metrics(who)? {
            let name = format!("{}: {name}", who.name());
            match name.contains("_total") {
                true => self.set(name, value),
                false => drop(self.gauges.insert(name, value)),
            }
        }
        Ok(())
    }

    /// Notes that a daemon starts to count from zero; after a crash, the XDP program goes on.
    pub fn restarted(&mut self, who: Who, is_crash: bool) {
        let start = format!("{}: ", who.name());
        for (name, counter) in &mut self.counters {
            let goes_on = is_crash && (name.contains("path=\"xdp\"") || name.contains("passed"));
            if name.starts_with(&start) && !goes_on {
                counter.last = 0;
            }
        }
    }

    fn set(&mut self, name: String, value: u64) {
        let counter = self.counters.entry(name).or_default();
        // An interface that was made anew counts from zero.
        let since = value.checked_sub(counter.last).unwrap_or(value);
        counter.total += since.cast_signed();
        counter.last = value;
    }

    /// Returns the sum of all counters whose names have all of these parts.
    #[must_use]
    pub fn sum(&self, parts: &[&str]) -> i64 {
        self.all(parts).map(|(_, count)| count).sum()
    }

    /// Returns the value of a gauge.
    #[must_use]
    pub fn gauge(&self, name: &str) -> u64 {
        self.gauges.get(name).copied().unwrap_or(0)
    }

    fn all<'a>(&'a self, parts: &'a [&str]) -> impl Iterator<Item = (&'a String, i64)> {
        let counters = self.counters.iter();
        let counters = counters.filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        counters.map(|(name, counter)| (name, counter.total))
    }

    /// Returns rows for all counters whose names have all of these parts.
    fn rows(&self, parts: &[&str]) -> Side {
        let rows = self.all(parts).filter(|&(_, count)| count != 0);
        rows.map(|(name, count)| (name.clone(), count)).collect()
    }

    /// Returns the account of everything that was sent to the relay.
    #[must_use]
    pub fn relay(&self, site: &Site) -> Account {
        let mut account = Account {
            name: "relay",
            sent: Vec::new(),
            found: Vec::new(),
        };
        for &class in Class::ALL {
            if matches!(class, Class::Solicitation | Class::ServerGarbage) {
                continue;
            }
            let count = site.load.tally().total(class);
            account
                .sent
                .push((class.name().to_owned(), count.sent.cast_signed()));
            let arrived = format!("{}: arrived", class.name());
            account.found.push((arrived, count.delivered.cast_signed()));
        }
        let [_, bubbles] = site.load.bubbles();
        account.sent.extend([
            ("bubbles of peers".to_owned(), bubbles.cast_signed()),
            (
                "bubbles of the client".to_owned(),
                self.sum(&["client: teredo_bubbles_total", "sent-direct"]),
            ),
            (
                "connectivity tests".to_owned(),
                self.sum(&["client: teredo_client_tests_total", "\"sent\""]),
            ),
            (
                "echo replies of the client's kernel".to_owned(),
                self.sum(&["kernel of client: Icmp6OutEchoReplies"]),
            ),
            (
                "ICMPv6 of the relay's kernel".to_owned(),
                self.sum(&["kernel of relay: own packets to interface"]),
            ),
            (
                "ICMPv6 of the client's kernel".to_owned(),
                self.sum(&["kernel of client: multicasts to interface"]),
            ),
        ]);
        account.found.push((
            "ICMPv6 of the relay's kernel: arrived".to_owned(),
            site.load.unexpected().cast_signed(),
        ));
        account.found.extend([
            (
                "connectivity tests: answered".to_owned(),
                self.sum(&["client: teredo_client_tests_total", "answered"]),
            ),
            (
                "waiting in the relay".to_owned(),
                self.gauge("relay: teredo_queue_packets{role=\"relay\"}")
                    .cast_signed(),
            ),
        ]);
        for parts in [
            &["relay: teredo_dropped_total"][..],
            &["relay: teredo_bubbles_total", "received-"],
            &["relay: teredo_questions_total", "answered-echo"],
            &["client: teredo_dropped_total"],
            &["kernel of relay: "],
            &["kernel of host: "],
            &["kernel of client: "],
            &["kernel of IPv6 internet: "],
        ] {
            account.found.extend(self.rows(parts));
        }
        account
            .found
            .retain(|(name, _)| !ELSEWHERE.iter().any(|part| name.contains(part)));
        account
    }

    /// Returns the account of everything that was sent to the server.
    #[must_use]
    pub fn server(&self, site: &Site) -> Account {
        let tally = site.load.tally();
        let sent = |class| tally.total(class).sent.cast_signed();
        let named = |name: &str, parts: &[&str]| (name.to_owned(), self.sum(parts));
        let mut found = self.rows(&["server: teredo_server_requests_total"]);
        found.extend(self.rows(&["server: teredo_dropped_total"]));
        Account {
            name: "server",
            sent: vec![
                ("solicitations".to_owned(), sent(Class::Solicitation)),
                (
                    "garbage to the server".to_owned(),
                    sent(Class::ServerGarbage),
                ),
                named(
                    "bubbles of the relay",
                    &["relay: teredo_bubbles_total", "sent-indirect"],
                ),
                named(
                    "solicitations of the client",
                    &["client: teredo_client_solicitations_total"],
                ),
                named(
                    "connectivity tests",
                    &["client: teredo_client_tests_total", "\"sent\""],
                ),
                named(
                    "bubbles of the client",
                    &["client: teredo_bubbles_total", "sent-in"],
                ),
            ],
            found,
        }
    }

    /// Returns the account of the server's answers.
    #[must_use]
    pub fn answers(&self, site: &Site) -> Account {
        let count = site.load.tally().total(Class::Solicitation);
        Account {
            name: "server's answers",
            sent: vec![(
                "advertised".to_owned(),
                self.sum(&["server: teredo_server_requests_total", "advertised"]),
            )],
            found: vec![
                ("arrived".to_owned(), count.delivered.cast_signed()),
                (
                    "the client's".to_owned(),
                    self.sum(&["client: teredo_client_solicitations_total"]),
                ),
            ],
        }
    }

    /// Returns the account of the bubbles that the server forwarded.
    #[must_use]
    pub fn bubbles(&self, site: &Site) -> Account {
        let [received, _] = site.load.bubbles();
        let named = |name: &str, parts: &[&str]| (name.to_owned(), self.sum(parts));
        Account {
            name: "forwarded bubbles",
            sent: vec![named(
                "forwarded",
                &["server: teredo_server_requests_total", "kind=\"bubble\""],
            )],
            found: vec![
                ("arrived at peers".to_owned(), received.cast_signed()),
                named(
                    "for peers that do not exist",
                    &["kernel of peers: UdpNoPorts"],
                ),
                named(
                    "arrived at the client",
                    &["client: teredo_bubbles_total", "received-relay"],
                ),
                named(
                    "arrived at the client that sent it",
                    &["client: teredo_bubbles_total", "received-interval"],
                ),
            ],
        }
    }

    /// Returns all accounts.
    #[must_use]
    pub fn accounts(&self, site: &Site) -> Vec<Account> {
        vec![
            self.relay(site),
            self.server(site),
            self.answers(site),
            self.bubbles(site),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_over_restarts() {
        let mut ledger = Ledger::default();
        for value in [5, 8] {
            ledger.set("relay: a_total".to_owned(), value);
        }
        ledger.restarted(Who::Relay, false);
        ledger.set("relay: a_total".to_owned(), 9);
        assert_eq!(ledger.sum(&["a_total"]), 17);
        // After a crash, the program goes on.
        let name = "relay: b_total{path=\"xdp\"}";
        ledger.set(name.to_owned(), 5);
        ledger.restarted(Who::Relay, true);
        ledger.set(name.to_owned(), 9);
        assert_eq!(ledger.sum(&["b_total"]), 9);
    }
}
