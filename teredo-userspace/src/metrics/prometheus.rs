//! A [`Snapshot`] in the text format of OpenMetrics, which Prometheus reads.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::{DIRECTIONS, Path, Snapshot, Traffic, direction_name};

/// The media type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The role that all numbers belong to.
const ROLE: (&str, &str) = ("role", "relay");

/// The snapshot as text.
///
/// # Errors
///
/// Never in practice: writing to a string does not fail.
pub fn render(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("teredo");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Names here are without the prefix `teredo_` and the suffix `_total`.
impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
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
            let values = DIRECTIONS.iter().flat_map(|&direction| {
                Path::ALL.map(|path| {
                    let labels = [
                        ROLE,
                        ("direction", direction_name(direction)),
                        ("path", path.name()),
                    ];
                    (labels, of(self.traffic(direction, path)))
                })
            });
            counters(&mut to, name, help, values)?;
        }
        let dropped = self.dropped.iter().map(|(&(path, reason), &packets)| {
            ([ROLE, ("path", path.name()), ("reason", reason)], packets)
        });
        counters(&mut to, "dropped", "Packets dropped", dropped)?;
        let passed = self
            .passed
            .iter()
            .map(|(&reason, &packets)| ([("reason", reason)], packets));
        counters(
            &mut to,
            "passed",
            "Frames that the fast path left to the kernel and the daemon",
            passed,
        )?;
        counters(
            &mut to,
            "xdp_refused_peers",
            "Peers that the fast path had no room for",
            [([ROLE], self.xdp_refused)],
        )?;
        let labelled = |(&kind, &count): (&&'static str, &u64)| ([ROLE, ("kind", kind)], count);
        counters(
            &mut to,
            "bubbles",
            "Bubbles by what happened to them",
            self.bubbles.iter().map(labelled),
        )?;
        counters(
            &mut to,
            "unreachable",
            "ICMPv6 errors for destinations that do not answer, by what happened to them",
            self.unreachable.iter().map(labelled),
        )?;
        let peers = [
            ([ROLE, ("state", "trusted")], self.peers_trusted),
            ([ROLE, ("state", "untrusted")], self.peers_untrusted),
        ];
        gauges(&mut to, "peers", "Peers that the daemon knows", peers)?;
        for (name, help, value) in [
            (
                "queue_packets",
                "Packets that wait for an answer of their destination",
                self.queue_packets,
            ),
            (
                "queue_bytes",
                "Octets that waiting packets take",
                self.queue_bytes,
            ),
        ] {
            gauges(&mut to, name, help, [([ROLE], value)])?;
        }
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
        let mut uptime = to.encode_descriptor(
            "uptime_seconds",
            "Seconds since the daemon started",
            None,
            MetricType::Gauge,
        )?;
        uptime.encode_gauge(&self.uptime.as_secs_f64())
    }
}

fn counters<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        metric
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use teredo_common::verdict::Direction;

    use super::*;
    use crate::metrics::{Attachment, Mode};

    #[test]
    fn names_and_labels_are_those_of_the_documentation() {
        let mut snapshot = Snapshot {
            uptime: Duration::from_millis(1500),
            xdp: vec![Attachment {
                interface: "eth0".to_owned(),
                mode: Mode::Native,
                reason: String::new(),
            }],
            queue_bytes: 11,
            peers_trusted: 7,
            ..Snapshot::default()
        };
        snapshot.add_traffic(Direction::Encap, Path::Xdp, 3, 4_000);
        snapshot.add_dropped("source", 2);
        snapshot.passed.insert("decap-bubble", 4);
        snapshot.bubbles.insert("sent-direct", 5);
        snapshot.unreachable.insert("no-source", 6);
        let text = render(snapshot).unwrap();
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
            r#"teredo_uptime_seconds 1.5"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
    }
}
