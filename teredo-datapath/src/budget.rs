//! The budget of what is left to the daemon, so that a flood ends here (requirements L-20 to L-22).
//! [`teredo_common::budget`] explains the classes, and how tokens are taken.
//!
//! This is not the way of a packet that is forwarded or answered: it costs those nothing.

use core::{mem, ptr};

use teredo_common::{
    address::Endpoint,
    budget::{
        Allowance, Budget, Class, KEY, LEVELS, Mark, ROOM, SKIPPED, is_server_known, mix, server,
    },
    cookie::{self, CookieKey, Sent},
    limiter::{Rate, take},
    time::Instant,
    verdict::Verdict,
    wire::{ETHERNET_HEADER, NO_NEXT_HEADER},
};

use crate::{
    environment::{Environment, Words as _},
    frame::Frame,
    headers::{Ethernet, Ipv6, OUTER, Outer},
    peer,
    respond::server as own_server,
    settings,
    verifier::{forget_number, masked, sign},
    words::join,
};

/// A packet for the daemon.
#[derive(Clone, Copy)]
struct Packet {
    class: Class,
    /// The networks of the source, the smallest first. A network and its only subnet may have the same
    /// number: each level has buckets of its own.
    networks: [u64; LEVELS],
    /// What repetitions of the packet have in common.
    identity: u64,
}

/// Returns the verdict about a frame for the daemon if such packets have used up their budget.
#[inline(always)]
pub fn exceeded(environment: &impl Environment) -> Option<Verdict> {
    // The program of a host without budgets has no words for them.
    environment.budgets(KEY)?;
    let now = environment.now();
    let mut packet = classify(environment, now)?;
    packet.class = forget(packet.class, Frame::of(environment).length());
    (!admits(environment, packet, now)).then(|| beyond(packet.class))
}

/// Returns the class as a number about which the verifier knows nothing, so that it follows what comes next once, and
/// not for every class again. It knows nothing about `unknown` already.
#[inline(always)]
fn forget(class: Class, unknown: usize) -> Class {
    let number = forget_number(class as u32, unknown);
    // SAFETY: it is the number of a class.
    unsafe { mem::transmute::<u32, Class>(number) }
}

/// The verdict about packets beyond the allowance of their class.
#[inline(always)]
const fn beyond(class: Class) -> Verdict {
    match class {
        Class::Other => Verdict::DecapOtherLimit,
        Class::Claim => Verdict::DecapClaimLimit,
        Class::Cookie => Verdict::DecapCookieLimit,
        Class::Peer => Verdict::DecapPeerLimit,
        Class::Fragment => Verdict::DecapFragmentLimit,
        Class::Server => Verdict::RespondDaemonLimit,
        Class::Native | Class::NativeKnown => Verdict::EncapNewPeerLimit,
        Class::NativePeer => Verdict::EncapPeerLimit,
    }
}

/// Finds what speaks for a packet; `None` if it is not for the daemon.
#[inline(always)]
fn classify(environment: &impl Environment, now: Instant) -> Option<Packet> {
    // The frame may have changed its size, so it is looked at anew.
    let frame = Frame::of(environment);
    if Ethernet::of(frame)?.is_ipv4() {
        from_ipv4(environment, frame, now)
    } else {
        from_ipv6(environment, frame, now)
    }
}

