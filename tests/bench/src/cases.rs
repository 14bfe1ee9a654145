//! The measured cases, and the selection among them.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};
use serde::Serialize;
use teredo_lab_ebpf::{Flow, SIZES};

/// Number of clients that the packets come from or go to.
pub const CLIENTS: [u32; 2] = [1, 10_000];
/// Number of clients in the measurement of many of them.
pub const PEERS: [u32; 5] = [1, 10_000, 65_536, 262_144, 1_000_000];
/// Number of native hosts that one client sends to.
pub const HOSTS: [u32; 4] = [1, 1_000, 10_000, 65_000];

/// The device between generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// None: the generator sends straight to the sink. Its cost is subtracted from the others'.
    None,
    /// An XDP program that redirects every frame unchanged; in a server's place, sends it back.
    Bare,
    /// Our daemon with XDP.
    Xdp,
    /// Our daemon without XDP.
    Userspace,
    /// Miredo.
    Miredo,
}

impl Variant {
    /// Every variant, in the order of each round.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Bare,
        Self::Xdp,
        Self::Userspace,
        Self::Miredo,
    ];

    /// The word for `--only` and in the JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bare => "bare",
            Self::Xdp => "xdp",
            Self::Userspace => "userspace",
            Self::Miredo => "miredo",
        }
    }

    /// The name in the table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::None => "no relay",
            Self::Bare => "bare XDP redirect",
            Self::Xdp => "teredo, XDP",
            Self::Userspace => "teredo, userspace",
            Self::Miredo => "Miredo",
        }
    }

    /// Whether the variant shares a core with generator and sink; otherwise it is a process on a
    /// core of its own.
    #[must_use]
    pub const fn is_inline(self) -> bool {
        matches!(self, Self::None | Self::Bare | Self::Xdp)
    }
}

/// The direction of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Native host to client.
    Encap,
    /// Client to native host.
    Decap,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Encap, Self::Decap];

    /// The word for `--only`, in the table and in the JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
        }
    }

    /// The generator's number for the direction.
    #[must_use]
    pub const fn flow(self) -> u32 {
        match self {
            Self::Encap => Flow::ENCAP,
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

/// One workload for relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The direction of the packets.
    pub direction: Direction,
    /// Octets of the inner IPv6 packet.
    pub size: u16,
    /// Number of clients that take turns.
    pub clients: u32,
    /// The native hosts.
    pub hosts: Hosts,
}

/// The native hosts that clients send to in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hosts {
    /// Their number.
    pub count: u32,
    /// Whether they are the relay's neighbours; otherwise they are behind a gateway.
    pub are_on_link: bool,
}

impl Hosts {
    /// One host, on the link.
    pub const ONE: Self = Self {
        count: 1,
        are_on_link: true,
    };
    /// One host, behind a gateway.
    pub const ONE_BEHIND: Self = Self {
        count: 1,
        are_on_link: false,
    };
}

impl fmt::Display for Hosts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        let place = match self.are_on_link {
            true => "on the link",
            false => "behind a gateway",
        };
        write!(formatter, "{} host{plural} {place}", self.count)
    }
}

impl Case {
    /// The case that the acceptance limits apply to, in one direction.
    #[must_use]
    pub const fn demanding(direction: Direction) -> Self {
        Self {
            direction,
            size: SIZES[0],
            clients: CLIENTS[1],
            hosts: Hosts::ONE,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            size,
            clients,
            hosts,
        } = self;
        let plural = if *clients == 1 { "" } else { "s" };
        write!(
            formatter,
            "{}, {size} octets, {clients} client{plural}",
            direction.word()
        )?;
        match *hosts {
            Hosts::ONE => Ok(()),
            hosts => write!(formatter, ", {hosts}"),
        }
    }
}

impl Workload for Case {
    const OF_BARE: &'static str = "of bare redirect";

