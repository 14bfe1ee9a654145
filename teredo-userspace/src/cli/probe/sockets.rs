//! The sockets of a measurement, which need no privileges.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsFd as _,
    time::{self, Duration},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    client::ServerEndpoints,
    probe::{Measurement, Transmit},
};

use super::failure::Failure;

/// Larger than any datagram that a measurement waits for.
const DATAGRAM: usize = 2048;

/// UDP sockets, numbered from 0.
pub struct Sockets(Vec<UdpSocket>);

impl Sockets {
    /// Opens `count` sockets, the first on `port`; 0: any.
    pub fn open(count: usize, port: u16) -> Result<Self, Failure> {
        const ANY_PORT: u16 = 0;
        let ports = std::iter::once(port).chain(std::iter::repeat(ANY_PORT));
        let open = |port: u16| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
            let socket = socket.and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            socket.map_err(|error| Failure::of_port(port, error))
        };
        Ok(Self(ports.take(count).map(open).collect::<Result<_, _>>()?))
    }

    /// Returns the ports of the sockets, host byte order.
    pub fn ports(&self) -> Result<Vec<u16>, Failure> {
        let port = |socket: &UdpSocket| Ok(socket.local_addr()?.port());
        let ports: io::Result<_> = self.0.iter().map(port).collect();
        ports.map_err(|error| Failure::of_system("cannot read the number of a port", error))
    }

    /// Runs a measurement that begins now, at [`Instant::ZERO`], to its end. `watch` is called after
    /// each step.
    pub fn run<M: Measurement>(
        &self,
        measurement: &mut M,
        server: ServerEndpoints,
        watch: impl Fn(&mut M),
    ) -> Result<(), Failure> {
        let start = time::Instant::now();
        let now = || Instant::ZERO + start.elapsed();
        loop {
            while let Some(transmit) = measurement.poll_transmit() {
                self.send(&transmit, server)?;
            }
            watch(measurement);
            let Some(due) = measurement.poll_timeout() else {
                return Ok(());
            };
            self.wait(due.saturating_since(now()))?;
            for (number, socket) in self.0.iter().enumerate() {
                let mut buffer = [0; DATAGRAM];
                while let Ok((length, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) {
                    let payload = &buffer[..length];
                    measurement.handle_datagram(now(), number, from.into(), payload);
                }
            }
            measurement.handle_timeout(now());
        }
    }

    fn send(&self, transmit: &Transmit, server: ServerEndpoints) -> Result<(), Failure> {
        let to = SocketAddrV4::from(transmit.to);
        match self.0[transmit.socket].send_to(&transmit.payload, to) {
            // Other datagrams may get lost; that is part of the measurement.
            Err(error) if transmit.to == server.primary() => Err(Failure::of_sending(to, error)),
            _ => Ok(()),
        }
    }

    /// Waits for a datagram, at most for `limit`.
    fn wait(&self, limit: Duration) -> Result<(), Failure> {
        // Rounded up, so that the deadline has passed afterwards.
        let milliseconds = limit.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        let readable = |socket| PollFd::new(socket, PollFlags::POLLIN);
        let mut fds: Vec<_> = self
            .0
            .iter()
            .map(|socket| readable(socket.as_fd()))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(Failure::of_system(
                "cannot wait for datagrams",
                error.into(),
            )),
        }
    }
}

/// Returns the source address of packets to an endpoint. No packet is sent.
pub fn source_towards(to: Endpoint) -> Result<Ipv4Addr, Failure> {
    let to = SocketAddrV4::from(to);
    let source = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        socket.local_addr()
    };
    match source().map_err(|error| Failure::of_route(to, error))? {
        SocketAddr::V4(source) => Ok(*source.ip()),
        SocketAddr::V6(_) => Err(Failure::NoIpv4),
    }
}
