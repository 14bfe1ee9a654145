//! The trusted peers of a relay without a fast path, in memory that outlives a crash. With a fast path they
//! are in its map.
//!
//! A record is five words: the address of the peer (two), its mapping, and when it was last heard and sent
//! to. The first word is written last and cleared first, so that a crash leaves a record whole or empty.
//! The first record tells the format, and the relay's endpoint.

use std::{
    fs::File,
    io,
    net::SocketAddrV4,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    mman::{MapFlags, ProtFlags, mmap, munmap},
};
use teredo_common::{address::Endpoint, peers::Peer, time::Instant};

/// Words of a record.
const RECORD: usize = 5;
/// The first word of the first record: the format.
const FORMAT: u64 = u64::from_be_bytes(*b"teredo\x01j");

/// The journal of one relay.
#[derive(Debug)]
pub struct Journal {
    descriptor: OwnedFd,
    words: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the memory is shared, and only accessed through atomics.
unsafe impl Send for Journal {}

impl Journal {
    /// Makes an empty journal for a relay at `endpoint` with this many slots for peers.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn new(endpoint: SocketAddrV4, slots: usize) -> io::Result<Self> {
        let descriptor = memfd_create(c"teredo-peers", MFdFlags::MFD_CLOEXEC)?;
        let length = (slots + 1) * RECORD;
        File::from(descriptor.try_clone()?).set_len((length * size_of::<u64>()) as u64)?;
        let journal = Self::map(descriptor, length)?;
        journal.record(0)[1].store(pack(endpoint.into()), Ordering::Relaxed);
        journal.record(0)[0].store(FORMAT, Ordering::Release);
        Ok(journal)
    }

    fn map(descriptor: OwnedFd, length: usize) -> io::Result<Self> {
        let octets = NonZeroUsize::new(length * size_of::<u64>());
        let octets = octets.ok_or(io::ErrorKind::InvalidData)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, and the mapping is used only through this value.
        let words = unsafe {
            mmap(
                None,
                octets,
                protection,
                MapFlags::MAP_SHARED,
                &descriptor,
                0,
            )
        }?;
        Ok(Self {
            descriptor,
            words: words.cast(),
            length,
        })
    }

    fn record(&self, number: usize) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words, is aligned to a page, and is as long-lived as this value.
        let words = unsafe { slice::from_raw_parts(self.words.as_ptr(), self.length) };
        &words[number * RECORD..][..RECORD]
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.length / RECORD - 1
    }

    /// Writes the peer of a slot; `None` clears the slot. There is no room for slots beyond the last.
    pub fn write(&self, slot: usize, peer: Option<(&[u8; 16], &Peer)>) {
        if slot >= self.slots() {
            return;
        }
        let [first, second, mapped, received, sent] = self.record(slot + 1) else {
            return;
        };
        let Some((address, peer)) = peer else {
            first.store(0, Ordering::Release);
            return;
        };
        let [high, low]: [u64; 2] = bytemuck::cast(*address);
        let is_same = first.load(Ordering::Relaxed) == high
            && second.load(Ordering::Relaxed) == low
            && mapped.load(Ordering::Relaxed) == pack(peer.mapped);
        if !is_same {
            first.store(0, Ordering::Release);
            second.store(low, Ordering::Relaxed);
            mapped.store(pack(peer.mapped), Ordering::Relaxed);
        }
        received.store(peer.last_received.as_nanos(), Ordering::Relaxed);
        sent.store(peer.last_sent.as_nanos(), Ordering::Relaxed);
        first.store(high, Ordering::Release);
    }

    /// Reads the journal that an earlier process of the relay at `endpoint` has left.
    #[must_use]
    pub fn read(descriptor: OwnedFd, endpoint: SocketAddrV4) -> Vec<([u8; 16], Peer)> {
        let file = descriptor.try_clone().map(File::from);
        let Ok(metadata) = file.and_then(|file| file.metadata()) else {
            return Vec::new();
        };
        let words = metadata.len() as usize / size_of::<u64>() / RECORD * RECORD;
        let Ok(journal) = Self::map(descriptor, words) else {
            return Vec::new();
        };
        let header = journal.record(0);
        let is_ours = header[0].load(Ordering::Acquire) == FORMAT
            && header[1].load(Ordering::Relaxed) == pack(endpoint.into());
        let slots = if is_ours { journal.slots() } else { 0 };
        (1..=slots)
            .filter_map(|number| {
                let [high, low, mapped, received, sent] = journal.record(number) else {
                    return None;
                };
                let high = high.load(Ordering::Acquire);
                (high != 0).then(|| {
                    let peer = Peer {
                        mapped: unpack(mapped.load(Ordering::Relaxed)),
                        last_received: Instant::from_nanos(received.load(Ordering::Relaxed)),
                        last_sent: Instant::from_nanos(sent.load(Ordering::Relaxed)),
                    };
                    (bytemuck::cast([high, low.load(Ordering::Relaxed)]), peer)
                })
            })
            .collect()
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // SAFETY: the mapping has this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.words.cast(), self.length * size_of::<u64>()) };
    }
}

fn pack(endpoint: Endpoint) -> u64 {
    let Endpoint {
        address: [a, b, c, d],
        port: [e, f],
    } = endpoint;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn unpack(word: u64) -> Endpoint {
    let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
    Endpoint {
        address: [a, b, c, d],
        port: [e, f],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> ([u8; 16], Peer) {
        let peer = Peer {
            mapped: Endpoint::new([9, 0, 0, number].into(), 4096),
            last_received: Instant::from_nanos(u64::from(number)),
            last_sent: Instant::from_nanos(7),
        };
        ([number; 16], peer)
    }

    #[test]
    fn peers_outlive_the_journal() {
        let endpoint = "192.0.2.1:3545".parse().unwrap();
        let journal = Journal::new(endpoint, 4).unwrap();
        for slot in 0..4 {
            let (address, entry) = peer(slot as u8 + 1);
            journal.write(slot, Some((&address, &entry)));
        }
        journal.write(1, None);
        let (address, entry) = peer(9);
        journal.write(2, Some((&address, &entry)));
        journal.write(4, Some((&address, &entry)));
        let copy = || journal.as_fd().try_clone_to_owned().unwrap();
        let elsewhere = "192.0.2.1:3546".parse().unwrap();
        assert_eq!(Journal::read(copy(), elsewhere), []);
        let left = copy();
        drop(journal);
        assert_eq!(Journal::read(left, endpoint), [peer(1), peer(9), peer(4)]);
    }

    #[test]
    fn another_file_is_no_journal() {
        let endpoint = "192.0.2.1:3545".parse().unwrap();
        for length in [0, 7, 40, 400] {
            let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
            File::from(file.try_clone().unwrap())
                .set_len(length)
                .unwrap();
            assert_eq!(Journal::read(file, endpoint), []);
        }
    }
}
