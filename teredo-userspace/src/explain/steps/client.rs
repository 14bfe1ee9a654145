//! A packet at the client.

use std::net::{Ipv6Addr, SocketAddrV4};

use teredo_proto::client::{Client, DropReason, Identity, Nat, Transmit};

use super::{
    host::{self, OUTER},
    peer::{self, SILENT},
    remedy::dropped,
};
use crate::{
    api::types::PeerState,
    explain::{
        Decoded, Explanation, Facts, HostFacts, Packet, Stage, Step, Subject, Verdict, frames,
    },
    metrics::Role,
};

/// The reason for which packets for a peer are dropped that was asked often enough.
const BUBBLE_LIMIT: &str = DropReason::HostBubbleLimit.reason();

/// Explains the subject at the client.
pub fn explain(
    explanation: &mut Explanation,
    subject: &Subject,
    facts: &mut Facts,
    host: &HostFacts,
) {
    let Some(mut client) = facts.client.take() else {
        return;
    };
    let queued = [
        client.statistics().queue_octets,
        client.config().queue_total_bytes,
    ];
    let queued = queued.map(|octets| octets as u64);
    if let Some(server) = client.server() {
        host::way(explanation, host, server.primary.into(), 0);
    }
    match client.identity().copied() {
        None => {
            let state = facts.status.client.as_ref().map(|client| &*client.state);
            let state = state.unwrap_or("stopped");
            let text = format!(
                "the client has no address ({state}), so that no packet can be sent or received"
            );
            explanation.add(Step::fault(Stage::Daemon, text));
        }
        Some(identity) => {
            qualified(explanation, subject, facts, &mut client, &identity, host);
        }
    }
    host::limits(explanation, facts, queued);
    facts.client = Some(client);
}

fn qualified(
    explanation: &mut Explanation,
    subject: &Subject,
    facts: &Facts,
    client: &mut Client,
    identity: &Identity,
    host: &HostFacts,
) {
    let own = identity.address;
    match subject {
        Subject::Address(address) if *address == own => {
            let text = format!(
                "{own} is the address of this client, at {} behind a NAT that is {}",
                identity.mapped,
                nat(identity.nat)
            );
            explanation.add(Step::fine(Stage::Daemon, text.clone()));
            explanation.conclude(Verdict::Passes, text);
        }
        Subject::Address(to) => {
            let packet = frames::packet(own, *to);
            sends(explanation, facts, client, identity, host, *to, packet);
        }
        Subject::Flow {
            source,
            destination,
        } if *source == own => {
            let packet = frames::packet(own, *destination);
            sends(
                explanation,
                facts,
                client,
                identity,
                host,
                *destination,
                packet,
            );
        }
        Subject::Flow { source, .. } => {
            peer::explain(explanation, facts, "client", *source);
            peer::explain_relays(explanation, facts, *source);
            silence(explanation, facts, identity, *source);
            let text = format!("packets from {source} arrive as the peer's state says");
            explanation.conclude(Verdict::Unknown, text);
        }
        Subject::Packet(Packet::Ipv6(packet)) => {
            if let Some((_, to)) = Packet::Ipv6(packet.clone()).addresses() {
                sends(
                    explanation,
                    facts,
                    client,
                    identity,
                    host,
                    to,
                    packet.clone(),
                );
            }
        }
        Subject::Packet(Packet::Datagram {
            from,
            to,
            ecn,
            payload,
        }) => receives(
            explanation,
            facts,
            client,
            (*from, to.port(), *ecn),
            payload,
        ),
        Subject::Endpoint(endpoint) => {
            let text = match Some(*endpoint) == client.server().map(|one| one.primary().into()) {
                true => format!("{endpoint} is the server of this client, which answers it"),
                false => format!("{endpoint} is not the server of this client"),
            };
            host::way(explanation, host, (*endpoint.ip()).into(), 0);
            explanation.add(Step::note(Stage::Daemon, text.clone()));
            explanation.conclude(Verdict::Unknown, text);
        }
    }
}

