//! The rules for Prometheus and the dashboard for Grafana: that they hold by themselves, and use metrics that
//! exist.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo::metrics::{ClientStatus, Format, Level, Role, RoleState, Snapshot, render};
use teredo_proto::client::{Client, Config, ServerEndpoints};

/// Suffixes of the series of a histogram.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository(path)).with_context(|| path.to_owned())
}

fn promtool(arguments: &[&str]) -> Result<()> {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.context("promtool is missing: `cargo xtask setup`")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

/// Returns the names of all metrics that a daemon can have.
fn metrics() -> Result<BTreeSet<String>> {
    let list = read("docs/metrics.md")?;
    let names = list
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    Ok(names.map(|(name, _)| name.to_owned()).collect())
}

/// Returns the words of an expression that are names of our metrics, or ought to be.
fn names_in(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|word| word.starts_with("teredo_") || word.starts_with("process_"))
        .collect()
}

/// Checks that every metric of an expression exists.
fn check_names(expression: &str, known: &BTreeSet<String>) -> Result<()> {
    for name in names_in(expression) {
        let family = OF_HISTOGRAMS
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        let is_known = known.contains(name) || family.is_some_and(|family| known.contains(family));
        ensure!(is_known, "there is no metric {name} of {expression}");
    }
    Ok(())
}

#[test]
fn promtool_accepts_the_metrics() -> Result<()> {
    for role in Role::ALL {
        let mut snapshot = Snapshot {
            xdp_peers: Some(Level::default()),
            ipfix_waiting: Some(Level::default()),
            ..Snapshot::default()
        };
        match role {
            Role::Relay => snapshot.add_relay(RoleState::default(), &Default::default()),
            Role::Server => snapshot.add_server(RoleState::default(), &Default::default(), 1),
            Role::Client => {
                let servers = vec![ServerEndpoints::new([192, 0, 2, 1].into())];
                let client = Client::new(Config::new(servers, 4096), [0; 32]);
                snapshot.add_client(ClientStatus::default(), &client);
            }
        }
        let text = render(snapshot, Format::Text)?;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("promtool is missing: `cargo xtask setup`")?;
        let mut input = promtool.stdin.take().context("it has no input")?;
        input.write_all(text.as_bytes())?;
        drop(input);
        let output = promtool.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(
            output.status.success() && said.is_empty(),
            "{role:?}: {said}"
        );
    }
    Ok(())
}

#[test]
fn the_rules_do_what_their_tests_say() -> Result<()> {
    let path = |name: &str| repository(name).to_string_lossy().into_owned();
    promtool(&[
        "check",
        "rules",
        &path("packaging/prometheus/teredo.rules.yml"),
    ])?;
    promtool(&[
        "test",
        "rules",
        &path("packaging/prometheus/teredo.tests.yml"),
    ])
}

#[test]
fn every_alert_is_tested_and_has_a_section_in_the_runbook() -> Result<()> {
    let rules = read("packaging/prometheus/teredo.rules.yml")?;
    let tests = read("packaging/prometheus/teredo.tests.yml")?;
    let runbook = read("docs/runbook.md")?;
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: BTreeSet<_> = alerts.collect();
    ensure!(alerts.len() > 8, "{alerts:?}");
    for alert in &alerts {
        ensure!(
            tests.contains(&format!("alertname: {alert}\n")),
            "{alert} has no test"
        );
        ensure!(
            runbook.contains(&format!("\n### {alert}\n")),
            "{alert} is not in the runbook"
        );
        let anchor = format!("runbook: docs/runbook.md#{}\n", alert.to_ascii_lowercase());
        ensure!(rules.contains(&anchor), "{anchor} is not in the rules");
    }
    let sections = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Teredo"));
    for section in sections {
        ensure!(
            alerts.contains(&*format!("Teredo{section}")),
            "there is no alert Teredo{section}"
        );
    }
    let known = metrics()?;
    // Names of records have colons and are no metrics of the daemon.
    rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .try_for_each(|line| check_names(line.split("summary:").next().unwrap_or(line), &known))
}

/// The expressions of a dashboard, wherever they are.
fn expressions<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (&**name, value) {
                    ("expr" | "query", Value::String(text)) => found.push(text),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_exist() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/teredo.json")?)?;
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    ensure!(found.len() > 20, "{} expressions", found.len());
    let known = metrics()?;
    for expression in &found {
        check_names(expression, &known)?;
    }
    // Each parses: as the expression of a rule, with values for the variables.
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rules.yml");
    let rules: Vec<_> = found
        .iter()
        .filter(|expression| {
            !names_in(expression).is_empty() && !expression.starts_with("label_values")
        })
        .enumerate()
        .map(|(number, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            serde_json::json!({"record": format!("test:number{number}"), "expr": expression})
        })
        .collect();
    let group = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&file, group.to_string())?;
    promtool(&["check", "rules", &file.to_string_lossy()])
}

#[test]
fn the_dashboard_shows_every_metric() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/teredo.json")?)?;
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let names: Vec<_> = found.iter().flat_map(|text| names_in(text)).collect();
    for metric in metrics()? {
        let mut forms = OF_HISTOGRAMS
            .iter()
            .map(|suffix| format!("{metric}{suffix}"));
        let is_shown = names.contains(&&*metric) || forms.any(|form| names.contains(&&*form));
        ensure!(is_shown, "no panel shows {metric}");
    }
    Ok(())
}

#[test]
fn the_dashboard_has_the_form_of_one() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/teredo.json")?)?;
    ensure!(
        dashboard["schemaVersion"]
            .as_u64()
            .is_some_and(|version| version >= 36)
    );
    ensure!(dashboard["title"] == "Teredo" && dashboard["uid"] == "teredo");
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().context("a panel without title")?;
        ensure!(
            ids.insert(panel["id"].as_u64()),
            "{title} has the number of another panel"
        );
        let place = |name: &str| {
            panel["gridPos"][name]
                .as_u64()
                .context("a panel without place")
        };
        let (x, y, w, h) = (place("x")?, place("y")?, place("w")?, place("h")?);
        ensure!(x + w <= 24 && w > 0 && h > 0, "{title} is outside");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(taken.insert(cell), "{title} is on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        ensure!(panel["description"].is_string(), "{title} is not explained");
        let targets = panel["targets"]
            .as_array()
            .context("a panel without query")?;
        let names: BTreeSet<_> = targets
            .iter()
            .map(|target| target["refId"].as_str())
            .collect();
        ensure!(
            names.len() == targets.len() && !targets.is_empty(),
            "{title}: {names:?}"
        );
        for target in targets {
            let of = &target["datasource"]["uid"];
            ensure!(of == "${datasource}", "{title} asks {of}");
        }
    }
    Ok(())
}
