//! The channel between API and node. Requests are messages, so that only the node touches its state.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    events::{Event, WAITING},
    filter::Filter,
    types::Peer,
};
use crate::{
    capture::{Tap, Taps},
    datapath::xdp::capture::Shared,
    explain::{Facts, Question},
    metrics::{Role, Snapshot},
};

/// Peers in one page: few enough that listing them hardly delays packets.
pub const PAGE: usize = 256;

/// Requests that may wait for the node.
const CAPACITY: usize = 16;

/// The longest wait for the relay's route to go: several attempts.
const WITHDRAWAL: Duration = Duration::from_secs(5);

/// A request to the node. If its receiver is dropped, the requester no longer waits.
#[derive(Debug)]
pub enum Request {
    /// Asks for a snapshot of the statistics.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Asks for some of the peers.
    Peers {
        /// 0, or [`Page::next`] of the previous page.
        cursor: u64,
        /// The most peers of the answer, at most [`PAGE`].
        most: usize,
        /// The properties of the peers.
        filter: Filter,
        /// Receives the answer.
        reply: oneshot::Sender<Page>,
    },
    /// Makes the node withdraw the relay's route, and is answered, when that has gone, with the time for which the
    /// node has to go on.
    Withdraw(oneshot::Sender<Duration>),
    /// Asks for the facts of an explanation.
    Explain {
        /// The peers in question.
        question: Question,
        /// Receives the answer.
        reply: oneshot::Sender<Box<Facts>>,
    },
    /// Makes the node drain, and is answered afterwards.
    Drain(oneshot::Sender<()>),
    /// Asks for what a capture at the XDP program shares with that; `None` without a program.
    CaptureParts(oneshot::Sender<Option<Result<Shared, String>>>),
    /// Puts a program that captures into the place of the usual one.
    BeginCapture {
        /// The program.
        program: OwnedFd,
        /// Is over when nobody captures any more.
        over: oneshot::Receiver<()>,
        /// Receives what is over when the program has that place no more, or why it does not get it.
        reply: oneshot::Sender<Result<oneshot::Receiver<()>, String>>,
    },
    /// Starts a new process in the place of this one, with the program and the configuration as they are
    /// now. Is answered when that runs, or with the reason why it does not.
    Replace(oneshot::Sender<Result<(), String>>),
}

/// A page of the list of peers. Peers that come or go between two pages may be missed.
#[derive(Debug, Default)]
pub struct Page {
    /// The peers, in no particular order; none at all if the page covers only free places, and peers that are
    /// not selected.
    pub peers: Vec<Peer>,
    /// The opaque cursor of the next page; `None` after the last.
    pub next: Option<u64>,
}

/// Whether the API accepts connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// It does.
    #[default]
    Open,
    /// They wait: another process is about to take over.
    Shut,
    /// They are for another process. The API ends after its last answer.
    Closed,
}

/// The API's end of the channel to the node.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    gate: watch::Receiver<Gate>,
    /// Does not keep the channel open.
    events: broadcast::WeakSender<Event>,
    taps: Taps,
}

/// The events of the node for one reader.
pub type Subscription = broadcast::Receiver<Event>;

/// The node's end of the channel.
#[derive(Debug)]
pub struct Requests {
    requests: mpsc::Receiver<Request>,
    gate: watch::Sender<Gate>,
    events: broadcast::Sender<Event>,
}

impl Requests {
    /// Waits for the next request; `None` once there are no handles any more. Cancelling loses nothing.
    pub async fn recv(&mut self) -> Option<Request> {
        self.requests.recv().await
    }

    /// Whether one of the requests that nobody has received is for a new process. It and those before it are dropped.
    pub fn want_replacement(&mut self) -> bool {
        let mut waiting = std::iter::from_fn(|| self.requests.try_recv().ok());
        waiting.any(|request| matches!(request, Request::Replace(_)))
    }

    /// Makes the API accept connections or not.
    pub fn set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// Sends an event to all subscribers. It is not even made if there are none.
    pub fn publish(&self, event: impl FnOnce() -> Event) {
        if self.events.receiver_count() > 0 {
            // The last subscriber may have gone at this moment.
            let _ = self.events.send(event());
        }
    }
}

/// The node has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

impl Handle {
    /// Returns a handle and the receiver of its requests.
    #[must_use]
    pub fn new() -> (Self, Requests) {
        let (sender, requests) = mpsc::channel(CAPACITY);
        let (shut, gate) = watch::channel(Gate::Open);
        let (events, _) = broadcast::channel(WAITING);
        let handle = Self {
            requests: sender,
            gate,
            events: events.downgrade(),
            taps: Taps::default(),
        };
        let requests = Requests {
            requests,
            gate: shut,
            events,
        };
        (handle, requests)
    }

    /// Returns the gate of the API.
    #[must_use]
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.clone()
    }

    /// Subscribes to the events of the node from now on; `None` if it has ended.
    #[must_use]
    pub fn subscribe(&self) -> Option<Subscription> {
        Some(self.events.upgrade()?.subscribe())
    }

    /// Returns the place where a role gives packets to those that capture.
    #[must_use]
    pub fn tap(&self, role: Role) -> Tap {
        self.taps.of(role)
    }

    /// Returns the place where packets of the daemon are captured.
    #[must_use]
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    /// Requests what a capture at the XDP program shares with that; `None` without a program.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn capture_parts(&self) -> Result<Option<Result<Shared, String>>, Stopped> {
        self.ask(Request::CaptureParts).await
    }

    /// Puts a program that captures into the place of the usual one until `over` is.
    ///
    /// # Errors
    ///
    /// When the node has ended. Within, the reason why the program does not get that place.
    pub async fn begin_capture(
        &self,
        program: OwnedFd,
        over: oneshot::Receiver<()>,
    ) -> Result<Result<oneshot::Receiver<()>, String>, Stopped> {
        self.ask(|reply| Request::BeginCapture {
            program,
            over,
            reply,
        })
        .await
    }

    /// Requests a snapshot of the statistics.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.ask(Request::Snapshot).await
    }

    /// Requests the page of at most `most` peers at `cursor`.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn peers(&self, cursor: u64, most: usize, filter: Filter) -> Result<Page, Stopped> {
        self.ask(|reply| Request::Peers {
            cursor,
            most,
            filter,
            reply,
        })
        .await
    }

    /// Requests the facts of an explanation.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn explain(&self, question: Question) -> Result<Box<Facts>, Stopped> {
        self.ask(|reply| Request::Explain { question, reply }).await
    }

    /// Makes the node accept no new clients and peers from now on (S-27, R-26).
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn drain(&self) -> Result<(), Stopped> {
        self.ask(Request::Drain).await
    }

    /// Withdraws the relay's route, and waits until it has gone and routers can have followed (`relay.grace`).
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn withdraw(&self) -> Result<(), Stopped> {
        // A route that cannot be removed must not keep the daemon from its end.
        if let Ok(grace) = timeout(WITHDRAWAL, self.ask(Request::Withdraw)).await {
            sleep(grace?).await;
        }
        Ok(())
    }

    /// Starts a new process in the place of this one, without waiting for the outcome.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn begin_replacement(&self) -> Result<(), Stopped> {
        let (reply, _) = oneshot::channel();
        let sent = self.requests.send(Request::Replace(reply)).await;
        sent.map_err(|_| Stopped)
    }

    /// Starts a new process in the place of this one, and waits until it runs.
    ///
    /// # Errors
    ///
    /// When the node has ended. Within, the reason why the new process does not run.
    pub async fn replace(&self) -> Result<Result<(), String>, Stopped> {
        self.ask(Request::Replace).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
