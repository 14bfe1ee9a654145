//! What can be done about packets that are dropped.

use crate::{
    explain::{Stage, Step},
    metrics::{Role, meaning},
};

/// Remedies by the reason for which packets are dropped.
const REMEDIES: &[(&str, &str)] = &[
    (
        "encap-draining",
        "start the daemon again to end that, or use another relay",
    ),
    (
        "encap-new-peer-rate",
        "find out why the source asks for so many, or raise relay.new-peer-rate",
    ),
    (
        "encap-too-big",
        "let ICMPv6 pass, so that the sender hears of it, or raise relay.mtu",
    ),
    (
        "encap-destination",
        "the client cannot be reached from the internet; if it is in a laboratory, set ipv4-scope",
    ),
    (
        "encap-server",
        "the client has to use another server; if it is in a laboratory, set ipv4-scope",
    ),
    ("encap-source", "see relay.serve"),
    (
        "encap-bubble-limit",
        "the relay asks again after some minutes, or when the client sends something",
    ),
    (
        "encap-queue-peer",
        "the sender should send less until there is an answer, or raise relay.queue-per-peer",
    ),
    ("encap-queue-total", "raise relay.queue-total-bytes"),
    (
        "encap-unproved",
        "wait for the proof, or raise relay.unproved-rate",
    ),
    (
        "decap-mapping",
        "its NAT has given it another mapping, or the packet is forged; a client notices within half a \
         minute and gets another address",
    ),
    (
        "decap-unknown-peer",
        "the client has to send a bubble or its connectivity test through its server first",
    ),
    ("decap-destination", "see relay.serve"),
    (
        "source-rate",
        "clients behind one address share server.rate: raise it if there are many",
    ),
    ("network-rate", "raise server.network-rate"),
    ("total-rate", "raise server.total-rate"),
    ("access-list", "add its network to server.allow"),
    ("draining", "clients have to use another server"),
    (
        "no-route",
        "add a route, for which an IPv6 default route is enough",
    ),
    (
        "host-too-big",
        "the sender has to obey the MTU of the tunnel",
    ),
    (
        "host-bubble-limit",
        "the client asks again after some minutes, or when the peer sends something",
    ),
];

/// Returns the step about a packet that a role drops for a reason.
pub fn dropped(role: Role, what: &str, reason: &str) -> Step {
    let meaning = meaning::plain(meaning::dropped(role, reason).unwrap_or_default());
    let remedy = REMEDIES.iter().find(|(name, _)| *name == reason);
    let remedy = remedy.map_or_else(String::new, |(_, remedy)| format!("; {remedy}"));
    let text = format!(
        "the {} drops {what} ({reason}): {}{remedy}",
        role.name(),
        lower(meaning.trim_end_matches('.'))
    );
    Step::fault(Stage::Daemon, text).because(reason)
}

/// Makes a sentence of the documentation a part of another.
pub fn lower(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match (letters.next(), letters.clone().next()) {
        // Not an abbreviation.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_for_reasons_that_there_are() {
        for (reason, _) in REMEDIES {
            let mut roles = Role::ALL.into_iter();
            assert!(
                roles.any(|role| meaning::dropped(role, reason).is_some()),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_sentence_has_reason_meaning_and_remedy() {
        let step = dropped(Role::Relay, "a packet", "encap-draining");
        assert_eq!(
            step.text,
            "the relay drops a packet (encap-draining): the relay drains and accepts no new peers; start \
             the daemon again to end that, or use another relay"
        );
        assert_eq!(lower("ICMPv6 is needed"), "ICMPv6 is needed");
    }
}
