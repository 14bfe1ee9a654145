//! Where the program's look-ups of routes start when there is no TUN interface.

use crate::datapath::route::{self, Family, RouteError};

const INTERFACE: &str = "lo";

/// The loopback interface, which forwards IPv4 packets as long as this lives: the kernel tells no
/// routes to an XDP program for packets of an interface that does not. Nothing that comes by it is
/// for others, so nothing is forwarded.
#[derive(Debug)]
pub struct Loopback;

impl Loopback {
    /// Lets it forward.
    pub fn forwarding() -> Result<Self, RouteError> {
        if !route::forwarding(Family::Ipv4, INTERFACE)? {
            route::set_forwarding(Family::Ipv4, INTERFACE, true)?;
        }
        Ok(Self)
    }
}

impl Drop for Loopback {
    /// As interfaces are by default. An earlier daemon may have crashed, so what was found at the
    /// start tells nothing.
    fn drop(&mut self) {
        let default = route::forwarding(Family::Ipv4, "all");
        let result = default.and_then(|on| route::set_forwarding(Family::Ipv4, INTERFACE, on));
        if let Err(error) = result {
            tracing::warn!("{error}");
        }
    }
}
