//! Connectivity between two clients.

use teredo_simulation::{
    for_seeds,
    matrix::{Means, Outcome, between_clients, least},
    nat::Kind,
};

use super::{SEEDS, assert_refused, cells};

/// The table of docs/protocol/traversal.md for RFC 4380 alone. Symmetric NATs give no address, so
/// that there is no address to send from or to.
#[test]
fn rfc4380_alone() {
    const KINDS: [Kind; 4] = [
        Kind::Cone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::PortSymmetric,
    ];
    const TABLE: &str = "
        from \\ to       | Cone | Addr-r | Port-r | any symmetric
        Cone            | yes  | yes    | yes    | no
        Addr-restricted | yes  | yes    | yes    | no
        Port-restricted | yes  | yes    | yes    | no
        any symmetric   | no   | no     | no     | no
    ";
    let symmetric = Kind::ALL.into_iter().filter(|kind| kind.is_symmetric());
    let symmetric: Vec<Kind> = symmetric.collect();
    let all = |kind: Kind| match kind {
        Kind::PortSymmetric => symmetric.clone(),
        Kind::PortRestricted => vec![
            kind,
            Kind::LinuxFiltered,
            Kind::UpnpPortRestricted,
            Kind::Firewall,
        ],
        Kind::Cone => vec![kind, Kind::Public],
        _ => vec![kind],
    };
    for_seeds(SEEDS, |seed| {
        for (from, to, entry) in cells(&KINDS, &KINDS, TABLE) {
            for from in all(from) {
                for &to in &all(to) {
                    let outcome = between_clients(from, to, Means::Basic, seed);
                    match entry {
                        'y' => assert!(outcome.is_answered(), "{from:?} to {to:?}: {outcome:?}"),
                        _ => assert_eq!(outcome, Outcome::NoAddress, "{from:?} to {to:?}"),
                    }
                }
            }
        }
    });
}

/// The table of docs/protocol/traversal.md after Figure 1 of RFC 6081, with the needs of each pair.
///
/// `u`: the figure has `-` for pairs of a UPnP port-restricted NAT with most symmetric ones. But a
/// mapped port admits packets from everywhere, so that such a NAT is a cone NAT, for which the
/// figure has an `S`.
///
/// A UPnP port-symmetric NAT admits the bubbles of peers whose own NATs admit nothing from this
/// side. Such a peer proves that it is there, and yet is not reached: the client has to find that
/// out.
#[test]
fn rfc6081() {
    const KINDS: [Kind; 9] = [
        Kind::Cone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::UpnpPortRestricted,
        Kind::UpnpPortSymmetric,
        Kind::PortPreservingSymmetric,
        Kind::SequentialSymmetric,
        Kind::PortSymmetric,
        Kind::AddressSymmetric,
    ];
    const TABLE: &str = "
        from \\ to                | Cone | Addr-r | Port-r | UPnP port-r | UPnP port-sym | Port-pres sym | Seq sym | Port-sym | Addr-sym
        Cone                     | Y    | Y      | Y      | Y           | S             | S             | S       | S        | S
        Addr-restricted          | Y    | Y      | Y      | Y           | S             | S             | S       | S        | -
        Port-restricted          | Y    | Y      | Y      | Y           | -             | P             | Q       | -        | -
        UPnP port-restricted     | Y    | Y      | Y      | Y           | U             | u             | u       | u        | u
        UPnP port-symmetric      | S    | S      | -      | U           | U             | -             | -       | -        | -
        Port-preserving symmetric| S    | S      | P      | u           | -             | P             | Q       | -        | -
        Sequential symmetric     | S    | S      | Q      | u           | -             | -             | -       | -        | -
        Port-symmetric           | S    | S      | -      | u           | -             | -             | -       | -        | -
        Address-symmetric        | S    | -      | -      | u           | -             | -             | -       | -        | -
    ";
    for_seeds(SEEDS, |seed| assert_needs(&KINDS, &KINDS, TABLE, seed));
}

