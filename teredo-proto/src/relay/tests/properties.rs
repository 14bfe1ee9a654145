//! Random histories in virtual time.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use proptest::prelude::*;
use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_mapping, embedded_server},
    scope::{Ipv4Scope, is_global_unicast},
    time::Instant,
    wire::{ICMPV6, SERVER_PORT},
};

use super::harness::*;
use crate::{
    relay::{Bubble, DropReason, Event, Question},
    shared::{
        limiter::Rate,
        peers::{GAP, MAX_UNANSWERED, WINDOW},
    },
    wire::{icmpv6, ipv6::Header},
};

const CLIENTS: usize = 12;
/// Room for every client among the untrusted.
const MANY_PEERS: usize = 8 * CLIENTS;
/// Room for two untrusted ones.
const FEW_PEERS: usize = 16;
const QUEUE_PER_PEER: usize = 3;
const QUEUE_TOTAL: usize = 12 * 124;
const DIRECT_RATE: Rate = Rate::new(1, 3);

#[derive(Clone, Debug)]
enum Step {
    /// The host sends to a client.
    Native {
        client: usize,
    },
    /// A client sends, from the endpoint in its address or not, to the host or not.
    Data {
        client: usize,
        elsewhere: bool,
        destination: usize,
    },
    /// A client answers the last bubble it was sent, or sends one to the host.
    Bubble {
        client: usize,
        elsewhere: bool,
        with_cookie: bool,
    },
    /// A client answers the last question that came to an endpoint, from there or not.
    Answer {
        client: usize,
        elsewhere: bool,
        from_there: bool,
        with_echo: bool,
    },
    /// The fast path saw traffic.
    Stamps {
        client: usize,
        received: bool,
    },
    Wait {
        milliseconds: u64,
    },
    /// Another process goes on.
    Restart,
    /// Anything on either side.
    Garbage {
        native: bool,
        octets: Vec<u8>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        5 => client.clone().prop_map(|client| Step::Native { client }),
        2 => (client.clone(), prop::bool::weighted(0.2), 0_usize..6).prop_map(
            |(client, elsewhere, destination)| Step::Data { client, elsewhere, destination }
        ),
        2 => (client.clone(), any::<bool>(), any::<bool>()).prop_map(
            |(client, elsewhere, with_cookie)| Step::Bubble { client, elsewhere, with_cookie }
        ),
        2 => (client.clone(), any::<bool>(), prop::bool::weighted(0.8), any::<bool>()).prop_map(
            |(client, elsewhere, from_there, with_echo)| {
                Step::Answer { client, elsewhere, from_there, with_echo }
            }
        ),
        1 => (client, any::<bool>()).prop_map(|(client, received)| Step::Stamps { client, received }),
        3 => prop_oneof![0_u64..3_000, 0_u64..60_000, 0_u64..400_000]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => Just(Step::Restart),
        1 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..100))
            .prop_map(|(native, octets)| Step::Garbage { native, octets }),
    ]
}

/// Four endpoints, each in the addresses of three clients.
fn client(number: usize) -> ([u8; 16], String) {
    let mapped = format!("9.0.0.{}:4096", number % 4 + 1);
    (
        teredo_of(
            &mapped,
            &format!("1.2.3.{}:1", number % 2 + 1),
            number as u16,
        ),
        mapped,
    )
}

const DESTINATIONS: [&str; 6] = [
    "2000::b",
    "2001:db8::1",
    "2001:0:102:304:0:efff:f6ff:fffe",
    "ff02::1",
    "fe80::1",
    "2002:506:708::1",
];

/// A peer and its mapping.
type Mapping = ([u8; 16], Endpoint);

/// The knowledge of an observer of the relay's wire.
#[derive(Default)]
struct Observer {
    max_peers: usize,
    /// Bursts to each peer, and how many of them came before its last answer.
    bursts: HashMap<[u8; 16], (Vec<Instant>, usize)>,
    /// The same for direct bubbles to each endpoint.
    direct: HashMap<Endpoint, (Vec<Instant>, usize)>,
    cookies: HashMap<[u8; 16], [u8; 16]>,
    /// The last bubble and the last echo request that went to an endpoint alone.
    questions: HashMap<Mapping, [Option<Vec<u8>>; 2]>,
    /// Peers that answered one of them from there.
    proved: HashSet<Mapping>,
    marks: HashMap<[u8; 16], u32>,
    native: u64,
    datagrams: u64,
    next_mark: u32,
    looked_at: usize,
    events: usize,
}

