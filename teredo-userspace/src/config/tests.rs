use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use teredo_proto::wire::authentication::Algorithm;

use teredo_common::scope::Ipv4Scope;

use super::*;
use crate::datapath::xdp::AttachPolicy;

mod client;
mod documentation;
mod round_trip;
mod wrong;

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
fn messages_say_the_bounds_that_are_checked() {
    for (section, name, bounds) in [
        ("node.ipfix", "interval", INTERVAL),
        ("relay", "mtu", MTU),
        ("relay", "max-peers", MAX_PEERS),
        ("relay", "queue-per-peer", QUEUE_PER_PEER),
        ("relay", "queue-total-bytes", QUEUE_TOTAL_BYTES),
        ("relay", "bubble-rate", RATE),
        ("relay", "bubble-total-rate", RATE),
        ("relay", "new-peer-rate", RATE),
        ("relay", "new-peer-total-rate", RATE),
        ("relay", "unproved-rate", RATE),
        ("relay", "unreachable-rate", RATE),
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
                "node.ipfix" => "[relay]\n[node.ipfix]",
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

fn check_sentence(text: &str, expected: &str) {
    let sentence = parse(text).expect_err(text).to_string();
    let expected = format!("teredo.toml{expected}");
    assert!(
        sentence.starts_with(&expected),
        "{text}\n  says      {sentence}\n  should say {expected}"
    );
    assert!(!sentence.contains('\n'), "{sentence}");
}
