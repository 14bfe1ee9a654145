//! The channel between API and node. Requests are messages, so that only the node touches its state.

use tokio::sync::{mpsc, oneshot};

use super::types::Peer;
use crate::metrics::Snapshot;

/// Peers in one page: few enough that listing them hardly delays packets.
pub const PAGE: usize = 256;

/// Requests that may wait for the node.
const CAPACITY: usize = 16;

/// A request to the node. If its receiver is dropped, the requester no longer waits.
#[derive(Debug)]
pub enum Request {
    /// Asks for a snapshot of the statistics.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Asks for at most [`PAGE`] peers.
    Peers {
        /// 0, or [`Page::next`] of the previous page.
        cursor: u64,
        /// Receives the answer.
        reply: oneshot::Sender<Page>,
    },
    /// Makes the node drain, and is answered afterwards.
    Drain(oneshot::Sender<()>),
    /// Starts a new process in the place of this one, with the program and the configuration as they are
    /// now. Is answered when that runs, or with the reason why it does not.
    Replace(oneshot::Sender<Result<(), String>>),
}

/// A page of the list of peers. Peers that come or go between two pages may be missed.
#[derive(Debug, Default)]
pub struct Page {
    /// The peers, in no particular order; none at all if the page covers free places alone.
    pub peers: Vec<Peer>,
    /// The opaque cursor of the next page; `None` after the last.
    pub next: Option<u64>,
}

/// The API's end of the channel to the node.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Request>);

/// The node has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

impl Handle {
    /// Returns a handle and the receiver of its requests.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self(sender), receiver)
    }

    /// Requests a snapshot of the statistics.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.ask(Request::Snapshot).await
    }

    /// Requests the page of peers at `cursor`.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn peers(&self, cursor: u64) -> Result<Page, Stopped> {
        self.ask(|reply| Request::Peers { cursor, reply }).await
    }

    /// Makes the node accept no new clients and peers from now on (S-27, R-26).
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn drain(&self) -> Result<(), Stopped> {
        self.ask(Request::Drain).await
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
        self.0.send(request(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
