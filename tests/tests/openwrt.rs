//! The configuration of OpenWrt, as its service turns it into ours.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use teredo::config::{
    Config,
    keys::{KEYS, Key, REPEATED},
};
use teredo_lab::teredo::binary;
use toml::{Table, Value};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/openwrt/files/uci-to-toml.sh"
);
/// The service.
const INIT: &str = include_str!("../../packaging/openwrt/files/teredo.init");
const GUIDE: &str = include_str!("../../docs/configuration.md");
/// The permitted values of a key that is true or false.
const SWITCH: &str = "true or false";
/// The words of UCI for true and for false.
const WORDS: [(&[&str], bool); 2] = [
    (&["1", "on", "true", "yes", "enabled"], true),
    (&["0", "off", "false", "no", "disabled"], false),
];
/// Values of keys that are empty in the guide, since UCI has no empty values.
const SAMPLES: &[(&str, &[&str])] = &[
    ("node.api-token-file", &["/etc/teredo/api.token"]),
    ("node.user", &["root"]),
    ("node.ipfix.collector", &["192.0.2.9:4739"]),
    ("relay.sunset", &["2030-12-31"]),
    ("relay.xdp.interfaces", &["eth0"]),
    ("relay.fleet.listen", &["10.0.0.1:3546"]),
    ("relay.fleet.members", &["10.0.0.1:3546", "10.0.0.2:3546"]),
    ("relay.fleet.key-file", &["/etc/teredo/fleet.key"]),
    ("server.extra-prefixes", &["3ffe:831f::/32"]),
    ("server.allow", &["198.51.100.0/24"]),
    ("server.sunset", &["2030-12-31"]),
    ("server.xdp.interfaces", &["eth0"]),
    (
        "server.client.retired-secret-files",
        &["/etc/teredo/old.key"],
    ),
    ("server.client.prefix", &["2001:db8:1:2::/64"]),
    ("client.id", &["alice"]),
    ("client.secret-file", &["/etc/teredo/alice.key"]),
];

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
    ensure!(output.status.success(), "{output:?} of {uci}");
    ensure!(output.stderr.is_empty(), "{output:?} of {uci}");
    Ok(String::from_utf8(output.stdout)?)
}

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new("teredo.toml")).with_context(|| text.to_owned())
}

#[test]
fn sections_options_and_lists_become_toml() -> Result<()> {
    let text = converted(
        r#"teredo.node=node
teredo.node.enabled='1'
teredo.node.name='7'
teredo.node.user='daemon'
teredo.relay=relay
teredo.relay.port='3545'
teredo.relay.host_specific='1'
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
user = "daemon"

[relay]
port = 3545
host-specific = true
serve = ["2001:db8::/32"]

[server]
ipv4 = ["198.51.100.1", "198.51.100.2"]

[relay.xdp]
interfaces = ["eth0"]
pin = false

[[server.client]]
id = "it's \\ \"a\""
secret-file = "/etc/teredo/alice.key"

[server.xdp]
pin = false
"#
    );
    parse(text).map(drop)
}

/// Only root could use the pins of a daemon that is another user.
#[test]
fn the_daemon_runs_as_the_user_of_the_package() -> Result<()> {
    let roles = "teredo.relay=relay\nteredo.relay_xdp=xdp\nteredo.server=server\n\
                 teredo.server.ipv4='198.51.100.1' '198.51.100.2'\n";
    let node = "teredo.node=node\nteredo.node.enabled='1'\n";
    for before in ["", node] {
        let config = parse(&converted(&format!("{before}{roles}"))?)?;
        assert_eq!(config.node.user, "teredo");
        assert!(!config.relay.context("no relay")?.xdp.pin);
        assert!(!config.server.context("no server")?.xdp.pin);
    }
    let client = parse(&converted(
        "teredo.client=client\nteredo.client.server='x.test'\n",
    )?)?;
    assert_eq!(client.node.user, "teredo");
    let root = format!("{node}teredo.node.user='root'\n{roles}teredo.relay_xdp.pin='1'\n");
    // An option belongs to the section before it.
    let root = root.replace("teredo.relay_xdp.pin='1'\n", "");
    let root = root.replace("=xdp\n", "=xdp\nteredo.relay_xdp.pin='1'\n");
    let config = parse(&converted(&root)?)?;
    assert_eq!(config.node.user, "root");
    assert!(config.relay.context("no relay")?.xdp.pin);
    assert!(config.server.context("no server")?.xdp.pin);
    let output = convert(&root.replace("teredo.node.user='root'\n", ""))?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the option user with the value root"),
        "{said}"
    );
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
        (
            "teredo.relay=relay\nteredo.relay.enabled='0'\n",
            "the section relay has the option enabled",
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

/// Returns the complete files of the guide, for relay and server and for a client, with samples for what is empty
/// there.
fn complete() -> Result<[Table; 2]> {
    let (_, rest) = GUIDE
        .split_once("Every key with its default")
        .context("no complete files")?;
    let mut blocks = rest.split("```toml\n").skip(1);
    let mut next = || {
        let block = blocks.next().and_then(|rest| rest.split_once("```"));
        let (text, _) = block.context("no file")?;
        let mut table: Table = text.parse()?;
        for key in KEYS {
            if let Some(value) = find(&mut table, key)
                && is_empty(value)
            {
                *value = sample(key, value)?;
            }
        }
        // A relay in a fleet has an address of its own choice.
        if let Some(relay) = table.get_mut("relay").and_then(Value::as_table_mut) {
            relay.insert("ipv4".to_owned(), "198.51.100.1".into());
        }
        anyhow::Ok(table)
    };
    let (services, mut client) = (next()?, next()?);
    // The guide says that it is the same.
    client.insert("node".to_owned(), services["node"].clone());
    Ok([services, client])
}

fn path(key: &Key) -> String {
    format!("{}.{}", key.section, key.name)
}

/// Returns the place of a key's value, in the first of sections that may be repeated.
fn find<'a>(table: &'a mut Table, key: &Key) -> Option<&'a mut Value> {
    let mut section = table;
    for name in key.section.split('.') {
        section = match section.get_mut(name)? {
            Value::Array(tables) => tables.first_mut()?.as_table_mut()?,
            value => value.as_table_mut()?,
        };
    }
    section.get_mut(key.name)
}

