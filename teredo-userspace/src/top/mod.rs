//! The terminal view of a running daemon: `teredo top`.
//!
//! The [`Model`] turns answers of the API and keys into the state of the view, and asks the next
//! [`Question`]; [`draw`] makes a picture of it. Both are pure: time, answers and keys come in as
//! arguments. [`screen`] has the terminal, [`poll`] the requests.

mod answers;
mod draw;
mod filter;
mod flows;
mod keys;
mod model;
mod once;
mod peers;
mod poll;
mod screen;
#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use self::{draw::Theme, keys::Action, model::Model, poll::Poller, screen::Screen};
use crate::config::ApiAddress;

/// Shows the daemon at `address` until the user ends the view, with an answer in each interval.
///
/// # Errors
///
/// When there is no terminal, or no daemon answers at the beginning.
pub async fn run(address: ApiAddress, period: Duration) -> Result<()> {
    check_terminal()?;
    let mut model = Model::new(period);
    let mut poller = Poller::new(address);
    // A daemon that never was there is a mistake; one that goes away later is awaited.
    let start = Instant::now();
    let answers = poller.ask(&model.question()).await?;
    model.handle_answers(start.elapsed(), Ok(answers));
    let poller = poller.spawn();
    Session {
        model,
        poller,
        theme: Theme::of_environment(|name| env::var(name).ok()),
        start,
    }
    .run(period)
    .await
}

/// Prints one picture of the daemon at `address` as text, with the rates of one interval.
///
/// # Errors
///
/// When no daemon answers.
pub async fn print_once(address: ApiAddress, period: Duration) -> Result<()> {
    let mut model = Model::new(period);
    let mut poller = Poller::new(address);
    let start = Instant::now();
    let answers = poller.ask(&model.question()).await?;
    model.handle_answers(start.elapsed(), Ok(answers));
    tokio::time::sleep(period).await;
    let answers = poller.ask(&model.question()).await?;
    model.handle_answers(start.elapsed(), Ok(answers));
    let theme = Theme::of_environment(|name| env::var(name).ok());
    crate::cli::print(&once::text(&model, &theme))
}

/// Finds a reason why this process cannot draw.
fn check_terminal() -> Result<()> {
    if !io::stdout().is_terminal() {
        bail!("standard output is no terminal; `teredo top --once` prints one picture as text");
    }
    let kind = env::var("TERM").unwrap_or_default();
    if kind.is_empty() || kind == "dumb" {
        bail!(
            "the terminal {kind:?} of TERM cannot place a cursor; `teredo top --once` prints one \
             picture as text"
        );
    }
    Ok(())
}

/// A view in a terminal.
struct Session {
    model: Model,
    poller: poll::Handle,
    theme: Theme,
    start: Instant,
}

impl Session {
    async fn run(mut self, period: Duration) -> Result<()> {
        let mut ends = Signals::new()?;
        let mut screen = Screen::enter()?;
        let mut events = EventStream::new();
        let mut turns = interval(period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.model.handle_time(self.start.elapsed());
            screen.draw(&self.model, &self.theme)?;
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => match self.handle_event(&event.context("read the terminal")?) {
                        Some(Action::Quit) => return Ok(()),
                        Some(Action::Suspend) => screen.stop()?,
                        Some(Action::Redraw) => screen.clear()?,
                        None => {}
                    },
                    // The terminal has gone.
                    None => return Ok(()),
                },
                _ = turns.tick() => {
                    if !self.model.is_paused() {
                        self.poller.ask(self.model.question());
                    }
                }
                answers = self.poller.answers() => {
                    let answers = answers.context("no more answers are awaited")?;
                    self.model.handle_answers(self.start.elapsed(), answers);
                }
                signal = ends.next() => match signal {
                    Signal::End => return Ok(()),
                    Signal::Stop => screen.stop()?,
                    Signal::Continue => screen.resume()?,
                },
            }
        }
    }

    fn handle_event(&mut self, event: &Event) -> Option<Action> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.model.handle_key(*key),
            Event::Resize(..) => Some(Action::Redraw),
            _ => None,
        }
    }
}

/// A signal that concerns the terminal.
enum Signal {
    End,
    Stop,
    Continue,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    stop: tokio::signal::unix::Signal,
    resume: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            resume: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::End,
            _ = self.stop.recv() => Signal::Stop,
            _ = self.resume.recv() => Signal::Continue,
        }
    }
}
