//! The `teredo` commands that need no daemon.

use std::process::{Command, Output};

use anyhow::Result;
use serde_json::{Value, json};
use teredo_lab::teredo::binary;

fn teredo(arguments: &str) -> Result<Output> {
    let mut command = Command::new(binary()?);
    Ok(command.args(arguments.split_whitespace()).output()?)
}

fn text(octets: Vec<u8>) -> String {
    String::from_utf8_lossy(&octets).into_owned()
}

#[test]
fn addresses_are_encoded_and_decoded() -> Result<()> {
    let address = "2001:0:1117:34fa:1027:374b:e1fc:f635";
    let encoded =
        teredo("address encode --server 17.23.52.250 --mapped 30.3.9.202:51380 --flags 0x1027")?;
    assert_eq!(text(encoded.stdout), format!("{address}\n"));

    let decoded = teredo(&format!("address decode {address} --json"))?;
    assert!(decoded.status.success());
    let decoded: Value = serde_json::from_slice(&decoded.stdout)?;
    let everywhere = json!({ "strict": true, "rfc4380": true, "lab": true });
    assert_eq!(
        decoded,
        json!({
            "address": address,
            "prefix": "2001::/32",
            "server": "17.23.52.250",
            "flags": {
                "value": "0x1027",
                "cone": false,
                "random": "0x1027",
                "reserved": "0x0000",
            },
            "mapped": "30.3.9.202:51380",
            "accepted": { "server": everywhere, "mapped": everywhere },
        })
    );

    let cone = teredo("address encode --server 1.2.3.4 --mapped 9.0.0.1:4096 --cone")?;
    assert_eq!(text(cone.stdout), "2001:0:102:304:8000:efff:f6ff:fffe\n");
    Ok(())
}

/// (arguments, exit code, part of the message)
const REFUSED: &[(&str, i32, &str)] = &[
    (
        "address decode 2001:db8::1",
        1,
        "teredo: 2001:db8::1 is not a Teredo address",
    ),
    (
        "status --api unix:/nonexistent/socket",
        1,
        "teredo: no daemon answers on unix:/nonexistent/socket",
    ),
    (
        "peers --json --api tcp:127.0.0.1:9",
        1,
        "teredo: no daemon answers on tcp:127.0.0.1:9",
    ),
    (
        "status --config /nonexistent/teredo.toml",
        1,
        "teredo: cannot read the configuration /nonexistent/teredo.toml",
    ),
    (
        "check --config /nonexistent/teredo.toml",
        1,
        "teredo: cannot read the configuration /nonexistent/teredo.toml",
    ),
    (
        "drain --api unix:/nonexistent/socket",
        1,
        "teredo: no daemon answers on unix:/nonexistent/socket",
    ),
    ("address decode nonsense", 2, "invalid"),
    ("probe", 2, "SERVER"),
    ("probe 192.0.2.1:0", 2, "no UDP port"),
    ("probe 9.0.0.1:99999", 2, "\"99999\" is no UDP port"),
    ("probe 2001:db8::1", 2, "2001:db8::1 is an IPv6 address"),
    (
        "probe [2001:db8::1]:3544",
        2,
        "2001:db8::1 is an IPv6 address",
    ),
    (
        "probe https://teredo.example.net/",
        2,
        "name the host alone, such as \"teredo.example.net\"",
    ),
    ("probe 127.0.0.1", 2, "loopback"),
    (
        "probe 192.168.8.1",
        1,
        "192.168.8.1 is a private address, and a client refuses such a server",
    ),
    ("probe 192.0.2.1 --secondary here", 2, "--secondary"),
    (
        "probe nowhere.invalid",
        1,
        "teredo: cannot look up nowhere.invalid",
    ),
    (
        "address encode --server 1.2.3.4 --mapped 9.0.0.1:1 --flags 1 --cone",
        2,
        "--cone",
    ),
    ("fly", 2, "unrecognized subcommand"),
];

#[test]
fn errors_are_one_sentence_on_standard_error() -> Result<()> {
    for &(arguments, code, part) in REFUSED {
        let output = teredo(arguments)?;
        let said = text(output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        assert!(said.contains(part), "{arguments}: {said}");
        assert_eq!(text(output.stdout), "", "{arguments}");
        if code == 1 {
            assert_eq!(said.lines().count(), 1, "{arguments}: {said}");
        }
    }
    Ok(())
}

/// (arguments of `probe --json`, exit code, kind and part of the text of the error)
const PROBE_REFUSED: &[(&str, i32, &str, &str)] = &[
    (
        "nowhere.invalid",
        1,
        "look-up",
        "cannot look up nowhere.invalid",
    ),
    ("2001:db8::1", 2, "server-invalid", "is an IPv6 address"),
    ("9.0.0.1:99999", 2, "server-invalid", "is no UDP port"),
    ("10.0.0.1", 1, "server-address", "is a private address"),
    ("9.0.0.1 --port 99999", 2, "arguments", "99999"),
    ("9.0.0.1 --secondary here", 2, "arguments", "--secondary"),
    ("", 2, "arguments", "<SERVER[:PORT]>"),
];

#[test]
fn errors_of_a_probe_are_json_on_demand() -> Result<()> {
    for &(arguments, code, kind, part) in PROBE_REFUSED {
        let output = teredo(&format!("probe --json {arguments}"))?;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(text(output.stderr), "", "{arguments}");
        let found: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(found["works"], false, "{found:#}");
        assert_eq!(found["error"]["kind"], kind, "{found:#}");
        let text = found["error"]["text"].as_str().unwrap_or_default();
        assert!(text.contains(part), "{found:#}");
        let verdict = found["verdict"].as_str().unwrap_or_default();
        assert!(verdict.contains(text), "{found:#}");
    }
    // An empty name is an argument, too.
    let mut command = Command::new(binary()?);
    let output = command.args(["probe", "--json", ""]).output()?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(found["error"]["kind"], "server-invalid", "{found:#}");
    Ok(())
}

#[test]
fn a_closed_pipe_is_no_error() -> Result<()> {
    let mut shell = Command::new("sh");
    let script = "\"$0\" address decode 2001:0:102:304:0:efff:f6ff:fffe 2>&1 | true";
    let output = shell.args(["-c", script]).arg(binary()?).output()?;
    assert_eq!(text(output.stdout), "");
    assert_eq!(text(output.stderr), "");
    Ok(())
}