/// P-09: after four bursts without answer, pauses of 8 seconds to 64.
fn check_limits(times: &[Instant], answered: usize) -> Result<(), TestCaseError> {
    let [.., previous, last] = times else {
        return Ok(());
    };
    let gap = last.saturating_since(*previous);
    prop_assert!(gap >= GAP);
    let since_answer = &times[answered..times.len() - 1];
    let fresh = since_answer
        .windows(2)
        .rposition(|two| two[1].saturating_since(two[0]) >= WINDOW)
        .map_or(0, |at| at + 1);
    let unanswered = since_answer.len().saturating_sub(fresh);
    if unanswered >= MAX_UNANSWERED {
        let doublings = (unanswered - MAX_UNANSWERED).min(3);
        prop_assert!(gap >= Duration::from_secs(8 << doublings));
    }
    Ok(())
}

impl Observer {
    fn answer(&mut self, client: &[u8; 16], from: Endpoint) {
        if let Some((times, answered)) = self.bursts.get_mut(client) {
            *answered = times.len();
        }
        if let Some((times, answered)) = self.direct.get_mut(&from) {
            *answered = times.len();
        }
    }

    /// Checks everything that was sent since the last time.
    fn look(
        &mut self,
        world: &World,
        elsewhere: &HashMap<[u8; 16], String>,
    ) -> Result<(), TestCaseError> {
        // The memory of an evicted peer's bubbles goes with it.
        let check = match self.max_peers {
            MANY_PEERS => check_limits,
            _ => |_: &[Instant], _| Ok(()),
        };
        for (at, to, payload) in &world.sent[self.looked_at..] {
            let header = Header::parse(payload).unwrap();
            let destination = header.destination();
            prop_assert!(Ipv4Scope::Strict.accepts(to.address), "L-05");
            prop_assert_ne!(*to, endpoint(RELAY), "L-02");
            prop_assert!(ServicePrefix::STANDARD.contains(&destination), "R-01");
            let is_question = payload.ends_with(&[4, 4, 0, 0, 0, 0]);
            if is_question || header.next_header() == ICMPV6 {
                let questions = self.questions.entry((destination, *to)).or_default();
                questions[usize::from(!is_question)] = Some(payload.clone());
                continue;
            }
            if header.is_bubble() {
                let server = Endpoint {
                    address: embedded_server(&destination),
                    port: SERVER_PORT.to_be_bytes(),
                };
                let (times, answered) = self.bursts.entry(destination).or_default();
                if times.last() != Some(at) {
                    times.push(*at);
                    check(times, *answered)?;
                }
                if *to != server {
                    let (times, answered) = self.direct.entry(*to).or_default();
                    times.push(*at);
                    check(times, *answered)?;
                }
                self.cookies.insert(destination, header.source());
                continue;
            }
            let is_elsewhere = elsewhere
                .get(&destination)
                .is_some_and(|elsewhere| *to == endpoint(elsewhere));
            prop_assert!(
                *to == embedded_mapping(&destination) || is_elsewhere,
                "P-08"
            );
            let mark = u32::from_be_bytes(*payload[40..].first_chunk().unwrap());
            let last = self.marks.insert(destination, mark);
            prop_assert!(last.is_none_or(|last| last < mark), "P-05: in order");
        }
        self.looked_at = world.sent.len();
        for event in &world.events[self.events..] {
            if let Event::PeerTrusted {
                address, mapped, ..
            } = event
            {
                let proof = (address.octets(), *mapped);
                prop_assert!(self.proved.contains(&proof), "R-35: {event:?}");
            }
        }
        self.events = world.events.len();
        Ok(())
    }

    /// No packet disappears without a number, and no bound is exceeded.
    fn account(&self, world: &World) -> Result<(), TestCaseError> {
        let statistics = world.statistics();
        let dropped = |prefix: &str| -> u64 {
            let reasons = DropReason::ALL.iter();
            reasons
                .filter(|reason| reason.reason().starts_with(prefix))
                .map(|&reason| statistics.dropped[reason])
                .sum()
        };
        let waiting = statistics.queue_packets as u64;
        let sent = statistics.encapsulated.packets;
        prop_assert_eq!(self.native, sent + waiting + dropped("encap-"));
        let bubbles =
            statistics.bubbles[Bubble::ReceivedCookie] + statistics.bubbles[Bubble::ReceivedDirect];
        let forwarded = statistics.decapsulated.packets;
        let echoes = statistics.questions[Question::AnsweredEcho];
        prop_assert_eq!(
            self.datagrams,
            forwarded + bubbles + echoes + dropped("decap-")
        );

        let peers: Vec<_> = world.relay.peers().collect();
        let trusted = peers.iter().filter(|peer| peer.trusted).count();
        prop_assert_eq!(statistics.trusted_peers, trusted);
        prop_assert_eq!(statistics.untrusted_peers, peers.len() - trusted);
        prop_assert!(peers.len() <= self.max_peers);
        prop_assert!(peers.iter().all(|peer| peer.queued <= QUEUE_PER_PEER));
        prop_assert!(peers.iter().all(|peer| !peer.trusted || peer.queued == 0));
        let queued: usize = peers.iter().map(|peer| peer.queued).sum();
        prop_assert_eq!(statistics.queue_packets, queued);
        prop_assert!(statistics.queue_octets <= QUEUE_TOTAL);
        let gained = statistics.trusted - statistics.forgotten;
        prop_assert_eq!(gained, trusted as u64, "every trust ends in an event");
        Ok(())
    }
}

