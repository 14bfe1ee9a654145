//! The relay's part in a fleet: its socket, and the protocol behind it.

mod members;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use std::os::fd::AsRawFd as _;
use teredo_proto::{
    Endpoint, Fleet, Instant, Relay,
    fleet::{Clocks, Config, Keys, OtherInfo, Refusal, State, wire::DATAGRAM},
};
use tokio::net::UdpSocket;

use super::{clock, parameters::random, timer::Timer};
use crate::{config::FleetSection, datapath::udp::set_buffers, metrics::FleetStatus};
use members::Members;

/// Datagrams that are handled at a time.
const BATCH: usize = 64;
/// Octets that the kernel keeps until they are received: some thousand datagrams.
const BUFFER: usize = 8 << 20;
/// The time after the start within which a member need not be heard.
const PATIENCE: Duration = Duration::from_secs(5);

/// The relay's part in a fleet.
#[derive(Debug)]
pub struct FleetRole {
    fleet: Fleet,
    members: Members,
    socket: UdpSocket,
    timer: Timer,
    buffer: [u8; DATAGRAM + 1],
    skew: Duration,
    /// The endpoint that the relay serves.
    service: Endpoint,
    opened: Instant,
    has_joined: bool,
}

/// An input that is ready.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Datagrams of other relays.
    Datagrams,
    /// The deadline of the protocol has passed.
    Time,
    /// Other members are known.
    Members,
}

impl FleetRole {
    /// Opens the socket, and makes the relay one of the fleet.
    ///
    /// # Errors
    ///
    /// When the address is not this host's, or the system has no random numbers.
    pub fn open(
        listen: SocketAddr,
        section: &FleetSection,
        keys: Keys,
        state: Option<State>,
        relay: &mut Relay,
    ) -> Result<Self> {
        let socket = open(listen).with_context(|| {
            format!(
                "cannot listen on relay.fleet.listen = \"{listen}\": is it an address of this host?"
            )
        })?;
        let members = Members::new(&section.members, listen);
        let config = Config {
            is_complete: members.are_complete(),
            ..Config::new(listen, members.known())
        };
        let (skew, clocks) = (config.skew, clocks());
        let fleet = match state {
            Some(state) => Fleet::restore(config, keys, random()?, clocks, state),
            None => Fleet::new(config, keys, random()?, clocks),
        };
        fleet.enlist(clocks, relay);
        Ok(Self {
            has_joined: fleet.has_joined(),
            fleet,
            members,
            socket,
            timer: Timer::new(),
            buffer: [0; DATAGRAM + 1],
            skew,
            service: relay.config().endpoint,
            opened: clocks.now,
        })
    }

    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Input {
        self.timer.set(Some(self.fleet.poll_timeout()));
        tokio::select! {
            // An error shows when the socket is read.
            _ = self.socket.readable() => Input::Datagrams,
            () = self.timer.expired() => Input::Time,
            () = self.members.changed() => Input::Members,
        }
    }

    /// Handles an input. The relay may have packets and events then.
    pub fn handle(&mut self, input: Input, relay: &mut Relay) {
        match input {
            Input::Datagrams => self.receive(relay),
            Input::Time => self.fleet.handle_timeout(clocks(), relay),
            Input::Members if self.members.are_complete() => {
                let known = self.members.known();
                self.fleet.set_members(clocks(), &known, relay);
            }
            Input::Members => {}
        }
        self.send();
    }

    /// Tells others what the relay has learned.
    pub fn flush(&mut self, relay: &mut Relay) {
        self.fleet.flush(clocks(), relay);
        self.send();
    }

    /// Whether the relay may draw packets.
    pub fn has_joined(&self) -> bool {
        self.fleet.has_joined()
    }

    /// Returns `true` once, after the relay has joined.
    pub fn take_joined(&mut self) -> bool {
        let is_news = self.fleet.has_joined() && !self.has_joined;
        self.has_joined |= is_news;
        is_news
    }

    /// Returns what is known and counted of the fleet.
    pub fn status(&self) -> FleetStatus {
        FleetStatus {
            others: self.fleet.others(clock::now()).collect(),
            has_joined: self.fleet.has_joined(),
            statistics: self.fleet.statistics(),
        }
    }

    /// Returns the state for the next process.
    pub fn state(&self) -> State {
        self.fleet.state(clock::now())
    }

