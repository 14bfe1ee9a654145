//! The configuration of OpenWrt, as its service turns it into ours.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result};
use teredo::config::Config;

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/openwrt/files/uci-to-toml.sh"
);

/// Converts the output of `uci show teredo`.
fn convert(uci: &str) -> Result<Output> {
    let mut command = Command::new("sh");
    command.args(["-c", ". \"$0\"; uci_to_toml", SCRIPT]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = command.stderr(Stdio::piped()).spawn()?;
    let mut input = shell.stdin.take().context("no input")?;
    input.write_all(uci.as_bytes())?;
    drop(input);
    Ok(shell.wait_with_output()?)
}

fn converted(uci: &str) -> Result<String> {
    let output = convert(uci)?;
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn sections_options_and_lists_become_toml() -> Result<()> {
    let text = converted(
        r#"teredo.node=node
teredo.node.enabled='1'
teredo.node.name='7'
teredo.relay=relay
teredo.relay.port='3545'
teredo.relay.host_specific='true'
teredo.relay.serve='2001:db8::/32'
teredo.server=server
teredo.server.ipv4='198.51.100.1' '198.51.100.2'
teredo.relay_xdp=xdp
teredo.relay_xdp.interfaces='eth0'
teredo.alice=key
teredo.alice.id='it'\''s \ "a"'
teredo.alice.secret_file='/etc/teredo/alice.key'
"#,
    )?;
    let (_, text) = text.split_once("\n\n").context("no comment")?;
    assert_eq!(
        text,
        r#"[node]
name = "7"

[relay]
port = 3545
host-specific = true
serve = ["2001:db8::/32"]

[server]
ipv4 = ["198.51.100.1", "198.51.100.2"]

[relay.xdp]
interfaces = ["eth0"]

[[server.client]]
id = "it's \\ \"a\""
secret-file = "/etc/teredo/alice.key"
"#
    );
    Config::parse(text, Path::new("teredo.toml"))?;
    Ok(())
}

#[test]
fn an_empty_section_is_a_role_with_its_defaults() -> Result<()> {
    let text = converted("teredo.node=node\nteredo.node.enabled='1'\nteredo.relay=relay\n")?;
    let expected = Config::parse("[relay]", Path::new("teredo.toml"))?;
    assert_eq!(Config::parse(&text, Path::new("teredo.toml"))?, expected);
    Ok(())
}

#[test]
fn sections_of_other_types_and_names_are_refused() -> Result<()> {
    for (uci, part) in [
        (
            "teredo.relay=realy\n",
            "the section relay has the type realy",
        ),
        (
            "teredo.x=xdp\n",
            "the section x of type xdp has to be named",
        ),
        (
            "teredo.relay=relay\nteredo.relay.tun='a\n",
            "a quote has no end",
        ),
    ] {
        let output = convert(uci)?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("teredo: /etc/config/teredo: ") && said.contains(part),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    Ok(())
}
