//! Packets from capture files: pcap and pcapng.

use std::io::Read;

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

use super::{link::Link, packet};

/// Octets that are read at a time; a packet of a capture fits.
const BUFFER: usize = 1 << 20;

/// The reason why a file has no such packet. Each is a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CaptureError {
    /// The file is of another format.
    #[error("it is neither pcap nor pcapng")]
    Format,
    /// The file ends before the packet.
    #[error("it has {0} packets, and the numbers begin with 1")]
    TooFew(usize),
    /// The file is damaged.
    #[error("it is damaged after packet {0}")]
    Damaged(usize),
    /// The packet was cut when it was captured.
    #[error(
        "packet {0} was cut when it was captured; capture it whole, with `--snaplen 4095` of `teredo capture` or `-s 0` \
         of tcpdump"
    )]
    Cut(usize),
    /// The header in front of the packet is of a kind that is not known.
    #[error(
        "packet {number} has the link type {link}, and it must have one of {}",
        Link::known()
    )]
    Link {
        /// The number of the packet.
        number: usize,
        /// The number of its link type.
        link: u32,
    },
    /// There is no IP packet behind the header.
    #[error(
        "packet {number} is a frame of the link type {link} without an IP packet that is complete"
    )]
    NoPacket {
        /// The number of the packet.
        number: usize,
        /// Its link type.
        link: Link,
    },
}

/// A frame of a file.
struct Frame<'a> {
    octets: &'a [u8],
    /// Octets that it had before it was captured.
    length: usize,
    /// The number of its link type.
    link: u32,
}

/// The link types of the interfaces of a file, in the order of their numbers. An older file has one.
#[derive(Default)]
struct Interfaces(Vec<u32>);

/// Returns the IP packet in the frame of this number, the first being 1, in a file of either format.
///
/// # Errors
///
/// When the file has no such frame, not the whole of it, or no IP packet in it.
pub fn read(file: impl Read + Send, number: usize) -> Result<Vec<u8>, CaptureError> {
    let mut reader = create_reader(BUFFER, file).map_err(|_| CaptureError::Format)?;
    let mut interfaces = Interfaces::default();
    let mut count = 0;
    loop {
        let (offset, block) = match reader.next() {
            Ok(next) => next,
            Err(PcapError::Eof) => return Err(CaptureError::TooFew(count)),
            Err(PcapError::Incomplete(_)) => {
                let refilled = reader.refill();
                refilled.map_err(|_| CaptureError::Damaged(count))?;
                continue;
            }
            Err(_) => return Err(CaptureError::Damaged(count)),
        };
        let frame = interfaces.frame_of(&block);
        if let Some(frame) = frame.ok_or(CaptureError::Damaged(count))? {
            count += 1;
            if count == number {
                return frame.packet(number);
            }
        }
        reader.consume(offset);
    }
}

impl Interfaces {
    /// Returns the frame of a block, if it has one, or notes what it tells of interfaces; `None` if the block is of an
    /// interface that was not described.
    fn frame_of<'a>(&mut self, block: &'a PcapBlockOwned<'_>) -> Option<Option<Frame<'a>>> {
        let (data, captured, length, interface) = match block {
            PcapBlockOwned::LegacyHeader(header) => {
                // The upper half tells of checksums behind frames.
                self.0 = vec![header.network.0 as u32 & 0xffff];
                return Some(None);
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.0.clear();
                return Some(None);
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.0.push(interface.linktype.0 as u32);
                return Some(None);
            }
            PcapBlockOwned::Legacy(block) => (block.data, block.caplen, block.origlen, 0),
            PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                (block.data, block.caplen, block.origlen, block.if_id)
            }
            PcapBlockOwned::NG(Block::SimplePacket(block)) => {
                (block.data, block.origlen, block.origlen, 0)
            }
            PcapBlockOwned::NG(_) => return Some(None),
        };
        // Blocks are padded.
        let end = data.len().min(captured as usize);
        Some(Some(Frame {
            octets: &data[..end],
            length: length as usize,
            link: *self.0.get(interface as usize)?,
        }))
    }
}

