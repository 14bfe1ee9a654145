//! The NAT model against the definitions of RFC 4787.

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};
use teredo_simulation::nat::{Behaviour, Dependence, Kind, Nat, Pooling, Ports};

const START: Instant = Instant::from_nanos(1_000_000_000_000);

fn at(seconds: u64) -> Instant {
    START + Duration::from_secs(seconds)
}

fn internal(port: u16) -> Endpoint {
    Endpoint::new([192, 168, 1, 10].into(), port)
}

fn remote(last: u8, port: u16) -> Endpoint {
    Endpoint::new([8, 0, 0, last].into(), port)
}

fn nat_of(behaviour: Behaviour) -> Nat {
    Nat::new(behaviour, vec![[9, 0, 0, 1].into()], 1)
}

fn with(mapping: Dependence, filtering: Dependence, ports: Ports) -> Nat {
    nat_of(Behaviour {
        mapping,
        filtering,
        ports,
        ..Kind::Cone.behaviour(0)
    })
}

use Dependence::{Address, AddressAndPort, Independent};

/// A mapping is reused for destinations that agree in the part that it depends on (RFC 4787 section
/// 4.1).
#[test]
fn mapping() {
    for (mapping, same_address, other_address) in [
        (Independent, true, true),
        (Address, true, false),
        (AddressAndPort, false, false),
    ] {
        for ports in [Ports::Preserving, Ports::Sequential, Ports::Random] {
            let mut nat = with(mapping, Independent, ports);
            let first = nat.outbound(START, internal(5000), remote(1, 1));
            let again = nat.outbound(START, internal(5000), remote(1, 1));
            let port = nat.outbound(START, internal(5000), remote(1, 2));
            let address = nat.outbound(START, internal(5000), remote(2, 1));
            assert_eq!(again, first, "{mapping:?}");
            assert_eq!(port == first, same_address, "{mapping:?} {ports:?}");
            assert_eq!(address == first, other_address, "{mapping:?} {ports:?}");
            let other = nat.outbound(START, internal(5001), remote(1, 1));
            assert_ne!(other, first, "no two internal endpoints share a mapping");
        }
    }
}

/// Packets come in from the remote endpoints that the filter admits (RFC 4787 section 5).
#[test]
fn filtering() {
    for (filtering, other_port, other_address) in [
        (Independent, true, true),
        (Address, true, false),
        (AddressAndPort, false, false),
    ] {
        for mapping in [Independent, Address, AddressAndPort] {
            let mut nat = with(mapping, filtering, Ports::Random);
            let external = nat.outbound(START, internal(5000), remote(1, 1));
            let passes = |nat: &mut Nat, from| {
                let passed = nat.inbound(START, from, external);
                assert!(passed.is_none_or(|to| to == internal(5000)));
                passed.is_some()
            };
            assert!(passes(&mut nat, remote(1, 1)));
            assert_eq!(passes(&mut nat, remote(1, 2)), other_port, "{filtering:?}");
            assert_eq!(
                passes(&mut nat, remote(2, 1)),
                other_address,
                "{filtering:?}"
            );
            let nobody = Endpoint::new(external.ip(), external.port() ^ 1);
            assert_eq!(nat.inbound(START, remote(1, 1), nobody), None);
        }
    }
}

/// A packet to an endpoint opens the filter for it, whatever was opened before.
#[test]
fn filters_add_up() {
    let mut nat = with(Independent, AddressAndPort, Ports::Random);
    let external = nat.outbound(START, internal(5000), remote(1, 1));
    assert_eq!(nat.inbound(START, remote(2, 7), external), None);
    assert_eq!(nat.outbound(START, internal(5000), remote(2, 7)), external);
    for from in [remote(1, 1), remote(2, 7)] {
        assert_eq!(nat.inbound(START, from, external), Some(internal(5000)));
    }
    assert_eq!(nat.inbound(START, remote(2, 8), external), None);
}

