//! `teredo check` loads the program instead of predicting that the kernel accepts it.

use std::process::Command;

use anyhow::Result;
use teredo_lab::teredo::binary;

use super::{assert_command_refused, host::Host, to_the_end};

/// Numbers of file descriptors with which `teredo check` cannot create all maps (16 to 31), and
/// with which it cannot map all of them into its memory (34 to 53).
const CHECKS: [u32; 2] = [23, 43];
/// The same of `teredo run` (30 to 49, and 53 to 62).
const RUNS: [u32; 2] = [40, 58];

/// Returns a command that runs `teredo` with few file descriptors.
fn starved(host: &Host, descriptors: u32, arguments: &[&str]) -> Result<Command> {
    let mut command = host.namespace.command("prlimit")?;
    command.arg(format!("--nofile={descriptors}"));
    command.arg(binary()?).args(arguments);
    Ok(command)
}

#[test]
fn whatever_lacks_a_descriptor_names_the_remedy() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "xdp.mode = \"generic\"")?;
    let file = file.to_string_lossy();
    // With fewer than four, besides those that it inherits, the program's libraries cannot be opened.
    for descriptors in 10..48 {
        for name in ["check", "run"] {
            let command = starved(&host, descriptors, &[name, "--config", &file])?;
            assert_command_refused(&host, command, &["LimitNOFILE="])?;
        }
    }
    Ok(())
}

#[test]
fn maps_without_descriptors_are_an_error() -> Result<()> {
    let host = Host::new()?;
    for mode in ["native", "generic"] {
        let file = host.configure("", &format!("xdp.mode = \"{mode}\""))?;
        let file = file.to_string_lossy();
        for (name, numbers) in [("check", CHECKS), ("run", RUNS)] {
            for descriptors in numbers {
                let command = starved(&host, descriptors, &[name, "--config", &file])?;
                let parts = ["no file descriptor is left for the map", "LimitNOFILE="];
                assert_command_refused(&host, command, &parts)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_mode_that_falls_back_is_degraded() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "xdp.mode = \"auto\"")?;
    let file = file.to_string_lossy();
    for descriptors in CHECKS {
        let command = starved(&host, descriptors, &["check", "--config", &file])?;
        let parts = ["there is none: no file descriptor is left for the map"];
        assert_command_refused(&host, command, &parts)?;

        let command = starved(&host, descriptors, &["check", "--json", "--config", &file])?;
        let output = to_the_end(command)?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(report["ok"], false, "{report}");
        assert_eq!(report["xdp"][0]["mode"], "off", "{report}");
        let findings = report["findings"].as_array().into_iter().flatten();
        let verdicts: Vec<_> = findings
            .filter(|finding| finding["subject"] == "fast path")
            .map(|finding| finding["verdict"].clone())
            .collect();
        assert_eq!(verdicts, ["degraded"], "{report}");
    }
    Ok(())
}
