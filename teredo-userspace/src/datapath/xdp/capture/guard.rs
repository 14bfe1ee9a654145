//! The process that puts the usual program back when the daemon ends while somebody captures.
//!
//! A link may outlive the daemon: by its pin, or in the store of the service manager. Its program would then be the
//! build that captures until the next start.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::{Child, ChildStdin, Command, Stdio},
    thread,
};

use crate::datapath::xdp::{link::Link, sys};

/// The hidden command of the process, before the numbers of its descriptors: the usual program, the one that
/// captures, and the links.
pub const COMMAND: &str = "restore-program";
/// The program of this process, whatever has become of its file.
const PROGRAM: &str = "/proc/self/exe";
/// The message that nothing is to be done.
const DONE: u8 = b'.';

/// The running process.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    /// Closed by the end of the daemon.
    pipe: ChildStdin,
}

impl Guard {
    /// Starts the process.
    ///
    /// # Errors
    ///
    /// When there are no resources for it.
    pub fn start(
        links: &[Link],
        usual: BorrowedFd<'_>,
        capturing: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let links = links.iter().map(AsFd::as_fd);
        let kept: Vec<RawFd> = [usual, capturing]
            .into_iter()
            .chain(links)
            .map(|descriptor| descriptor.as_raw_fd())
            .collect();
        let mut command = Command::new(PROGRAM);
        command
            .arg(COMMAND)
            .args(kept.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .env_clear();
        let keep = move || kept.iter().copied().try_for_each(sys::keep_over_exec);
        // SAFETY: between fork and exec only system calls take place, on descriptors that are open.
        unsafe { command.pre_exec(keep) };
        let mut child = command.spawn()?;
        match child.stdin.take() {
            Some(pipe) => Ok(Self { child, pipe }),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends the process, which has nothing to do any more.
    pub fn dismiss(self) {
        let Self {
            mut child,
            mut pipe,
        } = self;
        // It may have ended.
        let _ = pipe.write_all(&[DONE]);
        drop(pipe);
        // The event loop does not wait for it.
        thread::spawn(move || child.wait());
    }
}

/// Does the work of the process: waits for the end of the daemon, and puts the usual program back.
///
/// # Errors
///
/// When it is not called by the daemon.
pub fn keep_watch(descriptors: &[RawFd]) -> io::Result<()> {
    let open = |&number: &RawFd| match number > 2 && sys::is_open(number) {
        // SAFETY: the daemon has opened this descriptor for this process, and nothing else owns it.
        true => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        false => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let descriptors = descriptors.iter().map(open);
    let descriptors = descriptors.collect::<io::Result<Vec<_>>>()?;
    let [usual, capturing, links @ ..] = &*descriptors else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut message = [0];
    if io::stdin().read(&mut message)? == 0 {
        for link in links {
            // Another daemon may have put its own in that place.
            let _ = sys::exchange_program(link.as_fd(), usual.as_fd(), capturing.as_fd());
        }
    }
    Ok(())
}
