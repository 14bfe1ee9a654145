//! The parts of the host's network that the daemon sets up and keeps.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv6Addr, SocketAddrV4},
};

use teredo_common::vlan::Trunk;

use crate::{
    condition::Kind,
    datapath::route::TunnelRoute,
    host::{Setting, Snapshot},
    metrics::Role,
};

/// A part of the host's network that the daemon sets up and keeps. Items of a plan are in the order of
/// dependence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// The TUN interface of a role exists and is up.
    Tunnel {
        /// The role that reads from it.
        role: Role,
        /// Its MTU, in octets.
        mtu: u16,
    },
    /// A setting of the kernel has a value.
    Setting {
        /// The role that needs it.
        role: Role,
        /// The setting.
        setting: Setting,
        /// The value.
        value: &'static str,
    },
    /// The tunnel of a role has an address.
    Address {
        /// The role.
        role: Role,
        /// The address.
        address: Ipv6Addr,
    },
    /// The XDP program runs on its interfaces.
    FastPath(FastPathItem),
    /// A prefix is routed into the tunnel of a role.
    Route {
        /// The role.
        role: Role,
        /// The route.
        route: TunnelRoute,
    },
}

/// The XDP program with the parameters that depend on the host. If any of them changes, the program is
/// loaded anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FastPathItem {
    /// The interfaces, by index.
    pub interfaces: Vec<Port>,
    /// The VLAN interfaces above them, by index.
    pub vlans: Vec<Vlan>,
    /// The relay's endpoint and the index of its tunnel, if the program forwards for the relay.
    pub relay: Option<(SocketAddrV4, u32)>,
    /// The indices of the interfaces with the primary and the secondary address, if the program answers
    /// for the server.
    pub server: Option<[u32; 2]>,
}

/// An interface of the XDP program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its index.
    pub index: u32,
    /// Its MTU in octets, which decides between native and generic mode.
    pub mtu: u32,
    /// The number of an XDP program of another owner on it.
    pub foreign_program: Option<u32>,
    /// Whether its frames without VLAN tags are for the program.
    pub is_served: bool,
}

/// A VLAN interface whose frames are for the XDP program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlan {
    /// Its index.
    pub index: u32,
    /// The interface below it, and the tags of its frames there.
    pub trunk: Trunk,
}

/// The parts of the network that belong to the running daemon.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// The indices of the TUN interfaces.
    pub tunnels: BTreeMap<Role, u32>,
    /// The item for which the XDP program was loaded.
    pub fast_path: Option<FastPathItem>,
    /// The number of the loaded XDP program.
    pub program: Option<u32>,
}

impl Item {
    /// Returns the role that needs it.
    pub fn role(&self) -> Role {
        match self {
            Self::Tunnel { role, .. }
            | Self::Setting { role, .. }
            | Self::Address { role, .. }
            | Self::Route { role, .. } => *role,
            Self::FastPath(FastPathItem { relay: Some(_), .. }) => Role::Relay,
            Self::FastPath(_) => Role::Server,
        }
    }

    /// Returns whether the host has it now.
    pub fn is_held(&self, host: &Snapshot, own: &Own) -> bool {
        let tunnel = |role| own.tunnels.get(role).copied();
        match self {
            Self::Tunnel { role, mtu } => tunnel(role)
                .and_then(|index| host.link_numbered(index))
                .is_some_and(|link| link.is_up && link.mtu == u32::from(*mtu)),
            Self::Setting { setting, value, .. } => host
                .settings
                .get(setting)
                .is_some_and(|found| found == value),
            Self::Address { role, address } => host
                .addresses
                .iter()
                .any(|one| one.address == *address && Some(one.interface) == tunnel(role)),
            Self::FastPath(item) => {
                own.fast_path.as_ref() == Some(item) && item.is_attached(host, own)
            }
            Self::Route { role, route } => host.routes.iter().any(|found| {
                found.is(*route) && tunnel(role).is_some_and(|index| found.interfaces == [index])
            }),
        }
    }

    /// Returns whether placing this item removes the other, since the host has only one of the kind.
    pub fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::FastPath(_), Self::FastPath(_)) => true,
            (Self::Tunnel { role, .. }, Self::Tunnel { role: other, .. }) => role == other,
            (Self::Setting { setting, .. }, Self::Setting { setting: other, .. }) => {
                setting == other
            }
            _ => false,
        }
    }

    /// Returns the tunnel without which the item cannot exist.
    pub fn tunnel(&self) -> Option<Role> {
        match self {
            Self::Setting { setting, .. } if setting.interface == "lo" => None,
            Self::Setting { role, .. } | Self::Address { role, .. } | Self::Route { role, .. } => {
                Some(*role)
            }
            Self::FastPath(item) => item.relay.map(|_| Role::Relay),
            Self::Tunnel { .. } => None,
        }
    }

    /// Returns the kind of condition that holds while the item is missing.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Tunnel { .. } => Kind::Tunnel,
            Self::Setting { .. } => Kind::Setting,
            Self::Address { .. } => Kind::TunnelAddress,
            Self::FastPath(_) => Kind::FastPathOff,
            Self::Route { .. } => Kind::Route,
        }
    }

    /// Returns the subject of that condition.
    pub fn subject(&self) -> String {
        match self {
            Self::Tunnel { .. } | Self::FastPath(_) => String::new(),
            Self::Setting { setting, .. } => setting.to_string(),
            Self::Address { address, .. } => address.to_string(),
            Self::Route { route, .. } => route.prefix.to_string(),
        }
    }
}

impl FastPathItem {
    fn is_attached(&self, host: &Snapshot, own: &Own) -> bool {
        self.interfaces.iter().all(|port| {
            host.link_numbered(port.index)
                .is_some_and(|link| link.xdp_program.is_some() && link.xdp_program == own.program)
        })
    }
}

/// Formats a noun phrase for messages.
impl fmt::Display for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel { role, .. } => {
                write!(formatter, "the tunnel interface of the {}", role.name())
            }
            Self::Setting { setting, value, .. } => write!(formatter, "{setting} = {value}"),
            Self::Address { address, .. } => write!(formatter, "the address {address}"),
            Self::FastPath(_) => formatter.write_str("the XDP program"),
            Self::Route { route, .. } => write!(formatter, "the route of {}", route.prefix),
        }
    }
}
