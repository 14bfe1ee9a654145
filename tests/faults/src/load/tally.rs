//! Numbered packets, counted where they are sent and where they arrive.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Octets of a [`Mark`].
pub const MARK: usize = 20;
/// The start of every mark.
const MAGIC: [u8; 4] = *b"mark";

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        /// A kind of packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Class {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Class {
            /// Every class.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

classes! {
    /// From the native host to peers that send all the time, by the fast path.
    Down = "to steady peers";
    /// From peers that send all the time to the native host, by the fast path.
    Up = "from steady peers";
    /// From the native host to peers that were unknown, or forgotten.
    NewDown = "to new peers";
    /// The answers of new peers.
    NewUp = "from new peers";
    /// From the native host to the host of our client.
    ClientDown = "to a client";
    /// From the host of our client to the native host.
    ClientUp = "from a client";
    /// To peers that do not answer.
    Silent = "to silent peers";
    /// To Teredo addresses whose endpoint nobody may send to.
    Misdirected = "to forbidden endpoints";
    /// To steady peers, larger than the tunnel's MTU.
    TooBig = "too big";
    /// To steady peers, with a hop limit that ends at the relay.
    HopsDown = "to steady peers, hop limit 1";
    /// From steady peers, with a hop limit that ends at the relay.
    HopsUp = "from steady peers, hop limit 1";
    /// From steady peers, to a native address without a route.
    Unrouted = "from steady peers, no route";
    /// Datagrams to the relay that it must not accept.
    Garbage = "garbage to the relay";
    /// Solicitations, which count as delivered when the answer arrives.
    Solicitation = "solicitations";
    /// Datagrams to the server that it must not accept.
    ServerGarbage = "garbage to the server";
}

/// The identity of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The class.
    pub class: Class,
    /// The phase in which the packet was sent.
    pub phase: u32,
    /// The number within class and phase.
    pub number: u64,
}

impl Mark {
    /// Returns the octets that a packet carries.
    #[must_use]
    pub fn encode(self) -> [u8; MARK] {
        let mut octets = [0; MARK];
        octets[..4].copy_from_slice(&MAGIC);
        octets[4] = self.class as u8;
        octets[8..12].copy_from_slice(&self.phase.to_be_bytes());
        octets[12..].copy_from_slice(&self.number.to_be_bytes());
        octets
    }

    /// Reads the mark at the start of these octets.
    #[must_use]
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; MARK] = octets.first_chunk()?;
        let (magic, rest) = octets.split_first_chunk()?;
        (*magic == MAGIC).then_some(())?;
        Some(Self {
            class: *Class::ALL.get(usize::from(rest[0]))?,
            phase: u32::from_be_bytes(rest[4..8].try_into().ok()?),
            number: u64::from_be_bytes(rest[8..].try_into().ok()?),
        })
    }
}

/// Packets of one class, in one phase or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets sent.
    pub sent: u64,
    /// Different packets that arrived.
    pub delivered: u64,
    /// Packets that arrived again.
    pub repeated: u64,
}

impl Count {
    /// Returns the packets that did not arrive.
    #[must_use]
    pub fn missing(self) -> u64 {
        self.sent.saturating_sub(self.delivered)
    }
}

/// The packets of one class in one phase, and which of them have arrived.
#[derive(Debug, Default)]
struct Entry {
    count: Count,
    arrived: Vec<u64>,
}

#[derive(Debug, Default)]
struct State {
    phase: u32,
    entries: BTreeMap<(Class, u32), Entry>,
}

/// The counts of all packets.
#[derive(Debug, Default)]
pub struct Tally(Mutex<State>);

impl Tally {
    /// Counts a packet that is being sent, in the current phase.
    pub fn send(&self, class: Class) -> Mark {
        let mut state = self.state();
        let phase = state.phase;
        let entry = state.entries.entry((class, phase)).or_default();
        let number = entry.count.sent;
        entry.count.sent += 1;
        Mark {
            class,
            phase,
            number,
        }
    }

    /// Takes back [`Self::send`] for the last packet of its class, which the kernel refused.
    pub fn take_back(&self, mark: Mark) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&(mark.class, mark.phase)) {
            entry.count.sent -= 1;
        }
    }

    /// Counts a packet that has arrived.
    pub fn receive(&self, mark: Mark) {
        let mut state = self.state();
        let entry = state.entries.entry((mark.class, mark.phase)).or_default();
        let (word, bit) = ((mark.number / 64) as usize, 1 << (mark.number % 64));
        if entry.arrived.len() <= word {
            entry.arrived.resize(word + 1, 0);
        }
        if entry.arrived[word] & bit == 0 {
            entry.arrived[word] |= bit;
            entry.count.delivered += 1;
        } else {
            entry.count.repeated += 1;
        }
    }

    /// Begins another phase and returns its number.
    pub fn next_phase(&self) -> u32 {
        let mut state = self.state();
        state.phase += 1;
        state.phase
    }

    /// Returns the packets of a class that were sent in these phases.
    #[must_use]
    pub fn during(&self, class: Class, phases: std::ops::RangeInclusive<u32>) -> Count {
        let state = self.state();
        let mut sum = Count::default();
        for (_, entry) in state
            .entries
            .range((class, *phases.start())..=(class, *phases.end()))
        {
            sum.sent += entry.count.sent;
            sum.delivered += entry.count.delivered;
            sum.repeated += entry.count.repeated;
        }
        sum
    }

    /// Returns all packets of a class.
    #[must_use]
    pub fn total(&self, class: Class) -> Count {
        self.during(class, 0..=u32::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_their_octets() {
        for &class in Class::ALL {
            let mark = Mark {
                class,
                phase: 7,
                number: 1 << 40,
            };
            assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        }
        assert_eq!(Mark::decode(&[0; MARK]), None);
        assert_eq!(Mark::decode(b"mark"), None);
    }

    #[test]
    fn packets_are_counted_once_in_the_phase_of_their_sending() {
        let tally = Tally::default();
        let first = tally.send(Class::Up);
        let phase = tally.next_phase();
        let second = tally.send(Class::Up);
        tally.receive(first);
        tally.receive(first);
        assert_eq!(tally.during(Class::Up, 0..=0).repeated, 1);
        assert_eq!(tally.during(Class::Up, phase..=phase).missing(), 1);
        tally.receive(second);
        assert_eq!(tally.total(Class::Up).missing(), 0);
        assert_eq!(tally.total(Class::Down), Count::default());
    }
}
