//! What a relay knows and counts of its fleet.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};
use teredo_proto::fleet::{OtherInfo, Statistics};

use super::{
    Role,
    prometheus::{counters, gauges},
};

const ROLE: (&str, &str) = Role::Relay.label();

/// The relay's part in a fleet.
#[derive(Clone, Debug, Default)]
pub struct FleetStatus {
    /// The other relays.
    pub others: Vec<OtherInfo>,
    /// Whether the relay has joined, and may draw packets.
    pub has_joined: bool,
    /// The counters.
    pub statistics: Statistics,
}

impl FleetStatus {
    /// Encodes the metrics.
    pub(super) fn encode(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let Statistics {
            received,
            sent,
            dropped,
            learned,
            told,
            transfers,
            stalled,
        } = self.statistics;
        let directions = [("received", received), ("sent", sent)];
        counters(
            to,
            "fleet_datagrams",
            "Datagrams from and to the other relays of the fleet",
            directions.map(|(direction, traffic)| ([("direction", direction)], traffic.packets)),
        )?;
        counters(
            to,
            "fleet_bytes",
            "Octets of the datagrams from and to the other relays of the fleet",
            directions.map(|(direction, traffic)| ([("direction", direction)], traffic.octets)),
        )?;
        counters(
            to,
            "fleet_dropped",
            "Datagrams from the other relays of the fleet that were dropped",
            dropped
                .iter()
                .map(|(reason, count)| ([("reason", reason.reason())], count)),
        )?;
        counters(
            to,
            "fleet_reports",
            "Reports about peers from the other relays of the fleet",
            learned
                .iter()
                .map(|(outcome, count)| ([("outcome", outcome.reason())], count)),
        )?;
        for (name, help, count) in [
            (
                "fleet_told",
                "Reports about peers to all other relays of the fleet",
                told,
            ),
            (
                "fleet_transfers",
                "Tables of other relays of the fleet that came completely",
                transfers,
            ),
            (
                "fleet_stalled",
                "Tables of other relays of the fleet that did not",
                stalled,
            ),
        ] {
            counters(to, name, help, [([ROLE], count)])?;
        }
        let help = "Whether the relay has joined its fleet, and draws packets";
        gauges(
            to,
            "fleet_joined",
            help,
            [([ROLE], u64::from(self.has_joined))],
        )?;
        self.encode_others(to)
    }

    fn encode_others(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        for (name, help, of) in [
            (
                "fleet_member_reached",
                "Whether datagrams pass in both directions",
                (|other| u64::from(other.is_live && other.hears_us)) as fn(&OtherInfo) -> u64,
            ),
            (
                "fleet_member_in_step",
                "Whether the relay says that it has all peers",
                |other| u64::from(other.is_in_step),
            ),
            ("fleet_member_peers", "Peers of the relay", |other| {
                other.peers
            }),
        ] {
            let values = self.others.iter();
            let values = values.map(|other| ([("member", other.address.to_string())], of(other)));
            gauges(to, name, help, values)?;
        }
        if self.others.is_empty() {
            return Ok(());
        }
        let (name, help) = (
            "fleet_member_clock_ahead_seconds",
            "Time by which the relay's clock is ahead of this one's",
        );
        let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for other in &self.others {
            let ahead = other.clock_ahead as f64 / 1e3;
            let labels = [("member", other.address.to_string())];
            metric.encode_family(&labels)?.encode_gauge(&ahead)?;
        }
        Ok(())
    }
}

/// Returns another relay of which nothing is wrong.
#[cfg(test)]
pub fn well() -> OtherInfo {
    OtherInfo {
        address: ([10, 0, 0, 2], 3546).into(),
        is_live: true,
        hears_us: true,
        is_in_step: true,
        is_known: true,
        peers: 0,
        clock_ahead: 0,
        heard: teredo_common::time::Instant::ZERO,
        refusal: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use teredo_common::time::Instant;
    use teredo_proto::fleet::DropReason;

    use super::*;
    use crate::metrics::{Format, Snapshot, render};

    #[test]
    fn every_member_has_its_values() {
        let mut status = FleetStatus {
            others: vec![OtherInfo {
                is_in_step: false,
                is_known: false,
                peers: 7,
                clock_ahead: -1_500,
                heard: Instant::ZERO + Duration::from_secs(1),
                ..well()
            }],
            ..FleetStatus::default()
        };
        status.statistics.dropped[DropReason::Tag] += 3;
        status.statistics.sent.packets = 5;
        let snapshot = Snapshot {
            fleet: Some(status),
            ..Snapshot::default()
        };
        let text = render(snapshot, Format::OpenMetrics).unwrap();
        for line in [
            r#"teredo_fleet_datagrams_total{direction="sent"} 5"#,
            r#"teredo_fleet_dropped_total{reason="tag"} 3"#,
            r#"teredo_fleet_dropped_total{reason="replay"} 0"#,
            r#"teredo_fleet_reports_total{outcome="peer"} 0"#,
            r#"teredo_fleet_joined{role="relay"} 0"#,
            r#"teredo_fleet_member_reached{member="10.0.0.2:3546"} 1"#,
            r#"teredo_fleet_member_in_step{member="10.0.0.2:3546"} 0"#,
            r#"teredo_fleet_member_peers{member="10.0.0.2:3546"} 7"#,
            r#"teredo_fleet_member_clock_ahead_seconds{member="10.0.0.2:3546"} -1.5"#,
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
    }
}
