//! The server's fast path in the kernel against its slow path.

use anyhow::Result;
use teredo_differential::server::scenarios;
use teredo_lab::fixture::{Fixture, Setup, cases};

/// Datagrams for each kind of server.
const DATAGRAMS: usize = 4_000;

fn make(setup: &Setup) -> Result<Fixture> {
    Fixture::new(setup)
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
