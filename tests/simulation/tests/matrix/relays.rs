//! Connectivity between relays and clients.

use teredo_simulation::{
    for_seeds,
    matrix::{Means, Outcome, with_relay},
    nat::Kind,
};

use super::{SEEDS, assert_refused, cells};

/// The table of docs/protocol/traversal.md for relays with cookies: the relay's row, the
/// client's column, and either side first. Linux routers without an input filter are not crossed where
/// the relay's own bubble arrives before the client's.
#[test]
fn r13_relays() {
    const RELAYS: [Kind; 5] = [
        Kind::Public,
        Kind::Cone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::Firewall,
    ];
    const CLIENTS: [Kind; 11] = [
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
    const TABLE: &str = "
        relay \\ client    | Cone | Addr-r | Port-r | with filter | no filter | UPnP port-r | UPnP port-sym | Port-pres sym | Seq sym | Port-sym | Addr-sym
        public address    | yes  | yes    | yes    | yes         | yes       | yes         | yes           | yes           | yes     | yes      | yes
        cone NAT          | yes  | yes    | yes    | yes         | yes       | yes         | yes           | yes           | yes     | yes      | yes
        address-restricted| yes  | yes    | yes    | yes         | yes       | yes         | yes           | yes           | yes     | yes      | no
        port-restricted   | yes  | yes    | yes    | yes         | no        | yes         | no            | no            | no      | no       | no
        firewall          | yes  | yes    | yes    | yes         | no        | yes         | no            | no            | no      | no       | no
    ";
    for_seeds(SEEDS, |seed| {
        for (relay, client, entry) in cells(&RELAYS, &CLIENTS, TABLE) {
            for is_outbound in [true, false] {
                let what = format!("{relay:?} and {client:?}, client first: {is_outbound}");
                for means in [Means::Symmetric, Means::All] {
                    let outcome = with_relay(relay, client, is_outbound, means, seed);
                    if entry == 'y' {
                        assert!(outcome.is_answered(), "{what}: {outcome:?}");
                    } else {
                        assert_refused(outcome, &what);
                    }
                }
                let basic = with_relay(relay, client, is_outbound, Means::Basic, seed);
                if client.is_symmetric() {
                    assert_eq!(basic, Outcome::NoAddress, "{what}: RFC 4380");
                } else if entry == 'y' {
                    assert!(basic.is_answered(), "{what}: {basic:?}");
                } else {
                    assert_refused(basic, &what);
                }
            }
        }
    });
}
