//! The store of systemd for descriptors (`FileDescriptorStoreMax=`), which outlives the process.

use std::{
    collections::BTreeSet,
    env, io,
    os::fd::{AsFd as _, BorrowedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, poll},
    unistd::pipe2,
};
use sd_notify::NotifyState;

use super::descriptors::{Named, is_tun_of};
use crate::metrics::Role;

/// The variable that tells how many descriptors there is room for. Systemd sets it since version 254.
const VARIABLE: &str = "FDSTORE";
/// The variable with the names of the descriptors that systemd passes to the process.
const NAMES: &str = "LISTEN_FDNAMES";
/// Milliseconds that systemd has to handle what it was sent.
const PATIENCE: u16 = 5_000;

/// The store, and what is in it.
#[derive(Debug)]
pub struct Store {
    names: BTreeSet<String>,
}

impl Store {
    /// Returns the store of this service, if it has one.
    #[must_use]
    pub fn of_service() -> Option<Self> {
        let room = env::var(VARIABLE).ok()?.parse::<usize>().ok()?;
        let has_manager = env::var_os("NOTIFY_SOCKET").is_some();
        (room > 0 && has_manager).then(|| Self {
            names: BTreeSet::new(),
        })
    }

    /// Notes that descriptors of these names are in the store.
    pub fn contains<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.names.extend(names.map(str::to_owned));
    }

    /// Makes the store give up the relay's interface of the process before, as this one cannot start: with the
    /// interface, the relay's route goes, so that routers do not send to a host on which nobody serves.
    ///
    /// # Errors
    ///
    /// When the service manager cannot be reached.
    pub fn withdraw_relay() -> io::Result<()> {
        let Some(mut store) = Self::of_service() else {
            return Ok(());
        };
        let names = env::var(NAMES).unwrap_or_default();
        store.contains(names.split(':'));
        store.remove_if(|name| is_tun_of(name, Role::Relay))
    }

    /// Makes the store hold these descriptors and no others, besides those for which `stays`.
    ///
    /// # Errors
    ///
    /// When the service manager cannot be reached.
    pub fn keep(
        &mut self,
        descriptors: &[Named<'_>],
        stays: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        for (name, descriptor) in descriptors {
            if !self.names.contains(name) {
                store(name, *descriptor)?;
                self.names.insert(name.clone());
            }
        }
        let is_there = |name: &String| descriptors.iter().any(|(there, _)| there == name);
        let gone: Vec<_> = (self.names.iter())
            .filter(|name| !is_there(name) && !stays(name))
            .cloned()
            .collect();
        self.remove(&gone)
    }

    /// Removes the descriptors whose names `is_gone`, and waits until that is done: until then the kernel
    /// has their ports in use.
    ///
    /// # Errors
    ///
    /// When the service manager cannot be reached.
    pub fn remove_if(&mut self, is_gone: impl Fn(&str) -> bool) -> io::Result<()> {
        let gone: Vec<_> = (self.names.iter())
            .filter(|name| is_gone(name))
            .cloned()
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.remove(&gone)?;
        barrier()
    }

    fn remove(&mut self, names: &[String]) -> io::Result<()> {
        for name in names {
            sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
            self.names.remove(name);
        }
        Ok(())
    }
}

fn store(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        // A TUN interface that is removed would be thrown out, and that could not be told from one that is
        // there.
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&state, &[descriptor])
}

/// Waits until the service manager has handled everything that it was sent.
///
/// # Errors
///
/// When it cannot be reached, or does not answer in time.
pub fn barrier() -> io::Result<()> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    // It closes its end.
    let mut ends = [PollFd::new(ours.as_fd(), PollFlags::POLLHUP)];
    loop {
        match poll(&mut ends, PATIENCE) {
            // A signal has its handler.
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}
