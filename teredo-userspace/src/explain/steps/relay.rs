//! A packet at the relay.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use ipnet::Ipv6Net;
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    peers::Peer as MapPeer,
    scope::is_global_unicast,
    verdict::{Action, Verdict as PathVerdict},
    wire::SERVER_PORT,
};
use teredo_proto::relay::{DropReason, Relay, Transmit};

use super::{
    host::{self, OUTER},
    peer,
    remedy::{dropped, lower},
};
use crate::{
    api::types::Peer,
    explain::{
        Decoded, Explanation, Facts, HostFacts, Packet, RelayFacts, Stage, Step, Subject, Verdict,
        fast_path::SOURCE, frames,
    },
    metrics::{Role, meaning},
};

/// The client of a packet that no client has sent.
const EXAMPLE: (Ipv4Addr, SocketAddrV4) = (
    Ipv4Addr::new(8, 8, 4, 4),
    SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), 40_000),
);
/// A native host if this host has no address of its own.
const EXAMPLE_HOST: Ipv6Addr = Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1);

/// The reason for which packets for a peer are dropped that was asked often enough.
const BUBBLE_LIMIT: &str = DropReason::EncapBubbleLimit.reason();

/// What the relay would do with a packet.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It sends the packet to this endpoint.
    Sends(Endpoint),
    /// It gives the packet to the kernel.
    Delivers,
    /// It keeps the packet, and asks for an answer there.
    Asks(Vec<Endpoint>),
    /// The packet is one of its own, such as a bubble.
    Takes,
    /// It drops the packet for this reason.
    Drops(&'static str),
}

/// Explains the subject at the relay.
pub fn explain(
    explanation: &mut Explanation,
    subject: &Subject,
    facts: &mut Facts,
    host: &HostFacts,
) {
    let Some(mut relay) = facts.relay.take() else {
        // Conditions say why.
        return;
    };
    let is_client = |address: &Ipv6Addr| relay.config.prefix.contains(&address.octets());
    match subject {
        Subject::Address(client) if is_client(client) => {
            let source = native_source(&relay);
            let packet = frames::packet(source, *client);
            to_client(explanation, facts, &mut relay, host, &packet);
        }
        Subject::Address(address) => {
            from_example(explanation, facts, &mut relay, host, *address);
        }
        Subject::Flow {
            source,
            destination,
        } => match (is_client(source), is_client(destination)) {
            (false, true) => {
                let packet = frames::packet(*source, *destination);
                to_client(explanation, facts, &mut relay, host, &packet);
            }
            (true, false) => {
                let from = mapping(facts, *source);
                let packet = frames::packet(*source, *destination);
                from_client(explanation, facts, &mut relay, host, (from, 0), &packet);
            }
            (true, true) => {
                let text = "packets between two clients take no relay: they go from NAT to NAT";
                explanation.add(Step::note(Stage::Subject, text));
                explanation.conclude(Verdict::Unknown, text);
            }
            (false, false) => {
                let text = format!("neither address of {subject} is a Teredo client's");
                explanation.add(Step::fault(Stage::Subject, text));
            }
        },
        Subject::Packet(Packet::Ipv6(packet)) => {
            to_client(explanation, facts, &mut relay, host, packet);
        }
        Subject::Packet(Packet::Datagram {
            from,
            to,
            ecn,
            payload,
        }) => {
            let own = SocketAddrV4::from(relay.config.endpoint);
            if *to == own {
                from_client(explanation, facts, &mut relay, host, (*from, *ecn), payload);
            } else {
                let text = format!("the datagram is to {to}, and this relay is at {own}");
                explanation.add(Step::fault(Stage::Subject, text));
            }
        }
        Subject::Endpoint(endpoint) => {
            at_endpoint(explanation, facts, &mut relay, host, *endpoint);
        }
    }
    let queued = [relay.queued, relay.config.queue_total_bytes].map(|octets| octets as u64);
    host::limits(explanation, facts, queued);
    facts.relay = Some(relay);
}

