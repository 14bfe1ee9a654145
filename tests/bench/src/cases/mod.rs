//! The measured cases.

pub mod part;
pub mod relays;
pub mod selection;

use std::fmt;

use serde::{Deserialize, Serialize};
use teredo_lab_ebpf::Flow;

pub use part::Part;
pub use relays::{Case, Hosts, Order, Place, Terms};
pub use selection::Selection;

/// Number of clients that the packets come from or go to.
pub const CLIENTS: [u32; 2] = [1, 10_000];

/// The device between generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// None: the generator sends straight to the sink, which drops. Its cost is subtracted from the others'.
    None,
    /// An XDP program that redirects every frame unchanged; in a server's place, sends it back.
    Bare,
    /// An XDP program that looks a client up, writes other headers and redirects: what every relay has to do. In a server's
    /// place, it looks a token bucket up, writes an advertisement and sends it back.
    Least,
    /// The same, and as many instructions beside as our program has.
    Padded,
    /// The kernel's forwarding of the native packets, as they are.
    Kernel,
    /// Our daemon with XDP.
    Xdp,
    /// The same without counts of each peer's packets.
    Uncounted,
    /// Our daemon without XDP.
    Userspace,
    /// Our daemon without XDP, on two cores, one of which is the generator's.
    Threads,
    /// The system calls of our daemon without XDP, and nothing else.
    Calls,
    /// Miredo.
    Miredo,
    /// A relay outside this machine, between two of its interfaces.
    Device,
}

impl Variant {
    /// Every variant on this machine, in the order of each round.
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Bare,
        Self::Least,
        Self::Padded,
        Self::Kernel,
        Self::Xdp,
        Self::Uncounted,
        Self::Userspace,
        Self::Threads,
        Self::Calls,
        Self::Miredo,
    ];

    /// The word for `--only` and in the JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bare => "bare",
            Self::Least => "least",
            Self::Padded => "padded",
            Self::Kernel => "kernel",
            Self::Xdp => "xdp",
            Self::Uncounted => "uncounted",
            Self::Userspace => "userspace",
            Self::Threads => "threads",
            Self::Calls => "calls",
            Self::Miredo => "miredo",
            Self::Device => "device",
        }
    }

    /// The name in the table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::None => "bare XDP drop",
            Self::Bare => "bare XDP redirect",
            Self::Least => "least work",
            Self::Padded => "least work, padded",
            Self::Kernel => "kernel, IPv6",
            Self::Xdp => "teredo, XDP",
            Self::Uncounted => "without counts",
            Self::Userspace => "teredo, userspace",
            Self::Threads => "teredo, two threads",
            Self::Calls => "its calls alone",
            Self::Miredo => "Miredo",
            Self::Device => "device under test",
        }
    }

    /// Whether there is a server of this variant.
    #[must_use]
    pub const fn is_server(self) -> bool {
        !matches!(
            self,
            Self::Padded
                | Self::Kernel
                | Self::Uncounted
                | Self::Threads
                | Self::Calls
                | Self::Device
        )
    }

    /// Whether the variant shares a core with generator and sink; otherwise it is a process on a
    /// core of its own.
    #[must_use]
    pub const fn is_inline(self) -> bool {
        matches!(
            self,
            Self::None
                | Self::Bare
                | Self::Least
                | Self::Padded
                | Self::Kernel
                | Self::Xdp
                | Self::Uncounted
        )
    }
}

/// The direction of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Native host to client.
    Encap,
    /// Client to native host.
    Decap,
    /// Both at once, on a core each.
    Both,
}

impl Direction {
    /// Each direction by itself.
    pub const ALL: [Self; 2] = [Self::Encap, Self::Decap];

    /// The word for `--only`, in the table and in the JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::Both => "both ways at once",
        }
    }

    /// The generator's number for a direction by itself.
    #[must_use]
    pub const fn flow(self) -> u32 {
        match self {
            Self::Encap | Self::Both => Flow::ENCAP,
            Self::Decap => Flow::DECAP,
        }
    }
}

/// A workload of a generator.
pub trait Workload: Copy + fmt::Display + Serialize {
    /// Heading of the ratios to [`Variant::Bare`].
    const OF_BARE: &'static str;
    /// Name of a million units a second.
    const RATE: &'static str = "million packets/s";
    /// Name of CPU nanoseconds per unit.
    const COST: &'static str = "CPU ns/packet";
    /// Whether there is always more work than can be done, so that a variant's rate counts only
    /// while it keeps its core busy.
    const SATURATES: bool = true;

    /// Name of a variant with this workload.
    #[must_use]
    fn title(variant: Variant) -> &'static str;
}

/// The workload for servers: router solicitations with a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solicitations {
    /// Number of clients that take turns.
    pub clients: u32,
    /// Whether each client is in an IPv4 network of its own, of 24 bits.
    #[serde(default)]
    pub are_scattered: bool,
}

impl fmt::Display for Solicitations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "solicitations, {} clients", self.clients)?;
        match self.are_scattered {
            true => write!(formatter, " in as many /24s"),
            false => Ok(()),
        }
    }
}

impl Workload for Solicitations {
    const OF_BARE: &'static str = "of bare XDP_TX";

    fn title(variant: Variant) -> &'static str {
        match variant {
            Variant::None => "bare XDP drop",
            Variant::Bare => "bare XDP_TX",
            variant => variant.title(),
        }
    }
}

/// The workload for clients: datagrams between the client's host and one native host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The direction; into the tunnel is [`Direction::Encap`].
    pub direction: Direction,
    /// Octets of the inner IPv6 packet.
    pub size: u16,
}

impl fmt::Display for Tunnel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Encap => "into",
            Direction::Decap | Direction::Both => "out of",
        };
        write!(formatter, "client, {way} the tunnel, {} octets", self.size)
    }
}

impl Workload for Tunnel {
    const OF_BARE: &'static str = "";

    fn title(variant: Variant) -> &'static str {
        variant.title()
    }
}

/// The other workload for clients: one TCP connection through a relay in XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The direction; into the tunnel is [`Direction::Encap`].
    pub direction: Direction,
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Encap => "from",
            Direction::Decap | Direction::Both => "to",
        };
        write!(formatter, "TCP {way} the client")
    }
}

impl Workload for Stream {
    const OF_BARE: &'static str = "";
    const RATE: &'static str = "GB/s";
    const COST: &'static str = "CPU ns/kB";
    const SATURATES: bool = false;

    fn title(variant: Variant) -> &'static str {
        variant.title()
    }
}
