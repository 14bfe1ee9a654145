//! A [`Snapshot`] as metrics, which Prometheus reads. A family that has no value here, since its role does not
//! run, is left out.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, NoLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::MetricType,
    registry::Registry,
};

use teredo_common::maps::ABI_VERSION;
use teredo_proto::Durations;

use super::{
    ClientStatus, DIRECTIONS, Format, Level, Path, Role, STATES, Snapshot, Traffic, conditions,
    direction_name, process::Process,
};

/// Renders the snapshot, and the metrics of the process.
///
/// # Errors
///
/// Never in practice: writing to a string does not fail.
pub fn render(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("teredo");
    registry.register_collector(Box::new(snapshot));
    let mut process = Registry::default();
    process.register_collector(Box::new(Process));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_registry(&mut text, &process)?;
    encode_eof(&mut text)?;
    Ok(format.convert(text))
}

/// Encodes the metrics. The encoder adds the prefix `teredo_` and the suffix `_total` to the names.
impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        const RELAY: (&str, &str) = Role::Relay.label();
        let relays = self.roles.get(&Role::Relay).into_iter();
        // Either a relay or a client has peers; they never run in one daemon.
        let has_peers = [Role::Relay, Role::Client].into_iter();
        let has_peers = has_peers.filter(|role| self.roles.contains_key(role));
        let has_peers = has_peers.map(Role::label);
        let servers = self.roles.get(&Role::Server).into_iter();
        for (name, help, of) in [
            (
                "packets",
                "Packets forwarded",
                (|traffic| traffic.packets) as fn(Traffic) -> u64,
            ),
            ("bytes", "Octets of IPv6 packets forwarded", |traffic| {
                traffic.bytes
            }),
        ] {
            let values = has_peers
                .clone()
                .flat_map(|role| DIRECTIONS.map(|direction| (role, direction)));
            let values = values.flat_map(|(role, direction)| {
                Path::ALL.map(|path| {
                    let labels = [
                        role,
                        ("direction", direction_name(direction)),
                        ("path", path.name()),
                    ];
                    (labels, of(self.traffic(direction, path)))
                })
            });
            counters(&mut to, name, help, values)?;
        }
        // The fast path counts for both of its roles, whichever runs.
        let dropped = self
            .dropped
            .iter()
            .filter(|((role, ..), _)| self.roles.contains_key(role))
            .map(|(&(role, path, reason), &packets)| {
                let labels = [role.label(), ("path", path.name()), ("reason", reason)];
                (labels, packets)
            });
        counters(&mut to, "dropped", "Packets dropped", dropped)?;
        let passed = self
            .passed
            .iter()
            .map(|(&reason, &packets)| ([("reason", reason)], packets));
        counters(
            &mut to,
            "passed",
            "Frames that the fast path passed to the kernel and the daemon",
            passed,
        )?;
        counters(
            &mut to,
            "xdp_refused_peers",
            "Peers that the fast path had no room for",
            relays.clone().map(|_| ([RELAY], self.xdp_refused)),
        )?;
        let dropped = self.xdp_dropped.iter();
        counters(
            &mut to,
            "xdp_driver_dropped",
            "Frames that the fast path sent natively and that the driver dropped",
            dropped.map(|(interface, &frames)| ([("interface", &**interface)], frames)),
        )?;
        counters(
            &mut to,
            "bubbles",
            "Bubbles by kind and outcome",
            has_peers.clone().flat_map(|role| {
                let bubbles = self.bubbles.iter();
                bubbles.map(move |(&kind, &count)| ([role, ("kind", kind)], count))
            }),
        )?;
        counters(
            &mut to,
            "questions",
            "Questions for the proof of a peer's mapping, by kind and outcome",
            relays.clone().flat_map(|_| {
                let questions = self.questions.iter();
                questions.map(|(&kind, &count)| ([RELAY, ("kind", kind)], count))
            }),
        )?;
        counters(
            &mut to,
            "unreachable",
            "ICMPv6 errors for destinations that do not answer, by outcome",
            self.unreachable
                .iter()
                .map(|(&(role, kind), &count)| ([role.label(), ("kind", kind)], count)),
        )?;
        let peers = has_peers.clone().flat_map(|role| {
            [
                ([role, ("state", "trusted")], self.peers_trusted),
                ([role, ("state", "untrusted")], self.peers_untrusted),
            ]
        });
        gauges(&mut to, "peers", "Peers that the daemon knows", peers)?;
        gauges(
            &mut to,
            "proved_peers",
            "Peers whose mapping is proved, so that the fast path may serve them",
            relays.clone().map(|_| ([RELAY], self.peers_proved)),
        )?;
        for (name, help, limit) in [
            (
                "peers_limit",
                "The most peers that the daemon knows at once",
                self.peers_max,
            ),
            (
                "untrusted_peers_limit",
                "The most peers among them that may be untrusted",
                self.untrusted_max,
            ),
        ] {
            let limits = has_peers.clone().map(|role| ([role], limit));
            gauges(&mut to, name, help, limits)?;
        }
        levels(
            &mut to,
            "xdp_peers",
            [
                "Peers that the fast path serves",
                "The most peers that the fast path has room for",
            ],
            relays
                .clone()
                .filter_map(|_| Some(([RELAY], self.xdp_peers?))),
        )?;
        levels(
            &mut to,
            "ipfix_waiting_records",
            [
                "Records of the traffic of peers that wait for the collector",
                "The number of waiting records from which on no more are made",
            ],
            has_peers
                .clone()
                .filter_map(|role| Some(([role], self.ipfix_waiting?))),
        )?;
        for (name, help, value) in [
            (
                "queue_packets",
                "Packets that wait for an answer of their peer",
                self.queue_packets,
            ),
            (
                "queue_bytes",
                "Octets that waiting packets occupy",
                self.queue_bytes,
            ),
            (
                "queue_limit_bytes",
                "The most octets that waiting packets may occupy",
                self.queue_bytes_max,
            ),
        ] {
            let values = has_peers.clone().map(|role| ([role], value));
            gauges(&mut to, name, help, values)?;
        }
        for (name, help, durations) in [
            (
                "queue_seconds",
                "Times for which packets waited until their peer answered",
                &self.waits,
            ),
            (
                "first_packet_seconds",
                "Times for which the first packet to a peer waited until it answered",
                &self.first_waits,
            ),
            (
                "bubble_round_trip_seconds",
                "Times between a bubble and the answer of its peer",
                &self.round_trips,
            ),
        ] {
            for role in has_peers.clone() {
                let classes = durations.classes();
                histogram(&mut to, name, help, Some(role), durations.sum(), &classes)?;
            }
        }
        let requests = self.requests.iter();
        let requests = requests.filter(|_| self.roles.contains_key(&Role::Server));
        let requests = requests.map(|(&(request, path), &count)| {
            let labels = [
                ("kind", request.kind),
                ("path", path.name()),
                ("result", request.result),
            ];
            (labels, count)
        });
        let help = "Packets that the server handled, by request";
        counters(&mut to, "server_requests", help, requests)?;
        counters(
            &mut to,
            "server_events_lost",
            "Rare events that were lost from the log",
            servers
                .clone()
                .map(|_| ([Role::Server.label()], self.events_lost)),
        )?;
        let bindings = Level {
            value: self.bindings,
            limit: self.bindings_max,
        };
        levels(
            &mut to,
            "tunnel_bindings",
            [
                "Clients that the tunnel service has bindings for",
                "Clients that the tunnel service can have bindings for",
            ],
            servers.map(|_| ([Role::Server.label()], bindings)),
        )?;
        client(&mut to, self.client.as_ref(), &self.qualifications)?;
        if let Some(fleet) = &self.fleet {
            fleet.encode(&mut to)?;
        }
        let tests = self.tests.iter();
        let tests = tests.map(|(&kind, &count)| ([Role::Client.label(), ("kind", kind)], count));
        let help = "Connectivity tests of native hosts by outcome";
        counters(&mut to, "client_tests", help, tests)?;
        let states = self.roles.iter();
        // A client does not drain.
        let draining = states
            .clone()
            .filter(|(role, _)| **role != Role::Client)
            .map(|(role, state)| ([role.label()], u64::from(state.is_draining)));
        let help = "Whether the role no longer accepts new peers or clients";
        gauges(&mut to, "draining", help, draining)?;
        let sunsets = states.filter_map(|(role, state)| {
            let date = state.sunset?;
            Some(([role.label()], date.timestamp()))
        });
        let help = "When the role ends, in seconds since the Unix epoch";
        gauges(&mut to, "sunset_timestamp_seconds", help, sunsets)?;
        let conditions = conditions::values(self).map(|(kind, role, is_true)| {
            let labels = [("condition", kind.name()), role.label()];
            (labels, u64::from(is_true))
        });
        let help = "Whether the role does not do its whole job, by the kind of the reason";
        gauges(&mut to, "condition", help, conditions)?;
        let attached = self.xdp.iter().map(|attachment| {
            let labels = [
                ("interface", &*attachment.interface),
                ("mode", attachment.mode.name()),
            ];
            (labels, 1)
        });
        gauges(
            &mut to,
            "xdp_attached",
            "How the XDP program is attached to an interface",
            attached,
        )?;
        let help = "Times of turns of the event loop, for which packets wait";
        let turns = self.turns.classes();
        histogram(
            &mut to,
            "turn_seconds",
            help,
            None,
            self.turns.sum(),
            &turns,
        )?;
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("abi", &ABI_VERSION.to_string()),
        ];
        let help = "The version of the daemon, and of the maps of its fast path";
        gauges(&mut to, "build_info", help, [(build, 1)])?;
        let mut uptime = to.encode_descriptor(
            "uptime_seconds",
            "Seconds since the daemon started",
            None,
            MetricType::Gauge,
        )?;
        uptime.encode_gauge(&self.uptime.as_secs_f64())
    }
}

