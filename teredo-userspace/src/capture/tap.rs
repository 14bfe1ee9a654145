//! The places in the daemon where packets are captured.

use std::{
    net::SocketAddrV4,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use teredo_common::{
    address::Endpoint,
    capture::{
        SNAPLEN_MAX,
        point::{DROPPED, FORWARDED, RECEIVED, SENT},
    },
};
use tokio::sync::mpsc;

use super::{reason::Reason, selection::Selection};
use crate::{datapath::xdp::capture::Missing, metrics::Role};

/// Octets of the headers that the socket took from a datagram: IPv4 and UDP.
const OUTER: usize = 28;
/// The numbers of the daemon's packets begin here, those of the XDP program's end.
const NUMBERS: u64 = 1 << 63;

/// The taps of all roles.
#[derive(Clone, Debug, Default)]
pub struct Taps(Arc<Shared>);

/// The tap of one role. It costs one branch while nobody captures.
#[derive(Clone, Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    role: Role,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether packets of the daemon are captured.
    is_on: AtomicBool,
    sink: Mutex<Option<Sink>>,
}

/// The destination of captured packets.
#[derive(Debug)]
struct Sink {
    selection: Selection,
    packets: mpsc::Sender<Captured>,
    missing: Missing,
    /// Packets since the last that was looked at.
    skipped: u32,
    /// The moment from which the rate permits another packet.
    turn: Instant,
    number: u64,
}

/// The only capture, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Shared>);

/// A packet that is of interest.
#[derive(Clone, Debug)]
pub struct Tapped {
    octets: Vec<u8>,
    length: usize,
    number: u64,
}

/// A captured packet, from its IP header on.
#[derive(Debug)]
pub struct Captured {
    /// When it was captured.
    pub time: SystemTime,
    /// The role that had it.
    pub role: Role,
    /// The point.
    pub point: u32,
    /// The reason for its fate.
    pub reason: Reason,
    /// The octets that it had.
    pub length: usize,
    /// The first of them.
    pub octets: Vec<u8>,
    /// Its number, the same at every point.
    pub number: u64,
}

impl Taps {
    /// Returns the tap of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> Tap {
        Tap {
            shared: self.0.clone(),
            role,
        }
    }

    /// Begins a capture; `None` if there is one already.
    pub(super) fn begin(
        &self,
        selection: &Selection,
        packets: mpsc::Sender<Captured>,
    ) -> Option<Place> {
        let mut sink = self.0.sink();
        if sink.is_some() {
            return None;
        }
        *sink = Some(Sink {
            selection: selection.clone(),
            packets,
            missing: Missing::default(),
            skipped: 0,
            turn: Instant::now(),
            number: NUMBERS,
        });
        self.0.is_on.store(selection.daemon != 0, Relaxed);
        Some(Place(self.0.clone()))
    }
}

impl Place {
    /// Returns the packets of the daemon that are missing until now.
    pub(super) fn missing(&self) -> Missing {
        let sink = self.0.sink();
        sink.as_ref().map(|sink| sink.missing).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.is_on.store(false, Relaxed);
        *self.0.sink() = None;
    }
}

impl Default for Tap {
    fn default() -> Self {
        Taps::default().of(Role::Relay)
    }
}

