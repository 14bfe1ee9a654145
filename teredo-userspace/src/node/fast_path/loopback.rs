//! The interface at which the program's route look-ups start when there is no TUN interface.

use crate::datapath::route::{self, Family, RouteError};

const INTERFACE: &str = "lo";

/// Keeps IPv4 forwarding enabled on the loopback interface, because the kernel gives an XDP program
/// no routes for packets of an interface that does not forward. No packets for other hosts arrive on
/// it, so none are forwarded.
#[derive(Debug)]
pub struct Loopback;

impl Loopback {
    /// Enables forwarding.
    pub fn forwarding() -> Result<Self, RouteError> {
        if !route::forwarding(Family::Ipv4, INTERFACE)? {
            route::set_forwarding(Family::Ipv4, INTERFACE, true)?;
        }
        Ok(Self)
    }
}

impl Drop for Loopback {
    /// Restores the default of interfaces. The value found at the start is no guide, since an
    /// earlier daemon may have crashed.
    fn drop(&mut self) {
        let default = route::forwarding(Family::Ipv4, "all");
        let result = default.and_then(|on| route::set_forwarding(Family::Ipv4, INTERFACE, on));
        if let Err(error) = result {
            tracing::warn!("{error}");
        }
    }
}
