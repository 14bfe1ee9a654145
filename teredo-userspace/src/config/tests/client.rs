//! `[client]`.

use proptest::prelude::*;

use super::*;

#[test]
fn c01_one_server_or_several() {
    let servers = |written: &str| {
        let config = parse(&format!("[client]\nserver = {written}")).unwrap();
        let servers = config.client.unwrap().servers;
        let shown: Vec<_> = servers.iter().map(ToString::to_string).collect();
        shown.join(" ")
    };
    assert_eq!(servers("\"a.example\""), "a.example");
    assert_eq!(servers("[\"a.example:3544\"]"), "a.example");
    assert_eq!(
        servers("[\"a.example:1\", \"9.0.0.1\"]"),
        "a.example:1 9.0.0.1"
    );
    let list = |count: usize| {
        let names: Vec<_> = (0..count)
            .map(|one| format!("\"s{one}.example\""))
            .collect();
        parse(&format!("[client]\nserver = [{}]", names.join(", ")))
    };
    assert!(list(SERVERS_MAX).is_ok() && list(SERVERS_MAX + 1).is_err());
    for (wrong, reason) in [
        ("[]", ""),
        ("\"\"", ", it is empty"),
        ("5", ""),
        (
            "\"9.0.0\"",
            ", \"9.0.0\" is no IPv4 address, which is four numbers from 0 to 255 with dots between \
             them",
        ),
        (
            "\"224.0.0.1\"",
            ", 224.0.0.1 is a multicast address, which no server has",
        ),
        (
            "\"2001:db8::1\"",
            ", 2001:db8::1 is an IPv6 address, but Teredo servers have IPv4 addresses",
        ),
        (
            "[\"a.example\", \"[2001:db8::1]:3544\"]",
            ", 2001:db8::1 is an IPv6 address, but Teredo servers have IPv4 addresses",
        ),
        (
            "\"a.example:0\"",
            ", \"0\" is no UDP port, which is a number from 1 to 65535",
        ),
        (
            "\"https://a.example/\"",
            ", it looks like a URL or a path: name the host alone, such as \"a.example\"",
        ),
        ("[\"a.example\", \"a.example\"]", ""),
        ("[\"a.example\", 5]", ""),
    ] {
        let expected = format!(
            " line 2: client.server = {wrong} is not valid{reason}: it must be a server's name or \
             unicast IPv4 address"
        );
        check_sentence(&format!("[client]\nserver = {wrong}"), &expected);
    }
}

#[test]
fn c53_the_interval_is_measured_or_given() {
    let refresh = |written: &str| {
        let config = parse(&format!("{CLIENT_ALONE}\nrefresh = {written}"));
        config.map(|config| config.client.unwrap().refresh)
    };
    assert_eq!(refresh("\"auto\"").unwrap(), RefreshInterval::Auto);
    assert_eq!(refresh("5").unwrap(), RefreshInterval::Seconds(5));
    for wrong in ["4", "901", "-1", "\"30\"", "30.5", "true"] {
        let expected = format!(
            " line 3: client.refresh = {wrong} is not valid: it must be \"auto\" or a number of \
             seconds, 5 to 900"
        );
        check_sentence(&format!("{CLIENT_ALONE}\nrefresh = {wrong}"), &expected);
    }
}

/// (what follows the shortest client, what the sentence says after the file's name)
const WRONG_CLIENTS: &[(&str, &str)] = &[
    (
        "servers = \"x\"",
        " line 3: unknown key \"servers\" in [client], did you mean \"server\"?",
    ),
    (
        "mtu = 1280",
        " line 3: unknown key \"mtu\" in [client], did you mean \"mtu\" in [relay]?",
    ),
    (
        "port = 65536",
        " line 3: client.port = 65536 is not valid: it must be a UDP port, or 0 for any",
    ),
    (
        "secondary = \"a.example\"",
        " line 3: client.secondary = \"a.example\" is not valid: it must be \"auto\" or a unicast",
    ),
    (
        "secondary = \"192.168.1.2\"",
        " line 3: client.secondary = \"192.168.1.2\" is not valid, it is not acceptable under \
         client.ipv4-scope: it must be",
    ),
    (
        "secret-file = \"key\"",
        " line 3: client.secret-file = \"key\" is not valid: it must be an absolute path",
    ),
    (
        "id = \"alice\"",
        " line 3: client.id is set, but without client.secret-file there is no key",
    ),
    (
        "secret-file = \"/alice.key\"",
        " line 3: client.secret-file is set, but without client.id the server does not know",
    ),
    (
        "allow-tunnel = true",
        " line 3: client.allow-tunnel is true, but a tunnel is only for clients with a key",
    ),
    (
        "[relay]",
        " line 2: [client] and [relay] are in one file, but a relay needs the native IPv6 that a \
         client does without: remove one of them",
    ),
    (
        "[server]\nipv4 = [\"9.0.0.1\", \"9.0.0.2\"]",
        " line 2: [client] and [server] are in one file, but a server needs",
    ),
];

#[test]
fn wrong_clients_get_one_sentence() {
    for (text, expected) in WRONG_CLIENTS {
        check_sentence(&format!("{CLIENT_ALONE}\n{text}"), expected);
    }
    for (server, secondary, expected) in [
        (
            "\"192.168.1.1\"",
            "auto",
            " line 2: client.server = \"192.168.1.1\" is not valid, 192.168.1.1 is not acceptable \
             under client.ipv4-scope: it must be",
        ),
        (
            "\"9.0.0.1\"",
            "9.0.0.1",
            " line 3: client.secondary = \"9.0.0.1\" is not valid, it is the primary address, too: \
             it must be",
        ),
        (
            "[\"9.0.0.1\", \"9.0.0.3\"]",
            "9.0.0.2",
            " line 3: client.secondary = \"9.0.0.2\" is not valid, client.server has several \
             servers, and each has its own: it must be",
        ),
    ] {
        let text = format!("[client]\nserver = {server}\nsecondary = \"{secondary}\"");
        check_sentence(&text, expected);
    }
}

#[test]
fn a_closed_network_may_have_private_servers() {
    let text = "[client]\nserver = \"192.168.1.1\"\nipv4-scope = \"lab\"";
    assert!(parse(text).is_ok());
}

proptest! {
    #[test]
    fn every_client_survives_a_round_trip(
        names in prop::collection::btree_set("[a-z]{1,9}\\.example(:[1-9][0-9]{0,3})?", 1..4),
        seconds in prop::option::of(5_u16..=900),
        port: u16,
        switches: [bool; 4],
        has_key: bool,
    ) {
        let [symmetric, only_without_ipv6, port_mapping, allow_tunnel] = switches;
        let client = ClientSection {
            servers: names.iter().map(|name| name.parse().unwrap()).collect(),
            port,
            refresh: seconds.map_or(RefreshInterval::Auto, RefreshInterval::Seconds),
            symmetric,
            only_without_ipv6,
            port_mapping,
            allow_tunnel: allow_tunnel && has_key,
            id: has_key.then(|| "hex:00".parse().unwrap()),
            secret_file: has_key.then(|| "/alice.key".into()),
            ..ClientSection::default()
        };
        let config = Config { client: Some(client), ..Config::default() };
        let text = config.to_toml();
        match parse(&text) {
            Ok(read) => prop_assert_eq!(read, config),
            Err(error) => prop_assert!(false, "{}\n{}", error, text),
        }
    }
}