/// Explains a packet of a native host to a client.
fn to_client(
    explanation: &mut Explanation,
    facts: &Facts,
    relay: &mut RelayFacts,
    host: &HostFacts,
    packet: &[u8],
) {
    let Some((source, client)) = Packet::Ipv6(packet.to_vec()).addresses() else {
        return;
    };
    let what = format!(
        "a packet of {} octets from {source} to {client}",
        packet.len()
    );
    peer::explain(explanation, facts, "relay", client);
    let program = facts.fast_path.as_ref();
    let verdict = program.and_then(|program| program.judge_packet(facts.now, host, source, packet));
    let is_fast = judged(explanation, facts, verdict);
    let decision = encapsulate(&mut relay.machine, facts, packet);
    if verdict.is_none_or(|verdict| verdict.action() == Action::Pass) {
        explanation.add(match &decision {
            Decision::Sends(to) => {
                Step::fine(Stage::Daemon, format!("the relay sends it to {to} at once"))
            }
            // The peer has been asked often enough: its silence is the cause.
            Decision::Drops(reason) if *reason == BUBBLE_LIMIT => {
                let step = dropped(Role::Relay, &what, reason);
                Step::note(Stage::Daemon, step.text).because(reason)
            }
            Decision::Drops(reason) => dropped(Role::Relay, &what, reason),
            Decision::Asks(to) => Step::note(
                Stage::Daemon,
                format!(
                    "the relay keeps it, and asks the client for an answer {}",
                    asking(to)
                ),
            ),
            Decision::Delivers | Decision::Takes => Step::fine(Stage::Daemon, "the relay takes it"),
        });
    }
    let mapped = mapping(facts, client);
    // Nothing is sent because of a packet that is dropped.
    let is_dropped = matches!(decision, Decision::Drops(reason) if reason != BUBBLE_LIMIT);
    if !is_dropped {
        let size = u32::from(relay.config.mtu) + OUTER;
        host::way(explanation, host, (*mapped.ip()).into(), size);
    }
    peer::explain_silence(explanation, facts, client);
    let by = if is_fast {
        "in the fast path"
    } else {
        "through the daemon"
    };
    match decision {
        Decision::Asks(to) => explanation.conclude(
            Verdict::Waits,
            format!(
                "{what} waits until the client answers: the relay asks it {}",
                asking(&to)
            ),
        ),
        _ => explanation.conclude(
            Verdict::Passes,
            format!("{what} goes to {mapped} at once, {by}"),
        ),
    }
}

/// Explains a datagram of a client: its payload, with the source and the ECN field.
fn from_client(
    explanation: &mut Explanation,
    facts: &Facts,
    relay: &mut RelayFacts,
    host: &HostFacts,
    (from, ecn): (SocketAddrV4, u8),
    payload: &[u8],
) {
    let to = SocketAddrV4::from(relay.config.endpoint);
    let datagram = Packet::Datagram {
        from,
        to,
        ecn,
        payload: payload.to_vec(),
    };
    let addresses = datagram.addresses();
    let what = match addresses {
        Some((source, destination)) => {
            format!("a packet from {source} to {destination} that comes from {from}")
        }
        None => format!("a datagram from {from}"),
    };
    if let Some((client, _)) = addresses {
        peer::explain(explanation, facts, "relay", client);
    }
    let program = facts.fast_path.as_ref();
    let verdict = program.and_then(|program| {
        program.judge_datagram(facts.now, host, *from.ip(), |station| {
            frames::of_datagram(station, from, to, ecn, payload)
        })
    });
    let is_fast = judged(explanation, facts, verdict);
    let decision = decapsulate(&mut relay.machine, facts, from, ecn, payload);
    if verdict.is_none_or(|verdict| verdict.action() == Action::Pass) {
        explanation.add(match &decision {
            Decision::Drops(reason) => dropped(Role::Relay, &what, reason),
            Decision::Takes => Step::fine(
                Stage::Daemon,
                "the relay takes it as a sign of life and forwards nothing",
            ),
            _ => Step::fine(Stage::Daemon, "the relay gives it to the kernel to forward"),
        });
    }
    if let (Some((_, destination)), Decision::Delivers) = (addresses, &decision) {
        let size = u32::from(relay.config.mtu);
        host::way(explanation, host, destination.into(), size);
    }
    let by = if is_fast {
        "in the fast path"
    } else {
        "through the daemon and the kernel"
    };
    let end = match decision {
        Decision::Takes => "ends at the relay, as a sign of life of the client".to_owned(),
        _ => format!("is forwarded at once, {by}"),
    };
    explanation.conclude(Verdict::Passes, format!("{what} {end}"));
}

