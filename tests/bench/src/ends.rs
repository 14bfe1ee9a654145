//! The far ends of a site's two cables, as packet sockets.

use std::{
    borrow::Cow,
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
use teredo_common::wire::ETHERTYPE_VLAN;
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
pub struct Ends {
    sockets: [OwnedFd; 2],
    /// The VLAN that frames are sent in. The kernel hands frames of VLANs over without their tags.
    tag: Option<u16>,
}

impl Ends {
    /// Opens packet sockets.
    ///
    /// # Errors
    ///
    /// Fails when there are no such interfaces.
    pub fn open(namespace: &Namespace, tag: Option<u16>) -> Result<Self> {
        let sockets = namespace.run(|| anyhow::Ok([listen(FAR[0])?, listen(FAR[1])?]))??;
        Ok(Self { sockets, tag })
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
        let frame = tagged(frame, self.tag);
        loop {
            match send(self.sockets[cable].as_raw_fd(), &frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {
                    let mut ready = [PollFd::new(self.sockets[cable].as_fd(), PollFlags::POLLOUT)];
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
        match send(self.sockets[cable].as_raw_fd(), frame, MsgFlags::empty()) {
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
            .sockets
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
            match receive(&self.sockets[cable], &mut buffer)? {
                // An outgoing frame of our own.
                Some((_, true)) => {}
                Some((length, false)) => return Ok(Some(buffer[..length].to_vec())),
                None => return Ok(None),
            }
        }
    }
}

/// The frame with the tag of this VLAN, if there is one.
pub fn tagged(frame: &[u8], vlan: Option<u16>) -> Cow<'_, [u8]> {
    /// Octets of both Ethernet addresses.
    const STATIONS: usize = 12;
    let Some(vlan) = vlan else {
        return Cow::Borrowed(frame);
    };
    let (stations, rest) = frame.split_at(STATIONS.min(frame.len()));
    let tag = [ETHERTYPE_VLAN.to_be_bytes(), vlan.to_be_bytes()].concat();
    Cow::Owned([stations, &tag, rest].concat())
}
