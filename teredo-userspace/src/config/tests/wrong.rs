//! Wrong files, each with the sentence that it gets.

use super::*;

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
        "[relay]\n[node]\napi = [\"tcp:127.0.0.1:1\", \"tcp:192.0.2.1:9580\"]",
        " line 3: node.api = \"tcp:192.0.2.1:9580\" answers other hosts, which must present a token: \
         set node.api-token-file, or use an address of loopback",
    ),
    (
        "[relay]\n[node]\napi-token-file = \"token\"",
        " line 3: node.api-token-file = \"token\" is not valid: it must be an absolute path",
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
    (
        "[node.ipfix]\ncollector = \"192.0.2.9:4739\"\n[relay]\naccounting = false",
        " line 4: relay.accounting = false leaves nothing to report to node.ipfix.collector = \"192.0.2.9:4739\": \
         remove one of them",
    ),
    (
        "[relay.fleet]\nmembers = [\"10.0.0.1\"]",
        " line 2: relay.fleet.members = [\"10.0.0.1\"] is not valid, \"10.0.0.1\" is neither an address nor a host name",
    ),
    (
        "[relay.fleet]\nmembers = \"relays.example.net\"",
        " line 2: relay.fleet.members = \"relays.example.net\" is not valid, \"relays.example.net\" has no UDP port",
    ),
    (
        "[relay.fleet]\nmembers = \"relays.example.net:1\"",
        " line 2: [relay.fleet] has no listen: ",
    ),
    (
        "[relay.fleet]\nlisten = \"10.0.0.1:1\"\nmembers = \"10.0.0.1:1\"",
        " line 3: [relay.fleet] has no members beside this relay: ",
    ),
    (
        "[relay.fleet]\nlisten = \"10.0.0.1:1\"\nmembers = \"10.0.0.2:1\"",
        " line 2: [relay.fleet] has no key-file: ",
    ),
    (
        "[relay.fleet]\nlisten = \"10.0.0.1:1\"\nmembers = \"10.0.0.2:1\"\nkey-file = \"/key\"",
        " line 2: [relay.fleet] needs relay.ipv4: ",
    ),
    (
        "[relay]\nipv4 = \"198.51.100.1\"\nroute = false\n[relay.fleet]\nlisten = \"10.0.0.1:1\"\nmembers = \
         \"10.0.0.2:1\"\nkey-file = \"/key\"",
        " line 5: [relay.fleet] contradicts relay.route = false: ",
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
