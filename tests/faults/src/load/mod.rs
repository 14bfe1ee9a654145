//! Mixed traffic through relay, server and client, counted packet by packet.

mod callers;
mod inside;
mod native;
mod pace;
mod peers;
pub mod tally;

use std::{
    net::Ipv6Addr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use teredo_lab::{Namespace, Scene};

use tally::Tally;

/// Octets of the receive buffer of every socket, enough for seconds without a receiver.
const BUFFER: usize = 16 << 20;
/// The interval at which packets are sent.
const TICK: Duration = Duration::from_millis(5);
/// The port of the native host.
const HOST_PORT: u16 = 9000;
/// The port of all peers and of the client's host, inside the tunnel.
const PEER_PORT: u16 = 9001;

/// Packets per second of each part of the load.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Peers that send all the time.
    pub steady_peers: u16,
    /// To all steady peers, and as many from them.
    pub steady: f64,
    /// New peers, each of which gets a few packets and answers.
    pub new_peers: f64,
    /// Peers that do not answer.
    pub silent_peers: f64,
    /// To the client's host, and as many from it.
    pub client: f64,
    /// Packets of each kind that relay, server or kernel have to refuse.
    pub refused: f64,
    /// Solicitations.
    pub solicitations: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            steady_peers: 64,
            steady: 1000.0,
            new_peers: 3.0,
            silent_peers: 0.5,
            client: 100.0,
            refused: 5.0,
            solicitations: 12.0,
        }
    }
}

/// What the threads of the load share.
#[derive(Debug, Default)]
struct Shared {
    tally: Tally,
    is_paused: AtomicBool,
    is_over: AtomicBool,
    /// Bubbles that peers got through the server, and sent as answers to any.
    bubbles: [AtomicU64; 2],
    /// Datagrams that no peer expected.
    unexpected: AtomicU64,
}

impl Shared {
    fn sends(&self) -> bool {
        !self.is_paused.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// The running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
    /// The namespace of the peers.
    pub peers: Namespace,
    /// The namespace of the callers.
    pub callers: Namespace,
}

impl Load {
    /// Starts the load in a scene whose client has this address.
    ///
    /// # Errors
    ///
    /// Fails when a namespace or a socket cannot be made.
    pub fn start(scene: &Scene, client: Option<Ipv6Addr>, rates: Rates) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let peers = scene.add_ipv4_host("peers", peers::ADDRESS)?;
        let callers = scene.add_ipv4_host("callers", callers::ADDRESS)?;
        let host = scene.host();
        let mut threads = Vec::new();
        {
            let (shared, address) = (Arc::clone(&shared), host.address);
            threads.push(
                host.namespace
                    .spawn(move || native::run(&shared, address, client, rates))?,
            );
        }
        {
            let (shared, address) = (Arc::clone(&shared), host.address);
            threads.push(peers.spawn(move || peers::run(&shared, address, rates))?);
        }
        {
            let shared = Arc::clone(&shared);
            threads.push(callers.spawn(move || callers::run(&shared, rates))?);
        }
        if let Some(client) = client {
            let (shared, address) = (Arc::clone(&shared), host.address);
            let site = &scene.site().client;
            threads.push(site.spawn(move || inside::run(&shared, client, address, rates))?);
        }
        Ok(Self {
            shared,
            threads,
            peers,
            callers,
        })
    }

    /// Returns the counts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Stops sending, or goes on. What arrives is counted all the time.
    pub fn pause(&self, is_paused: bool) {
        self.shared.is_paused.store(is_paused, Ordering::Release);
    }

    /// Returns the numbers of bubbles that peers received through the server, and sent.
    #[must_use]
    pub fn bubbles(&self) -> [u64; 2] {
        [0, 1].map(|index: usize| self.shared.bubbles[index].load(Ordering::Relaxed))
    }

    /// Returns the number of datagrams that arrived at a peer and were neither bubbles nor marked.
    #[must_use]
    pub fn unexpected(&self) -> u64 {
        self.shared.unexpected.load(Ordering::Relaxed)
    }

    /// Ends the load.
    ///
    /// # Errors
    ///
    /// Fails when a thread has failed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// Fails if a thread has ended.
    ///
    /// # Errors
    ///
    /// The error of the thread.
    pub fn check(&mut self) -> Result<()> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            self.end()?;
            anyhow::bail!("a generator has ended");
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.shared.is_over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(result) => result.context("the load")?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Prepares a socket of the load.
fn prepare(socket: &(impl AsFd + std::os::fd::AsRawFd)) -> Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(socket, sockopt::SndBufForce, &BUFFER)?;
    Ok(())
}

/// Waits for a tick, or until one of these sockets has something.
fn wait<'a>(sockets: impl IntoIterator<Item = &'a std::net::UdpSocket>) -> Result<()> {
    let mut polled = sockets
        .into_iter()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect::<Vec<_>>();
    match poll(&mut polled, PollTimeout::try_from(TICK)?) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Receives everything that waits in a socket.
fn drain(
    socket: &std::net::UdpSocket,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8], std::net::SocketAddr) -> Result<()>,
) -> Result<()> {
    loop {
        match socket.recv_from(buffer) {
            Ok((length, from)) => take(&buffer[..length], from)?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            // An ICMP error about an earlier datagram.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionRefused
                        | std::io::ErrorKind::HostUnreachable
                        | std::io::ErrorKind::NetworkUnreachable
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a counted packet. What the kernel of the sender refuses, for want of a route, is not counted.
fn send(
    shared: &Shared,
    socket: &std::net::UdpSocket,
    class: tally::Class,
    to: impl std::net::ToSocketAddrs,
    compose: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<()> {
    let mark = shared.tally.send(class);
    let octets = compose(&mark.encode())?;
    if socket.send_to(&octets, to).is_err() {
        shared.tally.take_back(mark);
    }
    Ok(())
}
