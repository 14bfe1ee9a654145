//! Each kind of NAT is told for what it is.

use std::time::Duration;

use super::world::{
    By, COUNT, DELAY, EXTERNAL, Nat, PRESERVE, PRIMARY, SCATTER, SECONDARY, World, endpoint,
};
use crate::probe::{Filtering, Kind, Mapping, Ports, Reach, Transmit};

#[test]
fn every_kind_is_told_for_what_it_is() {
    use By::{Address, Endpoint, Nothing};
    use Filtering::{AddressAndPortDependent, AddressDependent, Dependent, EndpointIndependent};
    use Kind::{Moderate, Open, Strict};
    let (independent, dependent) = (Mapping::EndpointIndependent, Mapping::Dependent);
    #[rustfmt::skip]
    let kinds = [
        // mapping, filtering, hairpins; mapping, filtering, hairpinning, kind
        (Nothing, Nothing, false, independent, EndpointIndependent, Some(false), Open),
        (Nothing, Nothing, true, independent, EndpointIndependent, Some(true), Open),
        (Nothing, Address, false, independent, Dependent, Some(false), Moderate),
        (Nothing, Address, true, independent, AddressDependent, Some(true), Moderate),
        (Nothing, Endpoint, false, independent, Dependent, Some(false), Moderate),
        (Nothing, Endpoint, true, independent, AddressAndPortDependent, Some(true), Moderate),
        (Address, Nothing, true, dependent, EndpointIndependent, Some(true), Moderate),
        (Address, Address, false, dependent, Dependent, None, Strict),
        (Address, Endpoint, true, dependent, Dependent, None, Strict),
        (Endpoint, Nothing, false, dependent, EndpointIndependent, None, Moderate),
        (Endpoint, Endpoint, false, dependent, Dependent, None, Strict),
        (Endpoint, Endpoint, true, dependent, Dependent, None, Strict),
    ];
    for (by, filter, hairpins, mapping, filtering, hairpinning, kind) in kinds {
        let mut nat = Nat::new(by, filter);
        nat.hairpins = hairpins;
        nat.port = SCATTER;
        let (findings, took) = World::new(nat).probe();
        let what = format!("{by:?} {filter:?} {hairpins} {findings:?}");
        assert_eq!(findings.mapping, Some(mapping), "{what}");
        assert_eq!(findings.filtering, Some(filtering), "{what}");
        assert_eq!(findings.hairpinning, hairpinning, "{what}");
        assert_eq!(findings.kind(), Some(kind), "{what}");
        assert_eq!(findings.is_behind_nat(), Some(true), "{what}");
        assert_eq!(findings.ports, Some(Ports::Other), "{what}");
        assert!(findings.works(), "{what}");
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
    }
}

#[test]
fn ports_are_preserved_sequential_or_neither() {
    for (port, ports) in [
        (PRESERVE, Ports::Preserved),
        (COUNT, Ports::Sequential),
        (SCATTER, Ports::Other),
    ] {
        for by in [By::Nothing, By::Endpoint] {
            let mut nat = Nat::new(by, By::Endpoint);
            nat.port = port;
            let (findings, _) = World::new(nat).probe();
            assert_eq!(findings.ports, Some(ports), "{by:?}");
        }
    }
}

/// Ports that are close to each other on both sides of the NAT tell nothing of counting.
#[test]
fn a_constant_distance_is_not_counting() {
    assert_eq!(
        Ports::of(&[(1, 7001), (2, 7002), (3, 7003)]),
        Some(Ports::Other)
    );
    assert_eq!(
        Ports::of(&[(1, 7001), (900, 7002)]),
        Some(Ports::Sequential)
    );
    assert_eq!(Ports::of(&[(900, 7001)]), Some(Ports::Other));
    assert_eq!(Ports::of(&[]), None);
}

#[test]
fn without_a_nat_a_firewall_is_a_filter() {
    for (filter, kind) in [(By::Nothing, Kind::Open), (By::Endpoint, Kind::Moderate)] {
        let mut firewall = Nat::new(By::Nothing, filter);
        firewall.is_transparent = true;
        let (findings, _) = World::new(firewall).probe();
        assert_eq!(findings.is_behind_nat(), Some(false));
        assert_eq!(findings.kind(), Some(kind));
        assert_eq!(findings.hairpinning, None);
        assert_eq!(findings.ports, Some(Ports::Preserved));
        assert!(findings.works());
    }
}

#[test]
fn the_service_socket_tells_mapping_and_address() {
    let mut nat = Nat::new(By::Nothing, By::Endpoint);
    nat.port = COUNT;
    let (findings, _) = World::new(nat).probe();
    assert_eq!(findings.mapped, Some(endpoint(EXTERNAL, 20_000)));
    assert_eq!(findings.local, endpoint("192.168.0.2", 40_000));
    let address = findings.address.unwrap().octets();
    assert_eq!(address[..8], [0x20, 1, 0, 0, 1, 2, 3, 4]);
    assert_eq!(address[8] & !0x3c, 0, "only random flags");
    assert_eq!(address[10..], [!0x4e, !0x20, !9, !0, !0, !1]);
    assert_eq!(findings.mtu, Some(1280));
    let round_trip = Reach::Answers(2 * DELAY);
    assert_eq!(
        (findings.primary, findings.secondary),
        (round_trip, round_trip)
    );
}

/// The type is that of the service port, which may have a mapping that no other port has.
#[test]
fn a_forwarded_port_is_open_behind_a_symmetric_nat() {
    let mut nat = Nat::new(By::Endpoint, By::Endpoint);
    nat.port = SCATTER;
    let mut world = World::new(nat);
    world.nat.forwarded = Some(world.sockets[0].port());
    let (findings, _) = world.probe();
    assert_eq!(findings.mapping, Some(Mapping::EndpointIndependent));
    assert_eq!(findings.filtering, Some(Filtering::EndpointIndependent));
    assert_eq!(findings.kind(), Some(Kind::Open));
}

/// A service socket that had sent to the secondary address would seem open to the next measurement,
/// or to a client on the same port.
#[test]
fn the_service_socket_sends_nothing_to_the_secondary_address() {
    for filtering in [By::Nothing, By::Address, By::Endpoint] {
        let mut world = World::new(Nat::new(By::Nothing, filtering));
        world.probe();
        let opens = |sent: &Transmit| sent.socket == 0 && sent.to == endpoint(SECONDARY, 3544);
        assert!(!world.sent.iter().any(opens), "{filtering:?}");
    }
}

/// The address-restricted filter of some NATs is one for all hosts and ports.
#[test]
fn nothing_goes_to_the_secondary_address_before_the_filter_is_known() {
    /// Where the solicitation's flags are, after the authentication header.
    const FLAGS: usize = 13 + 8 + 8;
    let mut world = World::new(Nat::new(By::Nothing, By::Endpoint));
    world.probe();
    let to = |sent: &Transmit, address| sent.to == endpoint(address, 3544);
    let is_secondary = |sent: &Transmit| to(sent, SECONDARY);
    let secondary = world.sent.iter().position(is_secondary).unwrap();
    let is_cone = |sent: &&Transmit| to(sent, PRIMARY) && sent.payload.get(FLAGS) == Some(&0x80);
    assert_eq!(world.sent.iter().filter(is_cone).count(), 3);
    assert_eq!(world.sent[..secondary].iter().filter(is_cone).count(), 3);
}
