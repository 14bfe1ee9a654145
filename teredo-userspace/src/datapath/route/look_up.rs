//! The kernel's own look-up of a route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::{RouteMessageBuilder, packet_route::route::RouteMessage};

use super::{RouteError, Routes, failure};

impl Routes {
    /// Returns the route that the kernel uses for packets of this host to `destination`, after rules and
    /// all tables.
    ///
    /// # Errors
    ///
    /// When there is none, or the kernel does not answer.
    pub async fn look_up(&self, destination: IpAddr) -> Result<RouteMessage, RouteError> {
        let message = match destination {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let mut found = Box::pin(self.handle.route().get(message).execute());
        let route = found.try_next().await;
        let route = route.map_err(|error| failure("look a route up", error))?;
        route.ok_or_else(|| RouteError::none("look a route up"))
    }
}

impl RouteError {
    fn none(action: &str) -> Self {
        Self {
            action: action.to_owned(),
            source: std::io::Error::from_raw_os_error(libc::ENETUNREACH),
        }
    }

    /// Returns the kernel's reason.
    #[must_use]
    pub fn reason(&self) -> String {
        let reason = self.source.to_string();
        // Without the number of the error.
        let words = reason.split(" (os error").next();
        words.unwrap_or_default().to_owned()
    }
}
