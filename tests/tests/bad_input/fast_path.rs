//! `teredo check` loads the program instead of predicting that the kernel accepts it.

use std::process::Command;

use anyhow::Result;
use teredo_lab::teredo::binary;

use super::{assert_command_refused, host::Host, to_the_end};

/// Number of file descriptors with which the daemon can do everything but create all maps.
const DESCRIPTORS: &str = "--nofile=31";

/// Returns a command that runs `teredo` with few file descriptors.
fn starved(host: &Host, arguments: &[&str]) -> Result<Command> {
    let mut command = host.namespace.command("prlimit")?;
    command.arg(DESCRIPTORS).arg(binary()?).args(arguments);
    Ok(command)
}

#[test]
fn a_program_that_the_kernel_refuses_is_an_error() -> Result<()> {
    let host = Host::new()?;
    for mode in ["native", "generic"] {
        let file = host.configure("", &format!("xdp.mode = \"{mode}\""))?;
        for name in ["check", "run"] {
            let command = starved(&host, &[name, "--config", &file.to_string_lossy()])?;
            let parts = ["no file descriptor is left for the map", "LimitNOFILE="];
            assert_command_refused(&host, command, &parts)?;
        }
    }
    Ok(())
}

#[test]
fn a_mode_that_falls_back_is_degraded() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "xdp.mode = \"auto\"")?;
    let file = file.to_string_lossy();
    let command = starved(&host, &["check", "--config", &file])?;
    let parts = ["there is none: no file descriptor is left for the map"];
    assert_command_refused(&host, command, &parts)?;

    let output = to_the_end(starved(&host, &["check", "--json", "--config", &file])?)?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["ok"], false, "{report}");
    assert_eq!(report["xdp"][0]["mode"], "off", "{report}");
    let findings = report["findings"].as_array().into_iter().flatten();
    let verdicts: Vec<_> = findings
        .filter(|finding| finding["subject"] == "fast path")
        .map(|finding| finding["verdict"].clone())
        .collect();
    assert_eq!(verdicts, ["degraded"], "{report}");
    Ok(())
}
