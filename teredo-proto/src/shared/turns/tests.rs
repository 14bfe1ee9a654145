//! Paces and turns.

use std::time::Duration;

use super::{
    pace::{IDLE, TRIAL},
    *,
};
use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::limiter::{self, Rate};

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const SERVER: [u8; 4] = [1, 2, 3, 4];
const HOST: Party = [0x20; 8];

fn turns(most: u32) -> Turns {
    let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
    Turns::new(
        Pace {
            first: 9,
            most,
            ..Pace::DEFAULT
        },
        4096,
        keyed,
    )
}

fn peer(number: u16) -> [u8; 16] {
    let mut address = [0; 16];
    address[14..].copy_from_slice(&number.to_be_bytes());
    address
}

/// Lets everybody go who may until `end`, answered or not, and returns the times.
fn run(turns: &mut Turns, end: Instant, answers: impl Fn(usize) -> bool) -> Vec<(Instant, Turn)> {
    let mut gone = Vec::new();
    while let Some(at) = turns.deadline().filter(|&at| at <= end) {
        let now = at.max(START);
        while let Some(turn) = turns.next(now, |_| true) {
            if answers(gone.len()) {
                turns.answered(SERVER, now);
            }
            gone.push((now, turn));
        }
    }
    gone
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn l18_a_burst_goes_at_once_and_the_rest_in_turn() {
    let mut turns = turns(9);
    let at_once = (0..100).filter(|_| turns.take(SERVER, START)).count();
    assert_eq!(at_once, 18);
    for number in 0..100 {
        turns.wait(SERVER, HOST, peer(number), START);
        assert!(!turns.take(SERVER, START + seconds(1)), "others wait");
    }
    assert!(turns.take([1, 2, 3, 5], START), "another server");
    let gone = run(&mut turns, START + seconds(60), |_| true);
    let order: Vec<_> = gone.iter().map(|(_, turn)| turn.peer).collect();
    assert_eq!(order, (0..100).map(peer).collect::<Vec<_>>());
    let last = gone.last().unwrap().0.saturating_since(START);
    assert!((seconds(10)..seconds(12)).contains(&last), "{last:?}");
    assert_eq!((turns.waiting(), turns.deadline()), (0, None));
}

/// In no span of time more than a server of this project permits by default.
#[test]
fn l18_the_pace_is_below_the_default_limit_of_a_server() {
    let mut turns = turns(Pace::DEFAULT.first);
    let mut bucket = 0;
    let limit = Rate::new(10, 20);
    for number in 0..500 {
        turns.wait(SERVER, HOST, peer(number), START);
    }
    for (at, _) in run(&mut turns, START + seconds(100), |_| true) {
        // As late as 200 ms after the one before.
        let delay = Duration::from_millis(at.as_nanos() % 3 * 100);
        bucket = limiter::take(bucket, limit, at + delay).expect("not refused");
    }
    assert_eq!(turns.waiting(), 0);
}

#[test]
fn l18_parties_take_turns() {
    let mut turns = turns(9);
    for number in 0..1000 {
        turns.wait(SERVER, HOST, peer(number), START);
    }
    turns.wait(SERVER, [0x21; 8], peer(2000), START);
    turns.wait(SERVER, [0x21; 8], peer(2001), START);
    let gone = run(&mut turns, START + seconds(1), |_| true);
    let order: Vec<_> = gone.iter().map(|(_, turn)| turn.peer).take(5).collect();
    assert_eq!(order, [peer(0), peer(2000), peer(1), peer(2001), peer(2)]);
}

#[test]
fn l18_a_network_has_one_turn_however_many_parts_it_has() {
    let mut turns = turns(9);
    for number in 0..1000_u16 {
        let [a, b] = number.to_be_bytes();
        turns.wait(SERVER, [0x20, 0, 0, 0, 0, 0, a, b], peer(number), START);
    }
    turns.wait(SERVER, [0x20, 0, 0, 0, 0, 1, 0, 0], peer(2000), START);
    turns.wait(SERVER, [0x21; 8], peer(2001), START);
    let gone = run(&mut turns, START + seconds(1), |_| true);
    let order: Vec<_> = gone.iter().map(|(_, turn)| turn.peer).take(6).collect();
    let expected = [0, 2001, 2000, 256, 512, 768];
    assert_eq!(order, expected.map(peer), "/32, then /48, then /56 and /64");
}

#[test]
fn l18_the_servers_of_a_network_have_a_pace_together() {
    let mut turns = turns(9);
    let at_once = |turns: &mut Turns, network: u8| {
        let servers = (0..=255).cycle().take(256 * 18);
        let taken = servers.filter(|&last| turns.take([1, 2, network, last], START));
        taken.count()
    };
    assert_eq!(at_once(&mut turns, 3), 1_000);
    assert_eq!(at_once(&mut turns, 4), 1_000);
}

#[test]
fn l18_servers_that_answered_have_most_of_the_total_pace() {
    let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
    let mut turns = Turns::new(Pace::DEFAULT, 1 << 24, keyed);
    turns.answered(SERVER, START);
    let named_at_random = (0..100_000_u32)
        .filter(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            turns.take([9, a, b, c], START)
        })
        .count();
    // A few share the place of the server that is known.
    assert!(
        (5_000..5_100).contains(&named_at_random),
        "{named_at_random}"
    );
    assert!(turns.take(SERVER, START), "a server that is known");
    // Those that wait are told when, and nobody is asked in vain before that.
    turns.wait([9, 9, 9, 9], HOST, peer(1), START);
    let deadline = turns.deadline().unwrap();
    assert!(deadline > START);
    assert_eq!(turns.next(START, |_| true), None);
    assert!(turns.next(deadline, |_| true).is_some());
}

