//! A capture at the XDP program, which an operator has begun.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use super::FastPath;
use crate::{datapath::xdp::capture::Shared, host::Snapshot};

/// The ends of a capture.
#[derive(Debug)]
pub struct Capturing {
    /// Is over when nobody captures any more.
    over: oneshot::Receiver<()>,
    /// Its drop tells that the program has no place any more.
    _ended: oneshot::Sender<()>,
}

impl Capturing {
    /// Waits until nobody captures any more. Cancelling loses nothing.
    pub async fn over(&mut self) {
        drop((&mut self.over).await);
    }
}

impl FastPath {
    /// Returns what the build that captures shares with the program; `None` without a program.
    pub fn shared(&self) -> Option<Result<Shared, String>> {
        let shared = self.xdp.as_ref()?.program.shared();
        Some(shared.map_err(|error| error.to_string()))
    }

    /// Puts the build that captures into the place of the program until `over` is, and returns what is over when it
    /// has that place no more.
    ///
    /// # Errors
    ///
    /// When there is no program, or the kernel refuses: the reason.
    pub fn begin_capture(
        &mut self,
        capturing: &OwnedFd,
        over: oneshot::Receiver<()>,
    ) -> Result<oneshot::Receiver<()>, String> {
        let Some(xdp) = &mut self.xdp else {
            return Err("the fast path has ended".to_owned());
        };
        self.capturing = None;
        let number = xdp.begin_capture(capturing);
        self.last_capturing = Some(number.map_err(|error| error.to_string())?);
        let (sender, ended) = oneshot::channel();
        self.capturing = Some(Capturing {
            over,
            _ended: sender,
        });
        Ok(ended)
    }

    /// Puts the program back.
    pub fn end_capture(&mut self) {
        self.capturing = None;
        if let Some(xdp) = &mut self.xdp {
            xdp.end_capture();
        }
    }

    /// Takes the build that captures for the program, in whose place it is or was a moment ago.
    pub fn recognise(&self, host: &mut Snapshot) {
        if self.last_capturing.is_none() {
            return;
        }
        for link in &mut host.links {
            if link.xdp_program == self.last_capturing {
                link.xdp_program = self.program();
            }
        }
    }
}
