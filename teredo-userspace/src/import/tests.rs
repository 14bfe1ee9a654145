use std::path::Path;

use super::*;
use crate::config::Config;

/// The file of Debian's package miredo, in other words.
const CLIENT: &str = "\
# The keys are in miredo.conf(5).
InterfaceName\tteredo

# One server of several:
#ServerAddress\tteredo.example.org
ServerAddress\tteredo.example.net

# For firewalls that let one port through:
#BindPort\t3545
";
/// The file of Debian's package miredo-server, in other words.
const SERVER: &str = "\
# The keys are in miredo-server.conf(5).

# The first of two addresses.
ServerBindAddress 192.0.2.221
";
/// Every directive of a relay, as miredo.conf(5) has them.
const RELAY: &str = "\
relaytype   RESTRICTED
Prefix 2001:0000::
InterfaceMTU 0x500
InterfaceName miredo0
BindAddress 192.0.2.1
BindPort 3797 # the firewall's
SyslogFacility local0
";

fn import(files: &[(&str, &str)]) -> Result<String, Error> {
    let sources: Vec<_> = files
        .iter()
        .map(|(file, text)| Source {
            file: Path::new(file),
            text,
        })
        .collect();
    miredo(&sources)
}

fn one(text: &str) -> Result<String, Error> {
    import(&[("miredo.conf", text)])
}

/// The keys of the result, which the parser of the configuration has to accept.
fn keys(result: Result<String, Error>) -> String {
    let text = result.unwrap_or_else(|error| panic!("{error}"));
    Config::parse(&text, Path::new("teredo.toml"))
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    lines.join("\n")
}

fn comments(result: Result<String, Error>) -> String {
    let text = result.unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .collect();
    lines.join(" ")
}

#[test]
fn the_client_of_debian() {
    assert_eq!(
        one(CLIENT).unwrap_or_else(|error| panic!("{error}")),
        "# Imported by teredo from miredo.conf.\n\n\
         [client]\nserver = \"teredo.example.net\"\ntun = \"teredo\"\n"
    );
}

#[test]
fn the_server_of_debian() {
    assert_eq!(
        one(SERVER).unwrap_or_else(|error| panic!("{error}")),
        "# Imported by teredo from miredo.conf.\n\n\
         [server]\nipv4 = [\"192.0.2.221\", \"192.0.2.222\"]\n"
    );
}

#[test]
fn every_directive_of_a_relay() {
    assert_eq!(
        keys(one(RELAY)),
        "[node]\nprefix = \"2001::/32\"\n\
         [relay]\nipv4 = \"192.0.2.1\"\nport = 3797\ntun = \"miredo0\"\nmtu = 1280\n\
         direct-bubbles = true"
    );
    let comments = comments(one(RELAY));
    assert!(
        comments.contains("SyslogFacility local0 (line 7): no counterpart"),
        "{comments}"
    );
}

#[test]
fn every_directive_of_a_client() {
    let text = "RelayType autoclient\nServerAddress 9.0.0.1\nServerAddress2 9.0.0.9\n\
                BindPort 0\nBindAddress 10.0.0.1\nInterfaceMTU 1400\nBindPort 7\n";
    assert_eq!(
        keys(one(text)),
        "[client]\nserver = \"9.0.0.1\"\nsecondary = \"9.0.0.9\"\nport = 0"
    );
    let comments = comments(one(text));
    for part in [
        "InterfaceName is not set",
        "BindAddress 10.0.0.1 (line 5): no counterpart",
        "InterfaceMTU 1400 (line 6): not imported, since Miredo ignores it in a client",
        "BindPort 7 (line 7): not imported, since Miredo uses the first one only",
    ] {
        assert!(comments.contains(part), "no {part:?} in {comments}");
    }
}

#[test]
fn every_directive_of_a_server() {
    let text = "ServerBindAddress 192.0.2.1\nServerBindAddress2 198.51.100.1\nPrefix 3ffe:831f::\n\
                InterfaceMTU 1400\nSyslogFacility kern";
    assert_eq!(
        keys(one(text)),
        "[node]\nprefix = \"3ffe:831f::/32\"\n\
         [server]\nipv4 = [\"192.0.2.1\", \"198.51.100.1\"]\nmtu = 1400"
    );
}

#[test]
fn directives_that_miredo_ignores_become_comments() {
    let text = "RelayType cone\nServerAddress teredo.example.net\nIgnoreConeBit no\nDefaultRoute no\n\
                InterfaceName a\n";
    assert_eq!(keys(one(text)), "[relay]\ntun = \"a\"");
    let comments = comments(one(text));
    for part in [
        "ServerAddress teredo.example.net (line 2): not imported, since Miredo ignores it with this",
        "IgnoreConeBit no (line 3): no counterpart",
        "DefaultRoute no (line 4): not imported",
        "BindPort is not set",
    ] {
        assert!(comments.contains(part), "no {part:?} in {comments}");
    }
}

#[test]
fn the_name_of_a_secondary_server_has_to_be_looked_up() {
    let text = "InterfaceName a\nServerAddress a.example\nServerAddress2 b.example";
    let part = "ServerAddress2 b.example (line 3): secondary takes an address";
    assert!(comments(one(text)).contains(part));
    assert_eq!(
        keys(one(text)),
        "[client]\nserver = \"a.example\"\ntun = \"a\""
    );
}