/// Ports are assigned by the rule that is set (RFC 4787 section 4.2.1).
#[test]
fn ports() {
    let mut preserving = with(AddressAndPort, AddressAndPort, Ports::Preserving);
    let first = preserving.outbound(START, internal(5000), remote(1, 1));
    let second = preserving.outbound(START, internal(5000), remote(1, 2));
    let other = preserving.outbound(START, internal(5001), remote(1, 2));
    assert_eq!((first.port(), other.port()), (5000, 5001));
    assert_ne!(second.port(), 5000, "no port overloading");

    let mut sequential = with(AddressAndPort, AddressAndPort, Ports::Sequential);
    let mut given = (1..50).map(|port| {
        let external = sequential.outbound(START, internal(5000), remote(1, port));
        external.port()
    });
    let first = given.next().unwrap();
    assert!(given.zip(first + 1..).all(|(given, next)| given == next));

    let mut random = with(AddressAndPort, AddressAndPort, Ports::Random);
    let given: std::collections::BTreeSet<u16> = (1..50)
        .map(|port| random.outbound(START, internal(5000), remote(1, port)))
        .map(Endpoint::port)
        .collect();
    assert_eq!(given.len(), 49, "all different");
    assert!(
        given
            .iter()
            .zip(given.iter().skip(1))
            .all(|(a, b)| b - a > 1)
    );
}

/// Linux gives mappings towards different remote endpoints one port (RFC 4787 section 4.2.1).
#[test]
fn port_overloading() {
    let mut linux = nat_of(Kind::LinuxFiltered.behaviour(0));
    let other = Endpoint::new([192, 168, 1, 11].into(), 5000);
    let first = linux.outbound(START, internal(5000), remote(1, 1));
    assert_eq!(first.port(), 5000);
    assert_eq!(linux.outbound(START, internal(5000), remote(2, 1)), first);
    assert_eq!(linux.outbound(START, other, remote(3, 1)), first);
    let moved = linux.outbound(START, other, remote(1, 1));
    assert_ne!(moved, first, "taken towards this endpoint");
    for (from, external, inside) in [
        (remote(1, 1), first, internal(5000)),
        (remote(1, 1), moved, other),
        (remote(2, 1), first, internal(5000)),
        (remote(3, 1), first, other),
    ] {
        assert_eq!(linux.inbound(START, from, external), Some(inside));
    }
}

/// An unsolicited packet moves the port of a mapping towards its sender, until it is forgotten, if
/// nothing filters it.
#[test]
fn unsolicited_packets() {
    for (kind, moves) in [(Kind::LinuxFiltered, false), (Kind::LinuxUnfiltered, true)] {
        let mut linux = nat_of(kind.behaviour(0));
        let first = linux.outbound(at(0), internal(5000), remote(1, 1));
        assert_eq!(linux.inbound(at(0), remote(2, 2), first), None);
        let towards_sender = linux.outbound(at(1), internal(5000), remote(2, 2));
        assert_eq!(towards_sender != first, moves, "{kind:?}");
        let towards_other = linux.outbound(at(1), internal(5000), remote(2, 3));
        assert_eq!(towards_other, first, "{kind:?}");
        assert_eq!(
            linux.inbound(at(1), remote(2, 2), towards_sender),
            Some(internal(5000))
        );
        let later = linux.outbound(at(130), internal(5000), remote(2, 2));
        assert_eq!(later.port(), 5000, "{kind:?}");
    }
    let mut rebooted = nat_of(Kind::LinuxUnfiltered.behaviour(0));
    let external = Endpoint::new([9, 0, 0, 1].into(), 5000);
    assert_eq!(rebooted.inbound(START, remote(1, 1), external), None);
    rebooted.reboot();
    assert_eq!(
        rebooted.outbound(START, internal(5000), remote(1, 1)),
        external
    );
}

/// Addresses are pooled by the rule that is set (RFC 4787 section 4.1).
#[test]
fn pooling() {
    for (pooling, addresses) in [(Pooling::Paired, 1), (Pooling::Arbitrary, 4)] {
        let behaviour = Behaviour {
            pooling,
            ..Kind::PortSymmetric.behaviour(0)
        };
        let external = (1..=4).map(|last| [9, 0, 0, last].into()).collect();
        let mut nat = Nat::new(behaviour, external, 1);
        let used: std::collections::BTreeSet<_> = (1..=4)
            .map(|port| nat.outbound(START, internal(5000), remote(1, port)).ip())
            .collect();
        assert_eq!(used.len(), addresses, "{pooling:?}");
    }
}

