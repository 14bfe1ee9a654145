//! Fuzz targets: functions that take any octets, and panic if a rule is broken.
//!
//! [`TARGETS`] lists them. A target of a parser gives it the octets; one of a machine reads a history
//! from them, and checks the machine after every step. `corpus` has inputs for each, in a folder of
//! its name, which together reach what a search has reached: `cargo test -p teredo-fuzz` replays
//! them, and `cargo xtask fuzz` searches for more.

mod bytes;
#[cfg(feature = "daemon")]
mod files;
#[cfg(feature = "daemon")]
mod handover;
mod machines;
#[cfg(feature = "daemon")]
mod offload;
mod wire;

/// A function for any input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name, also that of its folder in `corpus`.
    pub name: &'static str,
    /// Runs it on one input.
    ///
    /// # Panics
    ///
    /// If a rule is broken.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident: $run:path,)+) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[
            $($(#[$attribute])* Target { name: stringify!($name), run: $run },)+
        ];
    };
}

targets! {
    encapsulation: wire::encapsulation::run,
    ipv6: wire::ipv6::run,
    router: wire::router::run,
    authentication: wire::authentication::run,
    address: wire::address::run,
    checksum: wire::checksum::run,
    relay: machines::relay::run,
    server: machines::server::run,
    client: machines::client::run,
    dual: machines::dual::run,
    probe: machines::probe::run,
    fleet: machines::fleet::run,
    fleet_wire: wire::fleet::run,
    fast_relay: machines::fast_relay::run,
    fast_server: machines::fast_server::run,
    #[cfg(feature = "daemon")]
    config: files::config::run,
    #[cfg(feature = "daemon")]
    import: files::import::run,
    #[cfg(feature = "daemon")]
    texts: files::texts::run,
    #[cfg(feature = "daemon")]
    firewall: files::firewall::run,
    #[cfg(feature = "daemon")]
    explain: files::explain::run,
    #[cfg(feature = "daemon")]
    api: files::api::run,
    #[cfg(feature = "daemon")]
    offload: offload::run,
    #[cfg(feature = "daemon")]
    handover: handover::run,
}

/// Returns the target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
