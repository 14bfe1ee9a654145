//! Peers that talk directly, each client behind a NAT of its own.

use std::fmt;

use anyhow::Result;
use teredo_lab::{
    NatKind::{self, AddressRestricted, FullCone, PortRestricted, Symmetric},
    scene::Maker,
    together,
    traffic::{Ping, Tcp},
};

use super::{is_unreachable, scene};

/// The NATs and clients of the sender and the receiver of the first packet.
#[derive(Clone, Copy, Debug)]
struct Pair {
    nats: [NatKind; 2],
    makers: [Maker; 2],
}

const OURS: [Maker; 2] = [Maker::Teredo; 2];
/// The same with Miredo's client at either end.
const MIXED: [[Maker; 2]; 2] = [
    [Maker::Teredo, Maker::Miredo],
    [Maker::Miredo, Maker::Teredo],
];

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nats, makers } = self;
        let [from, to] = [0, 1].map(|end| format!("{:?} behind {:?}", makers[end], nats[end]));
        write!(formatter, "{from} to {to}")
    }
}

impl Pair {
    fn new(makers: [Maker; 2], from: NatKind, to: NatKind) -> Self {
        let nats = [from, to];
        Self { nats, makers }
    }

    fn meets(self) -> Result<()> {
        self.play(true)
    }

    fn gets_unreachable(self) -> Result<()> {
        self.play(false)
    }

    fn play(self, meets: bool) -> Result<()> {
        // Without a relay, no packet can take another path.
        let scene = scene(Maker::Teredo, &self.nats)?;
        let sites = [&scene.sites[0], &scene.sites[1]];
        let [one, other] = [0, 1].map(|end| scene.start_client_of(self.makers[end], sites[end]));
        let (one, other) = (one?, other?);
        let [from, to] = sites.map(|site| &site.client);
        if !meets {
            return is_unreachable(from, other.address());
        }
        Ping::to(other.address()).all_from(from)?;
        Ping::to(one.address()).all_from(to)?;
        Ping::to(other.address()).count(5).all_from(from)?;
        Tcp::to(other.address())
            .upload(300_000)
            .download(300_000)
            .between(from, to)?;
        Ok(())
    }
}

/// All pairs of RFC 4380: neither NAT is symmetric.
#[test]
fn peers_behind_nats_with_endpoint_independent_mapping_connect() -> Result<()> {
    let nats = [FullCone, AddressRestricted, PortRestricted];
    let ours = nats.map(|nat| Pair::new(OURS, nat, PortRestricted));
    let mixed = MIXED.map(|makers| Pair::new(makers, PortRestricted, PortRestricted));
    together(ours.into_iter().chain(mixed), Pair::meets)
}

#[test]
fn x14_peers_connect_if_one_is_behind_a_symmetric_nat() -> Result<()> {
    let pairs = [FullCone, AddressRestricted].into_iter().flat_map(|nat| {
        [
            Pair::new(OURS, Symmetric, nat),
            Pair::new(OURS, nat, Symmetric),
        ]
    });
    together(pairs, Pair::meets)
}

#[test]
fn c51_unreachable_peers_are_reported() -> Result<()> {
    let pairs = [
        Pair::new(OURS, Symmetric, PortRestricted),
        Pair::new(OURS, PortRestricted, Symmetric),
        Pair::new(OURS, Symmetric, Symmetric),
    ];
    together(pairs, Pair::gets_unreachable)
}