/// Explains a packet of this host.
fn sends(
    explanation: &mut Explanation,
    facts: &Facts,
    client: &mut Client,
    identity: &Identity,
    host: &HostFacts,
    to: Ipv6Addr,
    mut packet: Vec<u8>,
) {
    let what = format!("a packet of {} octets to {to}", packet.len());
    peer::explain(explanation, facts, "client", to);
    peer::explain_relays(explanation, facts, to);
    let sent = client.handle_ipv6(facts.now, &mut packet);
    let sent = sent.map(|(_, to, _)| SocketAddrV4::from(to));
    if let Some(at) = sent {
        let text = format!("the client sends it to {at} at once");
        explanation.add(Step::fine(Stage::Daemon, text));
        let size = u32::from(identity.mtu) + OUTER;
        host::way(explanation, host, (*at.ip()).into(), size);
        explanation.conclude(Verdict::Passes, format!("{what} goes to {at} at once"));
        return;
    }
    if let Some(reason) = dropped_for(client) {
        // A peer that has been asked often enough is silent, which is the cause.
        let step = dropped(Role::Client, &what, reason);
        if reason == BUBBLE_LIMIT {
            silence(explanation, facts, identity, to);
            explanation.add(Step::note(Stage::Daemon, step.text).because(reason));
        } else {
            explanation.add(step);
        }
        return;
    }
    let transmits = std::iter::from_fn(|| client.poll_transmit());
    let asked: Vec<_> = transmits
        .filter_map(|transmit| match transmit {
            Transmit::Datagram { to, .. } => Some(to.to_string()),
            _ => None,
        })
        .collect();
    let asked = match &asked[..] {
        [] => "it has been asked for an answer".to_owned(),
        asked => format!("it is asked for an answer through {}", asked.join(" and ")),
    };
    let text = format!("the client keeps it until {to} has answered; {asked}");
    explanation.add(Step::note(Stage::Daemon, text));
    silence(explanation, facts, identity, to);
    let text = format!("{what} waits until {to} has answered; {asked}");
    explanation.conclude(Verdict::Waits, text);
}

/// Explains that a peer does not answer, if so.
fn silence(explanation: &mut Explanation, facts: &Facts, identity: &Identity, to: Ipv6Addr) {
    let Some(known) = facts.peer(to) else {
        return;
    };
    if known.peer.state == PeerState::Trusted || known.unanswered < SILENT {
        return;
    }
    let text = match Decoded::of(to, facts.prefix) {
        Some(_) if identity.nat == Nat::Symmetric => format!(
            "the NAT of this client is symmetric, and {to} does not answer: two clients find no way if \
             the NAT of the other is symmetric, too, or lets in only known ports; forward a port to this \
             host and set client.port"
        ),
        Some(decoded) => format!(
            "the client {to} does not answer bubbles through its server {}: it is asleep or gone, or its \
             NAT is symmetric and does not go with this one",
            decoded.server
        ),
        None => format!(
            "{to} does not answer the connectivity test through the server {}: the host is gone, it has \
             no relay, or a firewall drops ICMPv6 echo requests",
            identity.server.primary()
        ),
    };
    explanation.add(Step::fault(Stage::Peer, text));
}

/// Explains a datagram to this client.
fn receives(
    explanation: &mut Explanation,
    facts: &Facts,
    client: &mut Client,
    (from, to, ecn): (SocketAddrV4, u16, u8),
    payload: &[u8],
) {
    let what = format!("the datagram from {from}");
    let mut payload = payload.to_vec();
    let is_for_host = client
        .handle_datagram(facts.now, to, from.into(), ecn, &mut payload)
        .is_some();
    match dropped_for(client) {
        Some(reason) => explanation.add(dropped(Role::Client, &what, reason)),
        None => {
            let text = match is_for_host {
                true => format!("{what} is accepted, and this host gets its packet"),
                false => format!("{what} is accepted and ends at the client"),
            };
            explanation.add(Step::fine(Stage::Daemon, text.clone()));
            explanation.conclude(Verdict::Passes, text);
        }
    }
}

/// Returns the reason for which a copy has dropped its only packet.
fn dropped_for(client: &Client) -> Option<&'static str> {
    let statistics = client.statistics();
    let mut dropped = statistics.dropped.iter();
    dropped.find_map(|(reason, packets)| (packets > 0).then(|| reason.reason()))
}

const fn nat(nat: Nat) -> &'static str {
    match nat {
        Nat::Cone => "a cone",
        Nat::Restricted => "restricted",
        Nat::Symmetric => "symmetric",
    }
}