#[test]
fn a_relay_and_a_server_become_one_configuration() {
    let expected = "[node]\nprefix = \"2001::/32\"\n\
         [relay]\nipv4 = \"192.0.2.1\"\nport = 3797\ntun = \"miredo0\"\nmtu = 1280\n\
         direct-bubbles = true\n[server]\nipv4 = [\"192.0.2.221\", \"192.0.2.222\"]";
    let (relay, server) = (("miredo.conf", RELAY), ("miredo-server.conf", SERVER));
    for files in [[relay, server], [server, relay]] {
        assert_eq!(keys(import(&files)), expected);
    }
    // The prefix of a file holds for both of its roles.
    let both = "RelayType cone\nBindPort 9\nPrefix 3ffe:831f::\nServerBindAddress 192.0.2.1";
    assert_eq!(
        keys(one(both)),
        "[node]\nprefix = \"3ffe:831f::/32\"\n[relay]\nport = 9\n\
         [server]\nipv4 = [\"192.0.2.1\", \"192.0.2.2\"]"
    );
}

/// (the file, the sentence after its name)
const WRONG: &[(&str, &str)] = &[
    (
        "\nServerAdress x",
        " line 2: Miredo has no directive ServerAdress, did you mean ServerAddress?",
    ),
    (
        "BindPort",
        " line 1: BindPort has no value; write one, such as 3545, or remove the line",
    ),
    (
        "BindPort # 1",
        " line 1: BindPort has no value; write one, such as 3545, or remove the line",
    ),
    (
        "BindPort 1 2",
        " line 1: BindPort takes one value, and Miredo ignores \"2\"; remove it",
    ),
    (
        "RelayType server",
        " line 1: RelayType server is not valid: it must be client, autoclient, cone, relay or restricted",
    ),
    (
        "RelayType cone\nBindPort 65536",
        " line 2: BindPort 65536 cannot be imported as relay.port: it must be a UDP port, 1 to 65535",
    ),
    (
        "RelayType cone\nBindPort +1",
        " line 2: BindPort +1 cannot be imported as relay.port: it must be a UDP port, 1 to 65535",
    ),
    (
        "RelayType cone\nInterfaceMTU 576",
        " line 2: InterfaceMTU 576 cannot be imported as relay.mtu: it must be a number of octets, 1280 to \
         65507",
    ),
    (
        "RelayType cone\nPrefix 2001:0:1::",
        " line 2: Prefix 2001:0:1:: cannot be imported as node.prefix: it must be an IPv6 prefix of 32 bits \
         of global scope, such as \"2001::/32\"",
    ),
    (
        "RelayType cone\n\nBindAddress 127.0.0.1",
        " line 3: BindAddress 127.0.0.1 cannot be imported as relay.ipv4: it must be \"auto\" or a unicast \
         IPv4 address of this host, such as \"198.51.100.1\"",
    ),
    (
        "ServerAddress 2001:db8::1",
        " line 1: ServerAddress 2001:db8::1 cannot be imported as client.server, 2001:db8::1 is an IPv6 \
         address, but Teredo servers have IPv4 addresses: it must be ",
    ),
    (
        "ServerAddress a\nInterfaceName with/slash",
        " line 2: InterfaceName with/slash cannot be imported as client.tun: it must be an interface name",
    ),
    (
        "ServerBindAddress teredo.example.net",
        " line 1: ServerBindAddress teredo.example.net is not valid: it must be an IPv4 address of this host",
    ),
    (
        "ServerBindAddress 192.0.2.1\nServerBindAddress2 192.0.2.1",
        " line 2: ServerBindAddress2 192.0.2.1 cannot be imported as server.ipv4: it must be ",
    ),
    ("RelayType client", ": a client needs a ServerAddress"),
    (
        "ServerBindAddress2 192.0.2.1",
        ": a server needs a ServerBindAddress",
    ),
    ("", ": there is neither a ServerAddress"),
    ("Prefix 2001::", ": there is neither a ServerAddress"),
    (
        "RelayType cone\nBindAddress 192.0.2.2\nBindPort 3544\nServerBindAddress 192.0.2.1",
        " line 2: relay.ipv4 = \"192.0.2.2\" is the server's secondary address on the same port",
    ),
];

#[test]
fn wrong_files_get_a_sentence_with_line_name_and_remedy() {
    for (text, part) in WRONG {
        let sentence = one(text).expect_err(text).to_string();
        assert!(
            sentence.starts_with(&format!("miredo.conf{part}")),
            "{text}: {sentence}"
        );
    }
}

#[test]
fn files_that_are_no_single_configuration_are_refused() {
    let relay = ("relay.conf", RELAY);
    let other = (
        "server.conf",
        "ServerBindAddress 192.0.2.1\nPrefix 3ffe:831f::",
    );
    for (files, part) in [
        (
            [relay, ("client.conf", CLIENT)],
            "relay.conf and client.conf both configure a relay or client",
        ),
        (
            [("a.conf", SERVER), ("b.conf", SERVER)],
            "a.conf and b.conf both configure a server",
        ),
        (
            [("server.conf", SERVER), ("client.conf", CLIENT)],
            "client.conf configures a client and server.conf a server",
        ),
        (
            [relay, other],
            "relay.conf and server.conf have different service prefixes",
        ),
    ] {
        let sentence = import(&files).expect_err(part).to_string();
        assert!(sentence.starts_with(part), "{sentence}");
    }
}

#[test]
fn comments_show_no_control_characters_and_no_long_values() {
    let long = format!(
        "ServerAddress a\nInterfaceName a\nSyslogFacility \u{1b}[31m{}",
        "x".repeat(1000)
    );
    let comments = comments(one(&long));
    assert!(!comments.contains('\u{1b}'), "{comments:?}");
    assert!(comments.len() < 400, "{comments:?}");
}
