//! Connectivity between NATs: one request in a world of its own for every pair.

pub mod picture;

use std::time::Duration;

use teredo_common::time::Instant;
use teredo_proto::client::Extensions;

use super::{NodeId, Realm, World, nat::Kind, packet::Message};

/// Time that clients have to qualify.
const QUALIFICATION: Duration = Duration::from_secs(30);
/// Times at which a request is sent again: one second after the first, then two, as TCP does.
const REPEATS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Time for the answer to the last request, or its refusal.
const PATIENCE: Duration = Duration::from_secs(8);

/// The extensions that clients may use, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    /// RFC 4380 alone.
    Basic,
    /// RFC 6081: symmetric NAT support.
    Symmetric,
    /// Symmetric NAT support and UPnP.
    Upnp,
    /// Symmetric NAT support for NATs that preserve ports.
    PortPreserving,
    /// That, and support for NATs that assign ports in sequence.
    Sequential,
    /// All extensions.
    All,
}

impl Means {
    /// All values in ascending order.
    pub const ALL: [Self; 6] = [
        Self::Basic,
        Self::Symmetric,
        Self::Upnp,
        Self::PortPreserving,
        Self::Sequential,
        Self::All,
    ];

    /// The letter in the table of docs/protocol/traversal.md.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Basic => 'Y',
            Self::Symmetric => 'S',
            Self::Upnp => 'U',
            Self::PortPreserving => 'P',
            Self::Sequential => 'Q',
            Self::All => 'A',
        }
    }

    /// The client's switches for these extensions.
    #[must_use]
    pub const fn extensions(self) -> Extensions {
        let symmetric = Extensions {
            symmetric: true,
            ..Extensions::NONE
        };
        let port_preserving = Extensions {
            port_preserving: true,
            ..symmetric
        };
        match self {
            Self::Basic => Extensions::NONE,
            Self::Symmetric | Self::Upnp => symmetric,
            Self::PortPreserving => port_preserving,
            Self::Sequential => Extensions {
                sequential: true,
                ..port_preserving
            },
            Self::All => Extensions::ALL,
        }
    }

    /// Whether the client has ports mapped by NATs that support it.
    #[must_use]
    pub const fn has_upnp(self) -> bool {
        matches!(self, Self::Upnp | Self::All)
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One of the two machines has no Teredo address.
    NoAddress,
    /// The answer came after this time.
    Answered(Duration),
    /// The request was refused with ICMPv6 Destination Unreachable after this time.
    Unreachable(Duration),
    /// No packet came back.
    Silence,
}

impl Outcome {
    /// Whether the request was answered.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Answered(_))
    }
}

/// Starts a client behind a NAT of this kind.
pub fn client_behind(world: &mut World, server: NodeId, kind: Kind, means: Means) -> NodeId {
    let realm = world.add_nat(Realm::INTERNET, kind);
    let client = world.add_client_with(realm, server, |config| {
        config.extensions = means.extensions();
    });
    if kind.has_upnp() && means.has_upnp() {
        world.map_port(client);
    }
    world.start(client);
    client
}

/// Waits until clients qualify or give up.
pub fn qualify(world: &mut World, clients: &[NodeId]) {
    world.run_until(QUALIFICATION, |world| {
        clients
            .iter()
            .all(|&client| world.client(client).is_settled())
    });
}

/// Sends a request from one machine to the other, repeats it as TCP does while there is no answer,
/// and waits for its outcome.
pub fn attempt(world: &mut World, from: NodeId, to: NodeId) -> Outcome {
    if world.address(from).is_none() || world.address(to).is_none() {
        return Outcome::NoAddress;
    }
    let start = world.now;
    let mut requests = Vec::new();
    for wait in REPEATS.into_iter().chain([PATIENCE]) {
        requests.push(world.request(from, to));
        world.run_until(wait, |world| {
            outcome(world, from, start, &requests).is_some()
        });
        if let Some(outcome) = outcome(world, from, start, &requests) {
            return outcome;
        }
    }
    Outcome::Silence
}

/// The outcome of requests that began at `start`.
fn outcome(world: &World, from: NodeId, start: Instant, requests: &[u64]) -> Option<Outcome> {
    let stack = world.stack(from);
    let after = |message: &dyn Fn(u64) -> Message| {
        let arrived = requests
            .iter()
            .filter_map(|&request| stack.arrived(message(request)));
        arrived.map(|at| at.saturating_since(start)).min()
    };
    let answered = after(&Message::Reply).map(Outcome::Answered);
    let refused =
        || after(&|request| Message::Unreachable(Some(request))).map(Outcome::Unreachable);
    answered.or_else(refused)
}

/// Sends from a client behind one kind of NAT to one behind another.
#[must_use]
pub fn between_clients(from: Kind, to: Kind, means: Means, seed: u64) -> Outcome {
    let mut world = World::new(seed);
    let server = world.add_server();
    let from = client_behind(&mut world, server, from, means);
    let to = client_behind(&mut world, server, to, means);
    qualify(&mut world, &[from, to]);
    attempt(&mut world, from, to)
}

/// Connects a client and a native host through a relay that stands behind `relay`; either the
/// client or the host sends first.
#[must_use]
pub fn with_relay(
    relay: Kind,
    client: Kind,
    is_outbound: bool,
    means: Means,
    seed: u64,
) -> Outcome {
    let mut world = World::new(seed);
    world.fast_relays = seed.is_multiple_of(2);
    let server = world.add_server();
    let host = world.add_host();
    let realm = world.add_nat(Realm::INTERNET, relay);
    world.add_relay_behind(realm, relay);
    let client = client_behind(&mut world, server, client, means);
    qualify(&mut world, &[client]);
    let (from, to) = if is_outbound {
        (client, host)
    } else {
        (host, client)
    };
    attempt(&mut world, from, to)
}

/// The smallest set of extensions with which a pair connects; `None` if it never does.
pub fn least(reach: impl Fn(Means) -> Outcome) -> Option<Means> {
    let mut means = Means::ALL.into_iter();
    means.find(|&means| reach(means).is_answered())
}
