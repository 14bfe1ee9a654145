//! Datagrams from the others.

use std::{cmp::Ordering, net::SocketAddr, time::Duration};

use super::{
    Clocks, Fleet,
    keys::Keys,
    member::{Other, SILENCE, Table},
    statistics::DropReason,
    transfer::{BATCH, parts},
    wire::{Error, Header, Heartbeat, Message, Part, REPORTS, Reports, Request, build_reports},
};
use crate::relay::Relay;

impl Fleet {
    /// Handles a datagram that arrived at this relay's address in the fleet. Then the relay may have
    /// packets to send, and events.
    pub fn handle_datagram(
        &mut self,
        clocks: Clocks,
        from: SocketAddr,
        datagram: &[u8],
        relay: &mut Relay,
    ) {
        match self.receive(clocks, from, datagram, relay) {
            Ok(()) => self.statistics.received.add(datagram.len()),
            Err(reason) => self.statistics.dropped[reason] += 1,
        }
        self.flush(clocks, relay);
    }

    fn receive(
        &mut self,
        clocks: Clocks,
        from: SocketAddr,
        datagram: &[u8],
        relay: &mut Relay,
    ) -> Result<(), DropReason> {
        let mut others = self.others.iter();
        let place = others.position(|other| other.address == from);
        let place = place.ok_or(DropReason::Stranger)?;
        let (header, body) = Header::parse(datagram).map_err(|error| match error {
            Error::Malformed => DropReason::Malformed,
            Error::Version(_) => DropReason::Version,
        })?;
        check_tag(&self.keys, from, self.config.address, &header, datagram)?;
        let (skew, run) = (self.config.skew, self.others[place].run);
        let other = &mut self.others[place];
        check_time(other, clocks, &header, skew)?;
        if !other.received.take(self.config.receive_rate, clocks.now) {
            return Err(DropReason::Rate);
        }
        other.heard = clocks.now;
        if other.run != run {
            // It is new, and shall not wait for the next sign of life.
            other.next_beat = clocks.now;
        }
        let message = Message::parse(header.kind, body).map_err(|_| DropReason::Malformed)?;
        match message {
            Message::Heartbeat(heartbeat) => self.handle_heartbeat(clocks, place, heartbeat, relay),
            Message::Reports(reports) => self.learn(clocks, place, reports, relay),
            Message::Request(request) => self.serve(clocks, place, request, relay)?,
            Message::Part(part, reports) => {
                self.handle_part(clocks, place, part, reports, relay)?;
            }
        }
        Ok(())
    }

    fn handle_heartbeat(
        &mut self,
        clocks: Clocks,
        place: usize,
        heartbeat: Heartbeat,
        relay: &Relay,
    ) {
        self.outrun(clocks, heartbeat.heard_run);
        let other = &mut self.others[place];
        other.hears_us = heartbeat.heard_run == self.run;
        other.is_in_step = heartbeat.is_in_step;
        if !other.hears_us {
            // Nor did it tell anything.
            other.table = Table::Unknown;
        }
        other.peers = heartbeat.peers;
        // An answer to an answer would never end.
        let is_due = heartbeat.wants_answer && clocks.now >= other.next_answer;
        if is_due {
            other.next_answer = clocks.now + super::FAST_BEAT / 2;
            self.send_heartbeat(clocks, place, relay);
        }
    }

    /// Takes a later run than one of an earlier process, which began shortly before the clock went back: others
    /// take no earlier one (F-05). A member that lies about it cannot move the run beyond the clocks.
    fn outrun(&mut self, clocks: Clocks, heard: u64) {
        let has_begun = clocks.now.saturating_since(self.began) < SILENCE;
        let skew = u64::try_from(self.config.skew.as_millis()).unwrap_or(u64::MAX);
        let is_plausible = heard < clocks.milliseconds().saturating_add(skew);
        if heard > self.run && has_begun && is_plausible {
            self.run = heard + 1;
        }
    }

    fn learn(&mut self, clocks: Clocks, place: usize, reports: Reports<'_>, relay: &mut Relay) {
        let member = self.others[place].member;
        for report in reports.iter(clocks.now, relay.prefix()) {
            let learned = relay.learn(clocks.now, member, &report);
            self.statistics.learned[learned] += 1;
        }
    }

    /// Answers a request for parts of the table.
    fn serve(
        &mut self,
        clocks: Clocks,
        place: usize,
        request: Request,
        relay: &Relay,
    ) -> Result<(), DropReason> {
        let total = parts(relay.slots());
        let end = request
            .first
            .saturating_add(request.count.min(BATCH))
            .min(total);
        let mut part = Part {
            id: request.id,
            first: request.first.min(end),
            end: request.first.min(end),
            total,
        };
        let (mut reports, mut next) = (Vec::new(), Vec::new());
        loop {
            if part.end < end {
                let first = part.end as usize * REPORTS;
                next.clear();
                relay.reports(
                    clocks.now,
                    first..first + REPORTS,
                    request.only_own,
                    &mut next,
                );
                if reports.len() + next.len() <= REPORTS {
                    reports.append(&mut next);
                    part.end += 1;
                    continue;
                }
            }
            if !self.others[place]
                .served
                .take(self.config.serve_rate, clocks.now)
            {
                return Err(DropReason::Rate);
            }
            let octets = build_reports(clocks.now, &reports);
            self.send(clocks, place, &Message::Part(part, Reports::of(&octets)));
            if part.end >= end {
                return Ok(());
            }
            part.first = part.end;
            reports.clear();
        }
    }

    fn handle_part(
        &mut self,
        clocks: Clocks,
        place: usize,
        part: Part,
        reports: Reports<'_>,
        relay: &mut Relay,
    ) -> Result<(), DropReason> {
        let Table::Coming(transfer) = &mut self.others[place].table else {
            return Err(DropReason::Unexpected);
        };
        if transfer.id != part.id {
            return Err(DropReason::Unexpected);
        }
        transfer.handle_part(clocks.now, part);
        self.learn(clocks, place, reports, relay);
        self.proceed(clocks, place);
        Ok(())
    }
}

/// Checks that a datagram was signed by its sender for this relay (F-03, F-04).
fn check_tag(
    keys: &Keys,
    from: SocketAddr,
    to: SocketAddr,
    header: &Header,
    datagram: &[u8],
) -> Result<(), DropReason> {
    if !keys.has(header.key) {
        return Err(DropReason::Key);
    }
    match keys.verify(header.key, from, to, datagram) {
        true => Ok(()),
        false => Err(DropReason::Tag),
    }
}

/// Checks that a datagram was sent just now, and did not come already (F-05).
fn check_time(
    other: &mut Other,
    clocks: Clocks,
    header: &Header,
    skew: Duration,
) -> Result<(), DropReason> {
    let (own, sent) = (clocks.milliseconds(), header.sent);
    other.clock_ahead = sent.saturating_sub(own).min(i64::MAX as u64) as i64
        - own.saturating_sub(sent).min(i64::MAX as u64) as i64;
    let skew = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
    if own.abs_diff(sent) > skew || header.run > own.saturating_add(skew) {
        return Err(DropReason::Clock);
    }
    match header.run.cmp(&other.run) {
        Ordering::Less => return Err(DropReason::Replay),
        Ordering::Equal => {}
        Ordering::Greater => other.begin_run(header.run),
    }
    match other.window.accept(header.sequence) {
        true => Ok(()),
        false => Err(DropReason::Replay),
    }
}
