//! What can be wrong with a TUN interface.

use std::io;

use thiserror::Error;

use super::attach::CONTROL_FILE;

/// An error of [`Tun::open`]. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel's TUN driver is missing.
    #[error(
        "there is no {CONTROL_FILE}: load the module with `modprobe tun`, or give the container \
         that device"
    )]
    NoDriver,
    /// The process is not root, or its container lacks the capability.
    #[error("no permission to make the TUN interface {0}: run as root, or grant CAP_NET_ADMIN")]
    Permission(String),
    /// Another process uses the interface.
    #[error(
        "the TUN interface {0} is in use by another process; is a second instance running? Give \
         this one another `tun` name"
    )]
    Busy(String),
    /// The name belongs to an interface of another kind.
    #[error("the interface {0} exists and is not a TUN interface; choose another `tun` name")]
    Foreign(String),
    /// The kernel does not accept the name.
    #[error("{0:?} is not a name for an interface: use 1 to 15 characters, no slash, no space")]
    Name(String),
    /// Anything else.
    #[error("cannot set up the TUN interface {name}")]
    Other {
        /// The name of the interface.
        name: String,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// Returns the error of a name's interface that has no sentence of its own.
pub(super) fn other(name: &str, source: io::Error) -> TunError {
    TunError::Other {
        name: name.to_owned(),
        source,
    }
}
