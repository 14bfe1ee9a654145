//! The workloads for relays.

use std::fmt;

use serde::{Deserialize, Serialize};
use teredo_lab_ebpf::SIZES;

use super::{CLIENTS, Direction, Variant, Workload};

/// One workload for relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The direction of the packets.
    pub direction: Direction,
    /// Octets of the inner IPv6 packet.
    pub size: u16,
    /// Number of clients that take turns.
    pub clients: u32,
    /// The native hosts.
    pub hosts: Hosts,
    /// The order in which clients take turns.
    #[serde(default)]
    pub order: Order,
    /// Number of cores that packets arrive on, each with a queue of its own.
    #[serde(default = "one")]
    pub cores: usize,
    /// The circumstances of the relay.
    #[serde(default)]
    pub terms: Terms,
}

const fn one() -> usize {
    1
}

/// The native hosts that clients send to in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// Their number.
    pub count: u32,
    /// Where they are.
    pub place: Place,
}

/// The place of native hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// They are the relay's neighbours.
    OnLink,
    /// They are in one network behind a gateway.
    Behind,
    /// Each is in a network of its own behind a gateway, with a route of its own.
    Scattered,
}

/// The order in which clients take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Each packet is another client's, far from the last one's in the table.
    #[default]
    Rotation,
    /// As in a rotation, but each client has 16 packets in a row.
    Trains,
    /// At random: the client of rank r has 1/r as many packets as the first one.
    Zipf,
}

impl Order {
    /// All orders.
    pub const ALL: [Self; 3] = [Self::Rotation, Self::Trains, Self::Zipf];
    /// Packets of a train.
    pub const TRAIN: u32 = 16;

    const fn text(self) -> &'static str {
        match self {
            Self::Rotation => "",
            Self::Trains => ", in trains of 16 packets",
            Self::Zipf => ", Zipf's distribution",
        }
    }
}

/// The circumstances of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terms {
    /// The defaults, in native mode.
    #[default]
    Usual,
    /// With room for a million clients.
    Large,
    /// In generic mode; the bare redirect is native.
    Generic,
    /// With a list of native prefixes that are served.
    Served,
    /// With 200,000 routes.
    Routed,
    /// In a VLAN on both sides.
    Tagged,
    /// With interfaces that have two queues.
    Queued,
}

impl Terms {
    const fn text(self) -> &'static str {
        match self {
            Self::Usual | Self::Large => "",
            Self::Generic => ", generic mode",
            Self::Served => ", with a list of served prefixes",
            Self::Routed => ", with 200000 routes",
            Self::Tagged => ", in VLANs",
            Self::Queued => ", two queues",
        }
    }
}

impl Hosts {
    /// One host, on the link.
    pub const ONE: Self = Self {
        count: 1,
        place: Place::OnLink,
    };
    /// One host, behind a gateway.
    pub const ONE_BEHIND: Self = Self {
        count: 1,
        place: Place::Behind,
    };
}

impl fmt::Display for Hosts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        let place = match self.place {
            Place::OnLink => "on the link",
            Place::Behind => "behind a gateway",
            Place::Scattered => "behind a gateway, each with a route",
        };
        write!(formatter, "{} host{plural} {place}", self.count)
    }
}

impl Case {
    /// The case with this direction and number of clients, and the smallest packets.
    #[must_use]
    pub const fn of(direction: Direction, clients: u32) -> Self {
        Self {
            direction,
            size: SIZES[0],
            clients,
            hosts: Hosts::ONE,
            order: Order::Rotation,
            cores: 1,
            terms: Terms::Usual,
        }
    }

    /// The case that the acceptance limits apply to, in one direction.
    #[must_use]
    pub const fn demanding(direction: Direction) -> Self {
        Self::of(direction, CLIENTS[1])
    }

    /// The number of clients, or of native hosts if it is greater.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.clients.max(self.hosts.count)
    }

    /// The cases with packets in one direction that take place at once, each on a core of its own.
    #[must_use]
    pub fn flows(self) -> Vec<Self> {
        if self.direction == Direction::Both {
            return Direction::ALL
                .map(|direction| Self { direction, ..self })
                .to_vec();
        }
        vec![self; self.cores]
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            size,
            clients,
            hosts,
            order,
            cores,
            terms,
        } = self;
        let plural = if *clients == 1 { "" } else { "s" };
        write!(
            formatter,
            "{}, {size} octets, {clients} client{plural}",
            direction.word()
        )?;
        match *hosts {
            Hosts::ONE => {}
            hosts => write!(formatter, ", {hosts}")?,
        }
        if *cores > 1 {
            write!(formatter, ", {cores} cores")?;
        }
        write!(formatter, "{}{}", order.text(), terms.text())
    }
}

impl Workload for Case {
    const OF_BARE: &'static str = "of bare redirect";

    fn title(variant: Variant) -> &'static str {
        variant.title()
    }
}
