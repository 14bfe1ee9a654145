use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use teredo_proto::wire::authentication::Algorithm;

use teredo_common::scope::Ipv4Scope;

use super::*;
use crate::datapath::xdp::AttachPolicy;

/// The operator's guide.
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, Path::new("teredo.toml"))
}

/// A relay with default settings.
fn relay_alone() -> Config {
    Config {
        relay: Some(RelaySection::default()),
        ..Config::default()
    }
}

/// Every role and section with default settings, and what has no default as the documentation has
/// it.
fn everything() -> Config {
    let alice = ServerClientSection {
        id: "alice".parse().unwrap(),
        algorithm: Algorithm::HmacMd5,
        secret_file: "/etc/teredo/alice.key".into(),
        retired_secret_files: Vec::new(),
        prefix: None,
    };
    let server = ServerSection {
        ipv4: [[198, 51, 100, 1].into(), [198, 51, 100, 2].into()],
        clients: vec![alice],
        ..ServerSection::default()
    };
    Config {
        server: Some(server),
        client: Some(client_alone()),
        ..relay_alone()
    }
}

/// A client with default settings.
fn client_alone() -> ClientSection {
    ClientSection {
        servers: vec!["teredo.example.net".parse().unwrap()],
        ..ClientSection::default()
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let (_, rest) = DOCUMENTATION
        .split_once("Every key with its default")
        .unwrap();
    // A client is in no file with the others.
    let mut blocks = rest.split("```toml\n").skip(1);
    let mut next = || blocks.next().unwrap().split_once("```").unwrap().0;
    let (others, client) = (next(), next());
    let expected = Config {
        client: None,
        ..everything()
    };
    assert_eq!(parse(others).unwrap(), expected);
    let expected = Config {
        client: Some(client_alone()),
        ..Config::default()
    };
    assert_eq!(parse(client).unwrap(), expected);
    assert_eq!(parse(CLIENT_ALONE).unwrap(), expected);
    let (mut there, mut all) = (BTreeSet::new(), BTreeSet::new());
    for block in [others, client] {
        collect("", &block.parse().unwrap(), &mut there);
    }
    collect("", &everything().to_toml().parse().unwrap(), &mut all);
    assert_eq!(there, all);
    assert_eq!(parse("[relay]").unwrap(), relay_alone());
    assert_eq!(parse("[relay.xdp]").unwrap(), relay_alone());
    let server = "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\n[[server.client]]\n\
                  id = \"alice\"\nsecret-file = \"/etc/teredo/alice.key\"";
    let expected = Config {
        relay: None,
        client: None,
        ..everything()
    };
    assert_eq!(parse(server).unwrap(), expected);
}

#[test]
fn the_shortest_files_of_the_documentation_are_complete() {
    for (block, _) in DOCUMENTATION
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
    {
        assert!(parse(block).is_ok(), "{block}");
    }
}

#[test]
fn the_roles_agree_about_the_fast_path() {
    assert_eq!(Config::default().fast_path(), None);
    let server = "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\n[server.xdp]\n";
    let parse = |text: &str| parse(text).unwrap();
    let both = parse(&format!(
        "[relay.xdp]\ninterfaces = [\"a\"]\n{server}interfaces = [\"b\"]"
    ));
    let expected = FastPathRequest {
        mode: AttachPolicy::Auto,
        pin: true,
        relay: Some(&["a".to_owned()]),
        server: Some(&["b".to_owned()]),
    };
    assert_eq!(both.fast_path(), Some(expected));
    let server_alone = parse(&format!(
        "[relay.xdp]\nmode = \"off\"\n{server}mode = \"native\"\npin = false"
    ));
    let expected = FastPathRequest {
        mode: AttachPolicy::Native,
        pin: false,
        relay: None,
        server: Some(&[]),
    };
    assert_eq!(server_alone.fast_path(), Some(expected));
    let none = parse(&format!(
        "[relay.xdp]\nmode = \"off\"\n{server}mode = \"off\""
    ));
    assert_eq!(none.fast_path(), None);
}

#[test]
fn s32_relay_and_server_have_different_ports_unless_told_otherwise() {
    let text = "[relay]\n[server]\nipv4 = [\"9.0.0.1\", \"9.0.0.2\"]";
    let config = parse(text).unwrap();
    let (relay, server) = (config.relay.unwrap(), config.server.unwrap());
    assert_ne!(relay.port, server.port);
}

#[test]
fn the_instance_names_its_socket() {
    let config = parse("[node]\nname = \"second\"\n[relay]").unwrap();
    assert_eq!(config.node.api, [default_api("second")]);
    let config = parse("[node]\nname = \"second\"\napi = []\n[relay]").unwrap();
    assert_eq!(config.node.api, []);
}

#[test]
fn the_table_of_keys_is_complete() {
    let mut there = BTreeSet::new();
    collect("", &everything().to_toml().parse().unwrap(), &mut there);
    let listed: BTreeSet<_> = keys::KEYS
        .iter()
        .map(|key| format!("{}.{}", key.section, key.name))
        .collect();
    assert_eq!(there, listed);
}

fn collect(section: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = format!("{section}{name}");
        match value {
            toml::Value::Table(table) => collect(&format!("{path}."), table, keys),
            toml::Value::Array(list) if keys::REPEATED.contains(&&*path) => {
                for table in list {
                    collect(&format!("{path}."), table.as_table().unwrap(), keys);
                }
            }
            _ => drop(keys.insert(path)),
        }
    }
}

