//! The event loop that joins the datapath and the protocol.
//!
//! One thread does everything. Packets move in batches: what one system call delivered goes
//! through the protocol, and leaves with the next one.

mod answers;
mod clock;
mod fast_path;
mod start;

use std::{
    cell::RefCell,
    future::Future,
    io,
    net::SocketAddrV4,
    time::{Duration, Instant as StartTime},
};

use anyhow::{Context as _, Result};
use teredo_common::time::Instant;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{MissedTickBehavior, Sleep, interval, sleep},
};

use fast_path::FastPath;

use crate::{
    api::{Handle, Request},
    config::{self, Config},
    datapath::{
        BATCH,
        route::Routes,
        tun::{PacketBatch, Tun},
        udp::{ReceiveBatch, Receiver, Sender},
        watch::{Changes, StaleNeighbour, Watch},
    },
    protocol::relay::{Relay, Transmit},
    wire::ipv6::Header,
};

/// How often the fast path's peers are compared with the relay's.
const SWEEP: Duration = Duration::from_secs(1);

/// A relay that is set up and holds what it needs of the host.
///
/// Dropped without [`Node::run`] it leaves the TUN interface to the next start, as a crash does.
#[derive(Debug)]
pub struct Node {
    config: Config,
    role: config::Relay,
    started: StartTime,
    relay: Relay,
    endpoint: SocketAddrV4,
    sender: Sender,
    receiver: AsyncFd<Receiver>,
    marked: AsyncFd<Receiver>,
    tun: AsyncFd<Tun>,
    fast_path: FastPath,
    routes: Routes,
    watch: Watch,
    requests: mpsc::Receiver<Request>,
    handle: Handle,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    transmits: Vec<Transmit>,
    losses: Losses,
    is_at_home: bool,
}

/// Packets that the relay let pass and the kernel did not take.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    /// IPv6 packets.
    decapsulated: u64,
    /// Datagrams.
    encapsulated: u64,
}

impl Node {
    /// Sets everything up: the socket, the TUN interface, the fast path, and at last the route. Must
    /// be called in a tokio runtime of one thread.
    ///
    /// # Errors
    ///
    /// When something that the configuration asks for cannot be had, with the reason and the mend.
    /// Nothing new is left behind then.
    pub async fn start(config: Config) -> Result<Self> {
        start::start(config).await
    }

