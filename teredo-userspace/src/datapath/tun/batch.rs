//! The packets of one read.

use crate::datapath::{BATCH, offload::Header};

/// Octets of a super-packet at most, with its virtio-net header. An interface of the TUN driver cannot be
/// set to larger ones.
const SUPER_PACKET: usize = 65_536 + LINE;
/// Super-packets of that size for which there is room: enough to save calls, few enough to be still in
/// the CPU's cache when they are sent.
const SUPER_PACKETS: usize = 4;
/// Octets of a line of the CPU's cache.
const LINE: usize = 64;

/// The packets of one [`super::Tun::read`]. They lie behind one another, so that small ones need little of
/// the CPU's cache.
#[derive(Debug)]
pub struct PacketBatch {
    memory: Box<[u8]>,
    /// Octets that a read may fill.
    room: usize,
    /// Octets before each packet.
    header: usize,
    lengths: [usize; BATCH],
    filled: usize,
    /// Octets in use.
    used: usize,
}

impl PacketBatch {
    /// Returns an empty batch for packets of an interface with this MTU, in octets.
    #[must_use]
    pub fn new(mtu: u16) -> Self {
        let room = usize::from(mtu).next_multiple_of(LINE);
        Self::with(room, BATCH, 0)
    }

    /// Returns an empty batch for an interface of [`super::Tun::open_offloaded`].
    #[must_use]
    pub fn of_super_packets() -> Self {
        Self::with(SUPER_PACKET, SUPER_PACKETS, Header::LENGTH)
    }

    fn with(room: usize, count: usize, header: usize) -> Self {
        Self {
            memory: vec![0; room * count].into(),
            room,
            header,
            lengths: [0; BATCH],
            filled: 0,
            used: 0,
        }
    }

    /// Returns the size of the largest packet that fits, in octets.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room - self.header
    }

    /// Returns the number of packets.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// Removes all packets.
    pub(super) fn clear(&mut self) {
        (self.filled, self.used) = (0, 0);
    }

    /// Returns the memory for the next packet and its header; `None` if there is no room.
    pub(super) fn next(&mut self) -> Option<&mut [u8]> {
        let next = self.memory.get_mut(self.used..self.used + self.room)?;
        (self.filled < BATCH).then_some(next)
    }

    /// Adds the packet that is in the memory of [`Self::next`] now.
    pub(super) fn add(&mut self, length: usize) {
        self.lengths[self.filled] = length;
        self.filled += 1;
        self.used += length.next_multiple_of(LINE);
    }

    /// Iterates over the packets of the last read, in order.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let header = self.header;
        self.all()
            .map(move |packet| packet.get_mut(header..).unwrap_or_default())
    }

    /// Iterates over the packets of the last read, in order, each with its header; `None` if the header is
    /// none that was asked for. Without offloads, all packets are complete.
    pub fn super_packets(&mut self) -> impl Iterator<Item = (Option<Header>, &mut [u8])> {
        let is_offloaded = self.header > 0;
        self.all().map(move |octets| {
            if !is_offloaded {
                return (Some(Header::default()), octets);
            }
            match octets.split_first_chunk_mut() {
                Some((header, packet)) => (Header::parse(header), packet),
                None => (None, &mut [][..]),
            }
        })
    }

    /// Iterates over the packets with the octets before them.
    fn all(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut rest = &mut *self.memory;
        let lengths = self.lengths.iter().take(self.filled);
        lengths.map_while(move |&length| {
            let (octets, others) =
                std::mem::take(&mut rest).split_at_mut_checked(length.next_multiple_of(LINE))?;
            rest = others;
            octets.get_mut(..length)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts packets into a batch, each filled with its length, until there is no room.
    fn put(batch: &mut PacketBatch, lengths: impl IntoIterator<Item = usize>) -> usize {
        batch.clear();
        for length in lengths {
            let Some(memory) = batch.next() else {
                break;
            };
            memory[..length].fill(length as u8);
            batch.add(length);
        }
        batch.len()
    }

    #[test]
    fn packets_come_out_as_they_were_put() {
        let mut batch = PacketBatch::new(1280);
        let lengths = [1280, 1, 64, 65, 0, 100];
        assert_eq!(put(&mut batch, lengths), lengths.len());
        let expected: Vec<_> = lengths.map(|length| vec![length as u8; length]).into();
        let found: Vec<_> = batch.packets().map(|packet| packet.to_vec()).collect();
        assert_eq!(found, expected);
        // A batch of the largest packets, and no more.
        assert_eq!(put(&mut batch, [1280; 100]), BATCH);
        assert_eq!(batch.packets().count(), BATCH);
    }

    #[test]
    fn super_packets_come_without_their_header() {
        let mut batch = PacketBatch::of_super_packets();
        batch.next().unwrap()[..15].copy_from_slice(b"\0\0\0\0\0\0\0\0\0\0first");
        batch.add(15);
        batch.next().unwrap()[..16].copy_from_slice(b"\0\x7f\0\0\0\0\0\0\0\0second");
        batch.add(16);
        // Shorter than the header.
        batch.add(9);
        let found: Vec<_> = batch
            .super_packets()
            .map(|(header, packet)| (header, packet.to_vec()))
            .collect();
        let plain = Some(Header::default());
        assert_eq!(
            found,
            [
                (plain, b"first".into()),
                (None, b"second".into()),
                (None, vec![])
            ]
        );
        assert_eq!(batch.packets().next().unwrap(), b"first");
        assert_eq!(put(&mut batch, [65_536; 10]), SUPER_PACKETS);
        assert_eq!(put(&mut batch, [80; 100]), BATCH);
    }
}