/// Encodes the metrics that only a client has.
fn client(
    to: &mut DescriptorEncoder,
    client: Option<&ClientStatus>,
    qualifications: &Durations,
) -> fmt::Result {
    const CLIENT: (&str, &str) = Role::Client.label();
    let client = client.into_iter();
    let qualifications = client.clone().map(|_| qualifications);
    let states = client.clone().flat_map(|client| {
        STATES.map(|state| ([("state", state)], u64::from(client.state == state)))
    });
    gauges(
        to,
        "client_state",
        "Whether the client is in the state",
        states,
    )?;
    for (name, help, of) in [
        (
            "client_qualified",
            "Qualifications of the client",
            (|client| client.qualified) as fn(&ClientStatus) -> u64,
        ),
        (
            "client_solicitations",
            "Router solicitations sent to servers",
            |client| client.solicitations,
        ),
    ] {
        let values = client.clone().map(|client| ([CLIENT], of(client)));
        counters(to, name, help, values)?;
    }
    let refresh = client.map(|client| ([CLIENT], client.refresh_seconds as u64));
    let help = "Longest interval between maintenance solicitations, in seconds";
    gauges(to, "client_refresh_seconds", help, refresh)?;
    for durations in qualifications {
        let name = "client_qualification_seconds";
        let help = "Times from the first solicitation without an address to the address";
        let classes = durations.classes();
        histogram(to, name, help, Some(CLIENT), durations.sum(), &classes)?;
    }
    Ok(())
}

