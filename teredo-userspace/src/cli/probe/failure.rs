//! The failures of a measurement that never begins, or cannot go on.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use nix::ifaddrs::getifaddrs;
use thiserror::Error;

use crate::config::ServerNameError;

/// The reason why there are no findings.
#[derive(Debug, Error)]
pub enum Failure {
    /// The command line is invalid.
    #[error("{0}")]
    Arguments(String),
    /// The text names no server.
    #[error("\"{text}\" names no server: {source}")]
    Name {
        /// The text.
        text: String,
        /// The reason.
        source: ServerNameError,
    },
    /// The name cannot be looked up.
    #[error("cannot look up {name}")]
    LookUp {
        /// The name.
        name: String,
        /// The error of the resolver.
        source: io::Error,
    },
    /// There is no relay for this host.
    #[error(
        "--relay-of {0} is no native IPv6 host: name one with a global address outside of Teredo"
    )]
    NotNative(Ipv6Addr),
    /// The name has only IPv6 addresses.
    #[error("{0} has no IPv4 address, but every Teredo server has one")]
    NoServerAddress(String),
    /// A client refuses a server at this address.
    #[error("{subject} {kind}, and a client refuses such a server (client.ipv4-scope)")]
    ServerAddress {
        /// The address, perhaps with the name that has it, and a verb.
        subject: String,
        /// The kind of the address.
        kind: &'static str,
    },
    /// This host has no IPv4.
    #[error("this host has no IPv4 address, but Teredo needs IPv4")]
    NoIpv4,
    /// This host does not know how to reach the server.
    #[error("there is no route to {to}")]
    NoRoute {
        /// The server.
        to: SocketAddrV4,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another program has the local port.
    #[error(
        "another program uses UDP port {0}, perhaps the client: stop it, or measure with another --port"
    )]
    PortInUse(u16),
    /// The local port cannot be opened.
    #[error("cannot open UDP port {port}")]
    Port {
        /// The port.
        port: u16,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A firewall on this host is in the way.
    #[error("a firewall on this host forbids packets to {0}")]
    Forbidden(SocketAddrV4),
    /// Nothing can be sent to the server.
    #[error("cannot send to {to}")]
    Send {
        /// The server.
        to: SocketAddrV4,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The operating system does not do its part.
    #[error("{sentence}")]
    System {
        /// The failure in words.
        sentence: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Failure {
    /// Returns the word for it in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Arguments(_) => "arguments",
            Self::Name { .. } => "server-invalid",
            Self::LookUp { .. } => "look-up",
            Self::NotNative(_) => "host-invalid",
            Self::NoServerAddress(_) => "no-server-address",
            Self::ServerAddress { .. } => "server-address",
            Self::NoIpv4 => "no-ipv4",
            Self::NoRoute { .. } => "no-route",
            Self::PortInUse(_) => "port-in-use",
            Self::Port { .. } => "port",
            Self::Forbidden(_) => "forbidden",
            Self::Send { .. } => "send",
            Self::System { .. } => "system",
        }
    }

    /// Returns the failure to open a local port.
    pub fn of_port(port: u16, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse if port != 0 => Self::PortInUse(port),
            _ => Self::Port { port, source },
        }
    }

    /// Returns the failure to find the way to the server.
    pub fn of_route(to: SocketAddrV4, source: io::Error) -> Self {
        match has_ipv4() {
            false => Self::NoIpv4,
            true => Self::NoRoute { to, source },
        }
    }

    /// Returns the failure to send to the server.
    pub fn of_sending(to: SocketAddrV4, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                Self::of_route(to, source)
            }
            ErrorKind::PermissionDenied => Self::Forbidden(to),
            _ => Self::Send { to, source },
        }
    }

    /// Returns the failure of a system call.
    pub const fn of_system(sentence: &'static str, source: io::Error) -> Self {
        Self::System { sentence, source }
    }

    /// Returns the refusal of a server at an address that is not in the scope of clients; `name` has
    /// the address if it was looked up.
    pub fn of_address(name: Option<&str>, address: Ipv4Addr) -> Self {
        let subject = match name {
            Some(name) => format!("{name} has the address {address}, which is"),
            None => format!("{address} is"),
        };
        let kind = if address.is_private() {
            "a private address"
        } else if address.is_link_local() {
            "a link-local address"
        } else {
            "no address of the internet"
        };
        Self::ServerAddress { subject, kind }
    }
}

/// Returns whether this host has an IPv4 address besides those of its loopback interface. If the
/// kernel does not tell, it may have one.
fn has_ipv4() -> bool {
    let Ok(addresses) = getifaddrs() else {
        return true;
    };
    let mut ipv4 = addresses.filter_map(|interface| {
        let address = interface.address?;
        Some(address.as_sockaddr_in()?.ip())
    });
    ipv4.any(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn errors_of_the_operating_system_have_their_kinds() {
        let to = SocketAddrV4::new([9, 0, 0, 1].into(), 3544);
        let error = |errno: Errno| io::Error::from(errno);
        for (failure, kind) in [
            (Failure::of_port(7, error(Errno::EADDRINUSE)), "port-in-use"),
            (Failure::of_port(0, error(Errno::EADDRINUSE)), "port"),
            (Failure::of_port(7, error(Errno::EACCES)), "port"),
            (Failure::of_sending(to, error(Errno::EPERM)), "forbidden"),
            (Failure::of_sending(to, error(Errno::ENOBUFS)), "send"),
        ] {
            assert_eq!(failure.kind(), kind, "{failure}");
        }
        let kind = Failure::of_sending(to, error(Errno::ENETUNREACH)).kind();
        assert!(["no-route", "no-ipv4"].contains(&kind));
    }

    #[test]
    fn refused_addresses_are_called_by_their_kind() {
        for (name, address, sentence) in [
            (
                None,
                [192, 168, 8, 1],
                "192.168.8.1 is a private address, and a client refuses such a server",
            ),
            (
                Some("a.example"),
                [169, 254, 0, 1],
                "a.example has the address 169.254.0.1, which is a link-local address, and a client",
            ),
            (
                None,
                [192, 0, 2, 1],
                "192.0.2.1 is no address of the internet, and a client refuses",
            ),
        ] {
            let failure = Failure::of_address(name, address.into()).to_string();
            assert!(failure.starts_with(sentence), "{failure}");
        }
    }
}