    fn title(variant: Variant) -> &'static str {
        variant.title()
    }
}

/// The workload for servers: router solicitations with a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Solicitations {
    /// Number of clients that take turns.
    pub clients: u32,
}

impl fmt::Display for Solicitations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "solicitations, {} clients", self.clients)
    }
}

impl Workload for Solicitations {
    const OF_BARE: &'static str = "of bare XDP_TX";

    fn title(variant: Variant) -> &'static str {
        match variant {
            Variant::None => "no server",
            Variant::Bare => "bare XDP_TX",
            variant => variant.title(),
        }
    }
}

/// The workload for clients: datagrams between the client's host and one native host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
            Direction::Decap => "out of",
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// The direction; into the tunnel is [`Direction::Encap`].
    pub direction: Direction,
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Encap => "from",
            Direction::Decap => "to",
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

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The XDP program alone.
    TestRun,
    /// The XDP program alone, while routes change.
    Churn,
    /// Packets per second through the relays.
    Throughput,
    /// Packets per second of many clients.
    Peers,
    /// Packets per second to many native hosts.
    Hosts,
    /// Solicitations that servers answer per second.
    Solicitations,
    /// Packets per second, and TCP, through clients.
    Client,
    /// Memory with many clients.
    Memory,
}

impl Part {
    const ALL: [(Self, &str); 8] = [
        (Self::TestRun, "test-run"),
        (Self::Churn, "churn"),
        (Self::Throughput, "throughput"),
        (Self::Peers, "peers"),
        (Self::Hosts, "hosts"),
        (Self::Solicitations, "solicitations"),
        (Self::Client, "client"),
        (Self::Memory, "memory"),
    ];
}

/// Words of `--only`. Of each kind (part, variant, direction, size, clients) the named ones are
/// selected, or all if none is named.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    parts: Vec<Part>,
    variants: Vec<Variant>,
    directions: Vec<Direction>,
    sizes: Vec<u16>,
    clients: Vec<u32>,
}

impl Selection {
    /// Whether the part is selected. Naming a workload or a variant selects the parts that have it.
    #[must_use]
    pub fn part(&self, part: Part) -> bool {
        if !self.parts.is_empty() {
            return self.parts.contains(&part);
        }
        let any_case = !self.sizes.is_empty() || !self.clients.is_empty();
        match part {
            Part::Throughput => true,
            Part::Client => !any_case && self.client_variants().next().is_some(),
            Part::TestRun | Part::Churn => self.variants.is_empty() && !any_case,
            Part::Solicitations => !any_case && self.directions.is_empty(),
            Part::Peers => !any_case,
            Part::Hosts => !any_case && !self.directions.contains(&Direction::Encap),
            Part::Memory => self.variants.is_empty() && !any_case && self.directions.is_empty(),
        }
    }

    /// The selected variants.
    pub fn variants(&self) -> impl Iterator<Item = Variant> {
        chosen(Variant::ALL, &self.variants)
    }

    /// The selected variants of clients.
    pub fn client_variants(&self) -> impl Iterator<Item = Variant> {
        let clients = [Variant::Userspace, Variant::Miredo];
        chosen(clients, &self.variants)
    }

    /// The selected directions.
    pub fn directions(&self) -> impl Iterator<Item = Direction> {
        chosen(Direction::ALL, &self.directions)
    }

    /// The selected workloads.
    pub fn cases(&self) -> impl Iterator<Item = Case> {
        self.directions().flat_map(move |direction| {
            chosen(SIZES, &self.sizes).flat_map(move |size| {
                chosen(CLIENTS, &self.clients).map(move |clients| Case {
                    direction,
                    size,
                    clients,
                    hosts: Hosts::ONE,
                })
            })
        })
    }

    /// The workloads with many clients.
    pub fn peer_cases(&self) -> impl Iterator<Item = Case> {
        self.directions().flat_map(|direction| {
            PEERS.into_iter().map(move |clients| Case {
                direction,
                size: SIZES[0],
                clients,
                hosts: Hosts::ONE_BEHIND,
            })
        })
    }

