//! `cargo xtask build`.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::shell;

/// Builds the daemon and returns its path.
pub fn daemon(release: bool) -> Result<PathBuf> {
    packages(&["teredo-userspace"], release)?;
    Ok(directory(release).join("teredo"))
}

/// Builds the binaries of these packages.
pub fn packages(packages: &[&str], release: bool) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["build", "--bins"]);
    if release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    shell::run(&mut command)
}

/// Builds all binaries and tests, and returns the tests' programs by name. Cargo builds what they have in common once, if it
/// builds them at once: a package alone has only the features that it asks for itself.
pub fn everything() -> Result<BTreeMap<String, PathBuf>> {
    targets(&["--bins", "--tests"])?;
    // The pattern also selects the tests that `cargo test` leaves out.
    targets(&["--test=*"])
}

/// Builds these targets, and returns the programs of the tests among them.
fn targets(selection: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = shell::cargo();
    command
        .arg("build")
        .args(selection)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "the programs cannot be built");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(test).collect())
}

/// Returns name and path of the program in a message of cargo, if it is about a test.
fn test(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    let target = &message["target"];
    let is_test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
    is_test.then_some((target["name"].as_str()?.to_owned(), path.into()))
}

/// Returns cargo's directory of binaries.
pub fn directory(release: bool) -> PathBuf {
    shell::target().join(if release { "release" } else { "debug" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_from_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"devices"},
            "executable":"/target/debug/deps/devices-0123"}"#;
        let path = "/target/debug/deps/devices-0123".into();
        assert_eq!(test(message), Some(("devices".to_owned(), path)));
        for other in [
            r#"{"target":{"kind":["bin"],"name":"teredo"},"executable":"/target/debug/teredo"}"#,
            r#"{"target":{"kind":["lib"],"name":"teredo"},"executable":null}"#,
            "Compiling",
        ] {
            assert_eq!(test(other), None);
        }
    }
}
