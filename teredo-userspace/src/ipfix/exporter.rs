//! The exporter: which peers are reported when, and what happens if the collector does not take it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use teredo_common::traffic::Towards;
use teredo_proto::relay::PeerTraffic;

use super::{Message, Record, Source};
use crate::config::IpfixSection;

/// The most records that wait. Peers that are not removed keep their traffic longer than that.
pub const WAITING_MAX: usize = 1 << 17;
/// The time that the last records may take at an end.
const PATIENCE: Duration = Duration::from_millis(200);

/// An exporting process in the sense of RFC 7011, over UDP.
#[derive(Debug)]
pub struct Exporter {
    collector: SocketAddr,
    domain: u32,
    interval: Duration,
    socket: Option<UdpSocket>,
    /// Records in all messages so far.
    sequence: u32,
    /// Records that are not sent yet.
    waiting: VecDeque<Record>,
    /// Records that were sent since the last call: whether nobody takes them is known a little later.
    sent: Vec<Record>,
    walk: Option<Walk>,
    /// Why the last messages did not leave.
    failure: Option<String>,
}

/// One walk through all peers, which takes an interval.
#[derive(Clone, Copy, Debug)]
struct Walk {
    /// The next slot.
    next: usize,
    /// When it began.
    began: Duration,
    /// When the walk before it began.
    since: Duration,
}

impl Walk {
    /// Returns the slot before which all are due at the time `now`, of this many.
    fn due(&self, now: Duration, interval: Duration, slots: usize) -> usize {
        let elapsed = now.saturating_sub(self.began);
        if elapsed >= interval {
            return slots;
        }
        (slots as u128 * elapsed.as_nanos() / interval.as_nanos()) as usize
    }
}

impl Exporter {
    /// Returns an exporter to the configured collector, if there is one.
    #[must_use]
    pub fn new(config: &IpfixSection) -> Option<Self> {
        let collector = config.collector?.0;
        Some(Self {
            collector,
            domain: config.observation_domain,
            interval: Duration::from_secs(config.interval.into()),
            socket: None,
            sequence: 0,
            waiting: VecDeque::new(),
            sent: Vec::new(),
            walk: None,
            failure: None,
        })
    }

    /// Reports the peers that are due, and those that were removed. To be called once a second; `now` is the time since
    /// 1970.
    pub fn report(&mut self, source: &mut impl Source, now: Duration) {
        source.begin_reports();
        self.examine_sent();
        let mut walk = *self.walk.get_or_insert(Walk {
            next: 0,
            began: now,
            since: now,
        });
        if self.waiting.len() < WAITING_MAX {
            for removed in source.take_removed() {
                self.add(removed, walk.since, now);
            }
            let slots = source.slots();
            let end = walk.due(now, self.interval, slots);
            source.report(walk.next..end, |peer| self.add(peer, walk.since, now));
            walk.next = walk.next.max(end);
            if now.saturating_sub(walk.began) >= self.interval {
                walk = Walk {
                    next: 0,
                    began: now,
                    since: walk.began,
                };
            }
            self.walk = Some(walk);
        }
        self.send(now);
    }

    /// Reports all peers, since nobody will be there to do it later.
    pub fn finish(&mut self, source: &mut impl Source, now: Duration) {
        source.begin_reports();
        self.examine_sent();
        let since = self.walk.map_or(now, |walk| walk.since);
        for removed in source.take_removed() {
            self.add(removed, since, now);
        }
        source.report(0..source.slots(), |peer| self.add(peer, since, now));
        self.walk = None;
        if let Some(socket) = &self.socket {
            // Without that, some may be lost.
            let _ = socket
                .set_nonblocking(false)
                .and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
        }
        self.send(now);
        self.socket = None;
    }

    /// Adds traffic of a peer that its machine has forgotten.
    pub fn add_stray(
        &mut self,
        address: [u8; 16],
        traffic: teredo_common::traffic::Traffic,
        now: Duration,
    ) {
        let since = self.walk.map_or(now, |walk| walk.since);
        let peer = PeerTraffic {
            address: address.into(),
            mapped: Default::default(),
            traffic,
        };
        self.add(peer, since, now);
    }

    /// Returns the number of records that wait for the collector.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the collector, and why it did not get the last messages.
    #[must_use]
    pub fn failure(&self) -> Option<(SocketAddr, &str)> {
        let failure = self.failure.as_deref()?;
        Some((self.collector, failure))
    }

    fn add(&mut self, peer: PeerTraffic, start: Duration, end: Duration) {
        let record = |towards, count| Record {
            towards,
            address: peer.address,
            mapped: peer.mapped,
            count,
            start: start.as_millis() as u64,
            end: end.as_millis() as u64,
        };
        let records = [
            record(Towards::Peer, peer.traffic.encap),
            record(Towards::Native, peer.traffic.decap),
        ];
        let records = records
            .into_iter()
            .filter(|record| record.count.packets > 0);
        self.waiting.extend(records);
    }

    /// Looks whether the collector's host has refused what was sent before; it is sent again then.
    fn examine_sent(&mut self) {
        let error = self.socket.as_ref().map(UdpSocket::take_error);
        let error = error.and_then(|result| result.unwrap_or_else(Some));
        if let Some(error) = error {
            self.fail(&error);
        } else if !self.sent.is_empty() {
            self.failure = None;
        }
        self.sent.clear();
    }

    /// Handles that nothing can be sent. A refusal is an answer to what was sent before.
    fn fail(&mut self, error: &io::Error) {
        self.failure = Some(error.to_string());
        self.socket = None;
        let sent = mem::take(&mut self.sent);
        if error.kind() == ErrorKind::ConnectionRefused {
            for record in sent.into_iter().rev() {
                self.waiting.push_front(record);
            }
        }
    }

    /// Sends what waits; a single message if the collector did not take the last ones.
    fn send(&mut self, now: Duration) {
        let is_trial = self.failure.is_some();
        while !self.waiting.is_empty() {
            if let Err(error) = self.send_one(now) {
                match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => {}
                    _ => self.fail(&error),
                }
                return;
            }
            if is_trial {
                return;
            }
        }
    }

    fn send_one(&mut self, now: Duration) -> io::Result<()> {
        let mut message = Message::new(now.as_secs() as u32, self.sequence, self.domain);
        let records = self
            .waiting
            .iter()
            .take_while(|record| message.push(record));
        let count = records.count();
        let records = message.records();
        let octets = message.finish();
        self.socket()?.send(&octets)?;
        self.sequence = self.sequence.wrapping_add(records);
        self.sent.extend(self.waiting.drain(..count));
        Ok(())
    }

    fn socket(&mut self) -> io::Result<&UdpSocket> {
        if self.socket.is_none() {
            let any: SocketAddr = match self.collector {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(self.collector)?;
            self.socket = Some(socket);
        }
        self.socket
            .as_ref()
            .ok_or_else(|| ErrorKind::NotConnected.into())
    }
}
