//! The server's two paths against each other: the XDP program's answers are the daemon's, octet for
//! octet; the daemon drops what it drops; and it leaves frames that it passes unchanged.

use std::{collections::BTreeMap, net::Ipv6Addr};

use anyhow::{Result, ensure};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress, server_link_local},
    limiter::Rate,
    scope::Ipv4Scope,
    verdict::{Action, Verdict},
    wire::{ALL_ROUTERS, ETHERTYPE_IPV4, ICMPV6, NO_NEXT_HEADER, UDP},
};
use teredo_lab::{
    fixture::{Fixture, Port, ROUTER, Setup, WAN, cases, now},
    packet::{IP, datagram, endpoint, ethernet, fix_header_checksum, ipv6},
};
use teredo_proto::{
    ServerAddress,
    server::{Buckets, Config, RegisteredClient, Server, Transmit},
    testing::transport,
    wire::authentication::{Algorithm, Key},
};

/// Datagrams for each kind of server, unless [`cases`] says otherwise.
const DATAGRAMS: usize = 4000;
const PRIMARY: [u8; 4] = [1, 2, 3, 4];
const SECONDARY: [u8; 4] = [1, 2, 3, 5];
const PORT: u16 = 3544;

/// A server with plenty of tokens on the addresses of the fixture's host.
fn config() -> Config {
    let mut config = Config::new(PRIMARY.into(), SECONDARY.into());
    config.own_ipv4 = vec![[5, 6, 7, 8].into(), [5, 6, 7, 9].into()];
    for rate in [
        &mut config.limits.source,
        &mut config.limits.network,
        &mut config.limits.total,
    ] {
        *rate = Rate::new(10_000_000, 10_000_000);
    }
    config
}

/// The program and the daemon's server, which get the same datagrams.
struct Pair {
    fixture: Fixture,
    server: Server,
    random: StdRng,
    verdicts: BTreeMap<&'static str, usize>,
}

impl Pair {
    fn new(config: Config, one_interface: bool, seed: u64) -> Result<Self> {
        let fixture = Fixture::new(&Setup {
            relay: false,
            server: Some(config.clone()),
            one_interface,
            ..Setup::default()
        })?;
        Ok(Self {
            fixture,
            server: Server::new(config, Buckets::new()),
            random: StdRng::seed_from_u64(seed),
            verdicts: BTreeMap::new(),
        })
    }

    /// Gives a datagram to both, and returns the program's verdict.
    fn compare(&mut self, from: Endpoint, to: ServerAddress, payload: &[u8]) -> Result<Verdict> {
        let address = match to {
            ServerAddress::Primary => PRIMARY,
            ServerAddress::Secondary => SECONDARY,
        };
        let server = Endpoint::new(address.into(), PORT);
        let mut packet = datagram(from, server, self.random.random(), payload);
        if self.random.random_ratio(1, 10) {
            // No checksum.
            packet[26..28].fill(0);
        }
        if self.random.random_ratio(1, 10) {
            packet[8] = 1;
            fix_header_checksum(&mut packet);
        }
        let mut frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet);
        if self.random.random_ratio(1, 4) {
            frame.extend([0xee; 9]);
        }
        let outcome = self.fixture.run(Port::Wan, &frame)?;
        let output = self.server.handle_datagram(now(), to, from, payload);
        let verdict = outcome.verdict;
        *self.verdicts.entry(verdict.reason()).or_default() += 1;
        let case =
            || format!("{verdict:?}, the daemon {output:?}: {from} to {to:?} {payload:02x?}");
        match verdict.action() {
            Action::Pass => ensure!(outcome.frame == frame, "touched: {}", case()),
            Action::Drop => ensure!(output.is_none(), "{}", case()),
            Action::Forward => {
                let Some(Transmit::Datagram { from, to, payload }) = output else {
                    anyhow::bail!("{}", case());
                };
                let from = match from {
                    ServerAddress::Primary => PRIMARY,
                    ServerAddress::Secondary => SECONDARY,
                };
                let from = Endpoint::new(from.into(), PORT);
                let identification = [outcome.frame[IP + 4], outcome.frame[IP + 5]];
                let identification = u16::from_be_bytes(identification);
                let expected = datagram(from, to, identification, payload);
                ensure!(outcome.frame[IP..] == expected, "{}", case());
            }
        }
        Ok(verdict)
    }

    /// Gives many datagrams to both.
    fn compare_many(&mut self) -> Result<()> {
        let count = cases(DATAGRAMS);
        for _ in 0..count {
            let from = source(&mut self.random);
            let to = match self.random.random_ratio(1, 4) {
                true => ServerAddress::Secondary,
                false => ServerAddress::Primary,
            };
            let payload = payload(&mut self.random, from);
            self.compare(from, to, &payload)?;
        }
        println!("{:#?}", self.verdicts);
        ensure!(self.answered() > count / 80, "{:?}", self.verdicts);
        Ok(())
    }

    /// Number of datagrams that the program answered by itself.
    fn answered(&self) -> usize {
        let answers = [Verdict::RespondAdvertised, Verdict::RespondForwarded];
        let counts = answers.map(|verdict| self.verdicts.get(verdict.reason()).copied());
        counts.into_iter().flatten().sum()
    }
}