/// Encodes a histogram, whose classes have upper bounds in seconds.
fn histogram(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    role: Option<(&'static str, &'static str)>,
    sum: Duration,
    classes: &[(f64, u64)],
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
    let (sum, count) = (
        sum.as_secs_f64(),
        classes.iter().map(|(_, count)| count).sum(),
    );
    match role {
        Some(role) => metric
            .encode_family(&[role])?
            .encode_histogram::<NoLabelSet>(sum, count, classes, None),
        None => metric.encode_histogram::<NoLabelSet>(sum, count, classes, None),
    }
}

pub(super) fn counters<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        metric
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

pub(super) fn gauges<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Encodes numbers, and their limits under the same name with `_limit`; `helps` are those of both.
fn levels<L: EncodeLabelSet + Clone>(
    to: &mut DescriptorEncoder,
    name: &str,
    helps: [&str; 2],
    values: impl Iterator<Item = (L, Level)> + Clone,
) -> fmt::Result {
    let [of_values, of_limits] = helps;
    let numbers = values.clone().map(|(labels, level)| (labels, level.value));
    gauges(to, name, of_values, numbers)?;
    let limits = values.map(|(labels, level)| (labels, level.limit));
    gauges(to, &format!("{name}_limit"), of_limits, limits)
}

#[cfg(test)]
mod tests {
    use teredo_common::{time::Instant, verdict::Direction};

