//! The timer of a protocol's next deadline.

use std::pin::Pin;

use teredo_common::time::Instant;
use tokio::time::{Sleep, sleep};

use super::clock;

/// A timer that fires at the deadline that the protocol asked for last.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    deadline: Option<Instant>,
}

impl Timer {
    /// Returns a timer without a deadline. Needs a tokio runtime.
    pub fn new() -> Self {
        Self {
            sleep: Box::pin(sleep(clock::NEVER)),
            deadline: None,
        }
    }

    /// Sets the deadline; `None` disarms the timer. Setting the same deadline again is cheap.
    pub fn set(&mut self, deadline: Option<Instant>) {
        if deadline == self.deadline {
            return;
        }
        self.deadline = deadline;
        let wait = deadline.map_or(clock::NEVER, |deadline| {
            deadline.saturating_since(clock::now())
        });
        self.sleep
            .as_mut()
            .reset(tokio::time::Instant::now() + wait);
    }

    /// Waits for the deadline, which disarms the timer. Cancelling loses nothing.
    pub async fn expired(&mut self) {
        self.sleep.as_mut().await;
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_timer_fires_once() {
        let mut timer = Timer::new();
        timer.set(Some(clock::now()));
        timer.expired().await;
        timer.set(None);
        let again = timeout(Duration::from_millis(20), timer.expired()).await;
        assert!(again.is_err(), "it fired without a deadline");
    }
}
