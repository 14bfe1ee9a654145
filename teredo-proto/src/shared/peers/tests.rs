//! The rules of the engine, for a role that adds nothing to them.

use std::time::Duration;

use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::{address::Endpoint, time::Instant};

use super::{
    Bounds, Budget, Chore, Full, NotQueued, Patience, Peer, PeerIndex, Peers, RoleState, Step,
    Timing,
};
use crate::shared::keyed::Keyed;

const TIMING: Timing = Timing {
    lifetime: Duration::from_secs(30),
    refresh_after: Duration::from_secs(25),
    grace: Duration::from_secs(2),
};
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// A role with settings of its own for each peer.
#[derive(Debug, Default)]
struct Role {
    needed_until: Option<Instant>,
    displaces: bool,
    forbids_refresh: bool,
}

impl RoleState for Role {
    const PATIENCE: Patience = Patience::Window;

    fn needed_until(&self) -> Instant {
        self.needed_until.unwrap_or(Instant::ZERO)
    }

    fn may_refresh(peer: &Peer<Self>, _now: Instant, lifetime: Duration) -> bool {
        assert_eq!(lifetime, TIMING.lifetime);
        !peer.state.forbids_refresh && !peer.is_asked()
    }

    fn displaces_untrusted(peer: &Peer<Self>) -> bool {
        peer.state.displaces
    }
}

struct World {
    peers: Peers<Role>,
    queues: Budget,
    random: StdRng,
}

impl World {
    /// Room for seven trusted peers and an untrusted one.
    fn new() -> Self {
        let mut random = StdRng::from_seed([1; 32]);
        let keyed = Keyed::new(&mut random);
        let bounds = Bounds {
            packets_per_peer: 2,
            octets: 1000,
            octets_per_source: 1000,
        };
        Self {
            peers: Peers::new(8, TIMING, keyed),
            queues: Budget::new(bounds, keyed),
            random,
        }
    }

    fn untrusted(&mut self, number: u8) -> PeerIndex {
        (self.peers).insert([number; 16], Endpoint::default(), [0; 8])
    }

    /// A peer that was last heard at [`START`].
    fn trusted(&mut self, number: u8) -> PeerIndex {
        let index = self.untrusted(number);
        self.peers.trust(index);
        self.peers[index].last_received = START;
        index
    }

    fn chore(&mut self, after: Duration, index: PeerIndex) -> Chore {
        self.peers.next_chore(START + after, index, |_| false)
    }

