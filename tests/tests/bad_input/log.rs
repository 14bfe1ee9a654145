//! The log: filters that are refused, and its formats.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo_lab::{Daemon, teredo::binary};

use crate::{PATIENCE, assert_refused, host::Host, to_the_end};

/// The beginning of the warning of a client on a host without a network.
const WARNING: &str = "off-line: ";

/// The whole log of a client that finds no network, with these lines in `[node]`. In the journal or
/// not, systemd says in the environment.
fn log_of_a_client(node: &str, journal: Option<&str>) -> Result<String> {
    let host = Host::new()?;
    host.namespace.ip("-6 route del default")?;
    host.namespace.ip("-4 addr flush dev wan")?;
    let file = host.configure_client(node, "")?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["run", "--config"]).arg(&file);
    match journal {
        Some(stream) => command.env("JOURNAL_STREAM", stream),
        None => command.env_remove("JOURNAL_STREAM"),
    };
    let mut daemon = Daemon::start("teredo", command, Daemon::directory("daemon")?)?;
    let log = daemon.path().join("log");
    daemon.wait_for("it warns", PATIENCE, || {
        let said = std::fs::read_to_string(&log)?;
        Ok(said.contains(WARNING).then_some(()))
    })?;
    ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
    Ok(daemon.log())
}

#[test]
fn filters_that_silence_are_refused() -> Result<()> {
    let host = Host::new()?;
    for (filter, part) in [
        ("warning", "(did you mean \"warn\"?)"),
        ("verbose", "(did you mean \"debug\"?)"),
        ("teredo=loud", "unknown level \"loud\""),
        ("off", "it silences teredo, errors included"),
        ("hyper=debug", "(did you mean \"info,hyper=debug\"?)"),
        ("teredo::nodes=debug", "(did you mean \"teredo::node\"?)"),
        ("", "it is empty"),
    ] {
        let file = host.configure(&format!("log = \"{filter}\""), "")?;
        let key = format!("line 4: node.log = \"{filter}\" is not valid, ");
        assert_refused(&host, &file, &[&key, part])?;
    }
    let file = host.configure("log-format = \"xml\"", "")?;
    let permitted = "it must be \"text\" or \"json\"";
    assert_refused(&host, &file, &["node.log-format", permitted])
}

#[test]
fn text_has_times_but_in_the_journal_priorities() -> Result<()> {
    let text = log_of_a_client("", None)?;
    let warning = text.lines().find(|line| line.contains(WARNING));
    let warning = warning.context("no warning")?;
    ensure!(warning.contains(" WARN teredo::node::upkeep: "), "{text}");
    ensure!(warning.starts_with("20"), "a time: {text}");

    let text = log_of_a_client("", Some("8:12345"))?;
    for line in text.lines() {
        let (prefix, level) = match line.contains(WARNING) {
            true => ("<4>", "WARN"),
            false => ("<6>", "INFO"),
        };
        let entry = line.strip_prefix(prefix).with_context(|| text.clone())?;
        ensure!(entry.trim_start().starts_with(level), "{text}");
    }
    ensure!(text.contains("<6>") && text.contains("<4>"), "{text}");
    Ok(())
}

#[test]
fn json_has_an_object_on_each_line() -> Result<()> {
    for (journal, prefixes) in [(None, ["", ""]), (Some("8:12345"), ["<4>", "<6>"])] {
        let text = log_of_a_client("log-format = \"json\"", journal)?;
        let mut levels = Vec::new();
        for line in text.lines() {
            let prefix = prefixes[usize::from(!line.contains(WARNING))];
            let object = line.strip_prefix(prefix).with_context(|| text.clone())?;
            let entry: Value = serde_json::from_str(object)?;
            ensure!(entry["fields"]["message"].is_string(), "{entry:#}");
            ensure!(entry["target"].is_string(), "{entry:#}");
            ensure!(entry["timestamp"].is_string() == journal.is_none());
            levels.push(entry["level"].clone());
        }
        ensure!(levels.contains(&"WARN".into()) && levels.contains(&"INFO".into()));
    }
    Ok(())
}

/// The sentence that explains a refusal has the priority of an error.
#[test]
fn a_refusal_is_an_error_in_the_journal() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("log = \"loud\"", "")?;
    for (name, prefix) in [("run", "<3>teredo: "), ("check", "teredo: ")] {
        let mut command = host.namespace.command(binary()?)?;
        command.arg(name).arg("--config").arg(&file);
        command.env("JOURNAL_STREAM", "8:12345");
        let output = to_the_end(command)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(said.starts_with(prefix), "{said}");
        ensure!(said.contains("neither a level nor a part"), "{said}");
    }
    Ok(())
}
