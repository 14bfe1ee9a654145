//! A file in memory that holds a state. It is written whole, and tells a reader whether it is.

use std::{
    fs::File,
    hash::Hasher as _,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use siphasher::sip::SipHasher13;

/// The first octets of every such file.
const MAGIC: [u8; 8] = *b"teredo\0\x01";
/// Most octets that are read. A million peers take a third of that.
const MOST: u64 = 512 << 20;

/// The file.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// Makes an empty file.
    ///
    /// # Errors
    ///
    /// When there is no memory, or too many files are open.
    pub fn new() -> io::Result<Self> {
        let descriptor = memfd_create(c"teredo-state", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self(descriptor.into()))
    }

    /// Replaces the contents. While this is under way, the file counts as empty. `sequence` tells which of
    /// several files is the newest.
    ///
    /// # Errors
    ///
    /// When there is no memory. The file counts as empty then.
    pub fn write(&self, sequence: u64, contents: &[u8]) -> io::Result<()> {
        self.clear()?;
        let mut file = &self.0;
        // The header comes last.
        file.seek(io::SeekFrom::Start(HEADER as u64))?;
        file.write_all(contents)?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&(contents.len() as u64).to_le_bytes());
        header[16..24].copy_from_slice(&sequence.to_le_bytes());
        header[24..].copy_from_slice(&checksum(sequence, contents).to_le_bytes());
        file.seek(io::SeekFrom::Start(0))?;
        file.write_all(&header)
    }

    /// Empties the file.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn clear(&self) -> io::Result<()> {
        self.0.set_len(0)
    }

    /// Returns the sequence and the contents; `None` if the file is empty, or was not written to its end.
    #[must_use]
    pub fn read(&self) -> Option<(u64, Vec<u8>)> {
        let mut file = &self.0;
        file.seek(io::SeekFrom::Start(0)).ok()?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).ok()?;
        let (magic, rest) = header.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (length, sequence) = (u64::from_le_bytes(*length), u64::from_le_bytes(*sequence));
        let sum = u64::from_le_bytes(*rest.first_chunk()?);
        if *magic != MAGIC || length > MOST {
            return None;
        }
        let mut contents = Vec::new();
        file.take(length).read_to_end(&mut contents).ok()?;
        let is_whole = contents.len() as u64 == length && checksum(sequence, &contents) == sum;
        is_whole.then_some((sequence, contents))
    }
}

/// Octets of the header: the magic, the length, the sequence, the checksum.
const HEADER: usize = 32;

fn checksum(sequence: u64, contents: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(sequence);
    hasher.write(contents);
    hasher.finish()
}

impl From<OwnedFd> for Memory {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let memory = Memory::new().unwrap();
        assert_eq!(memory.read(), None);
        memory.write(1, b"first, and longer").unwrap();
        memory.write(2, b"second").unwrap();
        let copy = Memory::from(memory.as_fd().try_clone_to_owned().unwrap());
        assert_eq!(copy.read(), Some((2, b"second".to_vec())));
        memory.clear().unwrap();
        assert_eq!(copy.read(), None);
    }

    #[test]
    fn a_state_that_is_not_whole_counts_as_none() {
        let memory = Memory::new().unwrap();
        memory.write(9, &[7; 1000]).unwrap();
        let whole = HEADER as u64 + 1000;
        for length in [0, 1, HEADER as u64, whole - 1, whole + 1] {
            let copy = Memory::new().unwrap();
            copy.write(9, &[7; 1000]).unwrap();
            copy.0.set_len(length).unwrap();
            let is_longer = length > whole;
            assert_eq!(copy.read().is_some(), is_longer, "{length}");
        }
        for place in [0, 8, 15, 16, 23, 24, 31, 32, 1031] {
            let mut file = &memory.0;
            file.seek(io::SeekFrom::Start(place)).unwrap();
            file.write_all(&[0xff]).unwrap();
            assert_eq!(memory.read(), None, "{place}");
            memory.write(9, &[7; 1000]).unwrap();
        }
        assert!(memory.read().is_some());
    }
}
