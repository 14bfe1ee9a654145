//! The handover from a running process to the one that it starts.
//!
//! Both ends of a socket, whose messages are:
//!
//! ```text
//!  successor ── "ready" ──────────────▶ predecessor    the configuration is read and permitted
//!  successor ◀── name, with descriptor ── predecessor  each; the predecessor handles nothing from now on
//!  successor ◀── empty ────────────────── predecessor
//!  successor ── "running" ────────────▶ predecessor    which ends now
//!  successor ── any other sentence ───▶ predecessor    why the successor cannot run; the predecessor goes on
//! ```
//!
//! A successor that ends without a message is one that cannot run.
//!
//! The successor is no child of the predecessor but of the service manager, which otherwise would not notice its end:
//! systemd kills a main process that is not its child without waiting for it to end by itself.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::Command,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
        recv, recvmsg, send, sendmsg, socketpair,
    },
    unistd::pipe2,
};
use rustix::{
    io::Errno,
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::timeout,
};

use super::{descriptors::Named, supervisor};
use crate::privileges;

/// The variable that tells a successor the number of its end of the socket.
const VARIABLE: &str = "TEREDO_PREDECESSOR";
/// The variable that tells a successor the name of the instance.
const INSTANCE: &str = "TEREDO_INSTANCE";
const READY: &[u8] = b"ready";
const RUNNING: &[u8] = b"running";
/// Octets of the longest message.
const MESSAGE: usize = 4096;
/// The time that a successor has for each of its two messages.
const PATIENCE: Duration = Duration::from_secs(60);

/// The reason why a successor did not take over. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum Failure {
    /// The program cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Start {
        /// The path of the program.
        program: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The successor says why it cannot run.
    #[error("{0}")]
    Refused(String),
    /// The successor has ended, or is silent.
    #[error("the new process has ended before it was ready, or takes too long; its log says more")]
    Silent,
    /// What has started this process cannot follow.
    #[error("{0}")]
    Bound(&'static str),
    /// The descriptors or the state cannot be handed over.
    #[error("the state cannot be handed over: {0}")]
    Io(#[from] io::Error),
}

/// The command by which this process was started, for the next one.
#[derive(Clone, Debug)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// Returns the command of this process. To be called before the program's file is replaced.
    ///
    /// # Errors
    ///
    /// When the operating system does not tell the path of the program.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self {
            program: env::current_exe()?,
            arguments: env::args_os().skip(1).collect(),
        })
    }
}

/// A process that was started to take over.
#[derive(Debug)]
pub struct Successor {
    /// Its number.
    process: u32,
    /// The process, as its number may be another's when it has ended.
    handle: OwnedFd,
    socket: AsyncFd<OwnedFd>,
    /// Whether it has taken over.
    runs: bool,
}

impl Successor {
    /// Starts a process of the same instance, which reads the configuration as it is now. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`Failure::Bound`] and [`Failure::Start`].
    pub fn start(invocation: &Invocation, instance: &str) -> Result<Self, Failure> {
        if let Some(reason) = supervisor::objection() {
            return Err(Failure::Bound(reason));
        }
        let failed = |source: io::Error| Failure::Start {
            program: invocation.program.clone(),
            source,
        };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|error| failed(error.into()))?;
        let number = theirs.as_raw_fd();
        let mut command = Command::new(&invocation.program);
        command.args(&invocation.arguments);
        command.env(VARIABLE, number.to_string());
        command.env(INSTANCE, instance);
        // The service manager has given these to this process. The watchdog is the successor's, too.
        for name in ["LISTEN_FDS", "LISTEN_PID", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        privileges::inherit(&mut command).map_err(failed)?;
        // SAFETY: between fork and exec only one system call takes place, on a descriptor that is open.
        unsafe { command.pre_exec(move || keep_over_exec(number)) };
        let (process, handle) = spawn_apart(command).map_err(failed)?;
        drop(theirs);
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| failed(error.into()))?;
        // SAFETY: the descriptor is owned, and stays open and the same.
        let socket = unsafe { AsyncFd::register_with_interest(ours, Interest::READABLE) };
        Ok(Self {
            process,
            handle,
            runs: false,
            socket: socket.map_err(|error| failed(error.into()))?,
        })
    }

    /// Returns the number of the process.
    #[must_use]
    pub const fn process(&self) -> u32 {
        self.process
    }

    /// Waits until the successor can take over.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        self.expect(READY).await
    }

    /// Hands the descriptors over, and waits until the successor runs.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn take_over(&mut self, descriptors: &[Named<'_>]) -> Result<(), Failure> {
        for (name, descriptor) in descriptors {
            let raw = [descriptor.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&raw)];
            self.send(name.as_bytes(), &control)?;
        }
        self.send(&[], &[])?;
        self.expect(RUNNING).await?;
        self.runs = true;
        Ok(())
    }

    /// Sends the successor a signal that was meant for it, by its number.
    pub fn pass_on(&self, number: i32) {
        let signal = Signal::from_named_raw(number).ok_or(Errno::INVAL);
        let sent = signal.and_then(|signal| pidfd_send_signal(&self.handle, signal));
        if let Err(error) = sent {
            let process = self.process;
            tracing::warn!("process {process} does not get signal {number}: {error}");
        }
    }

    fn send(&self, message: &[u8], control: &[ControlMessage<'_>]) -> io::Result<()> {
        let socket = self.socket.get_ref();
        // The receiver makes room in a moment.
        fcntl(socket, FcntlArg::F_SETFL(OFlag::empty()))?;
        let parts = [IoSlice::new(message)];
        let sent = sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        sent?;
        Ok(())
    }

    async fn expect(&mut self, expected: &[u8]) -> Result<(), Failure> {
        let mut message = [0; MESSAGE];
        let read = |socket: &OwnedFd| {
            let received = recv(socket.as_raw_fd(), &mut message, MsgFlags::empty());
            received.map_err(io::Error::from)
        };
        let received = timeout(PATIENCE, self.socket.async_io(Interest::READABLE, read)).await;
        match received {
            Ok(Ok(length)) if message[..length] == *expected => Ok(()),
            Ok(Ok(length)) if length > 0 => {
                let text = String::from_utf8_lossy(&message[..length]);
                Err(Failure::Refused(text.into_owned()))
            }
            _ => Err(Failure::Silent),
        }
    }
}