#[inline(always)]
fn from_ipv4(environment: &impl Environment, frame: Frame, now: Instant) -> Option<Packet> {
    let outer = Outer::of(frame)?;
    let (from, to) = (outer.source(), outer.destination());
    let is_at_relay =
        settings::has_relay(environment) && to == settings::relay_address(environment);
    let is_at_server = own_server::is_enabled(environment)
        && (to == own_server::primary(environment) || to == own_server::secondary(environment));
    if !outer.is_udp() || !(is_at_relay || is_at_server) {
        return None;
    }
    let [a, b, c, d] = from.to_ne_bytes();
    let number = |a, b, c, d| u64::from(u32::from_be_bytes([a, b, c, d]));
    let networks = [number(a, b, c, d), number(a, b, c, 0), number(a, b, 0, 0)];
    let packet = |class, identity| Packet {
        class,
        networks,
        identity,
    };
    if outer.has_options() || outer.is_fragment() {
        let class = match is_at_relay {
            true => Class::Fragment,
            false => Class::Server,
        };
        return Some(packet(class, u64::from(from)));
    }
    let port = outer.source_port();
    let endpoint = u64::from(from) | u64::from(port) << 32;
    let to_port = outer.destination_port();
    let at_server = match is_at_server && to_port == own_server::port(environment) {
        true => Some(packet(Class::Server, endpoint)),
        false => None,
    };
    if !is_at_relay || to_port != settings::relay_port(environment) {
        return at_server;
    }
    let other = at_server.unwrap_or(packet(Class::Other, endpoint));
    let Some(ipv6) = Ipv6::of(frame.skip::<OUTER>()) else {
        return Some(other);
    };
    let source = ipv6.source_words();
    if ipv6.version() != 6 || source[0] != settings::prefix(environment) {
        return Some(other);
    }
    let identity = endpoint ^ ipv6.source()[1];
    if let Some(entry) = peer::find(environment, ipv6.teredo_source(), None)
        && entry.is_at(from, port)
    {
        return Some(packet(Class::Peer, identity));
    }
    if is_cookie(environment, outer, ipv6, now) {
        let stamp = environment.budgets(server(mix(seed(environment), source[1].into())));
        if let Some(stamp) = stamp {
            stamp.store(0, now.as_nanos());
        }
        return Some(packet(Class::Cookie, identity));
    }
    let is_embedded = !source[3] == from && !ipv6.source_obfuscated_port() == port;
    Some(match is_embedded {
        true => packet(Class::Claim, identity),
        false => other,
    })
}

/// Whether a datagram to the relay is a bubble that answers one of the relay's.
#[inline(always)]
fn is_cookie(environment: &impl Environment, outer: Outer, ipv6: Ipv6, now: Instant) -> bool {
    let [prefix, identifier] = ipv6.destination();
    if ipv6.next_header() != NO_NEXT_HEADER || prefix != cookie::PREFIX {
        return false;
    }
    let skipped = environment.budgets(SKIPPED).map_or(0, |word| word.load(0));
    let epoch = cookie::epoch(now, skipped);
    let Some(key) = key(environment) else {
        return false;
    };
    let mapped = Endpoint {
        address: outer.source().to_ne_bytes(),
        port: outer.source_port().to_ne_bytes(),
    };
    key.proves(epoch, Sent::Indirectly, ipv6.source(), identifier)
        || key.proves(epoch, Sent::To(mapped), ipv6.source(), identifier)
}

#[inline(always)]
fn from_ipv6(environment: &impl Environment, frame: Frame, now: Instant) -> Option<Packet> {
    let ipv6 = Ipv6::of(frame.skip::<ETHERNET_HEADER>())?;
    let [upper, _] = ipv6.source();
    let upper = u64::from_be(upper);
    let destination = ipv6.destination_words();
    if destination[0] != settings::prefix(environment) {
        return None;
    }
    let class = if peer::find(environment, ipv6.teredo_destination(), None).is_some() {
        Class::NativePeer
    } else {
        let stamp = environment.budgets(server(mix(seed(environment), destination[1].into())));
        match is_server_known(stamp.map_or(0, |stamp| stamp.load(0)), now) {
            true => Class::NativeKnown,
            false => Class::Native,
        }
    };
    let [first, second] = [
        join(destination[0], destination[1]),
        join(destination[2], destination[3]),
    ];
    Some(Packet {
        class,
        networks: [upper, upper >> 16, upper >> 32],
        identity: mix(upper, first) ^ second,
    })
}

/// Takes tokens for a packet: of its class and of its networks, or of none of them. Networks without
/// tokens matter only while those of the class are scarce.
#[inline(always)]
fn admits<E: Environment>(environment: &E, packet: Packet, now: Instant) -> bool {
    let class = packet.class;
    let whole = rate(environment, class, TOTAL);
    if whole.interval == 0 {
        return true;
    }
    let seed = seed(environment);
    let (Some(total), Some(again)) = (
        environment.budgets(class.total()),
        environment.budgets(class.again()),
    ) else {
        return true;
    };
    let seen = total.load(0);
    let (bucket, seen, left) = match take(seen, whole, now) {
        Some(left) => (total, seen, left),
        None => {
            if !is_repeated(environment, mix(seed, packet.identity), now) {
                return false;
            }
            let seen = again.load(0);
            match take(seen, rate(environment, class, AGAIN), now) {
                Some(left) => (again, seen, left),
                None => return false,
            }
        }
    };
    // As long as there is enough for all, nobody has to keep to his share.
    let half = now.as_nanos().wrapping_add(whole.tolerance / 2);
    let scarce = is_less(half, seen);
    let [small, medium, large] = packet.networks;
    let Some(small) = tokens(environment, seed, class, 0, small, now) else {
        return true;
    };
    let Some(medium) = tokens(environment, seed, class, 1, medium, now) else {
        return true;
    };
    let Some(large) = tokens(environment, seed, class, 2, large, now) else {
        return true;
    };
    if scarce & (small.lacks | medium.lacks | large.lacks) != 0 {
        return false;
    }
    if !bucket.compare_exchange(0, seen, left) {
        // Other CPUs are faster: there is a flood of packets that nobody has to know.
        return false;
    }
    for tokens in [small, medium, large] {
        tokens.bucket.store(0, tokens.left);
    }
    true
}