/// The source of a datagram: mostly one that is served.
fn source(random: &mut impl Rng) -> Endpoint {
    const SERVED: &[&str] = &["9.0.0.1:4096", "8.0.0.1:1024", "7.7.7.7:3545", "9.9.1.1:1"];
    const OTHERS: &[&str] = &[
        "10.0.0.1:4096",
        "100.64.0.1:4096",
        "192.0.2.1:4096",
        "127.0.0.1:4096",
        "224.0.0.253:4096",
        "255.255.255.255:4096",
        "0.0.0.0:4096",
        "1.2.3.4:3544",
        "1.2.3.5:9",
        "5.6.7.8:3545",
        "5.6.7.9:1",
        "9.0.0.1:0",
    ];
    if random.random_ratio(1, 12) {
        return Endpoint::new(random.random::<u32>().into(), random.random());
    }
    let among = if random.random_ratio(1, 6) {
        OTHERS
    } else {
        SERVED
    };
    endpoint(among.choose(random).expect("there are some"))
}

/// A UDP payload: mostly a plausible one of a client or relay, now and then spoiled.
fn payload(random: &mut impl Rng, from: Endpoint) -> Vec<u8> {
    if random.random_ratio(1, 50) {
        return (0..random.random_range(0..120))
            .map(|_| random.random())
            .collect();
    }
    let mut payload = elements(random);
    payload.extend(packet(random, from));
    if random.random_ratio(1, 10) {
        let trailers: &[&[u8]] = &[&[1, 4, 1, 2, 3, 4], &[0x41, 0], &[5], &[0; 129]];
        payload.extend(*trailers.choose(random).expect("there are some"));
    }
    if random.random_ratio(1, 12) {
        payload.truncate(random.random_range(0..=payload.len()));
    }
    if random.random_ratio(1, 8) && !payload.is_empty() {
        let at = random.random_range(0..payload.len());
        payload[at] ^= 1 << random.random_range(0..8);
    }
    payload
}

/// The headers before the IPv6 packet.
fn elements(random: &mut impl Rng) -> Vec<u8> {
    let mut nonce = vec![0, 1, 0, 0];
    nonce.extend(random.random::<[u8; 8]>());
    nonce.push(if random.random_ratio(1, 8) {
        random.random()
    } else {
        0
    });
    let origin = vec![0, 0, 1, 2, 3, 4, 5, 6];
    match random.random_range(0..20) {
        0 => [nonce, origin].concat(),
        1 => origin,
        2 => {
            let mut known = vec![0, 1, 5, 16];
            known.extend(b"alice");
            known.extend([7; 16 + 9]);
            known
        }
        3 => [&[0, 1, 1, 0, b'x'][..], &[9; 9]].concat(),
        4..=10 => nonce,
        _ => Vec::new(),
    }
}