#[test]
fn every_key_is_documented_with_its_default_and_no_other() {
    let defaults: toml::Table = everything().to_toml().parse().unwrap();
    for section in keys::SECTIONS {
        let heading = if keys::REPEATED.contains(section) {
            format!("## `[[{section}]]`\n")
        } else {
            format!("## `[{section}]`\n")
        };
        let (_, rest) = DOCUMENTATION.split_once(&heading).expect(section);
        let rest = rest.split("\n## ").next().unwrap();
        let rows: Vec<(&str, &str)> = rest
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .collect();
        let documented: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        let keys: Vec<_> = keys::KEYS
            .iter()
            .filter(|key| key.section == *section)
            .map(|key| key.name)
            .collect();
        assert_eq!(documented, keys, "{section}");
        let values = section
            .split('.')
            .fold(&defaults, |table, name| match &table[name] {
                toml::Value::Array(tables) => tables[0].as_table().unwrap(),
                value => value.as_table().unwrap(),
            });
        for (name, rest) in rows {
            if rest.starts_with("required |") {
                assert!(
                    keys::REQUIRED.contains(&(section, name)),
                    "{section}.{name}"
                );
                continue;
            }
            let default = rest.split('`').nth(1).unwrap().replace("NAME", "teredo");
            let default: toml::Value = default.parse().expect(name);
            assert_eq!(default, values[name], "{section}.{name}");
        }
    }
}

#[test]
fn messages_say_the_bounds_that_are_checked() {
    for (section, name, bounds) in [
        ("relay", "mtu", MTU),
        ("relay", "max-peers", MAX_PEERS),
        ("relay", "queue-per-peer", QUEUE_PER_PEER),
        ("relay", "queue-total-bytes", QUEUE_TOTAL_BYTES),
        ("server", "mtu", MTU),
        ("server", "icmpv6-payload", ICMPV6_PAYLOAD),
        ("server", "rate", RATE),
        ("server", "network-rate", RATE),
        ("server", "total-rate", RATE),
        ("server", "burst", BURST),
        ("server", "network-burst", BURST),
        ("client", "refresh", REFRESH),
        ("client", "max-peers", CLIENT_MAX_PEERS),
        ("client", "queue-per-peer", QUEUE_PER_PEER),
        ("client", "queue-total-bytes", QUEUE_TOTAL_BYTES),
    ] {
        let mut keys = keys::KEYS.iter();
        let key = keys.find(|key| (key.section, key.name) == (section, name));
        let key = key.unwrap();
        let text = format!("{} to {}", bounds.start(), bounds.end());
        assert!(key.permitted.ends_with(&text), "{name}: {text}");
        for (value, is_fit) in [
            (bounds.start() - 1, false),
            (*bounds.start(), true),
            (*bounds.end(), true),
            (bounds.end() + 1, false),
        ] {
            let start = match section {
                "server" => SERVER,
                "client" => CLIENT_ALONE,
                _ => "[relay]",
            };
            let result = parse(&format!("{start}\n{name} = {value}"));
            assert_eq!(result.is_ok(), is_fit, "{section}.{name} = {value}");
        }
    }
}

#[test]
fn messages_say_how_long_lists_may_be() {
    for (section, name, count) in [
        ("server", "allow", ALLOW_MAX),
        ("server", "extra-prefixes", EXTRA_PREFIXES_MAX),
        ("server.client", "retired-secret-files", RETIRED_SECRETS_MAX),
    ] {
        let mut keys = keys::KEYS.iter();
        let key = keys.find(|key| (key.section, key.name) == (section, name));
        let text = format!("a list of at most {count} ");
        assert!(key.unwrap().permitted.starts_with(&text), "{name}: {text}");
        let (start, element): (_, fn(usize) -> String) = match name {
            "allow" => (SERVER.to_owned(), |_| "0.0.0.0/0".to_owned()),
            "extra-prefixes" => (SERVER.to_owned(), |number| {
                format!("2001:{:x}::/32", number + 1)
            }),
            _ => (format!("{SERVER}\n{CLIENT}"), |number| format!("/{number}")),
        };
        for (length, is_fit) in [(count, true), (count + 1, false)] {
            let list: Vec<_> = (0..length)
                .map(|number| format!("{:?}", element(number)))
                .collect();
            let result = parse(&format!("{start}\n{name} = [{}]", list.join(", ")));
            assert_eq!(result.is_ok(), is_fit, "{name} of {length}");
        }
    }
}

