use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The operator's guide.
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, Path::new("teredo.toml"))
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let (_, rest) = DOCUMENTATION.split_once("```toml\n").unwrap();
    let (defaults, _) = rest.split_once("```").unwrap();
    assert_eq!(parse(defaults).unwrap(), Config::default());
    let (mut there, mut all) = (BTreeSet::new(), BTreeSet::new());
    collect("", &defaults.parse().unwrap(), &mut there);
    collect("", &Config::default().to_toml().parse().unwrap(), &mut all);
    assert_eq!(there, all);
    assert_eq!(parse("[relay]").unwrap(), Config::default());
    assert_eq!(parse("[relay.xdp]").unwrap(), Config::default());
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
    collect(
        "",
        &Config::default().to_toml().parse().unwrap(),
        &mut there,
    );
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
            _ => drop(keys.insert(path)),
        }
    }
}

#[test]
fn every_key_is_documented_with_its_default_and_no_other() {
    let defaults: toml::Table = Config::default().to_toml().parse().unwrap();
    for section in keys::SECTIONS {
        let heading = format!("## `[{section}]`\n");
        let (_, rest) = DOCUMENTATION.split_once(&heading).expect(section);
        let rest = rest.split("\n## ").next().unwrap();
        let rows: Vec<(&str, &str)> = rest
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"))
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
            .fold(&defaults, |table, name| table[name].as_table().unwrap());
        for (name, rest) in rows {
            let default = rest.split('`').next().unwrap().replace("NAME", "teredo");
            let default: toml::Value = default.parse().expect(name);
            assert_eq!(default, values[name], "{section}.{name}");
        }
    }
}

