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
    Fleet, Instant, Relay,
    fleet::{Clocks, Config, Keys, OtherInfo, State, wire::DATAGRAM},
};
use tokio::net::UdpSocket;

use super::{clock, parameters::random, timer::Timer};
use crate::{config::FleetSection, metrics::FleetStatus};
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
                self.fleet.set_members(clock::now(), &known, relay);
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
        if !self.fleet.has_joined() {
            return Some(
                "the relay waits for the peers of its fleet before it draws packets".into(),
            );
        }
        let mut others = self.fleet.others(now);
        let other = others.find(|other| {
            let is_reached = other.is_live && other.hears_us;
            !is_reached && now.saturating_since(self.opened) > PATIENCE
        })?;
        Some(explain(&other, self.skew))
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
    // As much as the system permits.
    let _ = setsockopt(&opened, sockopt::RcvBuf, &BUFFER);
    let _ = setsockopt(&opened, sockopt::SndBuf, &BUFFER);
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

fn explain(other: &OtherInfo, skew: Duration) -> String {
    let (address, ahead) = (other.address, other.clock_ahead);
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

    use teredo_proto::relay;

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
        let free = || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap()
        };
        let members = [free(), free()];
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

    #[test]
    fn trouble_has_a_reason() {
        let mut other = OtherInfo {
            address: "10.0.0.2:3546".parse().unwrap(),
            is_live: false,
            hears_us: false,
            is_in_step: false,
            is_known: false,
            peers: 0,
            clock_ahead: 0,
            heard: Instant::ZERO,
        };
        let skew = Duration::from_secs(5);
        assert!(explain(&other, skew).contains("10.0.0.2:3546 is silent"));
        other.is_live = true;
        assert!(explain(&other, skew).contains("does not hear this one"));
        other.clock_ahead = -7_500;
        assert!(explain(&other, skew).contains("differs by 7 s"));
    }
}