    /// For asking the node while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The relay's endpoint.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddrV4 {
        self.endpoint
    }

    /// Relays until `shutdown` is ready, then takes everything back.
    ///
    /// # Errors
    ///
    /// When the socket or the TUN interface fails for good, or something cannot be taken back.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let result = tokio::select! {
            result = self.serve() => result,
            () = shutdown => Ok(()),
        };
        result.and(self.stop().await)
    }

    async fn serve(&mut self) -> Result<()> {
        let timeout = sleep(clock::NEVER);
        tokio::pin!(timeout);
        let mut armed = None;
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.settle()?;
            let deadline = self.relay.poll_timeout().map(|(deadline, _)| deadline);
            if deadline != armed {
                armed = deadline;
                arm(timeout.as_mut(), deadline);
            }
            tokio::select! {
                received = receive(&self.receiver, &self.marked, &mut self.datagrams) => {
                    received.context("the UDP socket failed")?;
                    self.decapsulate();
                }
                read = self.tun.async_io(Interest::READABLE, |tun| {
                    tun.read(&mut self.packets)
                }) => {
                    read.with_context(|| self.tun_failure())?;
                    self.encapsulate();
                }
                () = &mut timeout => {
                    armed = None;
                    self.relay.handle_timeout(clock::now());
                }
                _ = sweep.tick() => self.fast_path.sweep(&mut self.relay)?,
                Some(request) = self.requests.recv() => self.answer(request),
                changes = self.watch.changed() => {
                    let changes = changes.context("cannot watch the kernel's routing")?;
                    self.follow(changes).await?;
                }
            }
        }
    }

    /// From clients to the kernel.
    fn decapsulate(&mut self) {
        let now = clock::now();
        for datagram in self.datagrams.datagrams() {
            if let Ok(header) = Header::parse(datagram.payload) {
                self.relay.anticipate(&header.source());
            }
        }
        let (tun, losses) = (self.tun.get_ref(), &mut self.losses.decapsulated);
        let mut packets: [&[u8]; BATCH] = [&[]; BATCH];
        let mut count = 0;
        for datagram in self.datagrams.datagrams() {
            let packet = self.relay.handle_datagram(
                now,
                datagram.source.into(),
                datagram.ecn,
                datagram.payload,
            );
            if let Some(packet) = packet {
                packets[count] = packet;
                count += 1;
            }
            if count == BATCH {
                *losses += (count - tun.write(&packets)) as u64;
                count = 0;
            }
        }
        *losses += (count - tun.write(&packets[..count])) as u64;
    }

    /// From the kernel to clients.
    fn encapsulate(&mut self) {
        const NOWHERE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        let now = clock::now();
        for packet in self.packets.packets() {
            if let Ok(header) = Header::parse(packet) {
                self.relay.anticipate(&header.destination());
            }
        }
        let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(NOWHERE, &[]); BATCH];
        let mut count = 0;
        for packet in self.packets.packets() {
            if let Some((to, payload)) = self.relay.handle_ipv6(now, packet) {
                datagrams[count] = (to.into(), payload);
                count += 1;
            }
        }
        let sent = self.sender.send(&datagrams[..count]);
        self.losses.encapsulated += (count - sent) as u64;
    }

    /// Sends what the relay wants to send, then follows what it tells.
    fn settle(&mut self) -> Result<()> {
        while let Some(first) = self.relay.poll_transmit() {
            self.transmits.push(first);
            while self.transmits.len() < BATCH
                && let Some(next) = self.relay.poll_transmit()
            {
                self.transmits.push(next);
            }
            self.transmit();
        }
        while let Some(event) = self.relay.poll_event() {
            self.fast_path.follow(event)?;
        }
        Ok(())
    }

    fn transmit(&mut self) {
        let (mut datagrams, mut packets) = (Vec::new(), Vec::new());
        for transmit in &self.transmits {
            match transmit {
                Transmit::Datagram { to, payload } => {
                    datagrams.push(((*to).into(), payload.as_slice()));
                }
                // There is no server yet, so the relay was not told of one.
                Transmit::OwnServer { .. } => {}
                Transmit::Ipv6(packet) => packets.push(packet.as_slice()),
            }
        }
        let sent = self.sender.send(&datagrams);
        self.losses.encapsulated += (datagrams.len() - sent) as u64;
        let taken = self.tun.get_ref().write(&packets);
        self.losses.decapsulated += (packets.len() - taken) as u64;
        self.transmits.clear();
    }

    /// Follows a change of the kernel's routing.
    async fn follow(&mut self, changes: Changes) -> Result<()> {
        self.fast_path.forget_routes()?;
        if changes.addresses {
            self.learn_addresses().await?;
        }
        // Nobody but the kernel knows that the fast path still uses them.
        for stale in changes.stale {
            if self.fast_path.uses(stale.interface) {
                self.probe(stale).await;
            }
        }
        Ok(())
    }

    async fn probe(&self, neighbour: StaleNeighbour) {
        let probed = self.routes.probe(neighbour.interface, neighbour.address);
        if let Err(error) = probed.await {
            tracing::debug!("{error}");
        }
    }

    /// Learns this host's addresses. Without ours among them no packet comes back, so nobody shall
    /// send any: the route is held only while it is.
    async fn learn_addresses(&mut self) -> Result<()> {
        let addresses = self.routes.addresses().await?;
        self.relay
            .set_own_addresses(&addresses.ipv4, &addresses.ipv6);
        self.fast_path.set_own_ipv4(&addresses.ipv4)?;
        let address = *self.endpoint().ip();
        let is_at_home = addresses.ipv4.contains(&address);
        if is_at_home != self.is_at_home {
            self.is_at_home = is_at_home;
            if is_at_home {
                tracing::info!("{address} is back");
            } else {
                tracing::warn!(
                    "{address} is no address of this host any more: nothing is relayed until it is \
                     back, or the daemon started again with another"
                );
            }
            self.hold_route().await?;
        }
        Ok(())
    }

    /// Has the kernel route the service prefix to the relay, or no longer.
    async fn hold_route(&self) -> Result<()> {
        if !self.role.route {
            return Ok(());
        }
        let prefix = config::network(self.config.node.prefix);
        let interface = self.tun.get_ref().index();
        if self.is_at_home {
            self.routes.add_route(prefix, interface).await?;
        } else {
            self.routes.remove_route(prefix, interface).await?;
        }
        Ok(())
    }

    /// Why the TUN interface cannot be read.
    fn tun_failure(&self) -> String {
        format!(
            "the TUN interface {} was taken down or removed by somebody else",
            self.tun.get_ref().name()
        )
    }

    /// Takes everything back.
    async fn stop(self) -> Result<()> {
        let interface = self.tun.get_ref().index();
        let stopped = self.fast_path.stop();
        self.routes.remove_link(interface).await?;
        Ok(stopped?)
    }
}

/// Receives from whichever of the two has something.
async fn receive(
    receiver: &AsyncFd<Receiver>,
    marked: &AsyncFd<Receiver>,
    batch: &mut ReceiveBatch,
) -> io::Result<usize> {
    let batch = RefCell::new(batch);
    let read = |receiver: &Receiver| receiver.receive(&mut batch.borrow_mut());
    tokio::select! {
        received = receiver.async_io(Interest::READABLE, read) => received,
        received = marked.async_io(Interest::READABLE, read) => received,
    }
}

/// Sets the timer for a deadline of the relay.
fn arm(timer: std::pin::Pin<&mut Sleep>, deadline: Option<Instant>) {
    let wait = deadline.map_or(clock::NEVER, |deadline| {
        deadline.saturating_since(clock::now())
    });
    timer.reset(tokio::time::Instant::now() + wait);
}

/// Lets tokio tell when something can be read.
fn register<T: std::os::fd::AsFd + std::os::fd::AsRawFd>(readable: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both `Receiver` and `Tun` own one descriptor, which stays open and the same.
    unsafe { AsyncFd::register_with_interest(readable, Interest::READABLE) }.map_err(Into::into)
}