/// An IPv6 packet.
fn packet(random: &mut impl Rng, from: Endpoint) -> Vec<u8> {
    let source = inner_source(random, from);
    let destination = match random.random_ratio(1, 15) {
        true => source,
        false => inner_destination(random),
    };
    let mut packet = match random.random_range(0..12) {
        0..=4 => {
            let source = if random.random_ratio(1, 10) {
                source
            } else {
                link_local(random)
            };
            let all_routers = Ipv6Addr::from(ALL_ROUTERS);
            let to = if random.random_ratio(1, 10) {
                destination
            } else {
                all_routers
            };
            return solicitation(random, source, to);
        }
        5..=8 => ipv6(source, destination, NO_NEXT_HEADER, &[]),
        9 => icmpv6(source, destination, &[random.random(), 0, 0, 0, 0, 1, 0, 1]),
        10 => ipv6(source, destination, NO_NEXT_HEADER, &[0; 8]),
        _ => ipv6(source, destination, UDP, &[0; 20]),
    };
    packet[7] = random.random();
    packet
}

fn solicitation(random: &mut impl Rng, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let options: &[&[u8]] = &[
        &[],
        &[],
        &[],
        &[
            1, 2, 0, 0, 0, 0, 0, 0, 0x80, 0, 0xf1, 0x2a, 0xb9, 0xc8, 0x28, 0x15,
        ],
        &[1, 1, 0, 0, 0, 0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[1, 3, 0, 0, 0, 0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0],
        &[1, 2, 0, 0],
        &[0; 96],
    ];
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0];
    if random.random_ratio(1, 20) {
        message[1] = random.random();
    }
    if random.random_ratio(1, 10) {
        message[4..8].fill(random.random());
    }
    message.extend(*options.choose(random).expect("there are some"));
    let mut packet = icmpv6(source, destination, &message);
    packet[7] = if random.random_ratio(1, 20) {
        random.random()
    } else {
        255
    };
    packet
}

fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    transport(ICMPV6, 64, &source.octets(), &destination.octets(), message)
}

fn link_local(random: &mut impl Rng) -> Ipv6Addr {
    const ADDRESSES: &[&str] = &[
        "fe80::ffff:ffff:ffff",
        "fe80::8000:ffff:ffff:fffd",
        "fe80::5445:5245:444f",
        "fe80::8000:5445:5245:444f",
        "febf::1",
    ];
    let address = ADDRESSES.choose(random).expect("there are some");
    address.parse().expect("an IPv6 address")
}

/// The address of a client of one server or another.
fn teredo(random: &mut impl Rng, mapped: Endpoint) -> Ipv6Addr {
    let prefix = match random.random_range(0..8) {
        0 => ServicePrefix::DRAFT,
        1 => ServicePrefix([0x20, 1, 0x0d, 0xb8]),
        _ => ServicePrefix::STANDARD,
    };
    let server = match random.random_range(0..6) {
        0 => SECONDARY,
        1 => [8, 8, 8, 8],
        _ => PRIMARY,
    };
    let fields = TeredoAddress {
        prefix,
        server: server.into(),
        flags: random.random(),
        mapped,
    };
    fields.encode()
}

fn inner_source(random: &mut impl Rng, from: Endpoint) -> Ipv6Addr {
    match random.random_range(0..10) {
        0..=4 => teredo(random, from),
        5 => {
            let other = source(random);
            teredo(random, other)
        }
        6 | 7 => link_local(random),
        _ => anywhere(random),
    }
}

fn inner_destination(random: &mut impl Rng) -> Ipv6Addr {
    match random.random_range(0..10) {
        0..=6 => {
            let mapped = source(random);
            teredo(random, mapped)
        }
        7 => server_link_local(PRIMARY.into(), PORT),
        _ => anywhere(random),
    }
}

fn anywhere(random: &mut impl Rng) -> Ipv6Addr {
    const ADDRESSES: &[&str] = &[
        "2000::b",
        "2001:db8:7::1",
        "::",
        "::1",
        "::ffff:9.0.0.1",
        "64:ff9b::900:1",
        "fc00::1",
        "fec0::1",
        "fe80::1",
        "ff02::1",
        "ff02::2",
        "ff0e::1",
        "2002:506:708::1",
        "2002:102:304::1",
        "2002:900:1::1",
        "2000::5efe:506:708",
        "2000::200:5efe:102:304",
    ];
    let address = ADDRESSES.choose(random).expect("there are some");
    address.parse().expect("an IPv6 address")
}