/// Explains a packet of some client to a native host.
fn from_example(
    explanation: &mut Explanation,
    facts: &Facts,
    relay: &mut RelayFacts,
    host: &HostFacts,
    destination: Ipv6Addr,
) {
    let (server, mapped) = EXAMPLE;
    let fields = TeredoAddress {
        prefix: relay.config.prefix,
        ..TeredoAddress::new(server, mapped.into())
    };
    let client = fields.encode();
    let entry = MapPeer {
        mapped: mapped.into(),
        last_received: facts.now,
        last_sent: facts.now,
    };
    relay.machine.adopt_peer(facts.now, client, &entry);
    if let Some(program) = &facts.fast_path {
        program.maps.insert(&client.octets(), &entry, facts.now);
    }
    let text = format!("{destination} is native; tried with a trusted client at {mapped}");
    explanation.add(Step::fine(Stage::Subject, text));
    let packet = frames::packet(client, destination);
    from_client(explanation, facts, relay, host, (mapped, 0), &packet);
    // Nothing is to be said about a peer that does not exist.
    explanation.steps.retain(|step| step.stage != Stage::Peer);
}

/// Explains the peers at an endpoint, and a packet to the one that was heard last.
fn at_endpoint(
    explanation: &mut Explanation,
    facts: &Facts,
    relay: &mut RelayFacts,
    host: &HostFacts,
    endpoint: SocketAddrV4,
) {
    let mut peers: Vec<_> = facts.peers.iter().map(|known| &known.peer).collect();
    peers.sort_by(|one, other| {
        let silence = |peer: &Peer| peer.last_received_seconds.unwrap_or(f64::INFINITY);
        silence(one).total_cmp(&silence(other))
    });
    let Some((latest, others)) = peers.split_first() else {
        let text = format!("the relay knows no peer at {endpoint}");
        explanation.add(Step::note(Stage::Peer, text.clone()));
        host::way(explanation, host, (*endpoint.ip()).into(), 0);
        explanation.conclude(Verdict::Unknown, text);
        return;
    };
    let text = match others.len() {
        0 => format!("{endpoint} is the mapping of {}", latest.address),
        others => format!(
            "{endpoint} is the mapping of {} and of {others} other peers, which were heard earlier",
            latest.address
        ),
    };
    explanation.add(Step::fine(Stage::Subject, text));
    for peer in others {
        peer::explain(explanation, facts, "relay", peer.address);
    }
    let packet = frames::packet(native_source(relay), latest.address);
    to_client(explanation, facts, relay, host, &packet);
}

/// Adds the verdict of the fast path. Returns whether it forwards the frame.
fn judged(explanation: &mut Explanation, facts: &Facts, verdict: Option<PathVerdict>) -> bool {
    let Some(verdict) = verdict else {
        let reason = facts.status.xdp.iter().find(|one| !one.reason.is_empty());
        let reason = reason.map_or_else(String::new, |one| format!(": {}", one.reason));
        let text = format!("no XDP program is attached, so that the daemon does the work{reason}");
        explanation.add(Step::note(Stage::FastPath, text));
        return false;
    };
    let meaning = meaning::plain(meaning::of_verdict(verdict));
    let text = format!("{} ({SOURCE})", lower(meaning.trim_end_matches('.')));
    let step = match verdict.action() {
        Action::Forward => Step::fine(
            Stage::FastPath,
            format!("the XDP program forwards it ({SOURCE})"),
        ),
        Action::Pass => Step::note(
            Stage::FastPath,
            format!("the XDP program leaves it to the kernel and the daemon: {text}"),
        ),
        Action::Drop => Step::fault(Stage::FastPath, format!("the XDP program drops it: {text}")),
    };
    explanation.add(step.because(verdict.reason()));
    verdict.action() == Action::Forward
}

