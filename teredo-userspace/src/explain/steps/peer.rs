//! The state and the history of a peer.

use std::net::Ipv6Addr;

use crate::{
    api::types::{Peer, PeerState},
    explain::{Decoded, Explanation, Facts, KnownPeer, Stage, Step},
};

/// The time, in seconds, after which another relay of a host is one of the past.
const RECENTLY: f64 = 30.0;

/// A peer that left this many questions unanswered is silent; answers to the first may be on their way.
pub const SILENT: u8 = 2;

/// Explains what the daemon knows about a peer. `owner` is the role that knows it.
pub fn explain(explanation: &mut Explanation, facts: &Facts, owner: &str, address: Ipv6Addr) {
    let Some(known) = facts.peer(address) else {
        let text = format!("the {owner} does not know {address}: nothing was sent to it lately");
        explanation.add(Step::note(Stage::Peer, text));
        return;
    };
    explanation.add(Step::fine(Stage::Peer, describe(owner, known)));
}

/// Explains that several relays bring the packets of a native host to this client, if so.
pub fn explain_relays(explanation: &mut Explanation, facts: &Facts, address: Ipv6Addr) {
    let Some(known) = facts.peer(address) else {
        return;
    };
    let Some((other, seconds)) = known.elsewhere.filter(|(_, seconds)| *seconds < RECENTLY) else {
        return;
    };
    let text = format!(
        "the relay at {other}, too, brings packets of {address}, the last one {}; a client drops those, since it has one \
         relay for each host, at {}: unless somebody forges them, routers spread the packets to this client over several \
         relays by ports or flow labels, and must do so by addresses alone",
        ago(Some(seconds)),
        known.peer.mapped
    );
    explanation.add(Step::fault(Stage::Peer, text));
}

/// Explains that a peer of the relay does not answer, if so.
pub fn explain_silence(explanation: &mut Explanation, facts: &Facts, address: Ipv6Addr) {
    let Some(known) = facts.peer(address) else {
        return;
    };
    if known.peer.state == PeerState::Trusted || known.unanswered < SILENT {
        return;
    }
    explanation.add(Step::fault(Stage::Peer, silence(facts, known)));
}

/// Returns the sentence about a peer of the relay that does not answer.
fn silence(facts: &Facts, known: &KnownPeer) -> String {
    let address = known.peer.address;
    if let Some(other) = successor(facts, known) {
        return format!(
            "the address of the client has changed: {address} is silent, and {} of the same NAT and \
             server was heard {}; send to that",
            other.address,
            ago(other.last_received_seconds),
        );
    }
    let bubbles = facts.status.bubbles;
    if bubbles.received == 0 && facts.status.peers.untrusted > 1 {
        let endpoints = facts.status.endpoints.get("relay");
        let endpoint = endpoints.and_then(|endpoints| endpoints.first());
        let endpoint = endpoint.map_or_else(|| "this relay".to_owned(), ToString::to_string);
        return format!(
            "nothing comes back: this relay has sent {} bubbles to several clients, and no datagram has \
             ever come to it at UDP {endpoint}; let UDP to that port pass in the firewalls before this \
             host",
            bubbles.sent
        );
    }
    let server = Decoded::of(address, facts.prefix).map(|decoded| decoded.server);
    let server = server.map_or_else(String::new, |server| {
        format!(" through its server {server}")
    });
    match known.peer.last_received_seconds {
        Some(_) => format!(
            "the client {address} has fallen silent: it was heard {}, and does not answer bubbles{server}; \
             it is asleep, gone, or has another address, and nothing can be done here",
            ago(known.peer.last_received_seconds)
        ),
        None => format!(
            "the client {address} does not answer bubbles{server}: it is asleep or gone, or its server is; \
             nothing can be done here"
        ),
    }
}

/// Returns the peer that a silent client may be now.
fn successor<'a>(facts: &'a Facts, known: &KnownPeer) -> Option<&'a Peer> {
    let last = known.peer.last_received_seconds;
    let relatives = facts.relatives.iter();
    let mut heard: Vec<_> = relatives
        .filter(|other| other.address != known.peer.address)
        .filter(|other| other.state == PeerState::Trusted)
        .filter(|other| match (other.last_received_seconds, last) {
            (Some(other), Some(last)) => other < last,
            (Some(_), None) => true,
            (None, _) => false,
        })
        .collect();
    heard.sort_by(|a, b| {
        let [a, b] = [a, b].map(|peer| peer.last_received_seconds.unwrap_or(f64::MAX));
        a.total_cmp(&b)
    });
    heard.first().copied()
}

fn describe(owner: &str, known: &KnownPeer) -> String {
    let KnownPeer {
        peer,
        queued,
        unanswered,
        elsewhere: _,
    } = known;
    let state = match (peer.state, peer.proved) {
        (PeerState::Trusted, true) => "trusted and proved",
        (PeerState::Trusted, false) => "trusted",
        (PeerState::Untrusted, _) => "not trusted",
    };
    let place = match (peer.symmetric, peer.local) {
        (true, _) => ", behind a symmetric NAT",
        (_, true) => ", on this link",
        _ => "",
    };
    let asked = match (unanswered, peer.state) {
        (0, _) => String::new(),
        (1, _) => ", asked once since".to_owned(),
        (times, _) => format!(", asked {times} times since"),
    };
    let waits = match queued {
        0 => String::new(),
        1 => ", 1 packet waits".to_owned(),
        packets => format!(", {packets} packets wait"),
    };
    let path = if peer.xdp {
        "in the map of the fast path"
    } else {
        "served by the daemon"
    };
    format!(
        "the {owner} knows {} at {}{place}: {state}, {}{asked}, {}{waits}, {path}",
        peer.address,
        peer.mapped,
        event("heard", peer.last_received_seconds),
        event("sent to", peer.last_sent_seconds),
    )
}

fn event(name: &str, seconds: Option<f64>) -> String {
    match seconds {
        Some(_) => format!("{name} {}", ago(seconds)),
        None => format!("never {name}"),
    }
}

fn ago(seconds: Option<f64>) -> String {
    seconds.map_or_else(
        || "never".to_owned(),
        |seconds| format!("{seconds:.0} s ago"),
    )
}