#[test]
fn messages_say_the_bounds_that_are_checked() {
    for (name, bounds) in [
        ("mtu", MTU),
        ("max-peers", MAX_PEERS),
        ("queue-per-peer", QUEUE_PER_PEER),
        ("queue-total-bytes", QUEUE_TOTAL_BYTES),
    ] {
        let key = keys::KEYS.iter().find(|key| key.name == name).unwrap();
        let text = format!("{} to {}", bounds.start(), bounds.end());
        assert!(key.permitted.ends_with(&text), "{name}: {text}");
        for (value, is_fit) in [
            (bounds.start() - 1, false),
            (*bounds.start(), true),
            (*bounds.end(), true),
            (bounds.end() + 1, false),
        ] {
            let result = parse(&format!("[relay]\n{name} = {value}"));
            assert_eq!(result.is_ok(), is_fit, "{name} = {value}");
        }
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
        ": no section [relay], so there is nothing to run; the line \"[relay]\" alone makes a \
         relay with default settings",
    ),
    (
        "[node]\nname = \"x\"",
        ": no section [relay], so there is nothing to run; the line \"[relay]\" alone makes a \
         relay with default settings",
    ),
    (
        "[relay]\n[server]\nport = 3544",
        " line 2: this version runs the relay role only; remove the section [server], or run it \
         with a version that has it",
    ),
    (
        "[client]",
        " line 1: this version runs the relay role only; remove the section [client], or run it \
         with a version that has it",
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
         holds nothing that a relay may relay to: it must be",
    ),
    (
        "[relay]\nserve = [\"ff0e::/16\"]",
        " line 2: relay.serve = [\"ff0e::/16\"] is not valid, ff0e::/16 holds nothing",
    ),
    (
        "[relay]\nserve = [\"2001:0:1::/48\"]",
        " line 2: relay.serve = [\"2001:0:1::/48\"] is not valid, 2001:0:1::/48 holds nothing",
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
        " line 3: node.log = \"teredo=loud\" is not valid: it must be a filter such as",
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
        let sentence = parse(text).expect_err(text).to_string();
        let expected = format!("teredo.toml{expected}");
        assert!(
            sentence.starts_with(&expected),
            "{text}\n  says      {sentence}\n  should say {expected}"
        );
        assert!(!sentence.contains('\n'), "{sentence}");
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

#[test]
fn maps_cost_what_the_kernel_says() {
    // `bpftool map show` says 33562624 for the peers, 360760 for the routes of two CPUs: this and
    // the map itself, which for the peers begins and ends with a page.
    let memory = memory::Memory::of(&Config::default(), 2);
    assert_eq!(memory.peer_map, 33_562_624 - 6_208);
    assert_eq!(memory.other_maps, 360_760 - 312);
    assert!(memory.peer_map + memory.other_maps < 64 << 20);
    assert_eq!(memory::Octets(memory.peer_map).to_string(), "32.0 MiB");

    let per_peer = memory.peer_map / Config::default().relay.max_peers as u64;
    for documented in [
        format!("{per_peer} octets a peer at the start"),
        format!(
            "({:.0} MiB with the default",
            memory.peer_map as f64 / 1_048_576.0
        ),
        format!(
            "(up to {:.0} MiB with the default)",
            memory.peer_table as f64 / 1_048_576.0
        ),
    ] {
        assert!(DOCUMENTATION.contains(&documented), "{documented}");
    }

    let mut config = Config::default();
    config.relay.max_peers = 1_000;
    assert_eq!(memory::Memory::of(&config, 2).peer_map, 135_168 - 5_184);
    config.relay.xdp.mode = XdpMode::Off;
    assert_eq!(memory::Memory::of(&config, 2).peer_map, 0);
}

fn addresses() -> impl Strategy<Value = ApiAddress> {
    prop_oneof![
        "/[a-z/]{1,100}".prop_map(|path| ApiAddress::Unix(path.into())),
        (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|address| ApiAddress::Tcp(address.into())),
        (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(|address| ApiAddress::Tcp(address.into())),
    ]
}

fn nodes() -> impl Strategy<Value = Node> {
    (
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}",
        prop_oneof![
            Just(ServicePrefix::STANDARD),
            Just(ServicePrefix::DRAFT),
            any::<[u8; 3]>().prop_map(|[b, c, d]| ServicePrefix([0x20, b, c, d])),
        ],
        "(off|error|warn|info|debug|trace)(,teredo(::[a-z]{1,8})?=(warn|debug))?",
        prop::collection::vec(addresses(), 0..4),
        "[a-z]{0,20}",
    )
        .prop_map(|(name, prefix, log, api, user)| Node {
            name,
            prefix,
            log,
            api,
            user,
        })
}

fn relays() -> impl Strategy<Value = Relay> {
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
    let scope = prop_oneof![
        Just(Ipv4Scope::Strict),
        Just(Ipv4Scope::Rfc4380),
        Just(Ipv4Scope::Lab)
    ];
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
        scope,
        bounds,
        xdps(),
    )
        .prop_map(
            |((ipv4, port, tun, mtu), serve, (host_specific, route), ipv4_scope, bounds, xdp)| {
                Relay {
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
                    xdp,
                }
            },
        )
}

fn xdps() -> impl Strategy<Value = Xdp> {
    let mode = prop_oneof![
        Just(XdpMode::Auto),
        Just(XdpMode::Native),
        Just(XdpMode::Generic),
        Just(XdpMode::Off)
    ];
    let outer_checksum = prop_oneof![Just(OuterChecksum::Auto), Just(OuterChecksum::Zero)];
    let interfaces = prop::collection::btree_set("[a-z]{1,8}[0-9]{0,4}", 0..4);
    (mode, interfaces, outer_checksum, any::<bool>()).prop_map(
        |(mode, interfaces, outer_checksum, pin)| Xdp {
            mode,
            interfaces: interfaces.into_iter().collect(),
            outer_checksum,
            pin,
        },
    )
}

proptest! {
    #[test]
    fn every_configuration_survives_a_round_trip(node in nodes(), relay in relays()) {
        let config = Config { node, relay };
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
    }
}
