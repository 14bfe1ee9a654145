//! The build that captures in the place of the usual program.

use std::os::fd::{AsFd as _, OwnedFd};

use super::guard::Guard;
use crate::datapath::xdp::{AttachedProgram, Error, sys};

/// The build that captures, while it is attached.
#[derive(Debug)]
pub struct Attachment {
    guard: Guard,
    usual: OwnedFd,
}

impl AttachedProgram {
    /// Puts the program that captures into the place of the usual one, without a frame that misses both, and returns
    /// its number.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. The usual program is attached then.
    pub fn begin_capture(&mut self, capturing: &OwnedFd) -> Result<u32, Error> {
        self.end_capture();
        let refused = |error: std::io::Error| Error::Unsupported {
            action: "a change of the program for a capture".to_owned(),
            reason: error.to_string(),
        };
        let usual = self.program.descriptor()?;
        let guard = Guard::start(&self.links, usual.as_fd(), capturing.as_fd()).map_err(refused)?;
        self.capture = Some(Attachment { guard, usual });
        let number = sys::program_number(capturing.as_fd());
        let replaced = self
            .links
            .iter()
            .try_for_each(|link| link.replace(capturing.as_fd()));
        match replaced.and(number) {
            Ok(number) => Ok(number),
            Err(error) => {
                self.end_capture();
                Err(refused(error))
            }
        }
    }

    /// Puts the usual program back.
    pub fn end_capture(&mut self) {
        let Some(Attachment { guard, usual }) = self.capture.take() else {
            return;
        };
        for link in &self.links {
            if let Err(error) = link.replace(usual.as_fd()) {
                // Its interface has gone.
                tracing::debug!("cannot put the usual program back: {error}");
            }
        }
        guard.dismiss();
    }
}