impl Tap {
    /// Returns whether packets of the daemon are captured.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.is_on.load(Relaxed)
    }

    /// Looks at a datagram, and returns it if it is of interest. The headers that the socket took away are made again.
    #[inline]
    #[must_use]
    pub fn datagram(&self, from: Endpoint, to: Endpoint, payload: &[u8]) -> Option<Tapped> {
        match self.is_on() {
            true => self.look(Tapped::datagram(from, to, payload)),
            false => None,
        }
    }

    /// Looks at an IPv6 packet, and returns it if it is of interest.
    #[inline]
    #[must_use]
    pub fn packet(&self, packet: &[u8]) -> Option<Tapped> {
        match self.is_on() {
            true => self.look(Tapped::packet(packet)),
            false => None,
        }
    }

    /// Captures a packet that came, which was dropped for a reason, or became another that leaves, or neither.
    #[cold]
    pub fn received(&self, packet: &Tapped, reason: Option<Reason>, forwarded: Option<Tapped>) {
        let alone = match forwarded {
            Some(_) => Reason::Forwarded,
            None => Reason::Handled,
        };
        let reason = reason.unwrap_or(alone);
        self.give(RECEIVED, reason, packet.clone());
        match forwarded {
            Some(forwarded) => self.give(
                FORWARDED,
                reason,
                Tapped {
                    number: packet.number,
                    ..forwarded
                },
            ),
            None if reason != Reason::Handled => self.give(DROPPED, reason, packet.clone()),
            None => {}
        }
    }

    /// Captures a packet that the daemon sends on its own account, or that had to wait.
    #[cold]
    pub fn sent(&self, packet: Tapped) {
        self.give(SENT, Reason::Sent, packet);
    }

    #[cold]
    fn look(&self, packet: Tapped) -> Option<Tapped> {
        let mut sink = self.shared.sink();
        let sink = sink.as_mut()?;
        let Selection { filter, role, .. } = &sink.selection;
        if role.is_some_and(|role| role != self.role) {
            return None;
        }
        sink.skipped = sink.skipped.saturating_add(1);
        if sink.skipped < filter.sample {
            return None;
        }
        sink.skipped = 0;
        let octet = |at: usize| packet.octets.get(at).copied().unwrap_or(0);
        if !filter.takes_addresses(false, octet) {
            return None;
        }
        if sink.turn > Instant::now() + Duration::from_nanos(filter.tolerance) {
            sink.missing.limited += 1;
            return None;
        }
        sink.number += 1;
        Some(Tapped {
            number: sink.number,
            ..packet
        })
    }

    fn give(&self, point: u32, reason: Reason, packet: Tapped) {
        debug_assert!(reason.points() & point != 0 && reason.is_of(self.role));
        let mut sink = self.shared.sink();
        let Some(sink) = sink.as_mut() else {
            return;
        };
        if !sink.selection.takes(self.role, point, reason) {
            return;
        }
        let Tapped {
            mut octets,
            length,
            number,
        } = packet;
        let filter = &sink.selection.filter;
        sink.turn = sink.turn.max(Instant::now()) + Duration::from_nanos(filter.interval);
        octets.truncate(filter.snaplen as usize);
        let packet = Captured {
            time: SystemTime::now(),
            role: self.role,
            point,
            reason,
            length,
            octets,
            number,
        };
        if sink.packets.try_send(packet).is_err() {
            sink.missing.lost += 1;
        }
    }
}

impl Tapped {
    /// Returns a datagram, with the headers that the kernel takes away or puts in front, without UDP checksum.
    #[must_use]
    pub fn datagram(from: Endpoint, to: Endpoint, payload: &[u8]) -> Self {
        const TTL: u8 = 64;
        const UDP: u8 = 17;
        let length = OUTER + payload.len();
        let (from, to) = (SocketAddrV4::from(from), SocketAddrV4::from(to));
        let mut octets = vec![0x45, 0];
        octets.extend((length as u16).to_be_bytes());
        octets.extend([0, 0, 0, 0, TTL, UDP, 0, 0]);
        octets.extend(from.ip().octets());
        octets.extend(to.ip().octets());
        let words = octets.chunks_exact(2);
        let sum: u32 = words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        octets[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        octets.extend(from.port().to_be_bytes());
        octets.extend(to.port().to_be_bytes());
        octets.extend((payload.len() as u16 + 8).to_be_bytes());
        octets.extend([0, 0]);
        octets.extend(first(payload));
        Self {
            octets,
            length,
            number: 0,
        }
    }

    /// Returns an IPv6 packet.
    #[must_use]
    pub fn packet(packet: &[u8]) -> Self {
        Self {
            octets: first(packet).to_vec(),
            length: packet.len(),
            number: 0,
        }
    }
}

impl Shared {
    fn sink(&self) -> MutexGuard<'_, Option<Sink>> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first(octets: &[u8]) -> &[u8] {
    &octets[..octets.len().min(SNAPLEN_MAX as usize)]
}

#[cfg(test)]
mod tests {
    use teredo_proto::relay::DropReason;

    use super::*;
    use crate::capture::Query;