impl Frame<'_> {
    /// Returns the IP packet of the frame, which has this number.
    fn packet(&self, number: usize) -> Result<Vec<u8>, CaptureError> {
        if self.octets.len() < self.length {
            return Err(CaptureError::Cut(number));
        }
        let link = Link::of(self.link);
        let link = link.ok_or(CaptureError::Link {
            number,
            link: self.link,
        })?;
        let found = link.packet(self.octets);
        let found = found.filter(|octets| packet::ip(octets).is_some());
        let found = found.ok_or(CaptureError::NoPacket { number, link })?;
        Ok(found.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{link::tests::frames, packet::tests::datagram},
        *,
    };

    /// A pcap file with frames of this link type, each of which lost so many octets.
    fn pcap(link: u32, frames: &[&[u8]], lost: u32) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 8]);
        file.extend(65_535_u32.to_le_bytes());
        file.extend(link.to_le_bytes());
        for frame in frames {
            file.extend([0; 8]);
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend((frame.len() as u32 + lost).to_le_bytes());
            file.extend(*frame);
        }
        file
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padding = vec![0; body.len().wrapping_neg() % 4];
        let length = (12 + body.len() + padding.len()) as u32;
        [
            &kind.to_le_bytes()[..],
            &length.to_le_bytes(),
            body,
            &padding,
            &length.to_le_bytes(),
        ]
        .concat()
    }

    /// A section of a pcapng file with interfaces of these link types.
    fn section(links: &[u32]) -> Vec<u8> {
        let section = [
            0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
        ];
        let mut file = block(0x0a0d_0d0a, &section);
        for link in links {
            file.extend(block(1, &[&link.to_le_bytes()[..], &[0; 4]].concat()));
        }
        file
    }

    /// A frame of an interface in a pcapng file.
    fn enhanced(interface: u32, frame: &[u8]) -> Vec<u8> {
        let length = (frame.len() as u32).to_le_bytes();
        let head = [&interface.to_le_bytes()[..], &[0; 8], &length, &length].concat();
        block(6, &[&head, frame].concat())
    }

    /// A frame without a number of its interface.
    fn simple(frame: &[u8]) -> Vec<u8> {
        let length = (frame.len() as u32).to_le_bytes();
        block(3, &[&length, frame].concat())
    }

    /// Datagrams that differ.
    fn datagrams() -> [Vec<u8>; 3] {
        [1, 2, 3].map(|last| {
            let mut datagram = datagram();
            datagram[19] = last;
            datagram
        })
    }

    #[test]
    fn packets_are_found_by_their_numbers_in_both_formats() {
        let packets = datagrams();
        let frames = packets.each_ref().map(Vec::as_slice);
        let enhanced = frames.map(|frame| enhanced(0, frame));
        let simple = frames.map(simple);
        for file in [
            pcap(101, &frames, 0),
            [section(&[101]), enhanced.concat()].concat(),
            [section(&[101]), simple.concat()].concat(),
        ] {
            for (number, packet) in (1..).zip(&packets) {
                assert_eq!(read(&file[..], number).as_ref(), Ok(packet));
            }
            assert_eq!(read(&file[..], 4), Err(CaptureError::TooFew(3)));
        }
    }

    #[test]
    fn frames_of_every_link_type_have_their_packet() {
        let packet = datagram();
        let frames = frames(&packet);
        for (link, frame) in &frames {
            let file = pcap(*link, &[frame], 0);
            assert_eq!(read(&file[..], 1).as_ref(), Ok(&packet), "{link}");
            let file = [section(&[*link]), enhanced(0, frame)].concat();
            assert_eq!(read(&file[..], 1).as_ref(), Ok(&packet), "{link}");
        }
        // Octets behind a frame are announced beside its link type.
        let file = pcap(
            0x2400_0001,
            &[&[&[2; 12][..], &[8, 0], &packet, &[9; 4]].concat()],
            0,
        );
        let found = read(&file[..], 1).unwrap();
        assert!(found.starts_with(&packet));
    }

    #[test]
    fn each_interface_of_a_file_has_its_own_link_type() {
        let packet = datagram();
        let frames = frames(&packet);
        let links: Vec<_> = frames.iter().map(|(link, _)| *link).collect();
        let mut file = section(&links);
        for (number, (_, frame)) in (0..).zip(&frames) {
            file.extend(enhanced(number, frame));
        }
        // The numbers begin anew with a section.
        file.extend(section(&[101]));
        file.extend(enhanced(0, &packet));
        for number in 1..=frames.len() + 1 {
            assert_eq!(read(&file[..], number).as_ref(), Ok(&packet), "{number}");
        }
        file.extend(enhanced(1, &packet));
        let damaged = CaptureError::Damaged(frames.len() + 1);
        assert_eq!(read(&file[..], frames.len() + 2), Err(damaged));
    }

    #[test]
    fn a_link_type_is_not_guessed() {
        let packet = datagram();
        for link in [1, 113, 276, 0, 108] {
            let error = read(&pcap(link, &[&packet], 0)[..], 1).unwrap_err();
            let link = Link::of(link).unwrap();
            assert_eq!(error, CaptureError::NoPacket { number: 1, link });
        }
        let frame = [&[2; 12][..], &[8, 0], &packet].concat();
        let error = read(&pcap(101, &[&frame], 0)[..], 1).unwrap_err();
        let link = Link::Raw;
        assert_eq!(error, CaptureError::NoPacket { number: 1, link });
        let error = read(&pcap(127, &[&packet], 0)[..], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "packet 1 has the link type 127, and it must have one of loopback (0), Ethernet (1), raw IP (101), loopback \
             (108), Linux cooked (113), raw IP (228), raw IP (229), Linux cooked 2 (276)"
        );
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        assert_eq!(
            read(&b"no capture at all"[..], 1),
            Err(CaptureError::Format)
        );
        assert_eq!(read(&b""[..], 1), Err(CaptureError::Format));
        let cut = pcap(1, &[&[1; 60]], 40);
        assert_eq!(read(&cut[..], 1), Err(CaptureError::Cut(1)));
        let file = pcap(1, &[&[1; 60]], 0);
        let damaged = read(&file[..file.len() - 5], 1);
        assert!(damaged.is_err(), "{damaged:?}");
    }
}
