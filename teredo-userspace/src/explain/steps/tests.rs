//! A relay in virtual time, and the sentences about it.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use teredo_common::{
    address::{ServicePrefix, TeredoAddress},
    time::Instant,
};
use teredo_proto::relay::{Config, Relay};

use super::explain;
use crate::{
    api::types::{Condition, Count, Peer, PeerState, Status},
    condition::Severity,
    explain::{
        Explanation, Facts, Finding, HostFacts, KnownPeer, Packet, RelayFacts, Stage, Subject,
        Verdict, explain_alone, frames,
        host::{Way, WayKind},
    },
    metrics::{Role, RoleState, Snapshot},
};

const HOST: &str = "2600::b";

fn client() -> Ipv6Addr {
    let server = "1.2.3.4".parse().unwrap();
    let mapped: std::net::SocketAddrV4 = "9.0.0.1:4096".parse().unwrap();
    TeredoAddress::new(server, mapped.into()).encode()
}

fn relay() -> Relay {
    let endpoint: std::net::SocketAddrV4 = "5.6.7.8:3545".parse().unwrap();
    let mut config = Config::new(endpoint.into());
    config.own_ipv6 = vec!["2600::1".parse().unwrap()];
    Relay::new(config, [42; 32])
}

/// The facts about a relay that knows these peers, and no XDP program.
fn facts(relay: &Relay, peers: Vec<KnownPeer>) -> Facts {
    let now = Instant::ZERO + Duration::from_secs(1000);
    let mut snapshot = Snapshot::default();
    snapshot.roles.insert(Role::Relay, RoleState::default());
    let machine = relay.copy(now, [7; 32], &[]);
    Facts {
        peers,
        relay: Some(RelayFacts {
            config: machine.config().clone(),
            machine,
            queued: 0,
        }),
        ..Facts::new(now, Status::from(&snapshot), ServicePrefix::STANDARD)
    }
}

fn way(change: impl FnOnce(&mut Way)) -> Way {
    let mut way = Way {
        kind: WayKind::Unicast,
        interface: 2,
        name: "eth0".to_owned(),
        mtu: 1500,
        is_limited_by_route: false,
        gateway: Some("5.6.7.1".parse().unwrap()),
        station: Some([2; 6]),
        is_silent: false,
    };
    change(&mut way);
    way
}

/// A host with this way to the client.
fn host(to_client: Result<Way, String>) -> HostFacts {
    let mut host = HostFacts::default();
    host.insert(IpAddr::from([9, 0, 0, 1]), to_client);
    host.insert(HOST.parse().unwrap(), Ok(way(|_| ())));
    host
}

fn well() -> HostFacts {
    host(Ok(way(|_| ())))
}

/// A peer that was asked so often, and last heard so many seconds ago.
fn peer(address: Ipv6Addr, state: PeerState, unanswered: u8, heard: Option<f64>) -> KnownPeer {
    KnownPeer {
        peer: Peer {
            address,
            mapped: "9.0.0.1:4096".parse().unwrap(),
            state,
            symmetric: false,
            proved: state == PeerState::Trusted,
            last_received_seconds: heard,
            last_sent_seconds: None,
            local: false,
            xdp: false,
            packets: Some(Count::default()),
            bytes: Some(Count::default()),
        },
        queued: 0,
        unanswered,
        elsewhere: None,
    }
}

fn explained(facts: Facts, host: &HostFacts) -> Explanation {
    explain(&Subject::Address(client()), facts, host)
}

/// Checks that a fault is the cause, with these words.
fn is_cause(explanation: &Explanation, parts: &[&str]) {
    assert_eq!(explanation.verdict, Verdict::Fault, "{explanation:#?}");
    for part in parts {
        assert!(explanation.cause.contains(part), "{}", explanation.cause);
    }
    assert!(!explanation.cause.contains('\n'));
}

#[test]
fn a_packet_to_a_new_client_waits_for_its_answer() {
    let explanation = explained(facts(&relay(), Vec::new()), &well());
    assert_eq!(explanation.verdict, Verdict::Waits, "{explanation:#?}");
    assert!(
        explanation.cause.contains("through its server 1.2.3.4"),
        "{}",
        explanation.cause
    );
    let decoded = explanation.teredo.unwrap();
    assert_eq!(decoded.mapped.to_string(), "9.0.0.1:4096");
    let mut steps = explanation.steps.iter();
    assert!(steps.all(|step| step.finding != Finding::Fault));
}

#[test]
fn a_relay_that_drains_is_the_cause_for_new_clients() {
    let mut relay = relay();
    relay.drain();
    let explanation = explained(facts(&relay, Vec::new()), &well());
    is_cause(&explanation, &["encap-draining", "accepts no new peers"]);
}

#[test]
fn the_host_is_a_more_fundamental_cause_than_a_silent_client() {
    let silent = || vec![peer(client(), PeerState::Untrusted, 4, None)];
    let explanation = explained(facts(&relay(), silent()), &well());
    is_cause(&explanation, &["does not answer bubbles", "1.2.3.4"]);
    for (to_client, parts) in [
        (
            Err("Network is unreachable".to_owned()),
            ["no route to 9.0.0.1", "Network is unreachable"],
        ),
        (
            Ok(way(|way| way.is_silent = true)),
            ["5.6.7.1 does not answer ARP on eth0", "9.0.0.1"],
        ),
        (
            Ok(way(|way| way.mtu = 1300)),
            ["the MTU of eth0 is 1300", "`ip link set eth0 mtu 1308`"],
        ),
        (
            Ok(way(|way| way.kind = WayKind::Refused)),
            ["no route to 9.0.0.1", "refuses"],
        ),
    ] {
        let explanation = explained(facts(&relay(), silent()), &host(to_client));
        is_cause(&explanation, &parts);
    }
}

