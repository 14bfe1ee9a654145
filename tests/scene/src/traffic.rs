//! Repeated pings and TCP connections in both directions.

use std::{
    net::Ipv6Addr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Scope},
    time::Duration,
};
use teredo_lab::{
    Namespace, Scene,
    traffic::{Ping, Tcp},
};

/// Octets of one TCP connection, each way.
const CONNECTION: u64 = 4 << 20;
/// Time without progress after which a connection has failed.
const IDLE: Duration = Duration::from_secs(5);
/// Pause between two pieces of 64 KiB: some 100 Mbit/s each way, which Miredo's client can handle.
/// At full speed its socket overflows, and pings are lost.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time for an echo reply.
const REPLY: Duration = Duration::from_secs(3);
/// Time from one echo request to the next.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Traffic sent and received, in one direction of opening: by the client or by the host. Data flows
/// both ways in either.
#[derive(Debug, Default)]
pub struct Counts {
    /// Echo requests sent.
    pub pings: AtomicU64,
    /// Echo replies received.
    pub replies: AtomicU64,
    /// TCP connections with a complete transfer.
    pub connections: AtomicU64,
    /// Octets that these connections transferred, both ways together, all verified.
    pub octets: AtomicU64,
}

/// All traffic of the scene.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Traffic opened by the client.
    pub client: Counts,
    /// Traffic opened by the host.
    pub host: Counts,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Traffic {
    /// Starts the traffic; it ends after [`Self::stop`].
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        scene: &'scope Scene,
        client_address: Ipv6Addr,
    ) {
        let (client, host) = (&scene.site().client, &scene.host().namespace);
        let host_address = scene.host().address;
        let opened = [
            (&self.client, client, host, host_address),
            (&self.host, host, client, client_address),
        ];
        for (counts, from, _, address) in opened {
            scope.spawn(move || self.ping(counts, from, address));
        }
        // One connection at a time: more would only fill the queues, and pings would be lost. On
        // the slowest machine each side opens one.
        scope.spawn(move || {
            for (number, (counts, from, to, address)) in opened.into_iter().cycle().enumerate() {
                if number >= opened.len() && self.stopped() {
                    break;
                }
                self.tcp(counts, from, to, address);
            }
        });
    }

    /// Lets the traffic end after the connection that is open, and after one from each side.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The failures so far.
    pub fn failures(&self) -> Vec<String> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether all required traffic has passed. Single echo replies may be lost when TCP fills the
    /// queues.
    pub fn passed(&self) -> bool {
        let passed = |counts: &Counts| {
            counts.replies.load(Ordering::Relaxed) > 0
                && counts.connections.load(Ordering::Relaxed) > 0
        };
        passed(&self.client) && passed(&self.host) && self.failures().is_empty()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: &anyhow::Error) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{error:#}"));
    }

    fn ping(&self, counts: &Counts, from: &Namespace, to: Ipv6Addr) {
        while !self.stopped() {
            match Ping::to(to).wait(REPLY).from(from) {
                Ok(pong) => {
                    counts.pings.fetch_add(pong.sent.into(), Ordering::Relaxed);
                    let received = pong.received.into();
                    counts.replies.fetch_add(received, Ordering::Relaxed);
                }
                Err(error) => self.fail(&error),
            }
            thread::sleep(PING_INTERVAL);
        }
    }

    fn tcp(&self, counts: &Counts, from: &Namespace, to: &Namespace, address: Ipv6Addr) {
        let connection = Tcp::to(address)
            .upload(CONNECTION)
            .download(CONNECTION)
            .idle(IDLE)
            .pause(PAUSE);
        match connection.between(from, to) {
            Ok(_) => {
                counts.connections.fetch_add(1, Ordering::Relaxed);
                counts.octets.fetch_add(2 * CONNECTION, Ordering::Relaxed);
            }
            Err(error) => self.fail(&error),
        }
    }
}
