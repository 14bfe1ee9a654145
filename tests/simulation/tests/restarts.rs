//! Clients and relays that are restarted again and again, without memory of what was before.

use std::time::Duration;

use teredo_simulation::{
    NodeId, Realm, World, for_seeds,
    matrix::{Means, client_behind, qualify},
    nat::Kind,
    packet::Message,
};

/// Twenty restarts in four minutes.
const RESTARTS: usize = 20;
const INTERVAL: Duration = Duration::from_secs(12);
/// The time between two packets.
const TICK: Duration = Duration::from_millis(500);
/// The longest time until packets are answered again.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Client,
    Host,
    Both,
}

struct Site {
    world: World,
    relay: NodeId,
    host: NodeId,
    client: NodeId,
}

fn site(seed: u64, kind: Kind, is_firewalled: bool) -> Site {
    let mut world = World::new(seed);
    let server = world.add_server();
    let relay_kind = if is_firewalled {
        Kind::Firewall
    } else {
        Kind::Public
    };
    let realm = world.add_nat(Realm::INTERNET, relay_kind);
    let relay = world.add_relay_behind(realm, relay_kind);
    let host = world.add_host();
    let client = client_behind(&mut world, server, kind, Means::All);
    qualify(&mut world, &[client]);
    Site {
        world,
        relay,
        host,
        client,
    }
}

/// Sends for [`INTERVAL`], and returns the time until the first answer to what each sender sent.
fn talk(site: &mut Site, sender: Sender) -> Option<Duration> {
    let (world, host, client) = (&mut site.world, site.host, site.client);
    let start = world.now;
    let mut requests = [Vec::new(), Vec::new()];
    while world.now.saturating_since(start) < INTERVAL {
        if world.address(client).is_some() {
            if sender != Sender::Host {
                requests[0].push(world.request(client, host));
            }
            if sender != Sender::Client {
                requests[1].push(world.request(host, client));
            }
        }
        world.run(TICK);
    }
    let [first, second] = [(client, &requests[0]), (host, &requests[1])].map(|(from, sent)| {
        let answers = sent
            .iter()
            .filter_map(|&request| world.stack(from).arrived(Message::Reply(request)));
        answers.min().map(|at| at.saturating_since(start))
    });
    match sender {
        Sender::Client => first,
        Sender::Host => second,
        Sender::Both => first
            .max(second)
            .filter(|_| first.is_some() && second.is_some()),
    }
}

fn restart_and_talk(kind: Kind, is_firewalled: bool, restarted: fn(&Site) -> Vec<NodeId>) {
    for_seeds(3, |seed| {
        for sender in [Sender::Client, Sender::Host, Sender::Both] {
            let mut site = site(seed, kind, is_firewalled);
            assert!(talk(&mut site, sender).is_some());
            for restart in 0..RESTARTS {
                for node in restarted(&site) {
                    site.world.restart(node);
                }
                let took = talk(&mut site, sender);
                assert!(
                    took.is_some_and(|took| took < LIMIT),
                    "{sender:?} sends, restart {restart}: {took:?}"
                );
            }
        }
    });
}

#[test]
fn p09_a_relay_that_is_restarted_twenty_times() {
    restart_and_talk(Kind::PortRestricted, false, |site| vec![site.relay]);
    restart_and_talk(Kind::PortSymmetric, false, |site| vec![site.relay]);
}

#[test]
fn p09_a_relay_behind_a_firewall_that_is_restarted_twenty_times() {
    restart_and_talk(Kind::PortRestricted, true, |site| vec![site.relay]);
}

#[test]
fn p09_a_client_that_is_restarted_twenty_times() {
    restart_and_talk(Kind::PortRestricted, false, |site| vec![site.client]);
    restart_and_talk(Kind::PortRestricted, true, |site| vec![site.client]);
}

#[test]
fn p09_both_are_restarted_twenty_times() {
    restart_and_talk(Kind::PortRestricted, false, |site| {
        vec![site.relay, site.client]
    });
    restart_and_talk(Kind::PortRestricted, true, |site| {
        vec![site.relay, site.client]
    });
}
