//! The lists of peers, which are sent page by page as the client reads, so that the node never lists all
//! peers at once.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use thiserror::Error;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    filter::{Filter, Selection},
    handle::{Handle, PAGE, Page, Stopped},
    parameters::Parameters,
    problem::Problem,
    server::Access,
};

/// The most lists of peers that one listening socket sends at the same time.
const LISTINGS: usize = 2;
/// The most lists that wait for those before them: the others of a socket's places are for other requests.
const WAITING: usize = 8;
/// The interval between two pages of peers for one listening socket.
const PAGE_INTERVAL: Duration = Duration::from_millis(5);
/// The time for which a list waits for those before it. It is shorter than that for the beginning of an answer.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

/// A list that cannot be sent soon.
#[derive(Clone, Copy, Debug, Error)]
pub enum Busy {
    /// Those before it take too long.
    #[error(
        "{LISTINGS} lists of peers are sent on this socket, and have not ended within {} s; ask again",
        TURN_TIMEOUT.as_secs()
    )]
    Slow,
    /// Too many are before it.
    #[error(
        "{LISTINGS} lists of peers are sent on this socket, and {WAITING} wait for them; ask again"
    )]
    Crowded,
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, busy.to_string())
    }
}

/// The turns of the lists of one listening socket.
#[derive(Clone)]
pub struct Turns {
    listings: Arc<Semaphore>,
    /// The places of lists that wait.
    waiting: Arc<Semaphore>,
    pages: Arc<Mutex<Interval>>,
}

impl Default for Turns {
    fn default() -> Self {
        let mut pages = interval(PAGE_INTERVAL);
        pages.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            listings: Arc::new(Semaphore::new(LISTINGS)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            pages: Arc::new(Mutex::new(pages)),
        }
    }
}

impl Turns {
    /// Waits until another list may begin. It ends when the permit is dropped.
    ///
    /// # Errors
    ///
    /// When there are too many before it, or they take too long.
    pub async fn begin(&self) -> Result<OwnedSemaphorePermit, Busy> {
        if let Ok(turn) = self.listings.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let _place = self.waiting.try_acquire().map_err(|_| Busy::Crowded)?;
        let turn = timeout(TURN_TIMEOUT, self.listings.clone().acquire_owned()).await;
        // The semaphore is never closed.
        turn.ok().and_then(Result::ok).ok_or(Busy::Slow)
    }

    /// Gets the page of at most `most` peers at `cursor` when it is its turn.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn page(
        &self,
        handle: &Handle,
        cursor: u64,
        most: usize,
        filter: Filter,
    ) -> Result<Page, Stopped> {
        self.pages.lock().await.tick().await;
        handle.peers(cursor, most, filter).await
    }
}

/// `GET /v1/peers`: an object with the list and the cursor at which it goes on.
pub async fn peers(
    State(access): State<Access>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let selection = Selection::parse(&parameters)?;
    let brackets = Brackets {
        open: "{\"peers\":[",
        close: |next| {
            let next = next.map_or_else(|| "null".to_owned(), |next| next.to_string());
            format!("],\"next\":{next}}}")
        },
    };
    list(access, selection, brackets).await
}

/// `GET /peers`: the list of all peers.
pub async fn all_peers(State(access): State<Access>) -> Result<Response, Problem> {
    let brackets = Brackets {
        open: "[",
        close: |_| "]".to_owned(),
    };
    list(access, Selection::default(), brackets).await
}

async fn list(
    access: Access,
    selection: Selection,
    brackets: Brackets,
) -> Result<Response, Problem> {
    let turn = access.listings.begin().await?;
    let mut listing = Listing {
        handle: access.handle,
        turns: access.listings,
        selection,
        brackets,
        page: Page::default(),
        has_begun: false,
        has_elements: false,
        _turn: turn,
    };
    listing.turn_page(selection.after).await?;
    let pages = stream::try_unfold(Some(listing), |listing| async {
        let Some(mut listing) = listing else {
            return Ok::<_, io::Error>(None);
        };
        let text = listing.text()?;
        let next = match listing.next() {
            Some(cursor) => {
                let turned = listing.turn_page(cursor).await;
                turned.map_err(io::Error::other)?;
                Some(listing)
            }
            None => None,
        };
        Ok(Some((text, next)))
    });
    let body = Body::from_stream(pages);
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The text around the elements of a list.
struct Brackets {
    open: &'static str,
    /// Returns the text after the elements, with the cursor at which the list goes on.
    close: fn(Option<u64>) -> String,
}

/// A list of peers that is being written.
struct Listing {
    handle: Handle,
    turns: Turns,
    /// The properties of the peers, and the most that are still to come.
    selection: Selection,
    brackets: Brackets,
    page: Page,
    has_begun: bool,
    has_elements: bool,
    _turn: OwnedSemaphorePermit,
}

impl Listing {
    /// Gets the page of peers at `cursor` when it is its turn.
    async fn turn_page(&mut self, cursor: u64) -> Result<(), Stopped> {
        let most = self.selection.limit.map(usize::try_from);
        let most = most.map_or(PAGE, |most| most.map_or(PAGE, |most| most.min(PAGE)));
        let page = (self.turns).page(&self.handle, cursor, most, self.selection.filter);
        self.page = page.await?;
        if let Some(limit) = &mut self.selection.limit {
            *limit = limit.saturating_sub(self.page.peers.len() as u64);
        }
        Ok(())
    }

    /// Returns the cursor of the next page of this list.
    fn next(&self) -> Option<u64> {
        self.page.next.filter(|_| self.selection.limit != Some(0))
    }

    /// Returns the part of the text for the current page.
    fn text(&mut self) -> serde_json::Result<Bytes> {
        let mut text = Vec::new();
        if !self.has_begun {
            text.extend_from_slice(self.brackets.open.as_bytes());
            self.has_begun = true;
        }
        for peer in &self.page.peers {
            if self.has_elements {
                text.push(b',');
            }
            self.has_elements = true;
            serde_json::to_writer(&mut text, peer)?;
        }
        if self.next().is_none() {
            text.extend_from_slice((self.brackets.close)(self.page.next).as_bytes());
        }
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_waits_for_its_turn_and_not_forever() {
        let turns = Turns::default();
        let mut before = Vec::new();
        for _ in 0..LISTINGS {
            before.push(turns.begin().await.unwrap());
        }
        let busy = turns.begin().await.unwrap_err().to_string();
        assert!(busy.contains("have not ended within 60 s"), "{busy}");
        let (turn, ()) = tokio::join!(turns.begin(), async {
            tokio::time::sleep(TURN_TIMEOUT / 2).await;
            before.pop();
        });
        assert!(turn.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_lists_does_not_wait() {
        let turns = Turns::default();
        let _before: Vec<_> =
            futures_util::future::join_all((0..LISTINGS).map(|_| turns.begin())).await;
        let crowd = futures_util::future::join_all((0..3 * WAITING).map(|_| turns.begin())).await;
        let crowded = crowd
            .iter()
            .filter(|turn| matches!(turn, Err(Busy::Crowded)));
        assert_eq!(crowded.count(), 2 * WAITING);
        // Those that waited have left their places.
        assert!(matches!(turns.begin().await, Err(Busy::Slow)));
    }
}
