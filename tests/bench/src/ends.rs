//! The far ends of a site's two cables, as packet sockets.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, send},
};
use teredo_lab::{
    Namespace,
    capture::{listen, receive},
};

use super::site::FAR;

/// The longest frame that matters here, in octets.
const LONGEST: usize = 2048;

/// Both ends, as in [`FAR`]. Frames are not read in the background, so this is for the time between
/// measurements.
#[derive(Debug)]
pub struct Ends([OwnedFd; 2]);

impl Ends {
    /// Opens packet sockets.
    ///
    /// # Errors
    ///
    /// Fails when there are no such interfaces.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace
            .run(|| anyhow::Ok([listen(FAR[0])?, listen(FAR[1])?]))?
            .map(Self)
    }

    /// Discards the frames that arrived during measurements.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::next`].
    pub fn drain(&self) -> Result<()> {
        for cable in 0..FAR.len() {
            while self.next(cable)?.is_some() {}
        }
        Ok(())
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// Fails when the interface refuses it.
    pub fn send(&self, cable: usize, frame: &[u8]) -> Result<()> {
        loop {
            match send(self.0[cable].as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {
                    let mut ready = [PollFd::new(self.0[cable].as_fd(), PollFlags::POLLOUT)];
                    poll(&mut ready, PollTimeout::from(10_u8))?;
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Sends a frame, or loses it when the interface has no room for it.
    ///
    /// # Errors
    ///
    /// Fails when the interface refuses it for another reason.
    pub fn try_send(&self, cable: usize, frame: &[u8]) -> Result<()> {
        match send(self.0[cable].as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Whether a frame arrives before `timeout`.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses to wait.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let mut ready = self
            .0
            .each_ref()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        Ok(poll(&mut ready, PollTimeout::try_from(timeout)?)? > 0)
    }

    /// Receives the next frame of a cable.
    ///
    /// # Errors
    ///
    /// Fails when the socket has failed.
    pub fn next(&self, cable: usize) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; LONGEST];
        loop {
            match receive(&self.0[cable], &mut buffer)? {
                // An outgoing frame of our own.
                Some((_, true)) => {}
                Some((length, false)) => return Ok(Some(buffer[..length].to_vec())),
                None => return Ok(None),
            }
        }
    }
}