#[test]
fn l18_turns_that_do_not_hold_are_skipped_and_do_not_pile_up() {
    let mut turns = turns(9);
    for _ in 0..10_000 {
        let number = turns.wait(SERVER, HOST, peer(1), START);
        let holds = |turn: Turn| turn.number == number;
        turns.compact(holds);
        assert!(turns.waiting() <= 67);
    }
    let last = turns.last_number;
    let turn = turns.next(START, |turn| turn.number == last).unwrap();
    assert_eq!(turn.peer, peer(1));
    assert_eq!(turns.next(START, |_| true), None);
    assert_eq!(turns.waiting(), 0);
}

#[test]
fn l18_turns_that_hold_stay_in_their_order() {
    let mut turns = turns(9);
    for number in 0..100 {
        // Of four parties, two lose all of their turns.
        let party = [0x20 + (number % 4) as u8; 8];
        turns.wait(SERVER, party, peer(number), START);
    }
    turns.compact(|turn| turn.number % 2 == 0);
    assert_eq!(turns.waiting(), 50);
    let gone = run(&mut turns, START + seconds(60), |_| true);
    let order: Vec<_> = gone.iter().map(|(_, turn)| turn.peer).collect();
    let expected: Vec<_> = (0..100)
        .filter(|number| number % 2 == 1)
        .map(peer)
        .collect();
    assert_eq!(order, expected);
    assert_eq!(turns.waiting(), 0);
}

#[test]
fn l18_a_server_that_answers_everything_gets_more() {
    let mut turns = turns(500);
    for number in 0..5000 {
        turns.wait(SERVER, HOST, peer(number), START);
    }
    let gone = run(&mut turns, START + seconds(600), |_| true);
    let took = gone.last().unwrap().0.saturating_since(START);
    assert!(took < seconds(30), "{took:?}");
    assert_eq!(gone.len(), 5000);
}

#[test]
fn l18_a_server_that_does_not_gets_no_more_than_others_for_minutes() {
    let mut turns = turns(500);
    let limit = Rate::new(10, 20);
    let mut bucket = 0;
    let mut refused = 0;
    let mut number = 0;
    let mut now = START;
    while now < START + seconds(600) {
        while turns.waiting() < 100 {
            number += 1;
            turns.wait(SERVER, HOST, peer(number), START);
        }
        now = turns.deadline().unwrap().max(now);
        while turns.next(now, |_| true).is_some() {
            match limiter::take(bucket, limit, now) {
                Some(new) => {
                    bucket = new;
                    turns.answered(SERVER, now);
                }
                None => refused += 1,
            }
        }
    }
    assert!((1..150).contains(&refused), "{refused} in three trials");
}

#[test]
fn l18_a_pace_found_by_trial_is_forgotten_in_idle_time() {
    let mut turns = turns(500);
    for number in 0..2000 {
        turns.wait(SERVER, HOST, peer(number), START);
    }
    let gone = run(&mut turns, START + seconds(600), |_| true);
    let later = gone.last().unwrap().0 + IDLE + TRIAL;
    let at_once = (0..1000).filter(|_| turns.take(SERVER, later)).count();
    assert_eq!(at_once, 18);
}

/// Relays that share a pace send no more than one, whatever their number.
#[test]
fn f23_a_pace_that_is_divided_is_the_same_for_all_together() {
    for relays in [1, 2, 9, 16, 64] {
        let sent: usize = (0..relays)
            .map(|_| {
                let mut turns = turns(9);
                turns.divide_among(relays);
                let at_once = (0..100).filter(|_| turns.take(SERVER, START)).count();
                for number in 0..2_000 {
                    turns.wait(SERVER, HOST, peer(number), START);
                }
                at_once + run(&mut turns, START + seconds(100), |_| true).len()
            })
            .sum();
        // One at once is the least for a relay.
        let at_once = 18.max(relays as usize);
        assert!((800..=900 + at_once).contains(&sent), "{relays}: {sent}");
    }
}

/// Each relay finds out by itself what a server takes.
#[test]
fn f23_a_server_that_answers_everything_gets_more_of_each_relay() {
    let mut turns = turns(500);
    turns.divide_among(16);
    for number in 0..500 {
        turns.wait(SERVER, HOST, peer(number), START);
    }
    let gone = run(&mut turns, START + seconds(600), |_| true);
    let took = gone.last().unwrap().0.saturating_since(START);
    assert_eq!(gone.len(), 500);
    assert!(took < seconds(60), "{took:?}");
}
