//! What is wrong with a server is told, and nobody but the server hears of the measurement.

use std::time::Duration;

use super::world::{By, EXTERNAL, Nat, PRIMARY, SECONDARY, World, endpoint};
use crate::{
    ServerAddress,
    client::DropReason,
    probe::{Filtering, Mapping, NatProbe, Reach},
};

fn is_bubble(payload: &[u8]) -> bool {
    payload.len() == 40
}

fn restricted() -> Nat {
    let mut nat = Nat::new(By::Nothing, By::Endpoint);
    nat.hairpins = true;
    nat
}

#[test]
fn a_dead_server_is_told_in_five_seconds() {
    let mut world = World::new(restricted());
    world.is_up = |_| false;
    let (findings, took) = world.probe();
    assert_eq!(findings.primary, Reach::Silent);
    assert_eq!(findings.secondary, Reach::Silent);
    assert_eq!((findings.mapped, findings.filtering), (None, None));
    assert_eq!((findings.ports, findings.bubbles), (None, None));
    assert!(!findings.works());
    assert_eq!(took, Duration::from_secs(5));
}

/// Silence of the other address says nothing about the NAT.
#[test]
fn one_dead_address_is_told() {
    let mut world = World::new(restricted());
    world.is_up = |address| address == ServerAddress::Primary;
    let (findings, _) = world.probe();
    assert!(findings.primary.is_answer());
    assert_eq!(findings.secondary, Reach::Silent);
    assert_eq!((findings.mapping, findings.filtering), (None, None));
    assert!(findings.mapped.is_some() && !findings.works());

    let mut world = World::new(restricted());
    world.is_up = |address| address == ServerAddress::Secondary;
    let (findings, _) = world.probe();
    assert_eq!(findings.primary, Reach::Silent);
    assert!(findings.secondary.is_answer());
    assert!(!findings.works());
}

#[test]
fn a_server_that_is_another_ones_secondary_is_rejected() {
    let mut world = World::with_server(restricted(), |config| {
        config.primary = SECONDARY.parse().unwrap();
        config.secondary = PRIMARY.parse().unwrap();
    });
    let (findings, _) = world.probe();
    let reason = DropReason::AdvertisementPrefix;
    assert_eq!(findings.primary, Reach::Rejected(reason));
    assert!(!findings.works());
}

#[test]
fn a_mapped_address_that_is_not_global_does_not_work() {
    let mut nat = restricted();
    nat.external = "100.64.0.9";
    let mut world = World::with_server(nat, |config| {
        config.ipv4_scope = teredo_common::scope::Ipv4Scope::Lab;
    });
    let (findings, _) = world.probe();
    assert_eq!(findings.is_global(), Some(false));
    assert!(!findings.works());
}

#[test]
fn a_server_that_forwards_no_bubbles_does_not_work() {
    let mut world = World::new(restricted());
    world.is_lost = |_, payload| is_bubble(payload);
    let (findings, _) = world.probe();
    assert_eq!(findings.bubbles, Some(false));
    assert!(!findings.works());
}

#[test]
fn lost_datagrams_change_nothing() {
    for is_lost in [
        (|number, _| number % 2 == 0) as fn(usize, &[u8]) -> bool,
        |number, _| number < 4,
        |number, _| number % 3 == 1,
    ] {
        let mut world = World::new(restricted());
        world.is_lost = is_lost;
        let (findings, took) = world.probe();
        assert_eq!(findings.mapping, Some(Mapping::EndpointIndependent));
        assert_eq!(
            findings.filtering,
            Some(Filtering::AddressAndPortDependent),
            "{findings:?}"
        );
        assert!(findings.works(), "{findings:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}

/// Servers serve twenty at once, and then ten a second, for each address (S-23).
#[test]
fn the_server_is_not_burdened() {
    for filtering in [By::Nothing, By::Address, By::Endpoint] {
        let mut world = World::new(Nat::new(By::Endpoint, filtering));
        world.probe();
        let to_server = world.sent.iter().filter(|sent| sent.to.port() == 3544);
        assert!(to_server.count() <= 10);
    }
}

#[test]
fn nobody_but_the_server_and_this_host_is_sent_to() {
    for filtering in [By::Nothing, By::Address, By::Endpoint] {
        let mut world = World::new(Nat::new(By::Nothing, filtering));
        let (findings, _) = world.probe();
        let mapped: Vec<_> = world.sockets[..NatProbe::SOCKETS]
            .iter()
            .map(|local| endpoint(EXTERNAL, local.port()))
            .collect();
        assert!(mapped.contains(&findings.mapped.unwrap()));
        for sent in &world.sent {
            let is_server = [PRIMARY, SECONDARY].contains(&&*sent.to.ip().to_string());
            assert!(is_server || mapped.contains(&sent.to), "{sent:?}");
        }
    }
}
