//! The verdict of `teredo probe` behind every kind of NAT.

use std::time::Duration;

use teredo_proto::probe::{Filtering, Findings, Kind as Type, Mapping, Measurement as _};
use teredo_simulation::{
    NodeId, Realm, World, for_seeds,
    nat::{Behaviour, Dependence, Kind, Ports},
    node::Node,
};

/// Time that a measurement may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// Measures behind a NAT that the world has.
fn measure(world: &mut World, realm: Realm) -> Findings {
    let server = world.add_server();
    let probe = world.add_probe(realm, server);
    complete(world, probe)
}

/// The findings of a measurement when it is complete.
fn complete(world: &mut World, probe: NodeId) -> Findings {
    let measurement = |world: &World| match world.node(probe) {
        Node::Probe(node) => (node.probe.poll_timeout(), node.probe.findings()),
        other => panic!("no measurement but {other:?}"),
    };
    let is_complete = |world: &World| measurement(world).0.is_none();
    assert!(world.run_until(PATIENCE, is_complete));
    measurement(world).1
}

/// (mapping, whether the filter is endpoint-independent, type) of a NAT of this kind
const fn expected(kind: Kind) -> (Mapping, bool, Type) {
    use Mapping::{Dependent, EndpointIndependent};
    match kind {
        Kind::Public | Kind::Cone => (EndpointIndependent, true, Type::Open),
        Kind::Firewall
        | Kind::AddressRestricted
        | Kind::PortRestricted
        | Kind::LinuxFiltered
        | Kind::LinuxUnfiltered
        | Kind::UpnpPortRestricted => (EndpointIndependent, false, Type::Moderate),
        Kind::UpnpPortSymmetric
        | Kind::PortPreservingSymmetric
        | Kind::SequentialSymmetric
        | Kind::PortSymmetric
        | Kind::AddressSymmetric => (Dependent, false, Type::Strict),
    }
}

#[test]
fn every_kind_of_nat_gets_its_type() {
    for_seeds(5, |seed| {
        for kind in Kind::ALL {
            let mut world = World::new(seed);
            let realm = world.add_nat(Realm::INTERNET, kind);
            let found = measure(&mut world, realm);
            let (mapping, is_open, name) = expected(kind);
            assert_eq!(found.mapping, Some(mapping), "{kind:?}");
            let filtering = found.filtering.unwrap();
            assert_eq!(
                filtering == Filtering::EndpointIndependent,
                is_open,
                "{kind:?}"
            );
            assert_eq!(found.kind(), Some(name), "{kind:?}");
            assert!(found.works(), "{kind:?}: {found:?}");
        }
    });
}

/// Unsolicited packets change no finding, whatever the NAT's behaviour: the same NAT with and without
/// entries for them gets the same verdict.
#[test]
fn entries_of_unsolicited_packets_change_nothing() {
    let dependences = [
        Dependence::Independent,
        Dependence::Address,
        Dependence::AddressAndPort,
    ];
    let ports = [
        Ports::Preserving,
        Ports::Overloading,
        Ports::Sequential,
        Ports::Random,
    ];
    for mapping in dependences {
        for filtering in dependences {
            for ports in ports {
                let verdict = |tracks_unsolicited| {
                    let behaviour = Behaviour {
                        mapping,
                        filtering,
                        ports,
                        tracks_unsolicited,
                        ..Kind::Cone.behaviour(0)
                    };
                    let mut world = World::new(1);
                    let (realm, _) = world.add_nat_with(Realm::INTERNET, behaviour, 1);
                    let found = measure(&mut world, realm);
                    (found.mapping, found.filtering, found.ports, found.kind())
                };
                assert_eq!(
                    verdict(true),
                    verdict(false),
                    "{mapping:?} {filtering:?} {ports:?}"
                );
            }
        }
    }
}

/// A measurement right after another one, with the same service port, while the entries and mappings of the
/// first one still live.
#[test]
fn a_second_measurement_tells_the_same() {
    for_seeds(3, |seed| {
        for kind in [Kind::LinuxFiltered, Kind::LinuxUnfiltered] {
            let mut world = World::new(seed);
            let realm = world.add_nat(Realm::INTERNET, kind);
            let server = world.add_server();
            let probe = world.add_probe(realm, server);
            for _ in 0..3 {
                let found = complete(&mut world, probe);
                assert_eq!(found.kind(), Some(Type::Moderate), "{kind:?}");
                world.measure_again(probe, server);
            }
        }
    });
}

/// A port that the NAT forwards lets everything in, and keeps its mapping only where mappings do not
/// depend on the destination (RFC 6081 section 2).
#[test]
fn a_forwarded_port_changes_the_type() {
    for (kind, name) in [
        (Kind::UpnpPortRestricted, Type::Open),
        (Kind::UpnpPortSymmetric, Type::Moderate),
    ] {
        let mut world = World::new(1);
        let realm = world.add_nat(Realm::INTERNET, kind);
        let server = world.add_server();
        let probe = world.add_probe(realm, server);
        complete(&mut world, probe);
        let Node::Probe(node) = world.node(probe) else {
            panic!("no measurement");
        };
        let (service, gateway) = (node.endpoint(), world.gateway(probe).unwrap());
        world.nat(gateway).reboot();
        world.nat(gateway).map_port(service);
        world.measure_again(probe, server);
        let found = complete(&mut world, probe);
        assert_eq!(found.kind(), Some(name), "{kind:?}: {found:?}");
    }
}
