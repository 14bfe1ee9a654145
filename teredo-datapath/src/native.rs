//! The choice of native hosts that the relay serves.

use core::hint::cold_path;

use teredo_common::{
    maps::Settings,
    scope::{embedded_router, is_global_unicast},
};

use crate::{environment::Environment, maps, settings, words::split};

/// Whether packets may be relayed to and from this native address: global unicast, not Teredo, not
/// a tunnel that ends at this host (requirement L-07), and served. The address is in words as they lie in memory.
#[inline(always)]
pub fn is_relayed(environment: &impl Environment, address: [u64; 2]) -> bool {
    if settings::is_teredo(environment, split(address[0]).0) {
        return false;
    }
    if !is_usual(address) && !is_unusual_relayed(environment, octets(address)) {
        return false;
    }
    !settings::has(environment, Settings::SERVES_SOME) || environment.is_served(octets(address))
}

/// Whether an address is global unicast and no tunnel's, as almost all are: in 2000::/3, neither 6to4 nor ISATAP.
#[inline(always)]
const fn is_usual([upper, lower]: [u64; 2]) -> bool {
    const TYPE: u32 = u32::from_ne_bytes([0xe0, 0, 0, 0]);
    const GLOBAL: u32 = u32::from_ne_bytes([0x20, 0, 0, 0]);
    const START: u32 = u32::from_ne_bytes([0xff, 0xff, 0, 0]);
    const SIX_TO_FOUR: u32 = u32::from_ne_bytes([0x20, 2, 0, 0]);
    const ISATAP: u32 = u32::from_ne_bytes([0, 0, 0x5e, 0xfe]);
    const UNIVERSAL: u32 = u32::from_ne_bytes([2, 0, 0, 0]);
    let (first, third) = (split(upper).0, split(lower).0);
    first & TYPE == GLOBAL && first & START != SIX_TO_FOUR && third & !UNIVERSAL != ISATAP
}

/// Whether another address is global unicast and no tunnel's that ends at this host.
#[inline(always)]
fn is_unusual_relayed(environment: &impl Environment, address: [u8; 16]) -> bool {
    cold_path();
    let router = embedded_router(&address);
    is_global_unicast(&address)
        && !router.is_some_and(|router| maps::is_own_ipv4(environment, router))
}

#[inline(always)]
fn octets([upper, lower]: [u64; 2]) -> [u8; 16] {
    let (a, b) = (upper.to_ne_bytes(), lower.to_ne_bytes());
    [
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5], b[6],
        b[7],
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn usual_addresses_are_global_and_no_tunnels() {
        for (address, is_expected) in [
            ("2000::b", true),
            ("2001:db8::5efe:0:0:1", true),
            ("2a00:1450:4001:80e::200e", true),
            ("3fff:ffff::1", true),
            ("2002:900:1::1", false),
            ("2001:db8::5efe:9.0.0.1", false),
            ("2001:db8::200:5efe:9.0.0.1", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("::1", false),
            ("4000::1", false),
        ] {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            assert_eq!(is_usual(bytemuck::cast(octets)), is_expected, "{address}");
            let is_global = is_global_unicast(&octets) && embedded_router(&octets).is_none();
            assert!(is_global || !is_expected, "{address}");
        }
    }
}
