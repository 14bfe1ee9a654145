//! `teredo import`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::Result;
use teredo_lab::teredo::binary;

const RELAY: &str = "RelayType cone\nInterfaceName teredo\nBindPort 3545\nSyslogFacility daemon\n";
const SERVER: &str = "ServerBindAddress 198.51.100.1\n";
const BOTH: &str = "\
[relay]
port = 3545
tun = \"teredo\"

[server]
ipv4 = [\"198.51.100.1\", \"198.51.100.2\"]
";

fn import(directory: &Path, arguments: &str) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.current_dir(directory).args(["import", "miredo"]);
    Ok(command.args(arguments.split_whitespace()).output()?)
}

/// The configuration without its comments.
fn keys(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("\n").trim_start().to_owned() + "\n"
}

fn assert_refused(output: &Output, part: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("teredo: ") && said.contains(part),
        "{said}"
    );
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_configuration_is_printed_or_written_to_a_new_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("miredo.conf"), RELAY)?;
    fs::write(directory.path().join("miredo-server.conf"), SERVER)?;
    let files = "miredo.conf miredo-server.conf";

    let printed = import(directory.path(), files)?;
    assert!(printed.status.success(), "{printed:?}");
    let printed = String::from_utf8(printed.stdout)?;
    assert_eq!(keys(&printed), BOTH);
    assert!(printed.contains("# SyslogFacility daemon (line 4): no counterpart"));

    let arguments = format!("{files} --output teredo.toml");
    let output = import(directory.path(), &arguments)?;
    assert!(output.status.success(), "{output:?}");
    let written = directory.path().join("teredo.toml");
    assert_eq!(fs::read_to_string(&written)?, printed);

    fs::write(&written, "[relay]\n")?;
    assert_refused(
        &import(directory.path(), &arguments)?,
        "teredo.toml exists and is not overwritten",
    );
    assert_eq!(fs::read_to_string(&written)?, "[relay]\n");
    Ok(())
}

#[test]
fn nothing_is_written_when_a_file_is_wrong() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("miredo.conf"), "\nBindPrt 3545\n")?;
    for (arguments, part) in [
        (
            "miredo.conf --output teredo.toml",
            "miredo.conf line 2: Miredo has no directive BindPrt, did you mean BindPort?",
        ),
        (
            "absent.conf --output teredo.toml",
            "cannot read absent.conf",
        ),
    ] {
        assert_refused(&import(directory.path(), arguments)?, part);
        assert!(!directory.path().join("teredo.toml").exists());
    }
    Ok(())
}
