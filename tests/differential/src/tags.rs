//! The site with VLANs: its interfaces are VLAN interfaces above the one that the fast path does not know.

use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, ensure};
use teredo_common::{
    peers::Peer,
    time::Instant,
    verdict::Action,
    vlan::{TAG, Tags},
};

use crate::{
    FastPath, Outcome,
    site::{LAN, Port, Setup, WAN},
};

/// Octets in front of the tags of a frame.
const ADDRESSES: usize = 12;
/// A priority, and that a frame may be dropped.
const PRIORITY: u8 = 0xb0;

/// Returns tags from the outside: of an 802.1Q VLAN, or of an 802.1ad VLAN and one within.
///
/// # Panics
///
/// When a number is not that of a VLAN.
#[must_use]
pub fn tags(numbers: &[u16]) -> Tags {
    let all = match numbers {
        [] => Some(Tags::NONE),
        [one] => Tags::NONE.and(false, *one),
        [outer, inner] => Tags::NONE
            .and(true, *outer)
            .and_then(|tags| tags.and(false, *inner)),
        _ => None,
    };
    all.expect("one or two numbers of VLANs")
}

/// Returns the set-ups to compare: tags on one side, on both, and two of them.
#[must_use]
pub fn setups(setup: &Setup) -> Vec<Setup> {
    let all: [[&[u16]; 2]; 4] = [
        [&[10], &[]],
        [&[], &[10]],
        [&[10], &[20]],
        [&[100, 10], &[100]],
    ];
    let all = all.into_iter().map(|numbers| numbers.map(tags));
    all.map(|tags| Setup {
        tags,
        ..setup.clone()
    })
    .collect()
}

impl Setup {
    /// Returns the tags of frames at an interface of the site.
    #[must_use]
    pub fn tags_at(&self, port: Port) -> Tags {
        match port {
            Port::Wan => self.tags[0],
            Port::Lan => self.tags[1],
            Port::Other => Tags::NONE,
        }
    }

    /// Returns a frame for an interface of the site as it comes, and the interface by which it does. Some of
    /// the frames have priorities.
    #[must_use]
    pub fn tagged(&self, port: Port, frame: &[u8]) -> (Port, Vec<u8>) {
        let tags = self.tags_at(port);
        if tags == Tags::NONE || frame.len() < ADDRESSES {
            return (port, frame.to_vec());
        }
        let mut octets: Vec<u8> = tags.0.into_iter().flat_map(u32::to_ne_bytes).collect();
        octets.truncate(tags.octets());
        if frame.len().is_multiple_of(2) {
            octets
                .iter_mut()
                .skip(2)
                .step_by(TAG)
                .for_each(|octet| *octet |= PRIORITY);
        }
        let (addresses, rest) = frame.split_at(ADDRESSES);
        (Port::Other, [addresses, &octets, rest].concat())
    }
}

/// A fast path on the site with VLANs, which looks like one without.
#[derive(Debug)]
pub struct Tagged<F> {
    fast: F,
    setup: Setup,
}

impl<F: FastPath> Tagged<F> {
    /// Returns the fast path without the tags of its set-up.
    pub fn new(fast: F, setup: &Setup) -> Self {
        Self {
            fast,
            setup: setup.clone(),
        }
    }

    /// Removes the tags that a frame has to have: those of the interface that it leaves by.
    fn untag(&self, mut outcome: Outcome) -> Result<Outcome> {
        let source = outcome.frame.get(6..ADDRESSES).context("a source")?;
        let port = match source {
            source if source == WAN => Port::Wan,
            source if source == LAN => Port::Lan,
            _ => anyhow::bail!("from nowhere: {:02x?}", outcome.frame),
        };
        let tags = self.setup.tags_at(port);
        let expected: Vec<u8> = tags.0.into_iter().flat_map(u32::to_ne_bytes).collect();
        let found = outcome.frame.drain(ADDRESSES..ADDRESSES + tags.octets());
        ensure!(found.eq(expected.into_iter().take(tags.octets())), "tags");
        Ok(outcome)
    }
}

impl<F: FastPath> FastPath for Tagged<F> {
    fn now(&self) -> Instant {
        self.fast.now()
    }

    fn insert(&mut self, address: Ipv6Addr, peer: Peer) -> Result<()> {
        self.fast.insert(address, peer)
    }

    fn remove(&mut self, address: Ipv6Addr) -> Result<()> {
        self.fast.remove(address)
    }

    fn set_draining(&mut self, end: Option<Instant>) -> Result<()> {
        self.fast.set_draining(end)
    }

    fn run(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        let (at, tagged) = self.setup.tagged(port, frame);
        let outcome = self.fast.run(at, &tagged)?;
        if outcome.verdict.action() == Action::Forward {
            return self.untag(outcome);
        }
        ensure!(outcome.frame == tagged, "changed and then not forwarded");
        Ok(Outcome {
            frame: frame.to_vec(),
            ..outcome
        })
    }
}