/// The shortest server, of two lines.
const SERVER: &str = "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]";
/// The shortest client, of two lines.
const CLIENT_ALONE: &str = "[client]\nserver = \"teredo.example.net\"";
/// The shortest client of a server, of three lines.
const CLIENT: &str = "[[server.client]]\nid = \"alice\"\nsecret-file = \"/alice.key\"";

/// (what follows the shortest server, what the sentence says after the file's name)
const WRONG_SERVERS: &[(&str, &str)] = &[
    (
        "prot = 1",
        " line 3: unknown key \"prot\" in [server], did you mean \"port\"?",
    ),
    (
        "serve = []",
        " line 3: unknown key \"serve\" in [server], did you mean \"serve\" in [relay]?",
    ),
    (
        "mode = \"off\"",
        " line 3: unknown key \"mode\" in [server], did you mean \"mode\" in [server.xdp]?",
    ),
    (
        "id = \"x\"",
        " line 3: unknown key \"id\" in [server], did you mean \"id\" in [[server.client]]?",
    ),
    (
        "[[server.clients]]\nid = \"x\"",
        " line 3: unknown section [server.clients], did you mean [[server.client]]?",
    ),
    (
        "[server.client]\nid = \"x\"",
        " line 3: server.client = [server.client] is not valid: it must be a section with two brackets around its name",
    ),
    (
        "client = [5]",
        " line 3: server.client = [5] is not valid: it must be a section with two brackets",
    ),
    (
        "[[server.xdp]]\nmode = \"off\"",
        " line 3: server.xdp = [[server.xdp]] is not valid: it must be a section",
    ),
    (
        "port = 0",
        " line 3: server.port = 0 is not valid: it must be a UDP port, 1 to 65535",
    ),
    (
        "port = 70000",
        " line 3: server.port = 70000 is not valid: it must be a UDP port, 1 to 65535",
    ),
    (
        "extra-prefixes = [\"3ffe:831f::/64\"]",
        " line 3: server.extra-prefixes = [\"3ffe:831f::/64\"] is not valid: it must be a list of at most 7",
    ),
    (
        "extra-prefixes = [\"2001::/32\"]",
        " line 3: server.extra-prefixes = [\"2001::/32\"] is not valid, 2001::/32 is node.prefix, which is served anyway: it must be",
    ),
    (
        "extra-prefixes = [\"3ffe:831f::/32\", \"3ffe:831f::/32\"]",
        " line 3: server.extra-prefixes = [\"3ffe:831f::/32\", \"3ffe:831f::/32\"] is not valid: it must be",
    ),
    (
        "mtu = 1279",
        " line 3: server.mtu = 1279 is not valid: it must be 0, or a number of octets, 1280 to 65507",
    ),
    (
        "require-auth = \"yes\"",
        " line 3: server.require-auth = \"yes\" is not valid: it must be true or false",
    ),
    (
        "require-auth = true",
        " line 3: server.require-auth = true is not valid, no client would be served without a section [[server.client]]: it must be",
    ),
    (
        "ipv4-scope = \"all\"",
        " line 3: server.ipv4-scope = \"all\" is not valid: it must be \"strict\", \"rfc4380\" or",
    ),
    (
        "allow = [\"198.51.100.1/24\"]",
        " line 3: server.allow = [\"198.51.100.1/24\"] is not valid: it must be a list of at most 1024",
    ),
    (
        "allow = \"0.0.0.0/0\"",
        " line 3: server.allow = \"0.0.0.0/0\" is not valid: it must be a list of at most 1024",
    ),
    (
        "rate = 0",
        " line 3: server.rate = 0 is not valid: it must be a number per second, 1 to 100000000",
    ),
    (
        "sunset = \"2030-02-30\"",
        " line 3: server.sunset = \"2030-02-30\" is not valid: it must be a date such as \"2030-12-31\", or \"\"",
    ),
    (
        "sunset = 2030-02-28",
        " line 3: server.sunset = 2030-02-28 is not valid: it must be a date such as \"2030-12-31\", or \"\"",
    ),
    (
        "[server.xdp]\nouter-checksum = \"zero\"",
        " line 4: unknown key \"outer-checksum\" in [server.xdp], did you mean \"outer-checksum\" in [relay.xdp]?",
    ),
    (
        "[relay]\nsunset = \"soon\"",
        " line 4: relay.sunset = \"soon\" is not valid: it must be a date such as",
    ),
    // Clients, each with its own line.
    (
        "[[server.client]]\nsecret-file = \"/key\"",
        " line 3: [[server.client]] needs the key id: it must be 1 to 255 octets as text, or",
    ),
    (
        "[[server.client]]\nid = \"x\"",
        " line 3: [[server.client]] needs the key secret-file: it must be an absolute path",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\n[[server.client]]\nid = \"y\"",
        " line 6: [[server.client]] needs the key secret-file",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\n[[server.client]]\nid = \"y\"\nsecret = \"/y\"",
        " line 8: unknown key \"secret\" in [[server.client]], did you mean \"secret-file\"?",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\n[[server.client]]\nid = \"y\"\nsecret-file = \"/y\"\nalgorithm = \"hmac-sha256\"",
        " line 9: server.client.algorithm = \"hmac-sha256\" is not valid: it must be \"hmac-md5\" or \"hmac-sha1\"",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\n[[server.client]]\nid = \"hex:78\"\nsecret-file = \"/y\"",
        " line 7: server.client.id = \"hex:78\" is not valid, another client has it, too: it must be",
    ),
    (
        "[[server.client]]\nid = \"\"\nsecret-file = \"/x\"",
        " line 4: server.client.id = \"\" is not valid: it must be 1 to 255 octets as text, or",
    ),
    (
        "[[server.client]]\nid = \"hex:7\"\nsecret-file = \"/x\"",
        " line 4: server.client.id = \"hex:7\" is not valid: it must be 1 to 255 octets as text, or",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"x.key\"",
        " line 5: server.client.secret-file = \"x.key\" is not valid: it must be an absolute path",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nretired-secret-files = [\"old\"]",
        " line 6: server.client.retired-secret-files = [\"old\"] is not valid: it must be a list of at most 8 absolute paths",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"2001:db8::/48\"",
        " line 6: server.client.prefix = \"2001:db8::/48\" is not valid: it must be a global unicast IPv6 prefix of 64 bits",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"2001:db8::1/64\"",
        " line 6: server.client.prefix = \"2001:db8::1/64\" is not valid: it must be a global",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"2001:0:1:2::/64\"",
        " line 6: server.client.prefix = \"2001:0:1:2::/64\" is not valid, it is part of a Teredo service prefix: it must be",
    ),
    (
        "extra-prefixes = [\"3ffe:831f::/32\"]\n[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"3ffe:831f:1:2::/64\"",
        " line 7: server.client.prefix = \"3ffe:831f:1:2::/64\" is not valid, it is part of a Teredo service prefix",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"fd00::/64\"",
        " line 6: server.client.prefix = \"fd00::/64\" is not valid, it is not global unicast: it must be",
    ),
    (
        "[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"2001:db8::/64\"\n[[server.client]]\nid = \"y\"\nsecret-file = \"/y\"\nprefix = \"2001:db8:0::/64\"",
        " line 10: server.client.prefix = \"2001:db8:0::/64\" is not valid, the client x has it, too: it must be",
    ),
    // Both roles.
    (
        "[relay]\nipv4 = \"198.51.100.2\"\nport = 3544",
        " line 4: relay.ipv4 = \"198.51.100.2\" is the server's secondary address on the same port: a relay may share only the port of the primary address; set another relay.port",
    ),
    (
        "[relay]\ntun = \"teredo-server\"\n[[server.client]]\nid = \"x\"\nsecret-file = \"/x\"\nprefix = \"2001:db8::/64\"",
        " line 4: relay.tun and server.tun are both \"teredo-server\": each needs an interface of its own",
    ),
    (
        "[relay.xdp]\nmode = \"native\"",
        " line 4: relay.xdp.mode is \"native\" and server.xdp.mode is \"auto\", but one program serves both roles: set both to the same, or one to \"off\"",
    ),
    (
        "[server.xdp]\nmode = \"native\"\n[relay]",
        " line 4: relay.xdp.mode is \"auto\" and server.xdp.mode is \"native\", but one program",
    ),
    (
        "[relay.xdp]\npin = false",
        " line 4: relay.xdp.pin is false and server.xdp.pin is true, but one program serves both roles: set both to the same",
    ),
];

#[test]
fn wrong_servers_get_one_sentence() {
    for (text, expected) in WRONG_SERVERS {
        check_sentence(&format!("{SERVER}\n{text}"), expected);
    }
    for addresses in [
        "\"198.51.100.1\"",
        "[]",
        "[\"198.51.100.1\"]",
        "[\"198.51.100.1\", \"198.51.100.1\"]",
        "[\"198.51.100.1\", \"224.0.0.1\"]",
        "[\"198.51.100.1\", \"198.51.100.2\", \"198.51.100.3\"]",
        "[\"198.51.100.1\", \"auto\"]",
    ] {
        let expected = format!(
            " line 2: server.ipv4 = {addresses} is not valid: it must be a list of two different"
        );
        check_sentence(&format!("[server]\nipv4 = {addresses}"), &expected);
    }
}

mod client;

#[test]
fn a_server_may_share_its_primary_port_with_the_relay() {
    let text = format!("{SERVER}\n[relay]\nipv4 = \"198.51.100.1\"\nport = 3544");
    assert!(parse(&text).is_ok());
}

#[test]
fn a_clients_name_is_any_octets() {
    for (text, octets, shown) in [
        ("alice", &b"alice"[..], "alice"),
        ("hex:616c", b"al", "al"),
        ("hex:00FF", &[0, 255], "hex:00ff"),
        ("hex:6865783a", b"hex:", "hex:6865783a"),
        ("hex:0a", b"\n", "hex:0a"),
        ("é", "é".as_bytes(), "é"),
    ] {
        let id: ClientId = text.parse().unwrap();
        assert_eq!(id.octets(), octets, "{text}");
        assert_eq!(id.to_string(), shown);
        assert_eq!(shown.parse(), Ok(id));
    }
    for text in ["", "hex:", "hex:0", "hex:0g", "hex:+1", &"x".repeat(256)] {
        assert!(text.parse::<ClientId>().is_err(), "{text}");
    }
    assert!("x".repeat(255).parse::<ClientId>().is_ok());
}

/// (file, what the sentence says after the file's name)
const WRONG: &[(&str, &str)] = &[
    // Unknown keys and sections.
    (
        "[relay]\nprot = 3545",
        " line 2: unknown key \"prot\" in [relay], did you mean \"port\"?",
    ),
    (
        "[relay]\nmax_peers = 5",
        " line 2: unknown key \"max_peers\" in [relay], did you mean \"max-peers\"?",
    ),
    (
        "[relay]\n\nmode = \"auto\"",
        " line 3: unknown key \"mode\" in [relay], did you mean \"mode\" in [relay.xdp]?",
    ),
    (
        "port = 1\n[relay]",
        " line 1: unknown key \"port\" outside of any section, did you mean \"port\" in [relay]?",
    ),
    (
        "[relay]\n[relay.xpd]\nmode = \"off\"",
        " line 2: unknown section [relay.xpd], did you mean [relay.xdp]?",
    ),
    (
        "[relya]",
        " line 1: unknown section [relya], did you mean [relay]?",
    ),
    // Roles.
    (
        "",
        ": no section [relay], [server] or [client], so there is nothing to run; the line \"[relay]\" \
         alone makes a relay with default settings",
    ),
    (
        "[node]\nname = \"x\"",
        ": no section [relay], [server] or [client], so there is nothing to run; the line \"[relay]\" \
         alone makes a relay with default settings",
    ),
    (
        "[relay]\n[server]\nport = 3544",
        " line 2: [server] needs the key ipv4: it must be a list of two different unicast IPv4 \
         addresses of this host",
    ),
    (
        "[relay]\n[client]",
        " line 2: [client] needs the key server: it must be a server's name or unicast IPv4 address",
    ),
    (
        "[[relay]]\nport = 1",
        " line 1: relay = [[relay]] is not valid: it must be a section",
    ),
    // Wrong types.
    (
        "relay = 5",
        " line 1: relay = 5 is not valid: it must be a section",
    ),
    (
        "[relay]\nport = \"3545\"",
        " line 2: relay.port = \"3545\" is not valid: it must be a UDP port, 1 to 65535",
    ),
    (
        "[relay]\nroute = 1",
        " line 2: relay.route = 1 is not valid: it must be true or false",
    ),
    (
        "[relay]\nserve = \"::/0\"",
        " line 2: relay.serve = \"::/0\" is not valid: it must be a list of 1 to 1024 IPv6 \
         networks",
    ),
    (
        "[relay]\nport = {}",
        " line 2: relay.port = {} is not valid: it must be a UDP port, 1 to 65535",
    ),
    // Wrong values.
    (
        "[relay]\nport = 70000",
        " line 2: relay.port = 70000 is not valid: it must be a UDP port, 1 to 65535",
    ),
    (
        "[relay]\nport = 0",
        " line 2: relay.port = 0 is not valid: it must be a UDP port, 1 to 65535",
    ),
    (
        "[relay]\nmtu = -1",
        " line 2: relay.mtu = -1 is not valid: it must be a number of octets, 1280 to 65507",
    ),
    (
        "[relay]\nipv4 = \"198.51.100.256\"",
        " line 2: relay.ipv4 = \"198.51.100.256\" is not valid: it must be \"auto\" or a unicast",
    ),
    (
        "[relay]\nipv4 = \"224.0.0.253\"",
        " line 2: relay.ipv4 = \"224.0.0.253\" is not valid: it must be \"auto\" or a unicast",
    ),
    (
        "[relay]\ntun = \"a-name-much-too-long\"",
        " line 2: relay.tun = \"a-name-much-too-long\" is not valid: it must be an interface name",
    ),
    (
        "[relay]\nipv4-scope = \"loose\"",
        " line 2: relay.ipv4-scope = \"loose\" is not valid: it must be \"strict\", \"rfc4380\" or \
         \"lab\"",
    ),
    (
        "[relay]\nserve = []",
        " line 2: relay.serve = [] is not valid: it must be a list of 1 to 1024",
    ),
    (
        "[relay]\nserve = [\"2001:db8::1/32\"]",
        " line 2: relay.serve = [\"2001:db8::1/32\"] is not valid: it must be a list of 1 to 1024",
    ),
    (
        "[relay]\nserve = [\n  \"2001:db8::/32\",\n  \"fe80::/10\",\n]",
        " line 2: relay.serve = [ \"2001:db8::/32\", \"fe80::/10\", ] is not valid, fe80::/10 \
         contains no address that a relay may relay to: it must be",
    ),
    (
        "[relay]\nserve = [\"ff0e::/16\"]",
        " line 2: relay.serve = [\"ff0e::/16\"] is not valid, ff0e::/16 contains no address",
    ),
    (
        "[relay]\nserve = [\"2001:0:1::/48\"]",
        " line 2: relay.serve = [\"2001:0:1::/48\"] is not valid, 2001:0:1::/48 contains no address",
    ),
    (
        "[relay.xdp]\nmode = \"fast\"",
        " line 2: relay.xdp.mode = \"fast\" is not valid: it must be \"auto\", \"native\", \
         \"generic\" or \"off\"",
    ),
    (
        "[relay.xdp]\ninterfaces = [\"eth0\", \"eth0\"]",
        " line 2: relay.xdp.interfaces = [\"eth0\", \"eth0\"] is not valid: it must be a list of at \
         most 64 different interface names",
    ),
    (
        "[relay]\n[node]\nprefix = \"2001::/48\"",
        " line 3: node.prefix = \"2001::/48\" is not valid: it must be an IPv6 prefix of 32 bits",
    ),
    (
        "[relay]\n[node]\nprefix = \"fe80::/32\"",
        " line 3: node.prefix = \"fe80::/32\" is not valid: it must be an IPv6 prefix of 32 bits",
    ),
    (
        "[relay]\n[node]\napi = \"/run/teredo.sock\"",
        " line 3: node.api = \"/run/teredo.sock\" is not valid: it must be \"unix:\" and",
    ),
    (
        "[relay]\n[node]\napi = [\"tcp:localhost:1\"]",
        " line 3: node.api = [\"tcp:localhost:1\"] is not valid: it must be \"unix:\" and",
    ),
    (
        "[relay]\n[node]\nlog = \"teredo=loud\"",
        " line 3: node.log = \"teredo=loud\" is not valid, unknown level \"loud\" (did you mean \
         \"info\"?): it must be a filter such as",
    ),
    (
        "[relay]\n[node]\nlog = \"warning\"",
        " line 3: node.log = \"warning\" is not valid, unknown level \"warning\" (did you mean \
         \"warn\"?): it must be a filter such as",
    ),
    (
        "[relay]\n[node]\nlog = \"off\"",
        " line 3: node.log = \"off\" is not valid, it silences teredo, errors included (did you mean \
         \"error\"?): it must be a filter such as",
    ),
    (
        "[relay]\n[node]\nlog = \"teredo::nodes=debug\"",
        " line 3: node.log = \"teredo::nodes=debug\" is not valid, no part of teredo logs as \
         \"teredo::nodes\" (did you mean \"teredo::node\"?): it must be a filter such as",
    ),
    (
        "[relay]\n[node]\nlog-format = \"xml\"",
        " line 3: node.log-format = \"xml\" is not valid: it must be \"text\" or \"json\"",
    ),
    (
        "[relay]\n[node]\nname = \"a/b\"",
        " line 3: node.name = \"a/b\" is not valid: it must be 1 to 64 letters",
    ),
    // Not TOML.
    ("[relay]\nport = ", " line 2: not valid TOML: "),
    (
        "[relay]\nport = 1\nport = 2",
        " line 3: not valid TOML: duplicate key",
    ),
];

#[test]
fn wrong_files_get_one_sentence() {
    for (text, expected) in WRONG {
        check_sentence(text, expected);
    }
}

fn check_sentence(text: &str, expected: &str) {
    let sentence = parse(text).expect_err(text).to_string();
    let expected = format!("teredo.toml{expected}");
    assert!(
        sentence.starts_with(&expected),
        "{text}\n  says      {sentence}\n  should say {expected}"
    );
    assert!(!sentence.contains('\n'), "{sentence}");
}

#[test]
fn long_values_are_cut_in_messages() {
    let sentence = parse(&format!("[relay]\nport = \"{}\"", "9".repeat(1000))).unwrap_err();
    assert!(sentence.to_string().len() < 200, "{sentence}");
}

#[test]
fn a_file_that_is_not_there_says_what_to_do() {
    let sentence = Config::load(Path::new("/nonexistent/teredo.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        sentence.contains("/nonexistent/teredo.toml") && sentence.contains("--config"),
        "{sentence}"
    );
}

fn addresses() -> impl Strategy<Value = ApiAddress> {
    prop_oneof![
        "/[a-z/]{1,100}".prop_map(|path| ApiAddress::Unix(path.into())),
        (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|address| ApiAddress::Tcp(address.into())),
        (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(|address| ApiAddress::Tcp(address.into())),
    ]
}

fn nodes() -> impl Strategy<Value = NodeSection> {
    (
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}",
        prop_oneof![
            Just(ServicePrefix::STANDARD),
            Just(ServicePrefix::DRAFT),
            any::<[u8; 3]>().prop_map(|[b, c, d]| ServicePrefix([0x20, b, c, d])),
        ],
        "(error|warn|info|debug|trace)(,(hyper|teredo(::node)?)=(warn|debug))?",
        prop_oneof![Just(LogFormat::Text), Just(LogFormat::Json)],
        prop::collection::vec(addresses(), 0..4),
        "[a-z]{0,20}",
        prop_oneof![
            Just(Segmentation::Auto),
            Just(Segmentation::On),
            Just(Segmentation::Off)
        ],
    )
        .prop_map(
            |(name, prefix, log, log_format, api, user, udp_segmentation)| NodeSection {
                name,
                prefix,
                log,
                log_format,
                api,
                user,
                udp_segmentation,
            },
        )
}

fn relays() -> impl Strategy<Value = RelaySection> {
    let ipv4 = prop_oneof![
        Just(Ipv4Choice::Auto),
        (1..=126_u8, any::<[u8; 3]>())
            .prop_map(|(a, [b, c, d])| Ipv4Choice::Address([a, b, c, d].into())),
    ];
    let served = (any::<[u8; 15]>(), 4..=128_u8).prop_map(|(tail, length)| {
        // 2100::/8 to 3e00::/8: global, and never the prefixes above.
        let mut octets = [0x24; 16];
        octets[1..].copy_from_slice(&tail);
        Ipv6Net::new_assert(octets.into(), length).trunc()
    });
    let usize_of = |number: u64| usize::try_from(number).unwrap();
    let bounds = (
        MAX_PEERS.prop_map(usize_of),
        QUEUE_PER_PEER.prop_map(usize_of),
        QUEUE_TOTAL_BYTES.prop_map(usize_of),
    );
    (
        (ipv4, 1..=u16::MAX, "[a-zA-Z0-9_-]{1,15}", 1280..=65_507_u16),
        prop::collection::vec(served, 1..5),
        any::<(bool, bool)>(),
        scopes(),
        bounds,
        (xdps(), dates()),
    )
        .prop_map(
            |(
                (ipv4, port, tun, mtu),
                serve,
                (host_specific, route),
                ipv4_scope,
                bounds,
                (xdp, sunset),
            )| {
                RelaySection {
                    ipv4,
                    port,
                    tun,
                    mtu,
                    serve,
                    host_specific,
                    ipv4_scope,
                    max_peers: bounds.0,
                    queue_per_peer: bounds.1,
                    queue_total_bytes: bounds.2,
                    route,
                    sunset,
                    xdp,
                }
            },
        )
}

fn scopes() -> impl Strategy<Value = Ipv4Scope> {
    prop_oneof![
        Just(Ipv4Scope::Strict),
        Just(Ipv4Scope::Rfc4380),
        Just(Ipv4Scope::Lab)
    ]
}

fn dates() -> impl Strategy<Value = Option<crate::sunset::Date>> {
    let date = (1970..=9999, 1..=12, 1..=28)
        .prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}").parse().unwrap());
    prop::option::of(date)
}

/// Servers that go together with every relay of [`relays`] but for the fast path, which is that of
/// the relay.
fn servers() -> impl Strategy<Value = ServerSection> {
    let addresses = (1..=125_u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| {
        let primary = Ipv4Addr::new(a, b, c, d);
        [primary, Ipv4Addr::from(primary.to_bits() + 0x0100_0000)]
    });
    let prefixes =
        prop::collection::btree_set(any::<[u8; 3]>(), 0..=EXTRA_PREFIXES_MAX).prop_map(|set| {
            set.into_iter()
                .map(|[b, c, d]| ServicePrefix([0x28, b, c, d]))
                .collect()
        });
    let mtu = prop_oneof![Just(0), 1280..=65_507_u16];
    let network = (any::<[u8; 4]>(), 0..=32_u8)
        .prop_map(|(address, length)| Ipv4Net::new_assert(address.into(), length).trunc());
    let rate = || RATE.prop_map(|rate| rate as u32);
    let burst = || BURST.prop_map(|burst| burst as u32);
    (
        (addresses, 1..=u16::MAX, prefixes, mtu),
        any::<[bool; 4]>(),
        (scopes(), prop::collection::vec(network, 0..4)),
        (ICMPV6_PAYLOAD, rate(), burst(), rate(), burst(), rate()),
        (
            dates(),
            clients(),
            prop::collection::btree_set("[a-z]{1,8}", 0..4),
        ),
    )
        .prop_map(
            |(addresses, switches, sources, limits, (sunset, clients, interfaces))| {
                let (ipv4, port, extra_prefixes, mtu) = addresses;
                let [
                    require_auth,
                    forward_echo,
                    forward_echo_replies,
                    forward_foreign,
                ] = switches;
                let (icmpv6_payload, rate, burst, network_rate, network_burst, total_rate) = limits;
                ServerSection {
                    ipv4,
                    port,
                    extra_prefixes,
                    mtu,
                    require_auth: require_auth && !clients.is_empty(),
                    ipv4_scope: sources.0,
                    allow: sources.1,
                    forward_echo,
                    forward_echo_replies,
                    forward_foreign,
                    icmpv6_payload: icmpv6_payload as u16,
                    rate,
                    burst,
                    network_rate,
                    network_burst,
                    total_rate,
                    sunset,
                    tun: "of-the-server".to_owned(),
                    xdp: ServerXdpSection {
                        interfaces: interfaces.into_iter().collect(),
                        ..ServerXdpSection::default()
                    },
                    clients,
                }
            },
        )
}

fn clients() -> impl Strategy<Value = Vec<ServerClientSection>> {
    let id = prop::collection::vec(any::<u8>(), 1..=255);
    let algorithm = prop_oneof![Just(Algorithm::HmacMd5), Just(Algorithm::HmacSha1)];
    let path = || "/[a-zé \"'#/]{1,20}".prop_map(PathBuf::from);
    let retired = prop::collection::vec(path(), 0..=RETIRED_SECRETS_MAX);
    let client = (algorithm, path(), retired, any::<bool>());
    prop::collection::btree_map(id, client, 0..4).prop_map(|clients| {
        let numbered = clients.into_iter().enumerate();
        numbered
            .map(
                |(number, (id, (algorithm, secret_file, retired_secret_files, has_prefix)))| {
                    let digits: String = id.iter().map(|octet| format!("{octet:02x}")).collect();
                    let prefix = Ipv6Net::new_assert(
                        ((0x2c00 << 112) + ((number as u128) << 64)).into(),
                        64,
                    );
                    ServerClientSection {
                        id: format!("hex:{digits}").parse().unwrap(),
                        algorithm,
                        secret_file,
                        retired_secret_files,
                        prefix: has_prefix.then_some(prefix),
                    }
                },
            )
            .collect()
    })
}

fn xdps() -> impl Strategy<Value = RelayXdpSection> {
    let mode = prop_oneof![
        Just(AttachPolicy::Auto),
        Just(AttachPolicy::Native),
        Just(AttachPolicy::Generic),
        Just(AttachPolicy::Off)
    ];
    let outer_checksum = prop_oneof![Just(OuterChecksum::Auto), Just(OuterChecksum::Zero)];
    let interfaces = prop::collection::btree_set("[a-z]{1,8}[0-9]{0,4}", 0..4);
    (mode, interfaces, outer_checksum, any::<bool>()).prop_map(
        |(mode, interfaces, outer_checksum, pin)| RelayXdpSection {
            mode,
            interfaces: interfaces.into_iter().collect(),
            outer_checksum,
            pin,
        },
    )
}

proptest! {
    #[test]
    fn every_configuration_survives_a_round_trip(
        node in nodes(),
        relay in prop::option::of(relays()),
        mut server in servers(),
        serves: bool,
    ) {
        if let Some(relay) = &relay {
            server.xdp.mode = relay.xdp.mode;
            server.xdp.pin = relay.xdp.pin;
        }
        let server = (serves || relay.is_none()).then_some(server);
        let config = Config { node, relay, server, client: None };
        let text = config.to_toml();
        match parse(&text) {
            Ok(read) => prop_assert_eq!(read, config),
            Err(error) => prop_assert!(false, "{}\n{}", error, text),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = parse(&text);
        let _ = parse(&format!("[relay]\nport = {text}"));
        let _ = parse(&format!("[client]\nserver = {text:?}"));
    }
}