fn is_empty(value: &Value) -> bool {
    value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty)
}

/// Returns a value for a key whose value is empty.
fn sample(key: &Key, empty: &Value) -> Result<Value> {
    let name = path(key);
    let found = SAMPLES.iter().find(|(sample, _)| *sample == name);
    let (_, texts) = found.with_context(|| format!("{name} has no sample"))?;
    Ok(match (empty, texts) {
        (Value::String(_), [text, ..]) => (*text).into(),
        _ => Value::Array(texts.iter().map(|text| (*text).into()).collect()),
    })
}

/// Returns what `uci show` prints for the keys of a file.
fn show(mut table: Table) -> Result<String> {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let Some(value) = find(&mut table, key) else {
            continue;
        };
        let name = key.section.replace('.', "_");
        if section != key.section {
            section = key.section;
            let kind = match REPEATED.contains(&section) {
                true => "key",
                false => section.rsplit('.').next().context("no name")?,
            };
            text += &format!("teredo.{name}={kind}\n");
        }
        let quoted = |value: &Value| match value {
            Value::String(text) => format!("'{text}'"),
            Value::Boolean(is_on) => format!("'{}'", u8::from(*is_on)),
            value => format!("'{value}'"),
        };
        let value = match value {
            Value::Array(values) => values.iter().map(quoted).collect::<Vec<_>>().join(" "),
            value => quoted(value),
        };
        text += &format!("teredo.{name}.{}={value}\n", key.name.replace('-', "_"));
    }
    Ok(text)
}

#[test]
fn every_key_can_be_written() -> Result<()> {
    let mut written = 0;
    for table in complete()? {
        let uci = show(table.clone())?;
        written += uci
            .lines()
            .filter(|line| line.matches('.').count() > 1)
            .count();
        let expected = parse(&table.to_string())?;
        assert_eq!(parse(&converted(&uci)?)?, expected, "{uci}");
    }
    // The keys of [node] are in both.
    assert!(written >= KEYS.len(), "{written} of {}", KEYS.len());
    Ok(())
}

