//! A kernel that refuses system calls of one process, when it is told to.
//!
//! A seccomp filter asks this process about each call that creates a BPF map. The answer is that of the
//! kernel itself, or that there is no memory.

use std::{
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    cmsg_space,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
        sendmsg, socketpair,
    },
};

/// The command of the system call bpf that creates a map.
const MAP_CREATE: u32 = 0;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the kernel carries the call out.
const CONTINUE: u32 = 1;

nix::ioctl_readwrite!(
    /// `SECCOMP_IOCTL_NOTIF_RECV`.
    receive_question,
    b'!',
    0,
    libc::seccomp_notif
);
nix::ioctl_readwrite!(
    /// `SECCOMP_IOCTL_NOTIF_SEND`.
    send_answer,
    b'!',
    1,
    libc::seccomp_notif_resp
);

/// The power over the maps of one process.
#[derive(Debug)]
pub struct MapMemory {
    is_exhausted: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    here: OwnedFd,
    there: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl MapMemory {
    /// Returns the power over a process that is to be started.
    ///
    /// # Errors
    ///
    /// Fails when no sockets can be opened.
    pub fn new(is_exhausted: bool) -> Result<Self> {
        let (here, there) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok(Self {
            is_exhausted: Arc::new(AtomicBool::new(is_exhausted)),
            refused: Arc::default(),
            here,
            there: Some(there),
            thread: None,
        })
    }

    /// Lets the command's process ask. [`Self::answer`] has to follow as soon as it is started.
    ///
    /// # Errors
    ///
    /// Fails for a second process.
    pub fn rule(&mut self, command: &mut Command) -> Result<()> {
        let there = self.there.take().context("only one process asks")?;
        // SAFETY: between fork and exec, prctl, seccomp and sendmsg are called, which are
        // async-signal-safe, with memory on the stack.
        unsafe {
            command.pre_exec(move || {
                let listener = install_filter()?;
                let rights = [listener.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&rights)];
                let content = [IoSlice::new(&[0])];
                sendmsg::<()>(
                    there.as_raw_fd(),
                    &content,
                    &rights,
                    MsgFlags::empty(),
                    None,
                )?;
                Ok(())
            });
        }
        Ok(())
    }

    /// Answers the questions of the process, which has been started, in the background.
    ///
    /// # Errors
    ///
    /// Fails when the process could not install the filter.
    pub fn answer(&mut self) -> Result<()> {
        let listener = self.receive_listener()?;
        let (is_exhausted, refused) = (Arc::clone(&self.is_exhausted), Arc::clone(&self.refused));
        let thread = std::thread::spawn(move || {
            while let Some(id) = next(&listener) {
                let refuses = is_exhausted.load(Ordering::Acquire);
                refused.fetch_add(refuses.into(), Ordering::Relaxed);
                let mut answer = libc::seccomp_notif_resp {
                    id,
                    val: 0,
                    error: if refuses { -libc::ENOMEM } else { 0 },
                    flags: if refuses { 0 } else { CONTINUE },
                };
                // SAFETY: the answer is one, and the listener is open. The process may have ended.
                let _ = unsafe { send_answer(listener.as_raw_fd(), &mut answer) };
            }
        });
        self.thread = Some(thread);
        Ok(())
    }

    /// Exhausts the memory, or provides some.
    pub fn exhaust(&self, is_exhausted: bool) {
        self.is_exhausted.store(is_exhausted, Ordering::Release);
    }

    /// Returns the number of maps that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn receive_listener(&self) -> Result<OwnedFd> {
        let mut octet = [0];
        let mut content = [IoSliceMut::new(&mut octet)];
        let mut space = cmsg_space!([RawFd; 1]);
        let message = recvmsg::<()>(
            self.here.as_raw_fd(),
            &mut content,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control
                && let [descriptor] = descriptors[..]
            {
                // SAFETY: the descriptor has just been received, and nobody else has it.
                return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
        bail!("no descriptor came")
    }
}

/// Waits for a question and returns its number; `None` when the process has ended.
fn next(listener: &OwnedFd) -> Option<u64> {
    loop {
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
        }
        if !polled[0].revents()?.contains(PollFlags::POLLIN) {
            return None;
        }
        // SAFETY: the structure consists of integers.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a question to the structure; the listener is open.
        match unsafe { receive_question(listener.as_raw_fd(), &mut question) } {
            Ok(_) => return Some(question.id),
            // The asking thread was interrupted by a signal meanwhile.
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Installs the filter for the calling process, and returns the descriptor at which it asks.
fn install_filter() -> std::io::Result<OwnedFd> {
    /// Offsets in `struct seccomp_data`: the number of the call, and the lower half of its first
    /// argument.
    const NUMBER: u32 = 0;
    const COMMAND: u32 = 16 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let load = |offset| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    // Continues, or jumps to the instruction so many ahead.
    let equals = |value: u32, otherwise: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: otherwise,
        k: value,
    };
    let result = |value| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: value,
    };
    let mut filter = [
        load(NUMBER),
        equals(libc::SYS_bpf as u32, 3),
        load(COMMAND),
        equals(MAP_CREATE, 1),
        result(libc::SECCOMP_RET_USER_NOTIF),
        result(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the filter, which outlives the call.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = nix::Error::result(listener)?;
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
}

impl Drop for MapMemory {
    fn drop(&mut self) {
        // The process can go on, and its end ends the thread.
        self.exhaust(false);
    }
}