    fn endpoint(last: u8, port: u16) -> Endpoint {
        SocketAddrV4::new([192, 0, 2, last].into(), port).into()
    }

    fn capture(taps: &Taps, query: &Query) -> (Place, mpsc::Receiver<Captured>) {
        let (packets, captured) = mpsc::channel(4);
        let place = taps.begin(&query.selection().unwrap(), packets);
        (place.unwrap(), captured)
    }

    #[test]
    fn off_nothing_is_of_interest() {
        let taps = Taps::default();
        let tap = taps.of(Role::Relay);
        assert!(tap.packet(&[0x60; 40]).is_none());
        let (place, _captured) = capture(&taps, &Query::default());
        assert!(tap.packet(&[0x60; 40]).is_some());
        assert!(
            taps.begin(&Query::default().selection().unwrap(), mpsc::channel(1).0)
                .is_none()
        );
        drop(place);
        assert!(tap.packet(&[0x60; 40]).is_none());
    }

    #[test]
    fn packets_come_with_their_points_and_reasons() {
        let taps = Taps::default();
        let tap = taps.of(Role::Relay);
        let (_place, mut captured) = capture(&taps, &Query::default());
        let datagram = tap
            .datagram(endpoint(1, 9), endpoint(2, 3545), &[7; 5])
            .unwrap();
        tap.received(&datagram, None, Some(Tapped::packet(&[0x60; 40])));
        let first = captured.try_recv().unwrap();
        assert_eq!((first.point, first.reason), (RECEIVED, Reason::Forwarded));
        let second = captured.try_recv().unwrap();
        assert_eq!((second.point, second.number), (FORWARDED, first.number));
        assert_eq!(second.octets, [0x60; 40]);
        let expected = [
            0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0xf6, 0xc8, 192, 0, 2, 1, 192, 0, 2, 2, 0, 9, 13,
            217, 0, 13, 0, 0, 7, 7, 7, 7, 7,
        ];
        assert_eq!(first.octets, expected);
        let reason = DropReason::DecapMapping.into();
        tap.received(&datagram, Some(reason), None);
        for point in [RECEIVED, DROPPED] {
            let packet = captured.try_recv().unwrap();
            assert_eq!((packet.point, packet.reason), (point, reason));
        }
        tap.received(&datagram, None, None);
        assert_eq!(captured.try_recv().unwrap().reason, Reason::Handled);
        assert!(captured.try_recv().is_err());
    }

    #[test]
    fn packets_without_room_or_beyond_the_rate_are_counted() {
        let taps = Taps::default();
        let tap = taps.of(Role::Relay);
        let query = Query {
            rate: Some(10),
            ..Query::default()
        };
        let (place, _captured) = capture(&taps, &query);
        let mut looked_at = 0;
        for _ in 0..20 {
            if let Some(packet) = tap.packet(&[0x60; 40]) {
                looked_at += 1;
                tap.sent(packet);
            }
        }
        let missing = place.missing();
        assert_eq!(missing.limited, 20 - looked_at);
        assert!((1..5).contains(&looked_at), "{looked_at}");
        assert_eq!(missing.lost, 0);
        drop(place);
        let (place, _captured) = capture(&taps, &Query::default());
        for _ in 0..6 {
            tap.sent(tap.packet(&[0x60; 40]).unwrap());
        }
        assert_eq!(place.missing().lost, 2);
    }

    #[test]
    fn one_of_a_sample_is_captured_and_only_its_first_octets() {
        let taps = Taps::default();
        let tap = taps.of(Role::Server);
        let query = Query {
            sample: Some(3),
            snaplen: Some(10),
            role: Some("server".to_owned()),
            ..Query::default()
        };
        let (_place, mut captured) = capture(&taps, &query);
        let looked_at = (0..9)
            .filter_map(|_| tap.packet(&[0x60; 40]))
            .collect::<Vec<_>>();
        assert_eq!(looked_at.len(), 3);
        tap.sent(looked_at[0].clone());
        let packet = captured.try_recv().unwrap();
        assert_eq!((packet.octets.len(), packet.length), (10, 40));
        assert!((0..9).all(|_| taps.of(Role::Relay).packet(&[0x60; 40]).is_none()));
    }
}
