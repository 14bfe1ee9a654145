//! How the API asks the node: messages, so that no request touches the node's state itself.

use tokio::sync::{mpsc, oneshot};

use super::types::Peer;
use crate::metrics::Snapshot;

/// How many peers the node lists at once: few enough that packets hardly wait for it.
pub const PAGE: usize = 1024;

/// Requests that may wait for the node.
const WAITING: usize = 16;

/// A question to the node. A dropped reply means that nobody waits for the answer any more.
#[derive(Debug)]
pub enum Request {
    /// Where every number stands.
    Numbers(oneshot::Sender<Snapshot>),
    /// At most [`PAGE`] peers.
    Peers {
        /// 0, or [`Page::next`] of the page before.
        cursor: u64,
        /// For the answer.
        reply: oneshot::Sender<Page>,
    },
    /// No new clients and peers from now on; answered when it is so.
    Drain(oneshot::Sender<()>),
}

/// Some of the peers. Peers that come or go between two pages may be missed.
#[derive(Debug, Default)]
pub struct Page {
    /// The peers, in no order.
    pub peers: Vec<Peer>,
    /// Where the next page begins, in terms of the node; `None` after the last.
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
    /// A handle, and the requests for the node to answer.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Where every number stands.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn numbers(&self) -> Result<Snapshot, Stopped> {
        self.ask(Request::Numbers).await
    }

    /// A page of peers.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn peers(&self, cursor: u64) -> Result<Page, Stopped> {
        self.ask(|reply| Request::Peers { cursor, reply }).await
    }

    /// Has the node take no new clients and peers from now on (S-27, R-26).
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn drain(&self) -> Result<(), Stopped> {
        self.ask(Request::Drain).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.send(question(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
