//! Requests to the daemon.

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::answers::{Answers, Failure, Listing, PAGE, Page, Peer, Question};
use crate::{
    api::{
        client::{self, Error},
        types::Status,
    },
    cli::sentence,
    config::ApiAddress,
};

/// Asks a daemon, of this version or an older one.
#[derive(Debug)]
pub struct Poller {
    address: ApiAddress,
    /// Whether the daemon has version 1 of the API; unknown before the first answer.
    has_pages: Option<bool>,
}

impl Poller {
    /// Returns a poller of the daemon at `address`.
    pub fn new(address: ApiAddress) -> Self {
        Self {
            address,
            has_pages: None,
        }
    }

    /// Asks a question.
    ///
    /// # Errors
    ///
    /// When the daemon does not answer as it should.
    pub async fn ask(&mut self, question: &Question) -> Result<Answers> {
        let answers = self.ask_all(question).await;
        if answers.is_err() {
            // The next one may be of another version.
            self.has_pages = None;
        }
        answers
    }

    /// Makes a task that asks when it is told.
    pub fn spawn(mut self) -> Handle {
        let (questions, mut asked) = mpsc::channel::<Question>(1);
        let (answers, answered) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let answer = self.ask(&question).await;
                let answer = answer.map_err(|error| Failure::of(&error));
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Handle {
            questions,
            answered,
            is_waiting: false,
        }
    }

    async fn ask_all(&mut self, question: &Question) -> Result<Answers> {
        let status = match self.has_pages {
            Some(false) => None,
            _ => self.get_if_known::<Status>("/v1/status").await?,
        };
        let (status, mut has_pages) = match status {
            Some(status) => (status, true),
            None => (self.get("/status").await?, false),
        };
        let mut peers = None;
        if has_pages {
            peers = self.get_if_known::<Page>(&question.peers()).await?;
            has_pages = peers.is_some();
        }
        let opened = match question.opened() {
            Some(path) if has_pages => {
                let page = self.get_if_known::<Page>(&path).await?;
                page.and_then(|page| page.peers.into_iter().next())
            }
            _ => None,
        };
        let peers = match peers {
            Some(page) => Listing::Page(page),
            None => self.list(&status).await?,
        };
        self.has_pages = Some(has_pages);
        // Without pages it is one of the list.
        let opened = opened.or_else(|| match (&peers, question.opened) {
            (Listing::Page(page), Some(address)) => {
                let mut peers = page.peers.iter();
                peers.find(|peer| peer.address == address).cloned()
            }
            _ => None,
        });
        Ok(Answers {
            status,
            peers,
            opened,
        })
    }

    /// Returns the peers of a daemon that lists all or none.
    async fn list(&self, status: &Status) -> Result<Listing> {
        let count = status.peers.trusted.saturating_add(status.peers.untrusted);
        if count > PAGE as u64 {
            return Ok(Listing::TooMany);
        }
        let peers: Vec<Peer> = self.get("/peers").await?;
        Ok(Listing::Page(Page { peers, next: None }))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = client::get(&self.address, path).await?;
        self.parse(&body)
    }

    /// Returns `None` if the daemon does not know the path.
    async fn get_if_known<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match client::get(&self.address, path).await {
            Ok(body) => self.parse(&body).map(Some),
            Err(Error::Unknown { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).with_context(|| {
            let address = &self.address;
            format!(
                "the daemon on {address} answers in an unknown format; is it of another version?"
            )
        })
    }
}

impl Failure {
    fn of(error: &anyhow::Error) -> Self {
        Self {
            reason: sentence(error),
            is_gone: matches!(error.downcast_ref(), Some(Error::NotRunning { .. })),
        }
    }
}

/// The other end of a task that asks.
#[derive(Debug)]
pub struct Handle {
    questions: mpsc::Sender<Question>,
    answered: mpsc::Receiver<Result<Answers, Failure>>,
    is_waiting: bool,
}

impl Handle {
    /// Asks a question, unless an answer is awaited.
    pub fn ask(&mut self, question: Question) {
        if !self.is_waiting {
            self.is_waiting = self.questions.try_send(question).is_ok();
        }
    }

    /// Waits for answers; `None` if there will be none any more.
    pub async fn answers(&mut self) -> Option<Result<Answers, Failure>> {
        let answers = self.answered.recv().await;
        self.is_waiting = false;
        answers
    }
}