/// A list of one value is a list, and a name that looks like a number or a word for true is a name.
#[test]
fn values_keep_their_types() -> Result<()> {
    for mut table in complete()? {
        // Pins are root's.
        for key in KEYS.iter().filter(|key| key.name == "pin") {
            if let Some(value) = find(&mut table, key) {
                *value = false.into();
            }
        }
        for key in KEYS {
            let mut given = table.clone();
            let Some(value) = find(&mut given, key) else {
                continue;
            };
            let is_list = value.is_array();
            let mut candidates: Vec<String> = match value.clone() {
                Value::String(text) => vec![text],
                Value::Array(values) => {
                    let first = values.first().and_then(Value::as_str);
                    first.map(str::to_owned).into_iter().collect()
                }
                _ => continue,
            };
            candidates.extend(["7", "true", "on"].map(str::to_owned));
            for text in candidates {
                let Some(value) = find(&mut given, key) else {
                    continue;
                };
                *value = match is_list {
                    true => vec![text].into(),
                    false => text.into(),
                };
                // Others are not permitted in either form.
                if let Ok(expected) = parse(&given.to_string()) {
                    let uci = show(given.clone())?;
                    assert_eq!(parse(&converted(&uci)?)?, expected, "{}: {uci}", path(key));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_switch_takes_every_word_of_uci() -> Result<()> {
    for (words, expected) in WORDS {
        for word in words {
            for table in complete()? {
                let mut uci = String::new();
                for line in show(table.clone())?.lines() {
                    let switch = KEYS.iter().find(|key| {
                        let name = key.name.replace('-', "_");
                        let start = format!("teredo.{}.{name}=", key.section.replace('.', "_"));
                        key.permitted == SWITCH && line.starts_with(&start)
                    });
                    uci += &match (switch, line.split_once('=')) {
                        (Some(_), Some((name, _))) => format!("{name}='{word}'\n"),
                        _ => format!("{line}\n"),
                    };
                }
                let mut became: Table = converted(&uci)?.parse()?;
                for key in KEYS.iter().filter(|key| key.permitted == SWITCH) {
                    if let Some(value) = find(&mut became, key) {
                        let is_right = *value == Value::Boolean(expected);
                        ensure!(is_right, "{} = {word} became {value}", path(key));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The service with its files in a directory, and what it calls in OpenWrt's place.
struct Service {
    directory: TempDir,
    program: PathBuf,
}

impl Service {
    fn new() -> Result<Self> {
        Ok(Self {
            directory: tempfile::tempdir()?,
            program: binary()?,
        })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("etc/teredo.toml")
    }

    /// Starts the service, or reloads it, with this configuration of OpenWrt. Returns what it has told procd and the
    /// log.
    fn start(&self, uci: &str) -> Result<String> {
        let here = self.directory.path().display();
        let mut script = INIT.to_owned();
        for (there, here) in [
            (
                "=/usr/bin/teredo\n",
                format!("={}\n", self.program.display()),
            ),
            ("/var/etc", format!("{here}/etc")),
            ("/usr/lib/teredo/uci-to-toml.sh", SCRIPT.to_owned()),
            ("/run/teredo", format!("{here}/run")),
            ("/var/lib/teredo", format!("{here}/state")),
            ("/dev/net/tun", format!("{here}/tun")),
        ] {
            ensure!(script.contains(there), "the service has no {there}");
            script = script.replace(there, &here);
        }
        let uci = format!("teredo.node=node\nteredo.node.enabled='1'\n{uci}");
        fs::write(self.directory.path().join("uci"), uci)?;
        let stubs = format!(
            "config_load() {{ :; }}
            config_get_bool() {{ eval \"$1=1\"; }}
            config_get() {{ eval \"$1=\\$4\"; }}
            uci() {{ cat {here}/uci; }}
            logger() {{ echo \"logger $*\"; }}
            chown() {{ echo \"chown $*\"; }}
            for name in open_instance set_param close_instance add_reload_trigger; do
                eval \"procd_$name() {{ echo $name \\\"\\$@\\\"; }}\"
            done\n"
        );
        let mut command = Command::new("sh");
        command.arg("-c");
        let output = command
            .arg(format!("{stubs}{script}\nstart_service || echo failed\n"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && complaints.is_empty(),
            "{output:?}"
        );
        Ok(said)
    }
}

const RELAY: &str = "teredo.relay=relay\nteredo.relay.port='3545'\n";

#[test]
fn the_service_writes_the_file_and_starts_the_daemon_with_it() -> Result<()> {
    let service = Service::new()?;
    let said = service.start(RELAY)?;
    let file = service.file();
    for line in [
        format!(
            "set_param command {} run --config {}",
            service.program.display(),
            file.display()
        ),
        format!("set_param file {}", file.display()),
    ] {
        ensure!(said.lines().any(|there| there == line), "{line}: {said}");
    }
    ensure!(
        said.contains("chown teredo ") && !said.contains("failed"),
        "{said}"
    );
    let config = parse(&fs::read_to_string(file)?)?;
    ensure!(config.relay.is_some());
    Ok(())
}

/// A daemon that runs with the old file goes on: procd stops a service without an instance, and starts a daemon again
/// whose file has changed.
#[test]
fn a_wrong_value_leaves_the_old_file_in_force() -> Result<()> {
    let service = Service::new()?;
    let wrong = RELAY.replace("3545", "70000");
    let mistyped = RELAY.replace("=relay", "=realy");
    let said = service.start(&wrong)?;
    ensure!(
        said.contains("failed") && !said.contains("open_instance"),
        "{said}"
    );
    let good = service.start(RELAY)?;
    let before = fs::read_to_string(service.file())?;
    for (uci, reason) in [(wrong, "relay.port"), (mistyped, "the type realy")] {
        let said = service.start(&uci)?;
        assert_eq!(fs::read_to_string(service.file())?, before);
        let (log, others): (Vec<_>, Vec<_>) =
            said.lines().partition(|line| line.starts_with("logger "));
        let [sentence] = &*log else {
            anyhow::bail!("{said}");
        };
        ensure!(sentence.contains(reason), "{sentence}");
        ensure!(
            sentence.ends_with("; the configuration stays as it was"),
            "{sentence}"
        );
        assert_eq!(others, good.lines().collect::<Vec<_>>());
    }
    Ok(())
}
