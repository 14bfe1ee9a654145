//! Random histories: others change the host at random, and in the end it is as planned.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::time::Instant;

use super::kernel::{Daemon, Kernel, foreign};
use crate::{
    condition::{Condition, Kind},
    config::{ClientSection, Config, Ipv4Choice, RelaySection},
    host::Setting,
    metrics::Role,
    plan::Item,
};

/// The number of histories, unless `TEREDO_HISTORIES` says otherwise.
const HISTORIES: u64 = 10_000;
/// The interval between two looks without changes in the model.
const TICK: Duration = Duration::from_millis(100);
/// The time within which the host is as planned after the last act.
const PATIENCE: Duration = Duration::from_secs(2);

const FIRST: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 5);
const SECOND: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 7);

fn prefix() -> Ipv6Net {
    "2001::/32".parse().unwrap()
}

fn everything(net: &str) -> IpNet {
    net.parse().unwrap()
}

/// A host with two interfaces and both default routes.
fn host() -> Kernel {
    let mut kernel = Kernel::new();
    let outside = kernel.add_link("eth0", None);
    let inside = kernel.add_link("eth1", None);
    kernel.add_address(outside, FIRST.into(), 24).unwrap();
    kernel
        .add_route(everything("0.0.0.0/0"), outside, 0)
        .unwrap();
    kernel
        .add_address(inside, "2a00::5".parse().unwrap(), 64)
        .unwrap();
    kernel.add_route(everything("::/0"), inside, 1024).unwrap();
    kernel.set(&Setting::ipv6_forwarding("all"), "1").unwrap();
    kernel
}

fn relay(choice: Ipv4Choice) -> Config {
    Config {
        relay: Some(RelaySection {
            ipv4: choice,
            ..RelaySection::default()
        }),
        ..Config::default()
    }
}

fn client() -> Config {
    Config {
        client: Some(ClientSection {
            default_route: true,
            ..ClientSection::default()
        }),
        ..Config::default()
    }
}

/// An act of somebody else.
fn disturb(kernel: &mut Kernel, daemon: &mut Daemon, random: &mut StdRng) {
    let names = ["eth0", "eth1", "teredo"];
    let name = names[random.random_range(0..names.len())];
    let index = kernel.index_of(name);
    match random.random_range(0..19) {
        0 => index
            .into_iter()
            .for_each(|index| kernel.set_up(index, false)),
        1 => index
            .into_iter()
            .for_each(|index| kernel.set_up(index, true)),
        2 => {
            let tunnel = kernel.index_of("teredo");
            tunnel
                .into_iter()
                .for_each(|index| kernel.delete_link(index));
        }
        3 => kernel
            .routes
            .retain(|route| route.destination != IpNet::V6(prefix())),
        4 => {
            let name = ["all", "teredo", "eth0"][random.random_range(0..3)];
            let value = ["0", "1"][random.random_range(0..2)];
            let _ = kernel.set(&Setting::ipv6_forwarding(name), value);
        }
        5 => {
            let value = ["0", "1"][random.random_range(0..2)];
            let _ = kernel.set(&Setting::ipv6("teredo", "disable_ipv6"), value);
        }
        6 => kernel.addresses.retain(|one| one.address != FIRST),
        7 => kernel.addresses.retain(|one| one.address != SECOND),
        8 | 9 => {
            let address = [FIRST, SECOND][random.random_range(0..2)];
            if let Some(outside) = kernel.index_of("eth0") {
                let _ = kernel.add_address(outside, address.into(), 24);
            }
        }
        10 => {
            let is_ipv4: bool = random.random();
            kernel
                .routes
                .retain(|route| !(route.is_default() && route.is_ipv4() == is_ipv4));
        }
        11 | 12 => {
            let (net, metric) = match random.random() {
                true => (IpNet::V4(Ipv4Net::default()), 0),
                false => (IpNet::V6(Ipv6Net::default()), 1024),
            };
            if let Some(index) = index.filter(|_| name != "teredo") {
                let _ = kernel.add_route(net, index, metric);
            }
        }
        13 => {
            if let Some(index) = index.filter(|_| name != "teredo") {
                kernel.delete_link(index);
            } else if index.is_none() && name != "teredo" {
                kernel.add_link(name, None);
            }
        }
        14 => {
            if let Some(link) = index.and_then(|index| kernel.links.get_mut(&index)) {
                link.xdp_program = None;
            }
        }
        15 => {
            if let Some(index) = index.filter(|_| name != "teredo") {
                kernel.occupy(index);
            }
        }
        16 => {
            let other = kernel.index_of("eth1");
            if let Some(other) = other.filter(|_| random.random()) {
                let taken = kernel
                    .routes
                    .iter()
                    .any(|route| route.destination == IpNet::V6(prefix()));
                if !taken {
                    kernel.routes.push(foreign(prefix(), other));
                }
            }
        }
        17 => {
            if let Some(link) = index.and_then(|index| kernel.links.get_mut(&index)) {
                link.mtu = [1280, 1400, 1500, 9000][random.random_range(0..4)];
            }
        }
        _ => {
            if let Some(tunnel) = daemon.state.own.tunnels.values().next() {
                kernel.rename(*tunnel, ["teredo", "other"][random.random_range(0..2)]);
            }
        }
    }
    if daemon.config.client.is_some() && random.random_ratio(1, 8) {
        let host = random.random_range(0..3_u128);
        let address = 0x2001_0000_u128 << 96 | host;
        daemon.qualify((host > 0).then(|| address.into()));
    }
}

