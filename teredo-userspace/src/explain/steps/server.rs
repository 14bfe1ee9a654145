//! A packet at the server.

use std::net::SocketAddrV4;

use teredo_common::verdict::Action;
use teredo_proto::{
    ServerAddress,
    server::{Server, Transmit},
};

use super::{
    host,
    remedy::{dropped, lower},
};
use crate::{
    explain::{
        Decoded, Explanation, Facts, HostFacts, Packet, ServerFacts, Stage, Step, Subject, Verdict,
        fast_path::SOURCE, frames,
    },
    metrics::{Role, meaning},
};

/// Explains the subject at the server: a datagram to it, or else a solicitation from the client.
pub fn explain(
    explanation: &mut Explanation,
    subject: &Subject,
    facts: &mut Facts,
    host: &HostFacts,
) {
    let Some(mut server) = facts.server.take() else {
        return;
    };
    let primary = server.primary();
    let solicitation = || (primary, 0, frames::solicitation());
    match subject {
        Subject::Packet(Packet::Datagram {
            from,
            to,
            ecn,
            payload,
        }) => {
            let datagram = (*to, *ecn, payload.clone());
            handle(
                explanation,
                facts,
                &mut server,
                host,
                *from,
                datagram,
                "the datagram",
            );
        }
        Subject::Endpoint(from) => {
            let what = "a router solicitation";
            handle(
                explanation,
                facts,
                &mut server,
                host,
                *from,
                solicitation(),
                what,
            );
        }
        Subject::Address(address) => {
            if let Some(decoded) = Decoded::of(*address, facts.prefix) {
                let (from, what) = (decoded.mapped, "a router solicitation");
                handle(
                    explanation,
                    facts,
                    &mut server,
                    host,
                    from,
                    solicitation(),
                    what,
                );
            }
        }
        _ => {}
    }
    facts.server = Some(server);
}

fn handle(
    explanation: &mut Explanation,
    facts: &Facts,
    server: &mut ServerFacts,
    host: &HostFacts,
    from: SocketAddrV4,
    (to, ecn, payload): (SocketAddrV4, u8, Vec<u8>),
    what: &str,
) {
    let what = format!("{what} from {from}");
    let program = facts.fast_path.as_ref();
    let verdict = program.and_then(|program| {
        program.judge_datagram(facts.now, host, *from.ip(), |station| {
            frames::of_datagram(station, from, to, ecn, &payload)
        })
    });
    if let Some(verdict) = verdict {
        let meaning = meaning::plain(meaning::of_verdict(verdict));
        let meaning = lower(meaning.trim_end_matches('.'));
        let step = match verdict.action() {
            Action::Forward => Step::fine(
                Stage::FastPath,
                format!("the XDP program answers {what} ({SOURCE})"),
            ),
            Action::Pass => Step::note(
                Stage::FastPath,
                format!("the XDP program leaves {what} to the daemon: {meaning} ({SOURCE})"),
            ),
            Action::Drop => Step::fault(
                Stage::FastPath,
                format!("the XDP program drops {what}: {meaning} ({SOURCE})"),
            ),
        };
        explanation.add(step.because(verdict.reason()));
    }
    let address = match *to.ip() == server.config.secondary {
        true => ServerAddress::Secondary,
        false => ServerAddress::Primary,
    };
    let machine = &mut server.machine;
    let answer = machine.handle_datagram(facts.now, address, from.into(), &payload);
    let end = match answer {
        Some(Transmit::Datagram { to, .. }) if SocketAddrV4::from(to) == from => {
            Some("the server answers it".to_owned())
        }
        Some(Transmit::Datagram { to, .. }) => Some(format!("the server forwards it to {to}")),
        Some(Transmit::Native(_)) => Some("the server sends its packet to native IPv6".to_owned()),
        Some(Transmit::Tunnel(_)) => Some("the server gives its packet to the kernel".to_owned()),
        None => None,
    };
    match end {
        Some(text) => {
            explanation.add(Step::fine(Stage::Daemon, format!("{what}: {text}")));
            host::way(explanation, host, (*from.ip()).into(), 0);
            explanation.conclude(Verdict::Passes, format!("{what}: {text}"));
        }
        None => {
            let reason = dropped_for(machine).unwrap_or("malformed");
            explanation.add(dropped(Role::Server, &what, reason));
        }
    }
}

/// Returns the reason for which a copy has dropped its only packet.
fn dropped_for(server: &Server) -> Option<&'static str> {
    let mut dropped = server.statistics().dropped.iter();
    dropped.find_map(|(reason, packets)| (packets > 0).then(|| reason.reason()))
}
