//! The choice of the queue for each packet that the kernel routes into an interface with several.
//!
//! Left to itself, the kernel moves a flow to the queue that packets of its other direction were written to, and a packet
//! may overtake another then.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use aya::{
    EbpfError,
    programs::{ProgramError, SocketFilter},
};
use teredo_common::steering::PROGRAM;
use thiserror::Error;

use super::Tun;
use crate::datapath::{
    loader::loader,
    verifier::undisturbed,
    xdp::{abilities, program_number},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steering"));

/// The program that was loaded by [`prepare`], or by an earlier process, and its number in the kernel.
static PREPARED: OnceLock<(OwnedFd, u32)> = OnceLock::new();

/// The reason why the daemon cannot choose queues.
#[derive(Debug, Error)]
pub(super) enum SteeringError {
    /// There is no memory or descriptor to find out what the kernel is able to do, or it knows no such
    /// programs for queues.
    #[error("the kernel chooses the queues itself: {0}")]
    Kernel(#[from] io::Error),
    /// The object cannot be loaded.
    #[error("cannot load the program for queues: {0}")]
    Load(#[from] EbpfError),
    /// The kernel refuses the program.
    #[error("the kernel refuses the program for queues: {0}")]
    Program(#[from] ProgramError),
}

/// Loads the program, for a process that is about to lose the right to.
pub fn prepare() {
    let loaded = load().and_then(|program| {
        let number = program_number(program.as_fd())?;
        Ok((program, number))
    });
    match loaded {
        Ok(program) => {
            let _ = PREPARED.set(program);
        }
        Err(error) => tracing::debug!("{error}"),
    }
}

/// Uses the program of an earlier process, which has this number in the kernel, if there is no other.
pub fn adopt(program: OwnedFd, number: u32) {
    let _ = PREPARED.set((program, number));
}

/// Returns the program for the next process, if there is one, and its number in the kernel.
pub fn program() -> Option<(BorrowedFd<'static>, u32)> {
    let (program, number) = PREPARED.get()?;
    Some((program.as_fd(), *number))
}

/// Makes the peer's mapped endpoint in the destination of a packet decide on its queue.
///
/// # Errors
///
/// Without `CAP_BPF` unless there is a [prepared](prepare) program, or on kernels before 4.16.
pub(super) fn attach(tun: &Tun) -> Result<(), SteeringError> {
    let loaded;
    let program = match PREPARED.get() {
        Some((program, _)) => program,
        None => {
            loaded = load()?;
            &loaded
        }
    };
    // SAFETY: the request reads an integer.
    let attached = unsafe { set_program(tun.as_raw_fd(), &program.as_raw_fd()) };
    attached.map_err(io::Error::from)?;
    Ok(())
}

fn load() -> Result<OwnedFd, SteeringError> {
    abilities::examine()?;
    let mut object = loader().load(OBJECT)?;
    let program = object.program_mut(PROGRAM);
    let program = program.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
    let program: &mut SocketFilter = program.try_into()?;
    undisturbed(|| program.load())?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

nix::ioctl_write_ptr_bad!(
    /// `TUNSETSTEERINGEBPF`: the program that chooses the queue. The kernel's header has it as one that is read.
    set_program,
    nix::request_code_read!(b'T', 224, size_of::<libc::c_int>()),
    libc::c_int
);