/// The table of docs/protocol/traversal.md for Linux routers. Without an input filter, the peer's
/// bubble that opens the peer's NAT moves the port of the mapping towards the peer, if it comes
/// first, so that the client behind such a router has to begin.
#[test]
fn linux_routers() {
    const LINUX: [Kind; 2] = [Kind::LinuxFiltered, Kind::LinuxUnfiltered];
    const KINDS: [Kind; 11] = [
        Kind::Cone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::LinuxFiltered,
        Kind::LinuxUnfiltered,
        Kind::UpnpPortRestricted,
        Kind::UpnpPortSymmetric,
        Kind::PortPreservingSymmetric,
        Kind::SequentialSymmetric,
        Kind::PortSymmetric,
        Kind::AddressSymmetric,
    ];
    const FROM: &str = "
        from \\ to       | Cone | Addr-r | Port-r | Filter | No filter | UPnP port-r | UPnP port-sym | Port-pres sym | Seq sym | Port-sym | Addr-sym
        with a filter    | Y    | Y      | Y      | Y      | -         | Y           | -             | P             | Q       | -        | -
        without a filter | Y    | Y      | Y      | Y      | -         | Y           | -             | -             | -       | -        | -
    ";
    const TO: &str = "
        from \\ to                | with a filter | without a filter
        Cone                     | Y             | S
        Addr-restricted          | Y             | S
        Port-restricted          | Y             | -
        with a filter            | Y             | -
        without a filter         | Y             | -
        UPnP port-restricted     | Y             | U
        UPnP port-symmetric      | -             | -
        Port-preserving symmetric| P             | P
        Sequential symmetric     | Q             | -
        Port-symmetric           | -             | -
        Address-symmetric        | -             | -
    ";
    for_seeds(SEEDS, |seed| {
        assert_needs(&LINUX, &KINDS, FROM, seed);
        assert_needs(&KINDS, &LINUX, TO, seed);
    });
}

/// Asserts the needs of all pairs of a table.
fn assert_needs(rows: &[Kind], columns: &[Kind], table: &str, seed: u64) {
    for (from, to, entry) in cells(rows, columns, table) {
        let what = format!("{from:?} to {to:?}");
        let least = least(|means| between_clients(from, to, means, seed));
        let letter = least.map_or('-', Means::letter);
        let with_all = between_clients(from, to, Means::All, seed);
        if letter == '-' {
            assert!(
                matches!(entry, '-' | 'x'),
                "{what} does not work, but {entry}"
            );
            match entry {
                '-' => assert_refused(with_all, &what),
                _ => assert_eq!(with_all, Outcome::Silence, "{what}"),
            }
        } else {
            assert_eq!(letter, entry.to_ascii_uppercase(), "{what}");
            assert!(
                with_all.is_answered(),
                "{what} with everything: {with_all:?}"
            );
        }
    }
}

/// The same pairs after both sides have known each other and been silent until all of that state
/// has expired.
#[test]
fn pairs_connect_again_after_silence() {
    use std::time::Duration;
    use teredo_simulation::{
        World,
        matrix::{attempt, client_behind, qualify},
    };
    for (from, to) in [
        (Kind::PortRestricted, Kind::PortRestricted),
        (Kind::Cone, Kind::PortSymmetric),
        (Kind::PortRestricted, Kind::PortPreservingSymmetric),
        (Kind::PortPreservingSymmetric, Kind::PortPreservingSymmetric),
        (Kind::SequentialSymmetric, Kind::PortRestricted),
    ] {
        for silence in [10, 40, 130, 1000] {
            let mut world = World::new(silence);
            let server = world.add_server();
            let [from, to] =
                [from, to].map(|kind| client_behind(&mut world, server, kind, Means::All));
            qualify(&mut world, &[from, to]);
            for _ in 0..3 {
                let outcome = attempt(&mut world, from, to);
                assert!(outcome.is_answered(), "{silence} s: {outcome:?}");
                let outcome = attempt(&mut world, to, from);
                assert!(outcome.is_answered(), "{silence} s: {outcome:?}");
                world.run(Duration::from_secs(silence));
            }
        }
    }
}
