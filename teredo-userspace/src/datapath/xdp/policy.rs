//! The choice of the operator between the hooks that a program can be attached to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The hooks at which the operator wants the XDP program attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachPolicy {
    /// In the driver if all interfaces support that, else in the generic hook, else not at all.
    Auto,
    /// In the driver; failing that is an error.
    Native,
    /// In the kernel's generic hook; failing that is an error.
    Generic,
    /// Not at all: userspace forwards every packet.
    Off,
}

impl fmt::Display for AttachPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}