fn encapsulate(relay: &mut Relay, facts: &Facts, packet: &[u8]) -> Decision {
    let mut packet = packet.to_vec();
    let sent = relay.handle_ipv6(facts.now, &mut packet);
    if let Some((to, _)) = sent {
        return Decision::Sends(to);
    }
    if let Some(reason) = dropped_for(relay) {
        return Decision::Drops(reason);
    }
    let transmits = std::iter::from_fn(|| relay.poll_transmit());
    let asked = transmits.filter_map(|transmit| match transmit {
        Transmit::Datagram { to, .. } => Some(to),
        Transmit::OwnServer { bubble } => {
            let client = bubble.last_chunk::<16>()?;
            let decoded = Decoded::of((*client).into(), facts.prefix)?;
            Some(Endpoint::new(decoded.server, SERVER_PORT))
        }
        Transmit::Ipv6(_) => None,
    });
    Decision::Asks(asked.collect())
}

fn decapsulate(
    relay: &mut Relay,
    facts: &Facts,
    from: SocketAddrV4,
    ecn: u8,
    payload: &[u8],
) -> Decision {
    let mut payload = payload.to_vec();
    let packet = relay.handle_datagram(facts.now, from.into(), ecn, &mut payload);
    if packet.is_some() {
        return Decision::Delivers;
    }
    dropped_for(relay).map_or(Decision::Takes, Decision::Drops)
}

/// Returns the reason for which a copy has dropped its only packet.
fn dropped_for(relay: &Relay) -> Option<&'static str> {
    let statistics = relay.statistics();
    let mut dropped = statistics.dropped.iter();
    dropped.find_map(|(reason, packets)| (packets > 0).then(|| reason.reason()))
}

/// Returns the endpoint that reaches a client: the one that is known, else the one in its address.
fn mapping(facts: &Facts, client: Ipv6Addr) -> SocketAddrV4 {
    if let Some(known) = facts.peer(client) {
        return known.peer.mapped;
    }
    let octets = client.octets();
    teredo_common::address::embedded_mapping(&octets).into()
}

/// Describes where a client is asked for an answer.
fn asking(to: &[Endpoint]) -> String {
    match to {
        [] => "when it is its turn, or has done so lately".to_owned(),
        to => {
            let to: Vec<_> = to
                .iter()
                .map(|to| match to.port() {
                    SERVER_PORT => format!("through its server {}", to.ip()),
                    _ => format!("at {to}"),
                })
                .collect();
            to.join(" and ")
        }
    }
}

/// Returns a native source that the relay serves.
fn native_source(relay: &RelayFacts) -> Ipv6Addr {
    let config = &relay.config;
    let is_native = |address: &Ipv6Addr| {
        let octets = address.octets();
        is_global_unicast(&octets)
            && !config.prefix.contains(&octets)
            && !config.teredo.contains(&octets)
    };
    let served = |address: &Ipv6Addr| {
        let mut served = config.served.iter();
        served.any(|network| network.contains(address))
    };
    let own = config
        .own_ipv6
        .iter()
        .copied()
        .find(|own| is_native(own) && served(own));
    own.unwrap_or_else(|| {
        let first = config.served.iter().find(|one| **one != Ipv6Net::default());
        first.map_or(EXAMPLE_HOST, |network| {
            Ipv6Addr::from_bits(network.network().to_bits() | 1)
        })
    })
}