    /// Returns a sentence about what is wrong with the fleet, if anything is.
    pub fn trouble(&self) -> Option<String> {
        let now = clock::now();
        if let Some(trouble) = self.members.trouble() {
            return Some(trouble);
        }
        let is_late = now.saturating_since(self.opened) > PATIENCE;
        let others: Vec<OtherInfo> = self.fleet.others(now).collect();
        let trouble = trouble(&others, self.fleet.stranger(now), self.service, self.skew);
        let trouble = trouble.filter(|_| is_late);
        match (self.fleet.has_joined(), trouble) {
            (true, trouble) => trouble,
            (false, Some(trouble)) => Some(format!("the relay is not announced: {trouble}")),
            (false, None) => {
                Some("the relay waits for the peers of its fleet before it draws packets".into())
            }
        }
    }

    fn receive(&mut self, relay: &mut Relay) {
        for _ in 0..BATCH {
            // Other errors are those of datagrams that were sent.
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    let datagram = &self.buffer[..length];
                    self.fleet.handle_datagram(clocks(), from, datagram, relay);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    }

    fn send(&mut self) {
        while let Some(transmit) = self.fleet.poll_transmit() {
            // What cannot be sent is lost, as in the network; it is told again.
            if let Err(error) = self.socket.try_send_to(&transmit.payload, transmit.to) {
                tracing::trace!("to the fleet's relay {}: {error}", transmit.to);
                self.fleet.handle_unsent();
            }
        }
    }
}

/// Opens a socket, beside that of the process before, which ends soon.
fn open(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let family = match listen {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let opened = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&opened, sockopt::ReusePort, &true)?;
    set_buffers(&opened, BUFFER)?;
    bind(opened.as_raw_fd(), &SockaddrStorage::from(listen))?;
    UdpSocket::from_std(opened.into())
}

fn clocks() -> Clocks {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Clocks {
        now: clock::now(),
        wall: wall.unwrap_or_default(),
    }
}

/// Returns a sentence about the other relay with the plainest trouble, or about one that is none of the members.
fn trouble(
    others: &[OtherInfo],
    stranger: Option<SocketAddr>,
    service: Endpoint,
    skew: Duration,
) -> Option<String> {
    let unreached = |other: &&OtherInfo| !(other.is_live && other.hears_us);
    let differs = |other: &&OtherInfo| unreached(other) && other.refusal.is_some();
    let is_heard = |other: &&OtherInfo| unreached(other) && other.is_live;
    let find = |is: &dyn Fn(&&OtherInfo) -> bool| others.iter().find(is);
    let other = (find(&differs).or_else(|| find(&is_heard))).or_else(|| find(&unreached));
    let of_stranger = stranger.map(|address| {
        format!(
            "the relay {address} has the key of the fleet, and is not among its members: is that its \
             relay.fleet.listen, and does relay.fleet.members of all relays have it?"
        )
    });
    match other {
        // Its address may be the wrong one.
        Some(other) if !other.is_live && other.refusal.is_none() => {
            Some(of_stranger.unwrap_or_else(|| explain(other, service, skew)))
        }
        Some(other) => Some(explain(other, service, skew)),
        None => of_stranger,
    }
}

fn explain(other: &OtherInfo, service: Endpoint, skew: Duration) -> String {
    let (address, ahead) = (other.address, other.clock_ahead);
    match other.refusal {
        Some(Refusal::Version) => {
            return format!(
                "the fleet's relay {address} speaks another version of the fleet's protocol: run the same release \
                 on all relays"
            );
        }
        Some(Refusal::Key) => {
            return format!(
                "the fleet's relay {address} signs with a key that this one does not have: let relay.fleet.key-file \
                 of all relays have the same lines, and `teredo reload` each"
            );
        }
        Some(Refusal::Tag) => {
            return format!(
                "the datagrams of the fleet's relay {address} are signed for other addresses: is its \
                 relay.fleet.listen what relay.fleet.members has, and does no NAT change it?"
            );
        }
        Some(Refusal::Service(there)) if there != service => {
            return format!(
                "the fleet's relay {address} serves {there}, and this one {service}: let relay.ipv4 and relay.port \
                 of all relays be the same"
            );
        }
        Some(Refusal::Service(_)) => {
            return format!(
                "the fleet's relay {address} serves another prefix: let node.prefix of all relays be the same"
            );
        }
        Some(Refusal::Clock) | None => {}
    }
    if u128::from(ahead.unsigned_abs()) > skew.as_millis() {
        return format!(
            "the clock of the fleet's relay {address} differs by {} s: let both follow a time server",
            ahead.unsigned_abs() / 1000
        );
    }
    let why = "is it running, with the same relay.fleet.key-file and this relay among its members, and \
               does the network let datagrams pass?";
    match other.is_live {
        true => format!("the fleet's relay {address} does not hear this one: {why}"),
        false => format!("the fleet's relay {address} is silent: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::sys::socket::getsockopt;
    use teredo_proto::{fleet::DropReason, relay};

    use super::*;
    use crate::config::Member;

    fn section(members: &[SocketAddr]) -> FleetSection {
        FleetSection {
            listen: None,
            members: members.iter().copied().map(Member::Address).collect(),
            key_file: Some(PathBuf::from("/x")),
        }
    }

    /// Two relays over real sockets.
    #[tokio::test]
    async fn f19_relays_join_over_udp() {
        // Both at once, lest they get the same port.
        let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let members = sockets.map(|socket| socket.local_addr().unwrap());
        let mut nodes: Vec<_> = members
            .iter()
            .map(|&own| {
                let endpoint = "198.51.100.1:3545"
                    .parse::<std::net::SocketAddrV4>()
                    .unwrap();
                let mut relay = Relay::new(relay::Config::new(endpoint.into()), [1; 32]);
                let keys = Keys::new(&[[7; 32]]).unwrap();
                let role = FleetRole::open(own, &section(&members), keys, None, &mut relay);
                (role.unwrap(), relay)
            })
            .collect();
        let [(one, of_one), (other, of_other)] = &mut nodes[..] else {
            panic!("two");
        };
        let limit = tokio::time::Instant::now() + Duration::from_secs(20);
        while !(one.has_joined() && other.has_joined()) {
            assert!(tokio::time::Instant::now() < limit);
            tokio::select! {
                input = one.input() => one.handle(input, of_one),
                input = other.input() => other.handle(input, of_other),
            }
        }
        assert!(one.take_joined() && !one.take_joined());
        assert_eq!((one.trouble(), other.trouble()), (None, None));
    }

    /// What the other relays tell in a moment waits for this one, as far as the system permits.
    #[tokio::test]
    async fn the_kernel_has_room_for_what_comes_at_once() {
        let room = |socket: &UdpSocket| getsockopt(socket, sockopt::RcvBuf).unwrap();
        let socket = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let plain = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if setsockopt(&plain, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(&plain, sockopt::RcvBuf, &BUFFER).unwrap();
        }
        assert_eq!(room(&socket), room(&plain));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_counted() {
        let own = "127.0.0.1:0".parse().unwrap();
        // No address of this family leads there.
        let other = "[2001:db8::1]:3546".parse().unwrap();
        let service = "198.51.100.1:3545"
            .parse::<std::net::SocketAddrV4>()
            .unwrap();
        let mut relay = Relay::new(relay::Config::new(service.into()), [1; 32]);
        let keys = Keys::new(&[[7; 32]]).unwrap();
        let mut role = FleetRole::open(own, &section(&[other]), keys, None, &mut relay).unwrap();
        role.socket.writable().await.unwrap();
        role.handle(Input::Time, &mut relay);
        let unsent = role.status().statistics.dropped[DropReason::Unsent];
        assert_eq!(unsent, 1);
    }

    #[test]
    fn trouble_has_a_reason() {
        let service = Endpoint::new([198, 51, 100, 1].into(), 3545);
        let skew = Duration::from_secs(5);
        let well = OtherInfo {
            address: "10.0.0.3:3546".parse().unwrap(),
            ..crate::metrics::well()
        };
        let mut other = OtherInfo {
            address: "10.0.0.2:3546".parse().unwrap(),
            is_live: false,
            hears_us: false,
            ..well
        };
        let says = |other: &OtherInfo, stranger: Option<SocketAddr>| {
            trouble(&[well, *other], stranger, service, skew).unwrap()
        };
        assert_eq!(trouble(&[well], None, service, skew), None);
        assert!(says(&other, None).contains("10.0.0.2:3546 is silent"));
        let stranger = "10.0.0.9:3546".parse().ok();
        assert!(says(&other, stranger).contains("10.0.0.9:3546 has the key of the fleet"));
        other.is_live = true;
        assert!(says(&other, stranger).contains("does not hear this one"));
        other.clock_ahead = -7_500;
        assert!(says(&other, None).contains("differs by 7 s"));
        other.is_live = false;
        for (refusal, text) in [
            (Refusal::Version, "run the same release"),
            (Refusal::Key, "relay.fleet.key-file of all relays"),
            (Refusal::Tag, "are signed for other addresses"),
            (Refusal::Clock, "differs by 7 s"),
            (Refusal::Service(service), "serves another prefix"),
            (
                Refusal::Service(Endpoint::new([198, 51, 100, 2].into(), 3545)),
                "serves 198.51.100.2:3545, and this one 198.51.100.1:3545",
            ),
        ] {
            other.refusal = Some(refusal);
            let silent = OtherInfo {
                refusal: None,
                ..other
            };
            // The one that is refused tells more.
            let says = trouble(&[silent, other], stranger, service, skew).unwrap();
            assert!(says.contains(text), "{says}");
        }
    }
}
