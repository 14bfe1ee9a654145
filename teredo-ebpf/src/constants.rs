//! The constants that the daemon loads the program with.

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    budget::{Allowance, Budget, ROOM},
    limiter::{Limits, Rate},
    maps::{Settings, Tables},
    prefixes::TeredoPrefixes,
    respond::{Advertisement, PREFIXES, ServerConstants},
    traffic::Tallies,
    wire::MTU,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    peer_lifetime: 0,
    relay: Endpoint {
        address: [0; 4],
        port: [0; 2],
    },
    mtu: MTU,
    prefix: ServicePrefix::STANDARD,
    tunnel: 0,
    flags: 0,
    interface_mask: 0,
    teredo: TeredoPrefixes::STANDARD,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
pub static TABLES: Tables = Tables {
    seed: 0,
    route_sets: 1,
    reserved: 0,
    tallies: Tallies::NONE,
};

const NO_RATE: Rate = Rate {
    interval: 0,
    tolerance: 0,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
pub static SERVER: ServerConstants = ServerConstants {
    limits: Limits {
        seed: 0,
        source: NO_RATE,
        network: NO_RATE,
        total: NO_RATE,
    },
    chunk: NO_RATE,
    advertisement: Advertisement {
        packet: [[0; 8]; 12],
        length: 0,
        sum: [0; 2],
        reserved: [0; 2],
    },
    prefixes: [ServicePrefix::STANDARD; PREFIXES],
    primary: [0; 4],
    secondary: [0; 4],
    port: [0; 2],
    scope: 0,
    icmpv6_payload: 0,
    flags: 0,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
pub static BUDGET: Budget = Budget {
    seed: 0,
    allowances: [Allowance::new(0); ROOM],
};