impl Drop for Successor {
    /// Ends a process that has not taken over.
    fn drop(&mut self) {
        if !self.runs {
            // It may have ended by itself.
            let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        }
    }
}

/// The end of the socket that a successor has.
#[derive(Debug)]
pub struct Predecessor {
    socket: OwnedFd,
    instance: String,
}

impl Predecessor {
    /// Returns the predecessor of this process, if it has one.
    ///
    /// To be called once, before there is a second thread.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let number: RawFd = env::var(VARIABLE).ok()?.parse().ok()?;
        // SAFETY: there is no second thread that could read the environment.
        unsafe { env::remove_var(VARIABLE) };
        if number <= 2 || fcntl_is_closed(number) {
            return None;
        }
        // SAFETY: the predecessor has opened this descriptor for this process, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        let instance = env::var(INSTANCE).unwrap_or_default();
        Some(Self { socket, instance })
    }

    /// Returns the name of the predecessor's instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Says that this process can take over, and returns the descriptors of the predecessor.
    ///
    /// # Errors
    ///
    /// When the predecessor has ended.
    pub fn inherit(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        self.tell(READY)?;
        let mut descriptors = Vec::new();
        loop {
            let mut message = [0; MESSAGE];
            let mut control = nix::cmsg_space!(RawFd);
            let mut parts = [IoSliceMut::new(&mut message)];
            let received = recvmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            )?;
            let length = received.bytes;
            let mut passed = Vec::new();
            for one in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = one {
                    passed.extend(numbers);
                }
            }
            // SAFETY: the kernel has just opened these descriptors, and nothing else owns them.
            let mut passed = passed
                .into_iter()
                .map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            let Some(descriptor) = passed.next() else {
                return match length {
                    0 => Ok(descriptors),
                    _ => Err(io::ErrorKind::InvalidData.into()),
                };
            };
            let name = String::from_utf8_lossy(&message[..length]).into_owned();
            descriptors.push((name, descriptor));
        }
    }

    /// Says that this process runs, which is the end of the predecessor.
    ///
    /// # Errors
    ///
    /// When the predecessor has ended.
    pub fn replace(self) -> io::Result<()> {
        self.tell(RUNNING)
    }

    /// Says why this process cannot run.
    pub fn refuse(self, reason: &str) {
        let reason = reason.as_bytes();
        // The predecessor may have ended.
        let _ = self.tell(&reason[..reason.len().min(MESSAGE)]);
    }

    fn tell(&self, message: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

impl AsFd for Predecessor {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Starts a process whose parent is the one that adopts orphans, and returns its number and a handle of it.
fn spawn_apart(mut command: Command) -> io::Result<(u32, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let into = writer.as_raw_fd();
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(move || step_aside(into)) };
    // Starting the program is over when the process in between has ended, or has said why it cannot be started.
    let mut between = command.spawn()?;
    drop((command, writer));
    let mut number = [0; 4];
    let read = File::from(reader).read_exact(&mut number);
    between.wait()?;
    read?;
    let process = i32::from_ne_bytes(number);
    let pid = rustix::process::Pid::from_raw(process).ok_or(io::ErrorKind::InvalidData)?;
    Ok((
        process.cast_unsigned(),
        pidfd_open(pid, PidfdFlags::empty())?,
    ))
}

/// Forks, and ends the process itself after it has written the number of its child, which goes on.
fn step_aside(into: RawFd) -> io::Result<()> {
    // SAFETY: this process has a single thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        child => {
            let number = child.to_ne_bytes();
            // SAFETY: the descriptor is open, and the memory is as long as it says.
            unsafe { libc::write(into, number.as_ptr().cast(), number.len()) };
            // SAFETY: the call does not return, and runs nothing of this program.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Clears the flag that closes a descriptor when another program is executed.
fn keep_over_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: the call takes its arguments by value.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn fcntl_is_closed(number: RawFd) -> bool {
    // SAFETY: the call takes its arguments by value.
    unsafe { libc::fcntl(number, libc::F_GETFD) == -1 }
}
