//! The decisions on the way of a packet, and what is said about them. Everything here is pure.

mod client;
mod host;
mod peer;
mod relay;
mod remedy;
mod server;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddrV4},
};

use teredo_common::{address::ServicePrefix, scope::Ipv4Scope};

use super::{
    Decoded, Explanation, Facts, HostFacts, Packet, Question, Stage, Step, Subject, Verdict,
};
use crate::metrics::Role;

impl Question {
    /// Returns the question about a subject; `peers` are those at the endpoint that it names.
    #[must_use]
    pub fn about(subject: &Subject, peers: Vec<Ipv6Addr>) -> Self {
        let mut addresses = peers;
        match subject {
            Subject::Address(address) => addresses.push(*address),
            Subject::Flow {
                source,
                destination,
            } => addresses.extend([source, destination]),
            Subject::Packet(packet) => addresses.extend(
                packet
                    .addresses()
                    .into_iter()
                    .flat_map(|(source, destination)| [source, destination]),
            ),
            Subject::Endpoint(_) => {}
        }
        Self { addresses }
    }

    /// Returns the destinations whose routes matter.
    #[must_use]
    pub fn destinations(&self, subject: &Subject, facts: &Facts) -> BTreeSet<IpAddr> {
        let mut destinations = BTreeSet::new();
        for &address in &self.addresses {
            match Decoded::of(address, facts.prefix) {
                Some(decoded) => {
                    destinations.insert((*decoded.mapped.ip()).into());
                    destinations.insert(decoded.server.into());
                }
                None => {
                    destinations.insert(address.into());
                }
            }
        }
        let mut endpoints: Vec<SocketAddrV4> =
            facts.peers.iter().map(|known| known.peer.mapped).collect();
        match subject {
            Subject::Endpoint(endpoint) => endpoints.push(*endpoint),
            Subject::Packet(Packet::Datagram { from, .. }) => endpoints.push(*from),
            _ => {}
        }
        let client = facts.status.client.as_ref();
        endpoints.extend(client.and_then(|client| client.server));
        destinations.extend(endpoints.iter().map(|one| IpAddr::from(*one.ip())));
        destinations
    }
}

/// Explains a subject.
#[must_use]
pub fn explain(subject: &Subject, mut facts: Facts, host: &HostFacts) -> Explanation {
    let mut explanation = Explanation {
        subject: subject.to_string(),
        ..Explanation::default()
    };
    explanation.teredo = teredo_of(subject, facts.prefix);
    if let Some(decoded) = explanation.teredo {
        explanation.add(Step::fine(Stage::Subject, describe(decoded)));
    }
    let is_for = |role: Role| facts.status.roles.iter().any(|name| name == role.name());
    let roles = Role::ALL.map(|role| (role, is_for(role)));
    for (role, is_configured) in roles {
        if !is_configured || !concerns(role, subject, &facts) {
            continue;
        }
        match role {
            Role::Relay => relay::explain(&mut explanation, subject, &mut facts, host),
            Role::Server => server::explain(&mut explanation, subject, &mut facts, host),
            Role::Client => client::explain(&mut explanation, subject, &mut facts, host),
        }
        host::conditions(&mut explanation, &facts, role);
    }
    if explanation.cause.is_empty() {
        let roles = facts.status.roles.join(" and ");
        explanation.conclude(
            Verdict::Unknown,
            format!("{subject} does not concern this daemon, which is a {roles}"),
        );
    }
    explanation
}

/// Explains as much as can be said without a daemon. `trouble` is the reason why none answers.
#[must_use]
pub fn explain_alone(subject: &Subject, trouble: &str) -> Explanation {
    let mut explanation = Explanation {
        subject: subject.to_string(),
        ..Explanation::default()
    };
    explanation.teredo = teredo_of(subject, ServicePrefix::STANDARD);
    if let Some(decoded) = explanation.teredo {
        explanation.add(Step::fine(Stage::Subject, describe(decoded)));
        for (name, address) in [
            ("server", decoded.server),
            ("mapping", *decoded.mapped.ip()),
        ] {
            if !Ipv4Scope::Strict.accepts(address.octets()) {
                let text = format!(
                    "the {name} {address} in {} is not a global unicast address, so relays and servers \
                     of the internet refuse the client",
                    decoded.address
                );
                explanation.add(Step::note(Stage::Subject, text));
            }
        }
    }
    explanation.add(Step::fault(Stage::Daemon, trouble));
    explanation
}

/// Returns the Teredo address in question: of the destination, if both are.
fn teredo_of(subject: &Subject, prefix: ServicePrefix) -> Option<Decoded> {
    let decode = |address| Decoded::of(address, prefix);
    match subject {
        Subject::Address(address) => decode(*address),
        Subject::Flow {
            source,
            destination,
        } => decode(*destination).or_else(|| decode(*source)),
        Subject::Packet(packet) => {
            let (source, destination) = packet.addresses()?;
            decode(destination).or_else(|| decode(source))
        }
        Subject::Endpoint(_) => None,
    }
}

fn describe(decoded: Decoded) -> String {
    let Decoded {
        address,
        server,
        flags,
        mapped,
    } = decoded;
    format!(
        "{address} is the Teredo client at {mapped} of the server {server} (flags {flags:#06x})"
    )
}

/// Whether a role gets packets of the subject, or cares for it.
fn concerns(role: Role, subject: &Subject, facts: &Facts) -> bool {
    let server = facts.server.as_ref();
    let is_to_server = |to: &SocketAddrV4| {
        server.is_some_and(|server| {
            let addresses = [server.config.primary, server.config.secondary];
            addresses.contains(to.ip()) && to.port() == server.config.port
        })
    };
    let is_own_client = |address: &Ipv6Addr| {
        let decoded = Decoded::of(*address, facts.prefix);
        server.is_some_and(|server| {
            decoded.is_some_and(|decoded| decoded.server == server.config.primary)
        })
    };
    match (role, subject) {
        (Role::Client, _) => true,
        (Role::Relay, Subject::Packet(Packet::Datagram { to, .. })) => !is_to_server(to),
        (Role::Relay, Subject::Endpoint(_)) => server.is_none() || !facts.peers.is_empty(),
        (Role::Relay, _) => true,
        (Role::Server, Subject::Endpoint(_)) => true,
        (Role::Server, Subject::Address(address)) => is_own_client(address),
        (Role::Server, Subject::Packet(Packet::Datagram { to, .. })) => is_to_server(to),
        (Role::Server, _) => false,
    }
}