#[test]
fn a_host_that_comes_through_several_relays_is_the_routers_fault() {
    let host: Ipv6Addr = HOST.parse().unwrap();
    for (seconds, is_fault) in [(1.0, true), (40.0, false)] {
        let other = "5.6.7.9:3545".parse().unwrap();
        let known = KnownPeer {
            elsewhere: Some((other, seconds)),
            ..peer(host, PeerState::Trusted, 0, Some(1.0))
        };
        let mut explanation = Explanation::default();
        super::peer::explain_relays(&mut explanation, &facts(&relay(), vec![known]), host);
        let sentences: Vec<_> = explanation.steps.iter().map(|step| &*step.text).collect();
        assert_eq!(sentences.len(), usize::from(is_fault), "{sentences:?}");
        for sentence in sentences {
            assert!(sentence.contains("5.6.7.9:3545"), "{sentence}");
            assert!(sentence.contains("by addresses alone"), "{sentence}");
        }
    }
}

#[test]
fn a_client_that_answers_later_is_not_silent_yet() {
    for peer in [
        peer(client(), PeerState::Untrusted, 1, None),
        peer(client(), PeerState::Trusted, 3, Some(27.0)),
    ] {
        let explanation = explained(facts(&relay(), vec![peer]), &well());
        assert_ne!(explanation.verdict, Verdict::Fault, "{explanation:#?}");
    }
}

#[test]
fn a_silent_client_has_another_address_or_none_is_heard() {
    let silent = || vec![peer(client(), PeerState::Untrusted, 4, Some(90.0))];
    let explanation = explained(facts(&relay(), silent()), &well());
    is_cause(&explanation, &["has fallen silent", "90 s ago"]);

    let mut changed = facts(&relay(), silent());
    let other: Ipv6Addr = "2001:0:102:304:0:efff:f6ff:1".parse().unwrap();
    changed.relatives = vec![peer(other, PeerState::Trusted, 0, Some(2.0)).peer];
    let explanation = explained(changed, &well());
    is_cause(
        &explanation,
        &["the address of the client has changed", &other.to_string()],
    );

    let mut deaf = facts(&relay(), silent());
    deaf.status.peers.untrusted = 2;
    deaf.status.bubbles.sent = 8;
    is_cause(
        &explained(deaf, &well()),
        &["nothing comes back", "8 bubbles"],
    );
}

#[test]
fn conditions_are_named_with_their_texts() {
    let mut down = facts(&relay(), Vec::new());
    down.status.conditions = vec![Condition {
        kind: "firewall".to_owned(),
        role: "relay".to_owned(),
        subject: "input".to_owned(),
        severity: Severity::Down,
        text: "the firewall drops it".to_owned(),
        since_seconds: 1.0,
    }];
    let explanation = explained(down, &well());
    is_cause(&explanation, &["the firewall drops it"]);
    let mut steps = explanation.steps.iter();
    let step = steps.find(|step| step.finding == Finding::Fault).unwrap();
    assert_eq!(step.reason.as_deref(), Some("firewall"));
}

#[test]
fn packets_in_either_direction_are_tried() {
    let native: Ipv6Addr = HOST.parse().unwrap();
    let to_native = Subject::Flow {
        source: client(),
        destination: native,
    };
    let explanation = explain(&to_native, facts(&relay(), Vec::new()), &well());
    is_cause(&explanation, &["decap-unknown-peer"]);

    // A client that is native's, tried with an example.
    let explanation = explain(
        &Subject::Address(native),
        facts(&relay(), Vec::new()),
        &well(),
    );
    assert_eq!(explanation.verdict, Verdict::Passes, "{explanation:#?}");

    let mut large = frames::packet(native, client());
    large.resize(1400, 0);
    large[4..6].copy_from_slice(&1360_u16.to_be_bytes());
    let subject = Subject::Packet(Packet::Ipv6(large));
    let explanation = explain(&subject, facts(&relay(), Vec::new()), &well());
    is_cause(&explanation, &["encap-too-big", "raise relay.mtu"]);
}

#[test]
fn a_full_table_is_noted() {
    let mut full = facts(&relay(), Vec::new());
    full.status.peers.maximum = 100;
    full.status.peers.trusted = 85;
    let explanation = explained(full, &well());
    let mut steps = explanation.steps.iter();
    let limit = steps.find(|step| step.stage == Stage::Limits).unwrap();
    assert!(limit.text.contains("85 peers of at most 100"), "{limit:?}");
}

#[test]
fn without_a_daemon_the_address_is_decoded() {
    let private: Ipv6Addr = "2001:0:102:304:0:efff:3f57:fffe".parse().unwrap();
    let explanation = explain_alone(&Subject::Address(private), "no daemon answers");
    is_cause(&explanation, &["no daemon answers"]);
    let mut steps = explanation.steps.iter();
    assert!(
        steps.any(|step| step.text.contains("192.168.0.1")),
        "{explanation:#?}"
    );
}
