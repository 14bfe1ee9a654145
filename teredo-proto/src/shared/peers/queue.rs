//! Packets that wait for a bubble's answer: first in, first out, bounded for each peer, for each
//! source and in total (P-07, L-12).

use std::{collections::VecDeque, time::Duration};

use teredo_common::time::Instant;

use crate::shared::{gradual::GradualMap, keyed::Keyed};

/// The cost of a waiting packet besides its octets: the allocation and its place in the queue.
pub const OVERHEAD: usize = 64;

/// The bounds of all queues.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Packets of one peer.
    pub packets_per_peer: usize,
    /// Octets of all packets, [`OVERHEAD`] included.
    pub octets: usize,
    /// Octets of the packets that come from one /64, [`OVERHEAD`] included.
    pub octets_per_source: usize,
}

/// The bound that a packet would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The peer's queue.
    Peer,
    /// The share of the packet's source.
    Source,
    /// The bound on all queues together.
    Total,
}

/// The queue of one peer. Belongs to one [`Budget`]: empty it there before dropping it. A copy belongs to
/// none.
#[derive(Clone, Debug, Default)]
pub struct Queue(VecDeque<Waiting>);

/// A packet that waits.
#[derive(Clone, Debug)]
struct Waiting {
    /// When it arrived; [`Instant::ZERO`] if that is not known any more.
    since: Instant,
    packet: Box<[u8]>,
}

impl Queue {
    /// Number of packets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The packets, oldest first.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|waiting| &*waiting.packet)
    }

    /// Whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keeps all queues together within their bounds.
#[derive(Debug)]
pub struct Budget {
    bounds: Bounds,
    packets: usize,
    octets: usize,
    /// Octets of the packets of each /64.
    sources: GradualMap,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds, keyed: Keyed) -> Self {
        Self {
            bounds,
            packets: 0,
            octets: 0,
            sources: GradualMap::new(keyed),
        }
    }

    /// Packets in all queues.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Octets in all queues, [`OVERHEAD`] included.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Appends an IPv6 packet.
    ///
    /// # Errors
    ///
    /// The bound that the packet would exceed.
    pub fn push(&mut self, now: Instant, queue: &mut Queue, packet: &[u8]) -> Result<(), Full> {
        let cost = packet.len() + OVERHEAD;
        if queue.len() >= self.bounds.packets_per_peer {
            return Err(Full::Peer);
        }
        if self.octets + cost > self.bounds.octets {
            return Err(Full::Total);
        }
        let source = key(packet);
        let used = self.sources.get(source).unwrap_or_default() as usize + cost;
        if used > self.bounds.octets_per_source {
            return Err(Full::Source);
        }
        let used = u32::try_from(used).map_err(|_| Full::Source)?;
        self.sources.set(source, used);
        self.packets += 1;
        self.octets += cost;
        queue.0.push_back(Waiting {
            since: now,
            packet: packet.into(),
        });
        Ok(())
    }

    /// Removes and returns the oldest packet.
    pub fn pop(&mut self, queue: &mut Queue) -> Option<Box<[u8]>> {
        Some(self.take(queue)?.packet)
    }

    /// Removes and returns the oldest packet, and how long it has waited, if that is known.
    pub fn release(
        &mut self,
        now: Instant,
        queue: &mut Queue,
    ) -> Option<(Box<[u8]>, Option<Duration>)> {
        let Waiting { since, packet } = self.take(queue)?;
        let is_known = since != Instant::ZERO;
        Some((packet, is_known.then(|| now.saturating_since(since))))
    }

    fn take(&mut self, queue: &mut Queue) -> Option<Waiting> {
        let waiting = queue.0.pop_front()?;
        let packet = &waiting.packet;
        let cost = packet.len() + OVERHEAD;
        self.packets -= 1;
        self.octets -= cost;
        let source = key(packet);
        let used = self.sources.get(source).unwrap_or_default();
        match used.saturating_sub(cost as u32) {
            0 => drop(self.sources.remove(source)),
            left => self.sources.set(source, left),
        }
        Some(waiting)
    }

    /// Removes all packets, oldest first, as the iterator advances.
    pub fn drain(&mut self, mut queue: Queue) -> impl Iterator<Item = Box<[u8]>> {
        std::iter::from_fn(move || self.pop(&mut queue))
    }
}

