//! Safe changes of the host that a plan lacks and that the daemon leaves to the operator.

use std::fmt;

use crate::{
    condition::Kind,
    config::Config,
    host::{Setting, Snapshot},
};

use super::{Plan, relay};

/// A change of the host. It is formatted as the command that does the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Gives a setting a value, until the next boot.
    Setting {
        /// The setting.
        setting: Setting,
        /// The value.
        value: &'static str,
    },
    /// Brings an interface up.
    Up {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
    },
}

impl Plan {
    /// Returns the changes that end conditions of the plan, in the order in which they are safe.
    pub fn fixes(&self, config: &Config, host: &Snapshot) -> Vec<Fix> {
        let mut fixes = Vec::new();
        let forwarding = Setting::ipv6_forwarding("all");
        if self.has(Kind::Setting) && host.is_on(&forwarding) == Some(false) {
            // A host that forwards would lose an announced default route.
            fixes.extend(relay::announced_links(host).map(|link| Fix::Setting {
                setting: Setting::ipv6(&link.name, "accept_ra"),
                value: "2",
            }));
            fixes.push(Fix::Setting {
                setting: forwarding,
                value: "1",
            });
        }
        let named = config.fast_path();
        let named = named.iter().flat_map(|wanted| wanted.named());
        let down = named
            .filter_map(|name| host.link(name))
            .filter(|link| !link.is_up);
        fixes.extend(down.map(|link| Fix::Up {
            name: link.name.clone(),
            index: link.index,
        }));
        fixes
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { setting, value } => write!(formatter, "sysctl -w {setting}={value}"),
            Self::Up { name, .. } => write!(formatter, "ip link set {name} up"),
        }
    }
}
