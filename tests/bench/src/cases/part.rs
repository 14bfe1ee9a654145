//! The parts of a run, and the cases of each.

use teredo_lab_ebpf::SIZES;

use super::{CLIENTS, Case, Direction, Hosts, Order, Place, Terms, Variant};

/// Number of clients in the measurement of many of them.
pub const PEERS: [u32; 5] = [1, 10_000, 65_536, 262_144, 1_000_000];
/// Number of native hosts that one client sends to.
pub const HOSTS: [u32; 4] = [1, 1_000, 10_000, 100_000];

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The XDP program alone.
    TestRun,
    /// The XDP program alone, while routes change.
    Churn,
    /// Packets per second through the relays.
    Throughput,
    /// Packets per second of many clients.
    Peers,
    /// Packets per second to many native hosts.
    Hosts,
    /// Packets per second to native hosts, with many routes.
    Routes,
    /// Packets per second by size.
    Sizes,
    /// Packets per second by the order of clients.
    Orders,
    /// Packets per second in both directions at once.
    BothWays,
    /// Packets per second on two cores.
    Cores,
    /// Packets per second in generic mode.
    Generic,
    /// Packets per second with a list of served prefixes.
    Serve,
    /// Packets per second in VLANs.
    Vlan,
    /// Packets per second without loss, and latency.
    Loss,
    /// Solicitations that servers answer per second.
    Solicitations,
    /// Packets per second, and TCP, through clients.
    Client,
    /// Memory with many clients.
    Memory,
}

impl Part {
    /// All parts, with the words for `--only`, in the order in which they are measured.
    pub const ALL: [(Self, &str); 17] = [
        (Self::Peers, "peers"),
        (Self::Hosts, "hosts"),
        (Self::Throughput, "throughput"),
        (Self::Routes, "routes"),
        (Self::Sizes, "sizes"),
        (Self::Orders, "orders"),
        (Self::BothWays, "both-ways"),
        (Self::Cores, "cores"),
        (Self::Generic, "generic"),
        (Self::Serve, "serve"),
        (Self::Vlan, "vlan"),
        (Self::Loss, "loss"),
        (Self::TestRun, "test-run"),
        (Self::Churn, "churn"),
        (Self::Solicitations, "solicitations"),
        (Self::Client, "client"),
        (Self::Memory, "memory"),
    ];

    /// The word for `--only`, and in the JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        let named = Self::ALL.iter().find(|(part, _)| *part == self);
        named.map_or("", |(_, word)| word)
    }

    /// Whether a first impression has this part.
    #[must_use]
    pub const fn is_quick(self) -> bool {
        matches!(
            self,
            Self::Throughput | Self::Peers | Self::Hosts | Self::Solicitations
        )
    }

    /// Whether a relay outside this machine can be measured: the part needs nothing of its host.
    #[must_use]
    pub const fn is_for_device(self) -> bool {
        matches!(
            self,
            Self::Throughput | Self::Peers | Self::Hosts | Self::Sizes | Self::Orders | Self::Loss
        )
    }

    /// The circumstances of the relays whose throughput the part measures.
    #[must_use]
    pub const fn terms(self) -> Terms {
        match self {
            Self::Peers | Self::Orders => Terms::Large,
            Self::Routes => Terms::Routed,
            Self::Cores | Self::BothWays => Terms::Queued,
            Self::Generic => Terms::Generic,
            Self::Serve => Terms::Served,
            Self::Vlan => Terms::Tagged,
            _ => Terms::Usual,
        }
    }

    /// The variants of relays that the part measures unless others are named.
    #[must_use]
    pub fn relays(self) -> Vec<Variant> {
        let usual = || {
            Variant::ALL
                .into_iter()
                .filter(|one| !matches!(one, Variant::Least | Variant::Padded | Variant::Uncounted))
        };
        match self {
            Self::Throughput => usual().collect(),
            Self::Sizes => usual().filter(|one| one.is_inline()).collect(),
            Self::Peers => vec![
                Variant::None,
                Variant::Bare,
                Variant::Least,
                Variant::Padded,
                Variant::Xdp,
            ],
            Self::Loss => vec![
                Variant::Bare,
                Variant::Xdp,
                Variant::Userspace,
                Variant::Miredo,
            ],
            _ => vec![Variant::None, Variant::Bare, Variant::Xdp],
        }
    }

    /// The cases of the part, if it measures the throughput of relays.
    #[must_use]
    pub fn cases(self) -> Vec<Case> {
        let terms = self.terms();
        let every = |clients: &[u32]| {
            let cases = Direction::ALL.into_iter().flat_map(|direction| {
                clients.iter().map(move |clients| Case {
                    terms,
                    ..Case::of(direction, *clients)
                })
            });
            cases.collect::<Vec<_>>()
        };
        let sizes = |sizes: &[u16], clients: &[u32]| {
            let of_size = |case: Case| {
                let sizes = sizes.iter();
                sizes.map(move |size| Case {
                    size: *size,
                    ..case
                })
            };
            every(clients).into_iter().flat_map(of_size).collect()
        };
        let behind = |case| Case {
            hosts: Hosts::ONE_BEHIND,
            ..case
        };
        match self {
            Self::Throughput => sizes(&[64, 1280], &CLIENTS),
            Self::Sizes => sizes(&SIZES, &CLIENTS[1..]),
            Self::Peers => every(&PEERS).into_iter().map(behind).collect(),
            Self::Hosts => hosts(terms, &[Place::Behind, Place::OnLink], &HOSTS),
            Self::Routes => {
                let mut cases = hosts(terms, &[Place::Behind], &HOSTS[..1]);
                cases.extend(hosts(terms, &[Place::Scattered], &HOSTS[1..]));
                cases
            }
            Self::Orders => {
                let cases = every(&[65_536]).into_iter().map(behind);
                let orders = |case| Order::ALL.map(|order| Case { order, ..case });
                // The rotation is one of the cases of `Peers`.
                cases
                    .flat_map(orders)
                    .filter(|case| case.order != Order::Rotation)
                    .collect()
            }
            Self::BothWays => CLIENTS
                .map(|clients| Case {
                    terms,
                    ..Case::of(Direction::Both, clients)
                })
                .to_vec(),
            Self::Cores => {
                let cases = every(&CLIENTS).into_iter();
                cases.map(|case| Case { cores: 2, ..case }).collect()
            }
            Self::Generic | Self::Serve | Self::Vlan => every(&CLIENTS),
            Self::Loss => every(&CLIENTS[1..]),
            Self::TestRun | Self::Churn | Self::Solicitations | Self::Client | Self::Memory => {
                Vec::new()
            }
        }
    }
}

/// One client that sends to these numbers of native hosts.
fn hosts(terms: Terms, places: &[Place], counts: &[u32]) -> Vec<Case> {
    let cases = places.iter().flat_map(|place| {
        counts.iter().map(|count| Case {
            terms,
            hosts: Hosts {
                count: *count,
                place: *place,
            },
            ..Case::of(Direction::Decap, 1)
        })
    });
    cases.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_cases_of_a_part_have_the_same_name() {
        for (part, word) in Part::ALL {
            let cases = part.cases();
            let names: BTreeSet<String> = cases.iter().map(ToString::to_string).collect();
            assert_eq!(names.len(), cases.len(), "{word}");
        }
    }
}
