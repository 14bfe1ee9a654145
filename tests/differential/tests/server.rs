//! The server's fast path on this host against its slow path. `PROPTEST_CASES=1000000` compares as many
//! datagrams for each kind of server.

use anyhow::Result;
use teredo_differential::{
    host::HostPath,
    server::scenarios,
    site::{Setup, cases},
    tags::{self, Tagged},
};

/// Datagrams for each kind of server.
const DATAGRAMS: usize = 50_000;

fn make(setup: &Setup) -> Result<HostPath> {
    Ok(HostPath::new(setup))
}

#[test]
fn the_usual_server() -> Result<()> {
    scenarios::the_usual_server(make, cases(DATAGRAMS))
}

#[test]
fn usual_datagrams_are_never_left_to_the_daemon() -> Result<()> {
    scenarios::usual_datagrams_are_never_left_to_the_daemon(make, cases(DATAGRAMS))
}

#[test]
fn other_options() -> Result<()> {
    scenarios::other_options(make, cases(DATAGRAMS))
}

#[test]
fn addresses_on_two_interfaces() -> Result<()> {
    scenarios::addresses_on_two_interfaces(make, cases(DATAGRAMS))
}

#[test]
fn keys_and_tunnels() -> Result<()> {
    scenarios::keys_and_tunnels(make, cases(DATAGRAMS))
}

#[test]
fn draining() -> Result<()> {
    scenarios::draining(make, cases(DATAGRAMS))
}

#[test]
fn the_usual_server_in_a_vlan() -> Result<()> {
    for numbers in [&[10][..], &[100, 10]] {
        let make = |setup: &Setup| {
            let setup = Setup {
                tags: [tags::tags(numbers), tags::tags(&[])],
                ..setup.clone()
            };
            Ok(Tagged::new(HostPath::new(&setup), &setup))
        };
        scenarios::the_usual_server(make, cases(DATAGRAMS) / 2)?;
        scenarios::usual_datagrams_are_never_left_to_the_daemon(make, cases(DATAGRAMS) / 2)?;
    }
    Ok(())
}
