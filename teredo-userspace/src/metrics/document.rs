//! The list of all metrics, docs/metrics.md, which is made from what the roles render.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use teredo_common::{maps::Counter, verdict::Verdict};
use teredo_proto::{
    client::{Client, Config, ServerEndpoints},
    relay, server,
};

use super::{
    Attachment, ClientStatus, FleetStatus, Format, Level, Mode, Role, RoleState, Snapshot, fleet,
    render,
};
use crate::condition::{Kind, Severity};

/// The variable that makes the test write the list instead of comparing it.
const WRITE: &str = "TEREDO_WRITE_METRICS";
/// The beginning of the list.
const INTRODUCTION: &str = "\
# Metrics

Every metric that a daemon shows at `GET /metrics`, made from the source: `TEREDO_WRITE_METRICS=1 cargo test -p
teredo-userspace every_metric_is_listed` writes this page again. [statistics.md](statistics.md) explains the values of
the labels, and which field of `teredo status --json` has the same number.

A reader that accepts `application/openmetrics-text`, as Prometheus does, gets OpenMetrics 1.0.0; any other gets the
text format, version 0.0.4, which `promtool check metrics` reads. A metric is there if a role that has it is
configured; those of a fleet, if the relay is in one. Counters start at zero with the daemon and never decrease. Durations are in seconds, sizes in octets. All
histograms but `teredo_turn_seconds` have the bounds 1, 2.5, 5, 10, 25, 50, 100, 250 and 500 milliseconds, and 1, 2.5, 5,
10 and 30 seconds.

[packaging/prometheus](../packaging/prometheus) has rules for alerts, which [runbook.md](runbook.md) explains one by
one, and [packaging/grafana](../packaging/grafana) a dashboard.

| metric | type | labels | roles | meaning |
|---|---|---|---|---|
";

/// A family of metrics.
#[derive(Debug)]
struct Family {
    kind: String,
    labels: String,
    meaning: String,
    roles: BTreeSet<Role>,
}

/// Returns a snapshot of a daemon with this role, in which nothing is missing.
fn complete(role: Role) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let state = RoleState {
        is_draining: false,
        sunset: "2030-12-31".parse().ok(),
    };
    match role {
        Role::Relay => {
            snapshot.add_relay(state, &relay::Statistics::default());
            snapshot.xdp_peers = Some(Level::default());
            snapshot.fleet = Some(FleetStatus {
                others: vec![fleet::well()],
                ..FleetStatus::default()
            });
        }
        Role::Server => snapshot.add_server(state, &server::Statistics::default(), 0),
        Role::Client => {
            let servers = vec![ServerEndpoints::new([9, 0, 0, 1].into())];
            let client = Client::new(Config::new(servers, 4096), [0; 32]);
            snapshot.add_client(ClientStatus::default(), &client);
        }
    }
    if role != Role::Server {
        snapshot.ipfix_waiting = Some(Level::default());
    }
    if role != Role::Client {
        snapshot.xdp.push(Attachment {
            interface: "eth0".to_owned(),
            mode: Mode::Native,
            reason: String::new(),
            dropped: 0,
        });
        snapshot.xdp_dropped.insert("eth0".to_owned(), 0);
        let counters = Verdict::ALL.iter();
        let counters: Vec<_> = counters
            .map(|&verdict| (verdict, Counter::default()))
            .collect();
        snapshot.add_verdicts(&counters);
    }
    snapshot
}

/// Returns all families by name.
fn families() -> BTreeMap<String, Family> {
    let mut families = BTreeMap::new();
    for role in Role::ALL {
        let text = render(complete(role), Format::Text).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(help) = line.strip_prefix("# HELP ") else {
                continue;
            };
            let (name, meaning) = help.split_once(' ').unwrap();
            let kind = lines.next().unwrap().rsplit_once(' ').unwrap().1;
            let sample = lines.next().unwrap();
            let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
            let labels = labels.split(',').filter_map(|label| label.split_once('='));
            let labels = labels.filter(|(label, _)| *label != "le");
            let labels: Vec<_> = labels.map(|(label, _)| format!("`{label}`")).collect();
            let family = families.entry(name.to_owned()).or_insert_with(|| Family {
                kind: kind.to_owned(),
                labels: labels.join(", "),
                meaning: meaning.trim_end_matches('.').to_owned(),
                roles: BTreeSet::new(),
            });
            family.roles.insert(role);
        }
    }
    families
}