    fn step(&mut self, now: Instant, index: PeerIndex) -> Step {
        let step = self.peers.next_step(now, index, &mut self.random);
        if matches!(step, Step::Burst(_)) {
            self.peers[index].pending_mut().history.sent(now);
        }
        step
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn p03_silence_ends_trust_after_lifetime_and_grace() {
    let mut world = World::new();
    let index = world.trusted(1);
    let end = TIMING.lifetime + TIMING.grace;
    let before = end - Duration::from_nanos(1);
    assert_eq!(world.chore(before, index), Chore::Nothing);
    assert_eq!(world.chore(end, index), Chore::Distrust);
    assert!(!world.peers.is_usable(START + TIMING.lifetime, index));
}

#[test]
fn p06_a_silent_peer_displaces_an_untrusted_one_only_if_its_role_says_so() {
    let mut world = World::new();
    let index = world.trusted(1);
    world.untrusted(2);
    assert_eq!(world.chore(seconds(60), index), Chore::Remove);
    world.peers[index].state.displaces = true;
    assert_eq!(world.chore(seconds(60), index), Chore::Distrust);
}

#[test]
fn p12_only_a_peer_that_is_still_sent_to_is_refreshed() {
    let mut world = World::new();
    let index = world.trusted(1);
    world.peers[index].last_sent = START + seconds(21);
    assert_eq!(world.chore(seconds(24), index), Chore::Nothing);
    assert_eq!(world.chore(seconds(25), index), Chore::Refresh);
    assert_eq!(world.chore(seconds(26), index), Chore::Nothing);
    world.peers[index].last_sent = START + seconds(25);
    assert_eq!(world.chore(seconds(31), index), Chore::Refresh);
    world.peers[index].state.forbids_refresh = true;
    assert_eq!(world.chore(seconds(31), index), Chore::Nothing);
}

#[test]
fn a_role_may_refresh_a_peer_that_is_not_sent_to() {
    let mut world = World::new();
    let index = world.trusted(1);
    let now = START + seconds(26);
    assert_eq!(world.peers.next_chore(now, index, |_| true), Chore::Refresh);
    let asks_too_soon = |_: &mut Role| panic!("the role is not asked before it is time");
    let early = world
        .peers
        .next_chore(START + seconds(1), index, asks_too_soon);
    assert_eq!(early, Chore::Nothing);
}

#[test]
fn p12_a_packet_to_a_silent_peer_is_a_reason_to_ask() {
    let mut world = World::new();
    let index = world.trusted(1);
    let due = world.peers.note_sent(START + seconds(24), index);
    assert!(!due.refresh && due.touch);
    world.peers.touch_busy(START + seconds(24), index);
    let due = world.peers.note_sent(START + seconds(24), index);
    assert!(!due.refresh && !due.touch);
    let due = world.peers.note_sent(START + seconds(25), index);
    assert!(due.refresh && due.touch);
    assert_eq!(world.peers[index].last_sent, START + seconds(25));
}

#[test]
fn an_untrusted_peer_stays_while_its_bubbles_or_its_role_need_it() {
    let mut world = World::new();
    let index = world.untrusted(1);
    world.peers[index].pending_mut().history.sent(START);
    assert_eq!(world.chore(seconds(299), index), Chore::Nothing);
    assert_eq!(world.chore(seconds(300), index), Chore::Remove);
    world.peers[index].state.needed_until = Some(START + seconds(600));
    assert_eq!(world.chore(seconds(599), index), Chore::Nothing);
    assert_eq!(world.chore(seconds(600), index), Chore::Remove);
}

#[test]
fn p10_and_p11_four_bursts_and_then_the_end() {
    let mut world = World::new();
    let index = world.untrusted(1);
    let packet = [0; 40];
    let queued = world
        .peers
        .enqueue(&mut world.queues, START, index, &packet);
    assert_eq!(queued, Ok(()));
    world.peers.start_procedure(START, index, [0; 8]);
    let mut now = START;
    for attempts in 0..4 {
        let step = world.step(now, index);
        assert!(matches!(step, Step::Burst(before) if before == attempts));
        assert!(matches!(world.step(now, index), Step::Wait));
        assert_eq!(world.chore(now.saturating_since(START), index), Chore::Step);
        let (next, _) = world.peers.deadline().unwrap();
        assert!((2000..=2250).contains(&next.saturating_since(now).as_millis()));
        assert_eq!(world.peers.take_due(next), Some(index));
        now = next;
    }
    let Step::GiveUp(queue) = world.step(now, index) else {
        panic!("a fifth step");
    };
    assert_eq!(world.queues.drain(queue).count(), 1);
    assert_eq!(world.queues.packets(), 0);
    assert!(!world.peers[index].is_asked());
    assert!(matches!(world.step(now, index), Step::Wait));
    // The entry stays for as long as the bubbles count.
    let refused = world.peers.enqueue(&mut world.queues, now, index, &packet);
    assert_eq!(refused, Err(NotQueued::Exhausted));
    let (removal, _) = world.peers.deadline().unwrap();
    assert!(removal >= START + seconds(300));
}

#[test]
fn p07_a_full_queue_refuses_but_the_peer_is_asked() {
    let mut world = World::new();
    let index = world.untrusted(1);
    for expected in [Ok(()), Ok(()), Err(NotQueued::Full(Full::Peer))] {
        let queued = world
            .peers
            .enqueue(&mut world.queues, START, index, &[0; 40]);
        assert_eq!(queued, expected);
    }
    assert_eq!(world.peers[index].queued(), 2);
}

#[test]
fn p09_a_prolonged_burst_puts_off_the_next_one() {
    let mut world = World::new();
    let index = world.untrusted(1);
    world.peers.start_procedure(START, index, [0; 8]);
    assert!(matches!(world.step(START, index), Step::Burst(0)));
    let end = START + seconds(1);
    let (peers, random) = (&mut world.peers, &mut world.random);
    peers.prolong_burst(end, index, random);
    assert!(matches!(world.step(START + seconds(2), index), Step::Wait));
    assert!(matches!(
        world.step(end + Duration::from_millis(2250), index),
        Step::Burst(1)
    ));
}