fn run(steps: Vec<Step>, max_peers: usize) -> Result<(), TestCaseError> {
    let mut world = World::with(|config| {
        config.max_peers = max_peers;
        config.queue_per_peer = QUEUE_PER_PEER;
        config.queue_total_bytes = QUEUE_TOTAL;
        config.direct_bubbles = true;
        config.direct_bubble_rates.address = DIRECT_RATE;
    });
    let mut observer = Observer {
        max_peers,
        ..Observer::default()
    };
    let mut elsewhere: HashMap<[u8; 16], String> = HashMap::new();
    for step in steps {
        match step {
            Step::Native { client: number } => {
                let (client, _) = client(number);
                observer.native += 1;
                observer.next_mark += 1;
                let mut packet = first_packet(&address(HOST), &client);
                packet[40..44].copy_from_slice(&observer.next_mark.to_be_bytes());
                world.native_sends(&packet);
            }
            Step::Data {
                client: number,
                elsewhere: away,
                destination,
            } => {
                let (client, mapped) = client(number);
                let away_at = format!("9.0.1.{number}:7777");
                let from = if away { &away_at } else { &mapped };
                let is_proved = !away || elsewhere.get(&client) == Some(&away_at);
                let to = address(DESTINATIONS[destination]);
                let is_known = world
                    .relay
                    .peers()
                    .any(|peer| peer.address.octets() == client);
                let is_sent = packet(&client, &to, 1);
                let before = world.statistics().dropped[DropReason::DecapMapping];
                observer.datagrams += 1;
                let forwarded = world.client_sends(from, &is_sent);
                let after = world.statistics().dropped[DropReason::DecapMapping];
                if let Some(packet) = &forwarded {
                    prop_assert!(is_proved && is_known, "R-20, R-21");
                    prop_assert_eq!(packet, &is_sent);
                    prop_assert!(is_global_unicast(&to), "R-24");
                    prop_assert!(!ServicePrefix::STANDARD.contains(&to), "R-24");
                    prop_assert!(destination < 2, "L-07");
                }
                if is_known && before == after {
                    observer.answer(&client, endpoint(from));
                }
            }
            Step::Bubble {
                client: number,
                elsewhere: away,
                with_cookie,
            } => {
                let (client, mapped) = client(number);
                let away_at = format!("9.0.1.{number}:7777");
                let from = if away { &away_at } else { &mapped };
                let cookie = observer.cookies.get(&client).copied();
                let to = cookie.filter(|_| with_cookie).unwrap_or(address(HOST));
                let before = world.statistics();
                observer.datagrams += 1;
                prop_assert_eq!(
                    world.client_sends(from, &bubble(&client, &to)),
                    None,
                    "R-23"
                );
                let accepted = |kind| world.counted(kind) > before.bubbles[kind];
                if accepted(Bubble::ReceivedCookie) {
                    prop_assert!(with_cookie);
                    if away {
                        elsewhere.insert(client, away_at.clone());
                    }
                }
                if accepted(Bubble::ReceivedCookie) || accepted(Bubble::ReceivedDirect) {
                    observer.answer(&client, endpoint(from));
                }
            }
            Step::Answer {
                client: number,
                elsewhere: away,
                from_there,
                with_echo,
            } => {
                let (client, mapped) = client(number);
                let away_at = format!("9.0.1.{number}:7777");
                let to = if away { &away_at } else { &mapped };
                let from = if away == from_there {
                    &away_at
                } else {
                    &mapped
                };
                let questions = observer.questions.get(&(client, endpoint(to)));
                let Some(question) =
                    questions.and_then(|questions| questions[usize::from(with_echo)].clone())
                else {
                    continue;
                };
                let header = Header::parse(&question).unwrap();
                let answer = match with_echo {
                    true => {
                        let mut answer = Vec::new();
                        icmpv6::echo_reply(&client, &question, &mut answer);
                        answer
                    }
                    false => bubble(&client, &header.source()),
                };
                if from_there {
                    observer.proved.insert((client, endpoint(to)));
                }
                let before = world.statistics();
                observer.datagrams += 1;
                world.client_sends(from, &answer);
                let after = world.statistics();
                if after.dropped == before.dropped {
                    observer.answer(&client, endpoint(from));
                    if from_there && away {
                        elsewhere.insert(client, away_at.clone());
                    }
                }
            }
            Step::Restart => world.restart(),
            Step::Stamps {
                client: number,
                received,
            } => {
                let (client, _) = client(number);
                let known = world
                    .relay
                    .peers()
                    .find(|peer| peer.address.octets() == client);
                let stamp = if received { world.now } else { Instant::ZERO };
                let trusted = world.relay.record_stamps(&client, stamp, world.now);
                prop_assert_eq!(trusted, known.is_some_and(|peer| peer.proved));
                if let Some(peer) = known
                    && received
                    && trusted
                    && peer.last_received < world.now
                {
                    observer.answer(&client, peer.mapped);
                }
            }
            Step::Wait { milliseconds } => world.pass(Duration::from_millis(milliseconds)),
            Step::Garbage {
                native: true,
                octets,
            } => {
                observer.native += 1;
                prop_assert!(!world.native_sends(&octets));
            }
            Step::Garbage {
                native: false,
                octets,
            } => {
                observer.datagrams += 1;
                prop_assert_eq!(world.client_sends(CLIENT, &octets), None);
            }
        }
        observer.look(&world, &elsewhere)?;
        observer.account(&world)?;
    }
    world.pass(Duration::from_secs(1000));
    observer.look(&world, &elsewhere)?;
    observer.account(&world)?;
    prop_assert_eq!(world.relay.peers().count(), 0);
    prop_assert_eq!(world.relay.poll_timeout(), None);
    Ok(())
}

