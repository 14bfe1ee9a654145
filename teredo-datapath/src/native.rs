//! The choice of native hosts that the relay serves.

use teredo_common::{
    maps::Settings,
    scope::{embedded_router, is_global_unicast},
};

use crate::{environment::Environment, maps, settings};

/// Whether packets may be relayed to and from this native address: global unicast, not Teredo, not
/// a tunnel that ends at this host (requirement L-07), and served.
#[inline(always)]
pub fn is_relayed(environment: &impl Environment, words: [u32; 4]) -> bool {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    let address = [
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
        d[3],
    ];
    if settings::is_teredo(environment, words[0]) || !is_global_unicast(&address) {
        return false;
    }
    if let Some(router) = embedded_router(&address)
        && maps::is_own_ipv4(environment, router)
    {
        return false;
    }
    !settings::has(environment, Settings::SERVES_SOME) || environment.is_served(address)
}