    use super::*;
    use teredo_proto::{
        relay::Statistics,
        server::{Service, Statistics as ServerStatistics},
    };

    use crate::{
        condition::{Condition, Kind, Lasting},
        metrics::{Attachment, Mode, RoleState},
    };

    #[test]
    fn names_and_labels_are_those_of_the_documentation() {
        let mut snapshot = Snapshot {
            uptime: Duration::from_millis(1500),
            xdp: vec![Attachment {
                interface: "eth0".to_owned(),
                mode: Mode::Native,
                reason: String::new(),
                dropped: 0,
            }],
            xdp_dropped: [("eth0".to_owned(), 7)].into(),
            ..Snapshot::default()
        };
        snapshot.add_traffic(Direction::Encap, Path::Xdp, 3, 4_000);
        let relay = RoleState::default();
        let server = RoleState {
            is_draining: true,
            sunset: Some("2030-12-31".parse().unwrap()),
        };
        snapshot.add_relay(relay, &Statistics::default());
        snapshot.peers_trusted = 7;
        snapshot.queue_bytes = 11;
        snapshot.untrusted_max = 15;
        snapshot.bindings_max = 16;
        snapshot.xdp_peers = Some(Level {
            value: 17,
            limit: 18,
        });
        snapshot.ipfix_waiting = Some(Level {
            value: 19,
            limit: 20,
        });
        snapshot.add_server(server, &ServerStatistics::default(), 12);
        let advertised = (Service::Advertised.into(), Path::Userspace);
        snapshot.requests.insert(advertised, 13);
        snapshot.add_dropped(Role::Relay, "source", 2);
        snapshot.add_dropped(Role::Server, "no-client", 14);
        snapshot.passed.insert("decap-bubble", 4);
        snapshot.bubbles.insert("sent-direct", 5);
        snapshot.unreachable.insert((Role::Relay, "no-source"), 6);
        let text = render(snapshot, Format::OpenMetrics).unwrap();
        for line in [
            r#"teredo_packets_total{role="relay",direction="encap",path="xdp"} 3"#,
            r#"teredo_packets_total{role="relay",direction="decap",path="userspace"} 0"#,
            r#"teredo_bytes_total{role="relay",direction="encap",path="xdp"} 4000"#,
            r#"teredo_dropped_total{role="relay",path="userspace",reason="source"} 2"#,
            r#"teredo_passed_total{reason="decap-bubble"} 4"#,
            r#"teredo_bubbles_total{role="relay",kind="sent-direct"} 5"#,
            r#"teredo_unreachable_total{role="relay",kind="no-source"} 6"#,
            r#"teredo_queue_bytes{role="relay"} 11"#,
            r#"teredo_peers{role="relay",state="trusted"} 7"#,
            r#"teredo_xdp_attached{interface="eth0",mode="native"} 1"#,
            r#"teredo_xdp_driver_dropped_total{interface="eth0"} 7"#,
            r#"teredo_dropped_total{role="server",path="userspace",reason="no-client"} 14"#,
            r#"teredo_server_requests_total{kind="solicitation",path="userspace",result="advertised"} 13"#,
            r#"teredo_tunnel_bindings{role="server"} 12"#,
            r#"teredo_untrusted_peers_limit{role="relay"} 15"#,
            r#"teredo_tunnel_bindings_limit{role="server"} 16"#,
            r#"teredo_xdp_peers{role="relay"} 17"#,
            r#"teredo_xdp_peers_limit{role="relay"} 18"#,
            r#"teredo_ipfix_waiting_records{role="relay"} 19"#,
            r#"teredo_ipfix_waiting_records_limit{role="relay"} 20"#,
            r#"teredo_draining{role="relay"} 0"#,
            r#"teredo_draining{role="server"} 1"#,
            r#"teredo_sunset_timestamp_seconds{role="server"} 1924905600"#,
            r#"teredo_uptime_seconds 1.5"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        assert!(!text.contains(r#"teredo_sunset_timestamp_seconds{role="relay"}"#));
    }

    #[test]
    fn a_clients_numbers_have_its_label() {
        let mut snapshot = Snapshot {
            client: Some(ClientStatus {
                state: "qualified".to_owned(),
                refresh_seconds: 30.0,
                qualified: 2,
                ..ClientStatus::default()
            }),
            peers_trusted: 3,
            ..Snapshot::default()
        };
        snapshot.roles.insert(Role::Client, RoleState::default());
        snapshot.bubbles.insert("sent-direct", 5);
        let text = render(snapshot, Format::OpenMetrics).unwrap();
        for line in [
            r#"teredo_client_state{state="qualified"} 1"#,
            r#"teredo_client_state{state="starting"} 0"#,
            r#"teredo_client_qualified_total{role="client"} 2"#,
            r#"teredo_client_refresh_seconds{role="client"} 30"#,
            r#"teredo_peers{role="client",state="trusted"} 3"#,
            r#"teredo_bubbles_total{role="client",kind="sent-direct"} 5"#,
            r#"teredo_packets_total{role="client",direction="encap",path="userspace"} 0"#,
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        assert!(!text.contains(r#"role="relay""#) && !text.contains("teredo_draining{"));
    }

    #[test]
    fn conditions_that_are_not_true_are_zero() {
        let mut snapshot = Snapshot::default();
        snapshot.add_relay(RoleState::default(), &Statistics::default());
        let route = Condition {
            kind: Kind::Route,
            role: Role::Relay,
            subject: "2001::/32".to_owned(),
            text: String::new(),
        };
        snapshot.conditions.push(Lasting {
            condition: route,
            since: Instant::ZERO,
        });
        let text = render(snapshot, Format::OpenMetrics).unwrap();
        for line in [
            r#"teredo_condition{condition="route",role="relay"} 1"#,
            r#"teredo_condition{condition="tunnel",role="relay"} 0"#,
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        assert!(!text.contains(r#"condition="server-silent""#));
    }

    #[test]
    fn a_role_that_does_not_run_has_no_numbers() {
        let mut relay = Snapshot::default();
        relay.add_relay(RoleState::default(), &Statistics::default());
        let mut server = Snapshot::default();
        server.add_server(RoleState::default(), &ServerStatistics::default(), 0);
        let [relay, server] =
            [relay, server].map(|snapshot| render(snapshot, Format::OpenMetrics).unwrap());
        assert!(relay.contains(r#"role="relay""#) && server.contains(r#"role="server""#));
        assert!(!relay.contains(r#"role="server""#) && !relay.contains("server_requests_total{"));
        // Neither has the relay a program or a collector.
        assert!(!relay.contains("teredo_xdp_peers") && !relay.contains("teredo_ipfix"));
        assert!(!server.contains(r#"role="relay""#));
    }
}