/// Packets from inside keep a mapping, those from outside if so configured (RFC 4787 section 4.3).
#[test]
fn lifetime() {
    for (inbound_refresh, lives) in [(false, false), (true, true)] {
        let mut nat = nat_of(Behaviour {
            lifetime: Duration::from_secs(60),
            inbound_refresh,
            ..Kind::PortRestricted.behaviour(2)
        });
        let external = nat.outbound(at(0), internal(5000), remote(1, 1));
        assert_eq!(nat.outbound(at(50), internal(5000), remote(1, 1)), external);
        assert!(nat.inbound(at(100), remote(1, 1), external).is_some());
        assert!(nat.inbound(at(109), remote(1, 1), external).is_some());
        let after = nat.inbound(at(111), remote(1, 1), external);
        assert_eq!(after.is_some(), lives);
        assert_eq!(nat.mappings(at(111)), usize::from(lives));
        assert_eq!(nat.mappings(at(500)), 0);
        let renewed = nat.outbound(at(501), internal(5000), remote(1, 1));
        assert_ne!(renewed, external, "a random port");
    }
}

/// A permission ends by itself, while packets to others keep the mapping.
#[test]
fn permissions_expire() {
    let mut nat = with(Independent, AddressAndPort, Ports::Random);
    let external = nat.outbound(at(0), internal(5000), remote(1, 1));
    for second in [60, 119, 130] {
        assert_eq!(
            nat.outbound(at(second), internal(5000), remote(2, 2)),
            external
        );
    }
    assert!(nat.inbound(at(130), remote(1, 1), external).is_none());
    assert!(nat.inbound(at(130), remote(2, 2), external).is_some());
}

#[test]
fn a_reboot_forgets_everything() {
    let mut nat = with(Independent, Independent, Ports::Random);
    let external = nat.outbound(START, internal(5000), remote(1, 1));
    let mapped = nat.map_port(internal(6000)).unwrap();
    nat.reboot();
    assert_eq!(nat.inbound(START, remote(1, 1), external), None);
    assert_eq!(nat.inbound(START, remote(1, 1), mapped), None);
    let again = nat.outbound(START, internal(5000), remote(1, 1));
    assert_ne!(again, external);
    nat.renumber(vec![[9, 0, 0, 7].into()]);
    let renumbered = nat.outbound(START, internal(5000), remote(1, 1));
    assert_eq!(renumbered.address, [9, 0, 0, 7]);
}

/// UPnP admits packets from everywhere through a mapped port (RFC 6081 section 2).
#[test]
fn upnp() {
    let mut restricted = nat_of(Kind::UpnpPortRestricted.behaviour(2));
    let mapped = restricted.map_port(internal(5000)).unwrap();
    assert_eq!(mapped, Endpoint::new([9, 0, 0, 1].into(), 5000));
    assert_eq!(restricted.map_port(internal(5000)), None, "taken");
    for port in 1..5 {
        let external = restricted.outbound(START, internal(5000), remote(1, port));
        assert_eq!(external, mapped);
    }
    assert_eq!(
        restricted.inbound(START, remote(9, 9), mapped),
        Some(internal(5000))
    );

    let mut symmetric = nat_of(Kind::UpnpPortSymmetric.behaviour(2));
    let mapped = symmetric.map_port(internal(5000)).unwrap();
    let first = symmetric.outbound(START, internal(5000), remote(1, 1));
    let second = symmetric.outbound(START, internal(5000), remote(1, 2));
    assert_eq!(first, mapped);
    assert_ne!(second, mapped);
    assert_eq!(
        symmetric.inbound(START, remote(9, 9), mapped),
        Some(internal(5000))
    );
    assert_eq!(symmetric.inbound(START, remote(9, 9), second), None);
    let other = symmetric.outbound(START, internal(5001), remote(1, 1));
    assert_ne!(other.port(), 5000, "the mapped port is kept for its host");
}

/// A stateful firewall admits answers and changes no endpoint.
#[test]
fn firewall() {
    let mut firewall = Nat::new(Kind::Firewall.behaviour(0), Vec::new(), 1);
    let host = Endpoint::new([9, 1, 2, 3].into(), 5000);
    assert_eq!(firewall.inbound(START, remote(1, 1), host), None);
    assert_eq!(firewall.outbound(START, host, remote(1, 1)), host);
    assert_eq!(firewall.inbound(START, remote(1, 1), host), Some(host));
    assert_eq!(firewall.inbound(START, remote(1, 2), host), None);
}
