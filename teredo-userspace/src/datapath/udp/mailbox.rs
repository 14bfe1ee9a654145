//! Receiving short datagrams from memory that is shared with the kernel.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use aya::{
    EbpfError,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
    programs::{ProgramError, SocketFilter},
};
use teredo_common::mailbox::{LETTERS, LOST, Letter};
use thiserror::Error;

use super::receive::ReceiveBatch;
use crate::datapath::{loader::loader, verifier::undisturbed, xdp::abilities};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mailbox"));

/// The reason why a socket has no mailbox.
#[derive(Debug, Error)]
pub enum MailboxError {
    /// There is no memory or descriptor to find out what the kernel is able to do.
    #[error("cannot examine the kernel")]
    Examination(#[from] io::Error),
    /// The object cannot be loaded.
    #[error("cannot load the mailbox's program")]
    Load(#[from] EbpfError),
    /// The kernel refuses the program.
    #[error("the kernel refuses the mailbox's program")]
    Program(#[from] ProgramError),
    /// The ring buffer cannot be mapped.
    #[error("cannot map the mailbox")]
    Map(#[from] MapError),
}

/// Receives the short datagrams of a socket, in a third of the time that the socket itself takes.
///
/// Their order relative to the long datagrams is lost.
pub struct Mailbox {
    letters: Mutex<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
    descriptor: RawFd,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Mailbox")
            .field(&self.descriptor)
            .finish()
    }
}

impl Mailbox {
    /// Puts a mailbox before a socket, for the lifetime of the socket.
    ///
    /// # Errors
    ///
    /// Without `CAP_BPF` and `CAP_NET_ADMIN`, or on kernels before 5.8.
    pub(super) fn before(socket: &OwnedFd) -> Result<Self, MailboxError> {
        abilities::examine()?;
        let mut object = loader().load(OBJECT)?;
        let missing = |name: &str| MapError::InvalidName {
            name: name.to_owned(),
        };
        let letters = object.take_map(LETTERS).ok_or_else(|| missing(LETTERS))?;
        let letters = RingBuf::try_from(letters)?;
        let lost = object.take_map(LOST).ok_or_else(|| missing(LOST))?;
        let program = object
            .program_mut("mailbox")
            .ok_or_else(|| missing("mailbox"))?;
        let program: &mut SocketFilter = program.try_into()?;
        undisturbed(|| program.load())?;
        program.attach(socket)?;
        Ok(Self {
            descriptor: letters.as_raw_fd(),
            letters: Mutex::new(letters),
            lost: PerCpuArray::try_from(lost)?,
        })
    }

    /// Returns how many datagrams were lost for want of room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.get(&0, 0).map_or(0, |lost| lost.iter().sum())
    }

    /// Receives the waiting datagrams, as [`super::Receiver::receive`] does.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there are none.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        batch.clear();
        while !batch.is_full() {
            let Some(octets) = letters.next() else { break };
            // SAFETY: the program writes whole letters, at addresses that are multiples of 8.
            let letter = unsafe { &*octets.as_ptr().cast::<Letter>() };
            let payload = letter.payload.get(..letter.length.into());
            batch.put(letter.source, payload.unwrap_or_default());
        }
        match batch.len() {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            received => Ok(received),
        }
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer owns the descriptor and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}

impl AsRawFd for Mailbox {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}
