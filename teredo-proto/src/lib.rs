//! Teredo (RFC 4380): IPv6 over UDP through IPv4 NATs, without input and output.
//!
//! This crate has the formats on the wire and the state machines of every role. It opens no
//! socket, reads no clock and draws no random numbers: bytes, time and a seed come in as arguments,
//! and packets to send, events and deadlines come out. The program around it decides how packets
//! travel: over sockets, as the `teredo` daemon does, or through a simulated internet.
//!
//! # The types that matter
//!
//! - [`Relay`] carries packets between Teredo clients and native IPv6 hosts (RFC 4380 section 5.4).
//! - [`Client`] gives a host behind a NAT an IPv6 address (section 5.2, RFC 5991 and RFC 6081).
//! - [`Server`] tells clients where they are, and helps them through their NATs (section 5.3).
//! - [`Fleet`] makes several relays behave as one.
//! - [`probe`] measures what a client would meet on a host: the NAT, and how long it keeps mappings.
//! - [`nat`] has the words for NATs that a client and a measurement share.
//! - [`dual`] divides the datagrams of one UDP port between a server and a relay.
//! - [`wire`] parses and builds what all of them send.
//!
//! Each machine is made from a `Config`, whose `new` has the defaults, and a seed from the operating
//! system's random number generator.
//!
//! # The order of calls
//!
//! Methods of all machines fall into two groups. `handle_` functions take something that happened,
//! with the current time: a datagram, an IPv6 packet, a deadline. `poll_` functions give what is to
//! be done because of it. After one or several calls of `handle_` functions, call in this order:
//!
//! 1. Send the packet that `handle_datagram` or `handle_ipv6` returned, if any. It borrows from the
//!    caller's buffer or the machine's, so that the usual packet is never copied.
//! 2. `poll_transmit`, until it returns `None`, and send each.
//! 3. `poll_event`, until it returns `None`.
//! 4. `poll_timeout`. When the time that it returns has come, call `handle_timeout`. A later call of
//!    a `handle_` function may change it.
//!
//! A [`Server`] only answers: it has nothing for steps 2 and 4. A measurement of [`probe`] has no
//! events but its findings.
//!
//! Time is an [`Instant`]: nanoseconds on a clock that never goes back. It begins anywhere but at
//! zero, which stands for "never".
//!
//! # Running a relay
//!
//! Two queues stand for the UDP socket, two for the network interface through which the kernel
//! routes `2001::/32` to the relay.
//!
//! ```
//! use std::{collections::VecDeque, time::Duration};
//! use teredo_proto::{Endpoint, Instant, Relay, TeredoAddress, relay, wire};
//!
//! #[derive(Default)]
//! struct Network {
//!     datagrams_in: VecDeque<(Endpoint, Vec<u8>)>,
//!     datagrams_out: VecDeque<(Endpoint, Vec<u8>)>,
//!     packets_in: VecDeque<Vec<u8>>,
//!     packets_out: VecDeque<Vec<u8>>,
//! }
//!
//! /// Does everything that there is to do, and returns when to call this again.
//! fn run(relay: &mut Relay, network: &mut Network, now: Instant) -> Option<Instant> {
//!     while let Some((from, mut payload)) = network.datagrams_in.pop_front() {
//!         const NO_CONGESTION: u8 = 0;
//!         let packet = relay.handle_datagram(now, from, NO_CONGESTION, &mut payload);
//!         network.packets_out.extend(packet.map(|packet| packet.to_vec()));
//!     }
//!     while let Some(mut packet) = network.packets_in.pop_front() {
//!         let datagram = relay.handle_ipv6(now, &mut packet);
//!         network.datagrams_out.extend(datagram.map(|(to, payload)| (to, payload.to_vec())));
//!     }
//!     if relay.poll_timeout().is_some_and(|deadline| deadline <= now) {
//!         relay.handle_timeout(now);
//!     }
//!     while let Some(transmit) = relay.poll_transmit() {
//!         match transmit {
//!             relay::Transmit::Datagram { to, payload } => {
//!                 network.datagrams_out.push_back((to, payload));
//!             }
//!             relay::Transmit::Ipv6(packet) => network.packets_out.push_back(packet),
//!             relay::Transmit::OwnServer { .. } => unreachable!("there is no server beside it"),
//!         }
//!     }
//!     while let Some(event) = relay.poll_event() {
//!         println!("{event:?}");
//!     }
//!     relay.poll_timeout()
//! }
//!
//! let server = [1, 2, 3, 4].into();
//! let mapped = Endpoint::new([9, 0, 0, 1].into(), 4096);
//! let client = TeredoAddress::new(server, mapped).encode().octets();
//! let host = "2000::b".parse::<std::net::Ipv6Addr>()?.octets();
//! let packet = [&wire::ipv6::header(5, 17, 64, &host, &client)[..], b"hello"].concat();
//!
//! let config = relay::Config::new(Endpoint::new([5, 6, 7, 8].into(), 3545));
//! let mut relay = Relay::new(config, [42; 32]);
//! let mut network = Network::default();
//! let now = Instant::ZERO + Duration::from_secs(1);
//!
//! // A native host sends to a client that the relay does not know. It asks the client's server to
//! // have the client send something, and comes back to it if there is no answer.
//! network.packets_in.push_back(packet.clone());
//! let deadline = run(&mut relay, &mut network, now);
//! assert!(deadline.is_some_and(|deadline| deadline > now));
//! let (to, bubble) = network.datagrams_out.pop_front().expect("a bubble");
//! assert_eq!(to, Endpoint::new(server, 3544));
//!
//! // The client's answer proves where it is: the packet leaves.
//! let cookie = wire::ipv6::Header::parse(&bubble)?.source();
//! let answer = wire::bubble::build(&client, &cookie).to_vec();
//! network.datagrams_in.push_back((mapped, answer));
//! run(&mut relay, &mut network, now + Duration::from_millis(50));
//! assert_eq!(network.datagrams_out.pop_front(), Some((mapped, packet)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Running a client
//!
//! Here a [`Server`] of this crate is at the other end of the internet, and a NAT that keeps ports
//! between the two.
//!
//! ```
//! use std::{collections::VecDeque, net::Ipv4Addr, time::Duration};
//! use teredo_proto::{
//!     Client, Endpoint, Instant, Server, ServerAddress, ServicePrefix, TeredoAddress, client, server,
//! };
//!
//! const PORT: u16 = 40_000;
//! const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
//! const OUTSIDE: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 1);
//!
//! let addresses = client::ServerEndpoints::new([1, 2, 3, 4].into());
//! let config = server::Config::new(addresses.primary, addresses.secondary);
//! let mut server = Server::new(config, server::Buckets::new());
//! let mut client = Client::new(client::Config::new(vec![addresses], PORT), [42; 32]);
//!
//! let mut now = Instant::ZERO + Duration::from_secs(1);
//! client.set_network(now, client::Network { source: Some(INSIDE), ..Default::default() });
//! client.start(now);
//!
//! let mut arriving = VecDeque::new();
//! let identity = 'run: loop {
//!     while let Some(transmit) = client.poll_transmit() {
//!         let client::Transmit::Datagram { from: port, to, payload } = transmit else {
//!             continue; // A port to open or close, a packet for the link or for the host.
//!         };
//!         let address = match to == addresses.primary() {
//!             true => ServerAddress::Primary,
//!             false => ServerAddress::Secondary,
//!         };
//!         let mapped = Endpoint::new(OUTSIDE, port);
//!         let answer = server.handle_datagram(now, address, mapped, &payload);
//!         if let Some(server::Transmit::Datagram { from, payload, .. }) = answer {
//!             arriving.push_back((port, addresses.endpoint(from), payload.to_vec()));
//!         }
//!     }
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             client::Event::Qualified(identity) => break 'run identity,
//!             event => println!("{event:?}"),
//!         }
//!     }
//!     if let Some((port, from, mut payload)) = arriving.pop_front() {
//!         const NO_CONGESTION: u8 = 0;
//!         let packet = client.handle_datagram(now, port, from, NO_CONGESTION, &mut payload);
//!         assert_eq!(packet, None, "the host has no address yet");
//!     } else {
//!         now = client.poll_timeout().expect("the client asks until it is qualified");
//!         client.handle_timeout(now);
//!     }
//! };
//! assert_eq!(client.state(), client::State::Qualified);
//! let address = TeredoAddress::decode(identity.address, ServicePrefix::STANDARD);
//! let address = address.expect("a Teredo address");
//! assert_eq!((address.server, address.mapped), (addresses.primary, Endpoint::new(OUTSIDE, PORT)));
//! ```
//!
//! # Requirements
//!
//! A letter with a number, in parentheses, names a requirement of the specification in
//! `docs/protocol`, which tells where each comes from, and why it differs from the RFC if it does.

#![forbid(unsafe_code)]

pub mod client;
pub mod dual;
pub mod fleet;
pub mod nat;
pub mod probe;
pub mod relay;
pub mod server;
pub mod wire;

mod shared;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::Client;
pub use fleet::Fleet;
pub use ipnet::{Ipv4Net, Ipv6Net};
pub use relay::Relay;
pub use server::Server;
pub use shared::{
    counts::{Count, Counts, Named},
    durations::Durations,
    limiter::{Ipv4Rates, Ipv6Rates},
    peers::{OVERHEAD as QUEUE_OVERHEAD, max_untrusted as max_untrusted_peers},
    server_address::ServerAddress,
    statistics::{Traffic, Unreachable},
    turns::Pace,
};
pub use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    limiter::{Limits, Rate},
    scope::Ipv4Scope,
    time::Instant,
};
