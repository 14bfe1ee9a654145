//! Floods against the budget of what the fast path leaves to the daemon, in virtual time.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{
    budget::{Allowance, Budget},
    cookie::{self, CookieKey, Sent},
    time::Instant,
    verdict::Verdict,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, NO_NEXT_HEADER},
};
use teredo_differential::{
    FastPath as _,
    host::HostPath,
    packet::{IP, address, datagram, endpoint, ethernet, ipv6, udp},
    site::{LAN, Port, ROUTER, ROUTER_V6, Setup, WAN, relay},
};

/// Packets of the flood in a second: fifty times the budget of new peers.
const RATE: u64 = 50_000;
const BUDGET: u32 = 1_000;
/// Seconds after which a host tries again, as TCP does.
const TRIES: [u64; 4] = [0, 1, 3, 7];
const NEWCOMERS: u64 = 40;
const START: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: u64 = 1_000_000_000;
const KEY: CookieKey = CookieKey([7, 8]);
const NATIVE: &str = "2800:1:2:3::1";
const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";

fn path() -> HostPath {
    let mut budget = Budget {
        seed: 0x5eed,
        ..Budget::default()
    };
    budget.allowances.fill(Allowance::new(BUDGET));
    let path = HostPath::new(&Setup {
        budget,
        ..Setup::default()
    });
    path.maps.set_cookies(KEY, 0);
    path
}

fn native(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let packet = udp(source, destination, b"hello, world");
    ethernet(LAN, ROUTER_V6, ETHERTYPE_IPV6, &packet)
}

/// Host and client of a newcomer.
fn newcomer(number: u64) -> (Ipv6Addr, Ipv6Addr) {
    let with = |text: &str, at: usize| {
        let mut segments = address(text).segments();
        segments[at] ^= number as u16;
        Ipv6Addr::from(segments)
    };
    (with("2a00:9::1", 1), with(CLIENT, 7))
}

/// Runs a flood of native packets for a while, in which newcomers try. Returns the number of those who
/// got through by their try, and of packets that got through altogether.
fn flood(mut forge: impl FnMut(&mut [u8])) -> Result<(BTreeMap<usize, usize>, u64)> {
    let mut path = path();
    let mut frame = native(address(NATIVE), address(CLIENT));
    let mut tries: Vec<(u64, u64, usize)> = (0..NEWCOMERS)
        .flat_map(|number| {
            let first = number * SECOND / 20;
            let tries = TRIES.into_iter().enumerate();
            tries.map(move |(count, seconds)| (first + seconds * SECOND, number, count))
        })
        .collect();
    tries.sort_unstable();
    let mut tries = tries.into_iter().peekable();
    let (mut through, mut passed) = (BTreeMap::new(), 0);
    for step in 0..RATE * 10 {
        let time = step * SECOND / RATE;
        path.set_clock(START + Duration::from_nanos(time));
        forge(&mut frame);
        let outcome = path.run(Port::Lan, &frame)?;
        passed += u64::from(outcome.verdict == Verdict::EncapUnknownPeer);
        while let Some((_, number, count)) = tries.next_if(|&(due, ..)| due <= time) {
            let (host, client) = newcomer(number);
            let outcome = path.run(Port::Lan, &native(host, client))?;
            if outcome.verdict == Verdict::EncapUnknownPeer {
                through.entry(number).or_insert(count);
            }
        }
    }
    let mut by_try = BTreeMap::new();
    for count in through.into_values() {
        *by_try.entry(count).or_insert(0) += 1;
    }
    Ok((by_try, passed))
}

#[test]
fn l22_newcomers_get_through_a_flood_from_everywhere() -> Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let (by_try, passed) = flood(|frame| {
        let one: u64 = random.random();
        let other: u64 = random.random();
        frame[IP + 9..IP + 16].copy_from_slice(&one.to_ne_bytes()[1..]);
        frame[IP + 28..IP + 32].copy_from_slice(&one.to_ne_bytes()[..4]);
        frame[IP + 34..IP + 40].copy_from_slice(&other.to_ne_bytes()[..6]);
    })?;
    let through: usize = by_try.values().sum();
    assert!(through as u64 >= NEWCOMERS * 95 / 100, "{by_try:?}");
    let most = u64::from(BUDGET) * 2 * 11;
    assert!((u64::from(BUDGET) * 9..most).contains(&passed), "{passed}");
    Ok(())
}

#[test]
fn l21_a_flood_from_one_network_takes_nothing_from_newcomers() -> Result<()> {
    let mut random = StdRng::seed_from_u64(2);
    let (by_try, passed) = flood(|frame| {
        let one: u64 = random.random();
        let other: u64 = random.random();
        frame[IP + 12..IP + 16].copy_from_slice(&one.to_ne_bytes()[4..]);
        frame[IP + 28..IP + 32].copy_from_slice(&one.to_ne_bytes()[..4]);
        frame[IP + 34..IP + 40].copy_from_slice(&other.to_ne_bytes()[..6]);
    })?;
    assert_eq!(by_try, BTreeMap::from([(0, NEWCOMERS as usize)]));
    // It has what others leave.
    assert!(passed < u64::from(BUDGET) * 11, "{passed}");
    Ok(())
}

#[test]
fn l20_answers_pass_a_flood_of_bubbles() -> Result<()> {
    let mut path = path();
    let mut random = StdRng::seed_from_u64(3);
    let bubble = |source, destination| {
        let packet = ipv6(source, destination, NO_NEXT_HEADER, &[]);
        let datagram = datagram(endpoint("9.0.0.1:9"), relay(), 7, &packet);
        ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
    };
    let client = address(CLIENT);
    let peer = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&client.octets()[at..at + 8]);
        u64::from_ne_bytes(word)
    });
    let mut forged = bubble(client, address("fe80::1"));
    let (mut passed, mut answers) = (0, 0);
    for step in 0..RATE {
        path.set_clock(START + Duration::from_nanos(step * SECOND / RATE));
        let identifier = random.random::<u64>().to_ne_bytes();
        forged[IP + 28 + 32..].copy_from_slice(&identifier);
        let outcome = path.run(Port::Wan, &forged)?;
        passed += u32::from(outcome.verdict == Verdict::DecapBubble);
        if step % (RATE / 100) == 0 {
            let epoch = cookie::epoch(path.now(), 0);
            let identifier = KEY.interface_identifier(epoch, Sent::Indirectly, peer);
            let mut destination = [0; 16];
            destination[..8].copy_from_slice(&cookie::PREFIX.to_ne_bytes());
            destination[8..].copy_from_slice(&identifier.to_ne_bytes());
            let outcome = path.run(Port::Wan, &bubble(client, destination.into()))?;
            answers += u32::from(outcome.verdict == Verdict::DecapBubble);
        }
    }
    assert_eq!(answers, 100);
    assert!(passed < BUDGET * 2, "{passed}");
    Ok(())
}