fn list() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (name, family) in families() {
        let Family {
            kind,
            labels,
            meaning,
            roles,
        } = family;
        let roles = match roles.len() {
            3 => "all".to_owned(),
            _ => roles
                .iter()
                .map(|role| role.name())
                .collect::<Vec<_>>()
                .join(", "),
        };
        writeln!(
            text,
            "| `{name}` | {kind} | {labels} | {roles} | {meaning}. |"
        )
        .unwrap();
    }
    text
}

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_metric_is_listed() {
    let path = repository().join("docs/metrics.md");
    if env::var_os(WRITE).is_some() {
        fs::write(&path, list()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == list(),
        "write docs/metrics.md again: {WRITE}=1 cargo test -p teredo-userspace every_metric_is_listed"
    );
}

#[test]
fn no_role_has_metrics_of_another() {
    let families = families();
    let roles = |name: &str| families[name].roles.iter().copied().collect::<Vec<_>>();
    assert_eq!(roles("teredo_peers"), [Role::Relay, Role::Client]);
    assert_eq!(roles("teredo_server_requests_total"), [Role::Server]);
    assert_eq!(roles("teredo_client_qualification_seconds"), [Role::Client]);
    assert_eq!(roles("teredo_proved_peers"), [Role::Relay]);
    assert_eq!(roles("process_open_fds").len(), 3);
}

/// Numbers that grow with the work, each with its limit.
const LIMITS: [(&str, &str); 8] = [
    ("process_open_fds", "process_max_fds"),
    (
        "teredo_ipfix_waiting_records",
        "teredo_ipfix_waiting_records_limit",
    ),
    ("teredo_peers", "teredo_peers_limit"),
    ("teredo_peers", "teredo_untrusted_peers_limit"),
    ("teredo_queue_bytes", "teredo_queue_limit_bytes"),
    ("teredo_tunnel_bindings", "teredo_tunnel_bindings_limit"),
    ("teredo_xdp_peers", "teredo_xdp_peers_limit"),
    // A packet that waits takes octets.
    ("teredo_queue_packets", "teredo_queue_limit_bytes"),
];
/// Gauges that have no limit of their own: states, times and parts of other numbers.
const WITHOUT_LIMIT: [&str; 16] = [
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "teredo_build_info",
    "teredo_client_refresh_seconds",
    "teredo_client_state",
    "teredo_condition",
    "teredo_draining",
    "teredo_fleet_joined",
    "teredo_fleet_member_clock_ahead_seconds",
    "teredo_fleet_member_in_step",
    "teredo_fleet_member_peers",
    "teredo_fleet_member_reached",
    "teredo_proved_peers",
    "teredo_sunset_timestamp_seconds",
    "teredo_uptime_seconds",
    "teredo_xdp_attached",
];

#[test]
fn every_limit_is_beside_its_use() {
    let families = families();
    for (number, limit) in LIMITS {
        assert_eq!(families[number].kind, "gauge", "{number}");
        assert_eq!(families[number].roles, families[limit].roles, "{limit}");
    }
    let known: BTreeSet<_> = LIMITS
        .into_iter()
        .flat_map(<[&str; 2]>::from)
        .chain(WITHOUT_LIMIT)
        .collect();
    let gauges = families.iter().filter(|(_, family)| family.kind == "gauge");
    let unknown: Vec<_> = gauges
        .filter(|(name, _)| !known.contains(&***name))
        .collect();
    assert!(unknown.is_empty(), "say what bounds {unknown:?}");
}

#[test]
fn every_histogram_ends_with_infinity() {
    for format in Format::ALL {
        let text = render(complete(Role::Client), format).unwrap();
        let histograms = text
            .lines()
            .filter_map(|line| line.strip_suffix(" histogram"));
        assert!(histograms.clone().count() > 3);
        for histogram in histograms {
            let name = histogram.rsplit(' ').next().unwrap();
            let mut buckets = text
                .lines()
                .filter(|line| line.starts_with(&format!("{name}_bucket")));
            assert!(
                buckets.next_back().unwrap().contains("le=\"+Inf\""),
                "{name} in {text}"
            );
        }
    }
}

/// The alerts name the kinds of conditions by severity.
#[test]
fn the_rules_know_the_severity_of_every_condition() {
    let path = repository().join("packaging/prometheus/teredo.rules.yml");
    let rules = fs::read_to_string(path).unwrap();
    let degraded = Kind::ALL
        .iter()
        .filter(|kind| kind.severity() == Severity::Degraded);
    let degraded: Vec<_> = degraded.map(|kind| kind.name()).collect();
    let degraded = degraded.join("|");
    for selector in [
        format!("teredo_condition{{condition=~\"{degraded}\"}}"),
        format!("teredo_condition{{condition!~\"{degraded}\"}}"),
    ] {
        assert!(rules.contains(&selector), "{selector}");
    }
}
