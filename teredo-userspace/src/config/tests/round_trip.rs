//! Any configuration, written and read again.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

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
        prop::option::of("/[a-z]{1,20}"),
        "[a-z]{0,20}",
        any::<bool>(),
        prop_oneof![
            Just(Segmentation::Auto),
            Just(Segmentation::On),
            Just(Segmentation::Off)
        ],
        collectors(),
    )
        .prop_map(
            |(
                name,
                prefix,
                log,
                log_format,
                api,
                token,
                user,
                sandbox,
                udp_segmentation,
                ipfix,
            )| {
                // Other hosts must present a token.
                let is_open = api.iter().all(ApiAddress::is_of_this_host);
                let token = token.or_else(|| (!is_open).then(|| "/token".to_owned()));
                NodeSection {
                    name,
                    prefix,
                    log,
                    log_format,
                    api,
                    api_token_file: token.map(Into::into),
                    user,
                    sandbox,
                    udp_segmentation,
                    ipfix,
                }
            },
        )
}

fn collectors() -> impl Strategy<Value = IpfixSection> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ];
    let collector = (address, 1..=u16::MAX)
        .prop_filter("an address", |(address, _)| !address.is_unspecified())
        .prop_map(|endpoint| Collector(endpoint.into()));
    (prop::option::of(collector), 1..=3600_u16, any::<u32>()).prop_map(
        |(collector, interval, observation_domain)| IpfixSection {
            collector,
            interval,
            observation_domain,
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
        (any::<bool>(), any::<bool>(), 0..=60_000_u32),
        scopes(),
        bounds,
        (xdps(), dates()),
        (any::<[bool; 3]>(), prop::array::uniform6(RATE)),
        prop::option::of(1..=64_u8),
    )
        .prop_map(
            |(
                (ipv4, port, tun, mtu),
                serve,
                (host_specific, route, grace),
                ipv4_scope,
                bounds,
                (xdp, sunset),
                ([direct_bubbles, has_fleet, accounting], rates),
                threads,
            )| {
                let [
                    bubble_rate,
                    bubble_total_rate,
                    new_peer_rate,
                    new_peer_total_rate,
                    unproved_rate,
                    unreachable_rate,
                ] = rates.map(|rate| rate as u32);
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
                    accounting,
                    direct_bubbles,
                    bubble_rate,
                    bubble_total_rate,
                    new_peer_rate,
                    new_peer_total_rate,
                    unproved_rate,
                    unreachable_rate,
                    threads: threads.map_or(Threads::Auto, Threads::Number),
                    route,
                    grace,
                    sunset,
                    xdp,
                    fleet: fleet(has_fleet && !host_specific && route && ipv4 != Ipv4Choice::Auto),
                }
            },
        )
}

fn fleet(is_there: bool) -> FleetSection {
    match is_there {
        true => FleetSection {
            listen: Some(([10, 0, 0, 1], 3546).into()),
            members: vec![
                Member::Address(([10, 0, 0, 1], 3546).into()),
                Member::Address((std::net::Ipv6Addr::LOCALHOST, 3547).into()),
                Member::Name {
                    host: "relays.example.net".to_owned(),
                    port: 3548,
                },
            ],
            key_file: Some("/etc/teredo/fleet.key".into()),
        },
        false => FleetSection::default(),
    }
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
    let rates = prop::array::uniform6(XDP_RATE);
    (mode, interfaces, outer_checksum, any::<bool>(), rates).prop_map(
        |(mode, interfaces, outer_checksum, pin, rates)| {
            let [
                new_peer_rate,
                answer_rate,
                peer_rate,
                claim_rate,
                fragment_rate,
                other_rate,
            ] = rates.map(|rate| rate as u32);
            RelayXdpSection {
                mode,
                interfaces: interfaces.into_iter().collect(),
                outer_checksum,
                pin,
                new_peer_rate,
                answer_rate,
                peer_rate,
                claim_rate,
                fragment_rate,
                other_rate,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_configuration_survives_a_round_trip(
        node in nodes(),
        mut relay in prop::option::of(relays()),
        mut server in servers(),
        serves: bool,
    ) {
        if let Some(relay) = &mut relay {
            relay.accounting |= node.ipfix.collector.is_some();
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
