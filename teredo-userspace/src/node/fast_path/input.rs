//! What the fast path waits for.

use std::future::pending;

use super::FastPath;

/// An input that is ready.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Nobody captures any more.
    CaptureOver,
    /// The drivers have answered.
    LookOver,
}

impl FastPath {
    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Input {
        let capture_over = async {
            match &mut self.capturing {
                Some(capturing) => capturing.over().await,
                None => pending().await,
            }
        };
        let look_over = async {
            match &mut self.xdp {
                Some(xdp) => xdp.look_over().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = capture_over => Input::CaptureOver,
            () = look_over => Input::LookOver,
        }
    }

    /// Handles an input.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::CaptureOver => self.end_capture(),
            Input::LookOver => self.conclude_look(),
        }
    }
}
