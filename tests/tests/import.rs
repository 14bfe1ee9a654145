//! `teredo import`.

#[path = "host/mod.rs"]
mod host;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{names::Names, teredo::binary};

use host::Host;

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

/// The files that Debian's packages install, and whether dpkg may have been told to leave them out.
const OF_DEBIAN: [(&str, bool); 4] = [
    ("/etc/miredo.conf", false),
    ("/etc/miredo-server.conf", false),
    ("/usr/share/doc/miredo/examples/miredo.conf", true),
    (
        "/usr/share/doc/miredo-server/examples/miredo-server.conf",
        true,
    ),
];

/// The value of a directive.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut words| words.next().filter(|word| *word == name).and(words.next()))
}

/// Runs `teredo check` on a host that knows these names.
fn check(host: &Host, names: &Names, file: &Path) -> Result<Output> {
    let mut command = host.namespace.command(binary()?)?;
    command.args(["check", "--config"]).arg(file);
    names.prepare(&mut command)?;
    Ok(command.output()?)
}

/// The files are Debian's, and so is their licence: they are not in this repository.
#[test]
fn the_files_of_debian_are_imported() -> Result<()> {
    let host = Host::new()?;
    let names = Names::new()?;
    for (shipped, may_lack) in OF_DEBIAN {
        if may_lack && !Path::new(shipped).exists() {
            continue;
        }
        let text = fs::read_to_string(shipped)
            .with_context(|| format!("{shipped} is not there: `cargo xtask setup`"))?;
        let directory = tempfile::tempdir()?;
        let imported = import(directory.path(), &format!("{shipped} --output teredo.toml"))?;
        ensure!(imported.status.success(), "{shipped}: {imported:?}");
        let file = directory.path().join("teredo.toml");
        let result = fs::read_to_string(&file)?;
        if let Some(primary) = directive(&text, "ServerBindAddress") {
            let secondary = "192.0.2.222";
            let expected = format!("[server]\nipv4 = [\"{primary}\", \"{secondary}\"]\n");
            assert_eq!(keys(&result), expected, "{shipped}");
            // The addresses are examples for the operator to replace.
            let waits = check(&host, &names, &file)?;
            let said = String::from_utf8_lossy(&waits.stderr);
            ensure!(
                said.contains("is not an address of this host"),
                "{shipped}: {waits:?}"
            );
            let own = result
                .replace(primary, "20.0.0.1")
                .replace(secondary, "20.0.0.2");
            fs::write(&file, own)?;
        } else {
            let value =
                |name| directive(&text, name).with_context(|| format!("no {name} in {text}"));
            let (server, tun) = (value("ServerAddress")?, value("InterfaceName")?);
            let expected = format!("[client]\nserver = \"{server}\"\ntun = \"{tun}\"\n");
            assert_eq!(keys(&result), expected, "{shipped}");
            names.set(&format!("20.0.0.254 {server}\n"))?;
        }
        let checked = check(&host, &names, &file)?;
        ensure!(checked.status.success(), "{shipped}: {checked:?}");
    }
    Ok(())
}