/// Returns the /64 of a packet's source as a key.
fn key(packet: &[u8]) -> u128 {
    u64::from_be_bytes(network(packet)).into()
}

/// Returns the /64 of a packet's source.
pub fn network(packet: &[u8]) -> [u8; 8] {
    let network = packet.get(8..).and_then(|source| source.first_chunk());
    network.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    const BOUNDS: Bounds = Bounds {
        packets_per_peer: 3,
        octets: 1000,
        octets_per_source: 600,
    };

    fn budget() -> Budget {
        Budget::new(BOUNDS, Keyed::new(&mut StdRng::from_seed([1; 32])))
    }

    fn packet(source: u8, length: usize, mark: u8) -> Vec<u8> {
        let mut packet = vec![mark; length];
        packet[8..16].fill(source);
        packet
    }

    #[test]
    fn p07_first_in_first_out_and_the_last_is_refused() {
        let (mut budget, mut queue) = (budget(), Queue::default());
        for mark in 1..=3 {
            budget.push(NOW, &mut queue, &packet(1, 40, mark)).unwrap();
        }
        assert_eq!(
            budget.push(NOW, &mut queue, &packet(1, 40, 4)),
            Err(Full::Peer)
        );
        for mark in 1..=3 {
            assert_eq!(budget.pop(&mut queue).unwrap()[0], mark);
        }
        assert_eq!(budget.pop(&mut queue), None);
        assert_eq!((budget.packets(), budget.octets()), (0, 0));
        assert_eq!(budget.sources.len(), 0);
    }

    #[test]
    fn a_packet_knows_how_long_it_has_waited() {
        let (mut budget, mut queue) = (budget(), Queue::default());
        budget.push(NOW, &mut queue, &packet(1, 40, 1)).unwrap();
        budget
            .push(Instant::ZERO, &mut queue, &packet(1, 40, 2))
            .unwrap();
        let wait = Duration::from_millis(30);
        let (packet, waited) = budget.release(NOW + wait, &mut queue).unwrap();
        assert_eq!((packet[0], waited), (1, Some(wait)));
        let (packet, waited) = budget.release(NOW + wait, &mut queue).unwrap();
        assert_eq!((packet[0], waited), (2, None));
        assert_eq!(budget.packets(), 0);
    }

    #[test]
    fn l12_one_source_cannot_take_everything() {
        let mut budget = budget();
        let mut queues: [Queue; 4] = Default::default();
        let big = packet(1, 236, 0);
        budget.push(NOW, &mut queues[0], &big).unwrap();
        budget.push(NOW, &mut queues[1], &big).unwrap();
        assert_eq!(budget.push(NOW, &mut queues[2], &big), Err(Full::Source));
        let other = packet(2, 236, 0);
        budget.push(NOW, &mut queues[2], &other).unwrap();
        assert_eq!(budget.push(NOW, &mut queues[3], &other), Err(Full::Total));
    }

    proptest! {
        #[test]
        fn p07_no_bound_is_ever_exceeded(
            steps in prop::collection::vec((0_usize..6, 0_u8..3, 40_usize..300, any::<bool>()), 1..200)
        ) {
            let mut budget = budget();
            let mut queues: [Queue; 6] = Default::default();
            let mut model: [VecDeque<Vec<u8>>; 6] = Default::default();
            for (mark, (peer, source, length, push)) in steps.into_iter().enumerate() {
                if push {
                    let packet = packet(source, length, mark as u8);
                    if budget.push(NOW, &mut queues[peer], &packet).is_ok() {
                        model[peer].push_back(packet);
                    }
                } else {
                    let expected = model[peer].pop_front().map(Vec::into_boxed_slice);
                    prop_assert_eq!(budget.pop(&mut queues[peer]), expected);
                }
                let waiting = || model.iter().flatten();
                let octets: usize = waiting().map(|packet| packet.len() + OVERHEAD).sum();
                prop_assert_eq!((budget.packets(), budget.octets()), (waiting().count(), octets));
                prop_assert!(octets <= BOUNDS.octets);
                prop_assert!(model.iter().all(|queue| queue.len() <= BOUNDS.packets_per_peer));
                for source in 0..3 {
                    let octets: usize = waiting()
                        .filter(|packet| packet[8] == source)
                        .map(|packet| packet.len() + OVERHEAD)
                        .sum();
                    prop_assert!(octets <= BOUNDS.octets_per_source);
                }
            }
        }
    }
}