fn alice() -> RegisteredClient {
    RegisteredClient {
        id: b"alice".to_vec(),
        key: Key::new(Algorithm::HmacMd5, &[0x0b; 16]).expect("a key long enough"),
        retired: Vec::new(),
        prefix: None,
    }
}

#[test]
fn the_usual_server() -> Result<()> {
    let mut pair = Pair::new(config(), true, 1)?;
    pair.compare_many()?;
    ensure!(
        pair.answered() > cases(DATAGRAMS) / 20,
        "{:?}",
        pair.verdicts
    );
    Ok(())
}

#[test]
fn usual_datagrams_are_never_left_to_the_daemon() -> Result<()> {
    let mut pair = Pair::new(config(), true, 2)?;
    for _ in 0..cases(DATAGRAMS) / 4 {
        let from = endpoint(&format!("9.{}.0.1:4096", pair.random.random_range(10..99)));
        let all_routers = Ipv6Addr::from(ALL_ROUTERS);
        let source = link_local(&mut pair.random);
        let mut solicitation = icmpv6(source, all_routers, &[133, 0, 0, 0, 0, 0, 0, 0]);
        solicitation[7] = 255;
        let nonce = [&[0, 1, 0, 0][..], &pair.random.random::<[u8; 9]>()].concat();
        let to = match pair.random.random() {
            true => ServerAddress::Primary,
            false => ServerAddress::Secondary,
        };
        for payload in [solicitation.clone(), [nonce, solicitation].concat()] {
            let verdict = pair.compare(from, to, &payload)?;
            ensure!(verdict == Verdict::RespondAdvertised, "{verdict:?}");
        }
        let client = TeredoAddress {
            prefix: ServicePrefix::STANDARD,
            server: PRIMARY.into(),
            flags: pair.random.random(),
            mapped: endpoint("8.0.0.1:1024"),
        };
        for source in [source, Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1)] {
            let bubble = ipv6(source, client.encode(), NO_NEXT_HEADER, &[]);
            let verdict = pair.compare(from, ServerAddress::Primary, &bubble)?;
            ensure!(verdict == Verdict::RespondForwarded, "{verdict:?}");
        }
    }
    Ok(())
}

#[test]
fn other_options() -> Result<()> {
    let two = vec![ServicePrefix::STANDARD, ServicePrefix::DRAFT];
    let servers = [
        Config {
            mtu: None,
            prefixes: two,
            forward_echo_reply: true,
            ..config()
        },
        Config {
            forward_foreign: true,
            ipv4_scope: Ipv4Scope::Rfc4380,
            ..config()
        },
        Config {
            ipv4_scope: Ipv4Scope::Lab,
            allow: vec!["9.0.0.0/24".parse()?, "10.0.0.0/8".parse()?],
            icmpv6_payload: 8,
            ..config()
        },
        Config {
            clients: vec![alice()],
            prefixes: (0..6)
                .map(|last| ServicePrefix([0x20, 1, 0, last]))
                .collect(),
            ..config()
        },
    ];
    for (seed, config) in (10..).zip(servers) {
        let mut pair = Pair::new(config, true, seed)?;
        pair.compare_many()?;
    }
    Ok(())
}

#[test]
fn addresses_on_two_interfaces() -> Result<()> {
    let mut pair = Pair::new(config(), false, 20)?;
    pair.compare_many()?;
    Ok(())
}

#[test]
fn keys_and_tunnels() -> Result<()> {
    let required = Config {
        require_authentication: true,
        clients: vec![alice()],
        ..config()
    };
    let tunnel = Config {
        clients: vec![RegisteredClient {
            prefix: Some("2001:db8:7::/64".parse()?),
            ..alice()
        }],
        ..config()
    };
    for (seed, config) in [(30, required), (31, tunnel)] {
        let mut pair = Pair::new(config, true, seed)?;
        pair.compare_many()?;
    }
    Ok(())
}

#[test]
fn draining() -> Result<()> {
    let mut pair = Pair::new(config(), true, 40)?;
    let start = now();
    pair.server.drain(start);
    let end = start + teredo_proto::server::DRAIN;
    pair.fixture.program.set_draining(Some(end))?;
    pair.compare_many()?;
    ensure!(
        !pair
            .verdicts
            .contains_key(Verdict::RespondAdvertised.reason())
    );
    Ok(())
}