/// Whether the packet was refused before; now it was.
#[inline(always)]
fn is_repeated(environment: &impl Environment, hash: u64, now: Instant) -> bool {
    let mark = Mark::new(hash, now);
    let [this, before] = mark.words();
    let (Some(this), Some(before)) = (environment.budgets(this), environment.budgets(before))
    else {
        return false;
    };
    let words = [this.load(0), before.load(0)];
    this.store(0, mark.add_to(words[0]));
    mark.is_in(words)
}

/// The bucket of a network.
struct Tokens<W> {
    bucket: W,
    /// Its value after the packet.
    left: u64,
    /// All bits, if there was no token, or none.
    lacks: u64,
}

/// Returns all bits if `a` is less than `b`, or none. Both are less than 2^63. The verifier follows each
/// branch to the end, so this has none.
#[inline(always)]
fn is_less(a: u64, b: u64) -> u64 {
    sign(a.wrapping_sub(b))
}

/// Takes a token of a network, if it has any, as [`take`] does.
#[inline(always)]
fn tokens<E: Environment>(
    environment: &E,
    seed: u64,
    class: Class,
    level: usize,
    network: u64,
    now: Instant,
) -> Option<Tokens<E::Words>> {
    let bucket = environment.budgets(class.network(level as u32, mix(seed, network)))?;
    let seen = bucket.load(0);
    let rate = rate(environment, class, level);
    let now = now.as_nanos();
    let ahead = seen.wrapping_sub(now) & !is_less(seen, now);
    let lacks = is_less(rate.tolerance, ahead);
    let taken = now.wrapping_add(ahead).wrapping_add(rate.interval);
    Some(Tokens {
        bucket,
        left: taken ^ ((taken ^ seen) & lacks),
        lacks,
    })
}

/// Index of [`Allowance::total`] among the rates.
const TOTAL: usize = LEVELS;
/// Index of [`Allowance::again`] among the rates.
const AGAIN: usize = LEVELS + 1;

/// Returns a rate of a class.
#[inline(always)]
fn rate(environment: &impl Environment, class: Class, index: usize) -> Rate {
    const RATES: usize = size_of::<Allowance>() / size_of::<Rate>();
    let budget: &Budget = environment.budget();
    let rates = (&raw const budget.allowances).cast::<[[u64; 2]; RATES]>();
    let class = masked::<{ ROOM as i32 - 1 }>(class as usize);
    const { assert!(TOTAL < RATES && AGAIN < RATES) }
    debug_assert!(index < RATES);
    // SAFETY: within the allowances, which consist of rates of two numbers. Volatile, because the compiler
    // of the XDP program must not use the initial values.
    unsafe {
        let rate = (&raw const (*rates.add(class))[index]).cast::<u64>();
        Rate {
            interval: ptr::read_volatile(rate),
            tolerance: ptr::read_volatile(rate.add(1)),
        }
    }
}

#[inline(always)]
fn seed(environment: &impl Environment) -> u64 {
    // SAFETY: a field of the constants; volatile as in `rate`.
    unsafe { ptr::read_volatile(&raw const environment.budget().seed) }
}

/// Returns the key of the relay's cookies.
#[inline(always)]
fn key(environment: &impl Environment) -> Option<CookieKey> {
    let (first, second) = (environment.budgets(KEY)?, environment.budgets(KEY + 1)?);
    let key = [first.load(0), second.load(0)];
    // The daemon has not written it yet.
    (key != [0; 2]).then_some(CookieKey(key))
}