/// Runs a history and checks its end.
fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kernel = host();
    let config = match seed % 3 {
        0 => relay(Ipv4Choice::Auto),
        1 => relay(Ipv4Choice::Address(FIRST)),
        _ => client(),
    };
    let mut daemon = Daemon::new(config);
    let mut now = Instant::ZERO + Duration::from_secs(1_000);
    for _ in 0..random.random_range(0..30) {
        disturb(&mut kernel, &mut daemon, &mut random);
        // Some acts come at once, some after a while.
        for _ in 0..random.random_range(0..8) {
            now += TICK;
            daemon.look_if_due(&mut kernel, now);
        }
    }
    let end = now + PATIENCE;
    while now < end {
        now += TICK;
        daemon.look_if_due(&mut kernel, now);
    }
    let (plan, snapshot) = daemon.plan(&kernel);
    let own = &daemon.state.own;
    let mut expected: Vec<Condition> = plan.conditions.clone();
    for item in &plan.items {
        if item.is_held(&snapshot, own) {
            continue;
        }
        // The program of another owner is the only obstacle that the model has.
        let is_occupied = matches!(item, Item::FastPath(item)
            if item.interfaces.iter().any(|port| port.foreign_program.is_some()));
        assert!(
            is_occupied,
            "seed {seed}: {item} is missing in {kernel:?} {daemon:?}"
        );
        expected.push(Condition {
            kind: Kind::FastPathOff,
            role: Role::Relay,
            subject: String::new(),
            text: "another program".to_owned(),
        });
    }
    let mut found = daemon.conditions();
    let key = |one: &Condition| (one.role, one.kind, one.subject.clone());
    found.sort_by_key(key);
    expected.sort_by_key(key);
    expected.dedup_by_key(|one| key(one));
    assert_eq!(found, expected, "seed {seed}");
    // Nothing that is not planned remains.
    let tunnels = own.tunnels.values();
    for tunnel in tunnels {
        for route in kernel
            .routes
            .iter()
            .filter(|route| route.interfaces == [*tunnel])
        {
            let is_planned = plan.items.iter().any(
                |item| matches!(item, Item::Route { route: planned, .. } if route.is(*planned)),
            );
            assert!(is_planned, "seed {seed}: {route:?} remains");
        }
    }
}

#[test]
fn the_host_is_as_planned_after_any_history() {
    let cases = std::env::var("TEREDO_HISTORIES").ok();
    let cases = cases
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(HISTORIES);
    for seed in 0..cases {
        run(seed);
    }
}
