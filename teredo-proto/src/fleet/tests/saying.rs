//! What relays say to each other, true or not, and what comes of it.

use super::harness::{Net, client, member};
use crate::{
    fleet::{
        DropReason,
        wire::{Message, Reports, build_reports},
    },
    relay::{Learned, Report},
    testing::endpoint,
};

/// Sends a report to another relay, whatever the sender knows.
pub fn claim(net: &mut Net, from: usize, to: usize, report: Report) {
    let octets = build_reports(net.clocks(from).now, &[report]);
    say(net, from, to, &Message::Reports(Reports::of(&octets)));
}

/// Sends a message to another relay.
pub fn say(net: &mut Net, from: usize, to: usize, message: &Message<'_>) {
    let payload = record(net, from, to, message);
    net.run(1);
    net.receive(from, to, &payload);
    net.run(1);
}

/// Returns a datagram to another relay with a message, which does not get there.
pub fn record(net: &mut Net, from: usize, to: usize, message: &Message<'_>) -> Vec<u8> {
    net.drain(from);
    let clocks = net.clocks(from);
    let fleet = &mut net.nodes[from].fleet;
    let mut others = fleet.others.iter();
    let place = others.position(|other| other.address == member(to));
    fleet.send(clocks, place.expect("a member"), message);
    fleet.poll_transmit().expect("a datagram").payload
}

/// Returns a report of now, of a proof of now.
pub fn report(net: &Net, from: usize, number: u16, mapped: &str) -> Report {
    let now = net.clocks(from).now;
    Report {
        address: client(number),
        mapped: endpoint(mapped),
        last_received: now,
        last_sent: now,
        proved: now,
    }
}

pub fn dropped(net: &Net, number: usize, reason: DropReason) -> u64 {
    net.nodes[number].fleet.statistics().dropped[reason]
}

pub fn learned(net: &Net, number: usize, outcome: Learned) -> u64 {
    net.nodes[number].fleet.statistics().learned[outcome]
}