/// A packet of a known peer with a few octets changed: more interesting than mere noise.
fn mutated(
    mut packet: Vec<u8>,
    changes: &[(prop::sample::Index, u8)],
    length: prop::sample::Index,
) -> Vec<u8> {
    for (index, octet) in changes {
        let index = index.index(packet.len());
        packet[index] = *octet;
    }
    packet.truncate(length.index(packet.len() + 1).max(packet.len() / 2));
    packet
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    let octet = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0, 1, 43, 44, 59, 60, 255])
    ];
    prop::collection::vec((any::<prop::sample::Index>(), octet), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_history_breaks_a_rule(
        steps in prop::collection::vec(step(), 1..150),
        max_peers in prop::sample::select(vec![MANY_PEERS, FEW_PEERS]),
    ) {
        run(steps, max_peers)?;
    }

    #[test]
    fn mutated_datagrams_are_forwarded_only_if_allowed(
        changes in changes(), length: prop::sample::Index, ecn in 0_u8..4, payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut world = World::new();
        let client = world.trust(CLIENT);
        let original = ipv6(17, 64, &client, &address(HOST), &payload);
        let datagram = mutated(original, &changes, length);
        if let Some(packet) = world.client_sends_marked(CLIENT, ecn, &datagram) {
            let header = Header::parse(&packet).unwrap();
            let destination = header.destination();
            prop_assert_eq!(header.packet_length(), packet.len());
            prop_assert!(!header.is_bubble());
            prop_assert_eq!(header.source(), client, "the one peer there is");
            prop_assert!(is_global_unicast(&destination));
            prop_assert!(!ServicePrefix::STANDARD.contains(&destination));
            let mut expected = datagram[..packet.len()].to_vec();
            if ecn == 3 {
                expected[1] |= 0x30;
            }
            prop_assert_eq!(packet, expected);
        }
    }

    #[test]
    fn mutated_packets_are_sent_only_if_allowed(
        changes in changes(), length: prop::sample::Index, payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut world = World::new();
        let client = world.trust(CLIENT);
        let original = ipv6(17, 64, &address(HOST), &client, &payload);
        let packet = mutated(original, &changes, length);
        world.native_sends(&packet);
        for (to, payload) in world.take_sent() {
            let header = Header::parse(&payload).unwrap();
            if header.is_bubble() {
                continue;
            }
            let source = header.source();
            prop_assert_eq!(to, endpoint(CLIENT));
            prop_assert_eq!(header.destination(), client);
            prop_assert!(is_global_unicast(&source));
            prop_assert!(!ServicePrefix::STANDARD.contains(&source));
            prop_assert_eq!(&payload[..], &packet[..header.packet_length()]);
        }
    }
}
