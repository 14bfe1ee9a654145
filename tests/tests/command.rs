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

#[test]
fn a_closed_pipe_is_no_error() -> Result<()> {
    let mut shell = Command::new("sh");
    let script = "\"$0\" address decode 2001:0:102:304:0:efff:f6ff:fffe 2>&1 | true";
    let output = shell.args(["-c", script]).arg(binary()?).output()?;
    assert_eq!(text(output.stdout), "");
    assert_eq!(text(output.stderr), "");
    Ok(())
}
