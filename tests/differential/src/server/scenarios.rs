//! Comparisons of servers with various options, on `count` datagrams each. `make` makes the fast path.

use std::net::Ipv6Addr;

use anyhow::{Result, ensure};
use rand::RngExt as _;
use teredo_common::{
    address::{ServicePrefix, TeredoAddress},
    scope::Ipv4Scope,
    verdict::Verdict,
    wire::{ALL_ROUTERS, NO_NEXT_HEADER},
};
use teredo_proto::{
    ServerAddress,
    server::{Config, DRAIN, RegisteredClient},
    wire::authentication::{Algorithm, Key},
};

use super::{PRIMARY, Pair, config, datagrams};
use crate::{
    FastPath,
    packet::{endpoint, ipv6},
    site::Setup,
};

/// Compares a server with the usual options.
///
/// # Errors
///
/// Fails when the paths differ.
pub fn the_usual_server<F: FastPath>(
    make: impl Fn(&Setup) -> Result<F>,
    count: usize,
) -> Result<()> {
    let mut pair = Pair::new(&make, config(), true, 1)?;
    pair.compare_many(count)?;
    ensure!(pair.answered() > count / 20, "{:?}", pair.verdicts);
    Ok(())
}

/// Checks that the fast path answers usual datagrams itself.
///
/// # Errors
///
/// Fails when the paths differ.
pub fn usual_datagrams_are_never_left_to_the_daemon<F: FastPath>(
    make: impl Fn(&Setup) -> Result<F>,
    count: usize,
) -> Result<()> {
    let mut pair = Pair::new(&make, config(), true, 2)?;
    for _ in 0..count / 4 {
        let from = endpoint(&format!("9.{}.0.1:4096", pair.random.random_range(10..99)));
        let all_routers = Ipv6Addr::from(ALL_ROUTERS);
        let source = datagrams::link_local(&mut pair.random);
        let mut solicitation = datagrams::icmpv6(source, all_routers, &[133, 0, 0, 0, 0, 0, 0, 0]);
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

/// Compares servers with other options.
///
/// # Errors
///
/// Fails when the paths differ.
pub fn other_options<F: FastPath>(make: impl Fn(&Setup) -> Result<F>, count: usize) -> Result<()> {
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
        let mut pair = Pair::new(&make, config, true, seed)?;
        pair.compare_many(count)?;
    }
    Ok(())
}

/// Compares a server whose addresses are on two interfaces.
///
/// # Errors
///
/// Fails when the paths differ.
pub fn addresses_on_two_interfaces<F: FastPath>(
    make: impl Fn(&Setup) -> Result<F>,
    count: usize,
) -> Result<()> {
    let mut pair = Pair::new(&make, config(), false, 20)?;
    pair.compare_many(count)?;
    Ok(())
}

/// Compares servers with keys and tunnels.
///
/// # Errors
///
/// Fails when the paths differ.
pub fn keys_and_tunnels<F: FastPath>(
    make: impl Fn(&Setup) -> Result<F>,
    count: usize,
) -> Result<()> {
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
        let mut pair = Pair::new(&make, config, true, seed)?;
        pair.compare_many(count)?;
    }
    Ok(())
}

/// Compares a server that drains.
///
/// # Errors
///
/// Fails when the paths differ.
pub fn draining<F: FastPath>(make: impl Fn(&Setup) -> Result<F>, count: usize) -> Result<()> {
    let mut pair = Pair::new(&make, config(), true, 40)?;
    let start = pair.fast.now();
    pair.server.drain(start);
    let end = start + DRAIN;
    pair.fast.set_draining(Some(end))?;
    pair.compare_many(count)?;
    ensure!(
        !pair
            .verdicts
            .contains_key(Verdict::RespondAdvertised.reason())
    );
    Ok(())
}

fn alice() -> RegisteredClient {
    RegisteredClient {
        id: b"alice".to_vec(),
        key: Key::new(Algorithm::HmacMd5, &[0x0b; 16]).expect("a key long enough"),
        retired: Vec::new(),
        prefix: None,
    }
}
