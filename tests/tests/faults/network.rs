//! Faults of the network around the daemon.

use anyhow::Result;
use teredo_faults::fault::{
    AddressGone, GatewayMoves, InterfaceDown, InterfaceReplaced, NetlinkOverflow,
};

use super::survives;

#[test]
fn interfaces_and_addresses_go_and_come_back() -> Result<()> {
    survives([
        &mut InterfaceDown,
        &mut InterfaceReplaced::default(),
        &mut AddressGone,
    ])
}

#[test]
fn next_hops_move() -> Result<()> {
    survives([&mut GatewayMoves::announced(), &mut GatewayMoves::silent()])
}

#[test]
fn changes_that_netlink_lost_are_found() -> Result<()> {
    survives([&mut NetlinkOverflow])
}
