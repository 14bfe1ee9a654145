//! Datagrams from the others.

use std::{cmp::Ordering, net::SocketAddr, time::Duration};

use super::{
    Clocks, Fleet,
    keys::Keys,
    member::{Refusal, Table},
    statistics::DropReason,
    transfer::{BATCH, parts},
    wire::{
        Error, Header, Heartbeat, Kind, Message, Part, REPORTS, Reports, Request, Service,
        build_reports,
    },
};
use crate::{
    relay::{Member, Relay},
    shared::limiter::Rate,
};

/// The work for a datagram with a part of the table, in parts that are looked at.
const ANSWER: u32 = 8;
/// Rate of datagrams from addresses of no members that are looked at (F-25).
const STRANGERS: Rate = Rate::new(20, 20);

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
        let Some(place) = others.position(|other| other.address == from) else {
            self.note_stranger(clocks, from, datagram, relay);
            return Err(DropReason::Stranger);
        };
        let (header, message) = match self.examine(clocks, place, datagram, relay) {
            Ok(examined) => examined,
            Err((reason, refusal)) => {
                let refusal = refusal.map(|refusal| (clocks.now, refusal));
                let other = &mut self.others[place];
                other.refused = refusal.or(other.refused);
                return Err(reason);
            }
        };
        let is_asked_for = self.is_asked_for(place, &message);
        let (rate, other) = (self.config.receive_rate, &mut self.others[place]);
        other.named = (clocks.now, header.run);
        match (header.run.cmp(&other.run), message) {
            (Ordering::Less, _) => {
                self.answer(clocks, place, relay);
                return Err(DropReason::Replay);
            }
            (Ordering::Equal, _) => {}
            (Ordering::Greater, Message::Heartbeat(heartbeat))
                if heartbeat.heard_run == other.own_run =>
            {
                other.begin_run(header.run, header.sequence);
                // It shall not wait for the next sign of life.
                other.next_beat = clocks.now;
            }
            (Ordering::Greater, Message::Heartbeat(heartbeat)) => {
                self.outrun(clocks, place, heartbeat.heard_run);
                if heartbeat.wants_answer {
                    self.answer(clocks, place, relay);
                }
                return Ok(());
            }
            (Ordering::Greater, _) => return Err(DropReason::Run),
        }
        if !other.window.accept(header.sequence) {
            return Err(DropReason::Replay);
        }
        if !is_asked_for && !other.received.take(rate, clocks.now) {
            return Err(DropReason::Rate);
        }
        (other.heard, other.refused) = (clocks.now, None);
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

    /// Checks that a datagram is one that another relay of the fleet just sent to this one, and parses it. An error
    /// has the difference between the two relays as well, if it comes from one.
    fn examine<'d>(
        &mut self,
        clocks: Clocks,
        place: usize,
        datagram: &'d [u8],
        relay: &Relay,
    ) -> Result<(Header, Message<'d>), (DropReason, Option<Refusal>)> {
        let (skew, own) = (self.config.skew, self.config.address);
        let other = &mut self.others[place];
        let differing = |reason| (reason, Refusal::of(reason));
        let verified = verify(&self.keys, other.address, own, datagram);
        let (header, body) = verified.map_err(differing)?;
        let signed = |milliseconds| i64::try_from(milliseconds).unwrap_or(i64::MAX);
        other.clock_ahead = signed(header.sent).saturating_sub(signed(clocks.milliseconds()));
        check_time(clocks, &header, skew).map_err(differing)?;
        let message = Message::parse(header.kind, body);
        let message = message.map_err(|_| differing(DropReason::Malformed))?;
        if let Message::Heartbeat(heartbeat) = message
            && let Some(service) = heartbeat.service
            && service != Service::of(relay.config())
        {
            if other.run != 0 {
                other.end_runs(clocks.run(), clocks.latest_run(skew));
            }
            let refusal = Refusal::Service(service.endpoint);
            return Err((DropReason::Service, Some(refusal)));
        }
        Ok((header, message))
    }

    /// Takes note of a relay with the key that is no member: this relay has the wrong members, or that one the wrong
    /// address.
    fn note_stranger(&mut self, clocks: Clocks, from: SocketAddr, datagram: &[u8], relay: &Relay) {
        if !self.strangers.take(STRANGERS, clocks.now) {
            return;
        }
        let verified = verify(&self.keys, from, self.config.address, datagram);
        if let Ok((header, _)) = verified
            && header.kind == Kind::Heartbeat
            && check_time(clocks, &header, self.config.skew).is_ok()
        {
            self.stranger = Some((clocks.now, from));
            self.answer_stranger(clocks, from, relay);
        }
    }

    /// Whether a datagram is a part of a table that this relay asked for and does not have. The requests bound
    /// their number.
    fn is_asked_for(&self, place: usize, message: &Message<'_>) -> bool {
        let Message::Part(part, _) = message else {
            return false;
        };
        match &self.others[place].table {
            Table::Coming(transfer) => transfer.wants(part),
            _ => false,
        }
    }

    fn handle_heartbeat(
        &mut self,
        clocks: Clocks,
        place: usize,
        heartbeat: Heartbeat,
        relay: &Relay,
    ) {
        self.outrun(clocks, place, heartbeat.heard_run);
        let other = &mut self.others[place];
        other.hears_us = heartbeat.heard_run == other.own_run;
        other.is_in_step = heartbeat.is_in_step;
        if !other.hears_us {
            // Nor did it tell anything.
            other.table = Table::Unknown;
        }
        other.peers = heartbeat.peers;
        if heartbeat.wants_answer {
            self.answer(clocks, place, relay);
        }
    }

    /// Sends an additional sign of life, unless there was one just now: an answer to an answer would never end.
    fn answer(&mut self, clocks: Clocks, place: usize, relay: &Relay) {
        let other = &mut self.others[place];
        if clocks.now >= other.next_answer {
            other.next_answer = clocks.now + super::FAST_BEAT / 2;
            self.send_heartbeat(clocks, place, relay);
        }
    }

    /// Takes a later run towards another relay than one of an earlier process, which began before the clock went back:
    /// it takes no earlier one (F-05). If it lies about that, it changes nothing for others, and cannot move the run
    /// beyond the clocks.
    fn outrun(&mut self, clocks: Clocks, place: usize, heard: u64) {
        let other = &mut self.others[place];
        if heard > other.own_run && heard < clocks.latest_run(self.config.skew) {
            other.begin_own_run(heard + 1);
            other.next_beat = clocks.now;
        }
    }

    fn learn(&mut self, clocks: Clocks, place: usize, reports: Reports<'_>, relay: &mut Relay) {
        let member = self.others[place].member;
        for report in reports.iter(clocks.now, relay.prefix()) {
            let learned = relay.learn(clocks.now, member, &report);
            self.statistics.learned[learned] += 1;
        }
    }

    /// Answers a request for parts of the table. Peers of this relay alone are those that nobody else tells that relay about:
    /// also its own from before, and those of relays that are gone.
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
        let asker = self.others[place].member;
        let told_by_others: Vec<Member> = (self.others.iter())
            .filter(|other| other.is_live(clocks.now) && other.member != asker)
            .map(|other| other.member)
            .collect();
        let is_wanted = |member| !request.only_own || !told_by_others.contains(&member);
        let (mut reports, mut next) = (Vec::new(), Vec::new());
        loop {
            if part.end < end {
                self.pay_for(clocks, place, 1)?;
                let first = part.end as usize * REPORTS;
                next.clear();
                relay.reports(clocks.now, first..first + REPORTS, is_wanted, &mut next);
                if reports.len() + next.len() <= REPORTS {
                    reports.append(&mut next);
                    part.end += 1;
                    continue;
                }
            }
            self.pay_for(clocks, place, ANSWER)?;
            let octets = build_reports(clocks.now, &reports);
            self.send(clocks, place, &Message::Part(part, Reports::of(&octets)));
            if part.end >= end {
                return Ok(());
            }
            part.first = part.end;
            reports.clear();
        }
    }

    /// Takes work from what another relay may ask for.
    fn pay_for(&mut self, clocks: Clocks, place: usize, work: u32) -> Result<(), DropReason> {
        let (rate, served) = (self.config.serve_rate, &mut self.others[place].served);
        let is_paid = (0..work).all(|_| served.take(rate, clocks.now));
        is_paid.then_some(()).ok_or(DropReason::Rate)
    }

    fn handle_part(
        &mut self,
        clocks: Clocks,
        place: usize,
        part: Part,
        reports: Reports<'_>,
        relay: &mut Relay,
    ) -> Result<(), DropReason> {
        let most = parts(relay.config().max_peers);
        match &mut self.others[place].table {
            Table::Coming(transfer) if transfer.wants(&part) => {
                transfer.handle_part(part, most);
            }
            _ => return Err(DropReason::Unexpected),
        }
        self.learn(clocks, place, reports, relay);
        self.proceed(clocks, place);
        Ok(())
    }
}

/// Checks that a datagram was signed by `from` for `to` (F-03, F-04), and returns its header and body.
fn verify<'d>(
    keys: &Keys,
    from: SocketAddr,
    to: SocketAddr,
    datagram: &'d [u8],
) -> Result<(Header, &'d [u8]), DropReason> {
    let (header, body) = Header::parse(datagram).map_err(|error| match error {
        Error::Malformed => DropReason::Malformed,
        Error::Version(_) => DropReason::Version,
    })?;
    if !keys.has(header.key) {
        return Err(DropReason::Key);
    }
    match keys.verify(header.key, from, to, datagram) {
        true => Ok((header, body)),
        false => Err(DropReason::Tag),
    }
}

/// Checks that a datagram was sent just now, in a run that can be (F-05).
fn check_time(clocks: Clocks, header: &Header, skew: Duration) -> Result<(), DropReason> {
    let milliseconds = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
    let is_now = clocks.milliseconds().abs_diff(header.sent) <= milliseconds;
    match is_now && header.run <= clocks.latest_run(skew) {
        true => Ok(()),
        false => Err(DropReason::Clock),
    }
}