    /// The variants that many clients and native hosts are measured with: those without a process, unless others are
    /// named.
    pub fn host_variants(&self) -> impl Iterator<Item = Variant> {
        let is_named = !self.variants.is_empty();
        self.variants()
            .filter(move |variant| is_named || variant.is_inline())
    }

    /// The workloads with many native hosts.
    pub fn host_cases(&self) -> impl Iterator<Item = Case> {
        [false, true].into_iter().flat_map(|are_on_link| {
            HOSTS.into_iter().map(move |count| Case {
                direction: Direction::Decap,
                size: SIZES[0],
                clients: 1,
                hosts: Hosts { count, are_on_link },
            })
        })
    }
}

fn chosen<T: PartialEq, const N: usize>(all: [T; N], named: &[T]) -> impl Iterator<Item = T> {
    all.into_iter()
        .filter(move |case| named.is_empty() || named.contains(case))
}

impl FromStr for Selection {
    type Err = anyhow::Error;

    /// Parses words with commas between them, such as `xdp,bare,encap,64`.
    fn from_str(text: &str) -> Result<Self> {
        let mut selection = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let number = word.parse::<u32>().ok();
            if let Some((part, _)) = Part::ALL.into_iter().find(|(_, name)| *name == word) {
                selection.parts.push(part);
            } else if let Some(variant) = Variant::ALL
                .into_iter()
                .find(|variant| variant.word() == word)
            {
                selection.variants.push(variant);
            } else if let Some(direction) = Direction::ALL
                .into_iter()
                .find(|direction| direction.word() == word)
            {
                selection.directions.push(direction);
            } else if let Some(size) = SIZES
                .into_iter()
                .find(|size| number == Some((*size).into()))
            {
                selection.sizes.push(size);
            } else if let Some(clients) =
                CLIENTS.into_iter().find(|clients| number == Some(*clients))
            {
                selection.clients.push(clients);
            } else {
                bail!(
                    "nothing to measure is called \"{word}\"; there are {}",
                    words().join(", ")
                );
            }
        }
        Ok(selection)
    }
}

/// Every word that a selection knows.
fn words() -> Vec<String> {
    let parts = Part::ALL.map(|(_, name)| name.to_owned()).into_iter();
    parts
        .chain(Variant::ALL.map(|variant| variant.word().to_owned()))
        .chain(Direction::ALL.map(|direction| direction.word().to_owned()))
        .chain(SIZES.map(|size| size.to_string()))
        .chain(CLIENTS.map(|clients| clients.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(text: &str) -> Selection {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_selection_is_everything() {
        let all = select("");
        assert_eq!(all.variants().count(), Variant::ALL.len());
        assert_eq!(all.cases().count(), 8);
        assert!(Part::ALL.iter().all(|(part, _)| all.part(*part)));
    }

    #[test]
    fn words_of_one_kind_add_up_and_kinds_restrict_each_other() {
        let some = select("xdp,bare,encap,64,10000");
        assert!(some.variants().eq([Variant::Bare, Variant::Xdp]));
        assert!(some.cases().eq([Case::demanding(Direction::Encap)]));
        assert!(some.part(Part::Throughput));
        assert!(!some.part(Part::Memory) && !some.part(Part::TestRun));
        assert!(!some.part(Part::Solicitations) && !some.part(Part::Hosts));
        let memory = select("memory");
        assert!(memory.part(Part::Memory) && !memory.part(Part::Throughput));
    }

    #[test]
    fn an_unknown_word_is_refused() {
        let error = select_error("xpd");
        assert!(error.contains("xpd") && error.contains("xdp"), "{error}");
    }

    fn select_error(text: &str) -> String {
        text.parse::<Selection>().unwrap_err().to_string()
    }
}
