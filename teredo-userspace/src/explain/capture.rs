//! Packets from capture files: pcap and pcapng.

use std::io::Read;

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

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
    #[error("packet {0} was cut when it was captured; capture with a snapshot length of 0")]
    Cut(usize),
}

/// Returns the packet of this number, the first being 1, in a file of either format.
///
/// # Errors
///
/// When the file has no such packet, or not the whole of it.
pub fn read(file: impl Read + Send, number: usize) -> Result<Vec<u8>, CaptureError> {
    let mut reader = create_reader(BUFFER, file).map_err(|_| CaptureError::Format)?;
    let mut count = 0;
    loop {
        let (offset, packet) = match reader.next() {
            Ok((offset, block)) => (offset, packet_of(&block)),
            Err(PcapError::Eof) => return Err(CaptureError::TooFew(count)),
            Err(PcapError::Incomplete(_)) => {
                let refilled = reader.refill();
                refilled.map_err(|_| CaptureError::Damaged(count))?;
                continue;
            }
            Err(_) => return Err(CaptureError::Damaged(count)),
        };
        if let Some((packet, length)) = packet {
            count += 1;
            if count == number {
                return match packet.len() < length {
                    true => Err(CaptureError::Cut(number)),
                    false => Ok(packet),
                };
            }
        }
        reader.consume(offset);
    }
}

/// Returns the octets of a packet, and how many it had before it was captured.
fn packet_of(block: &PcapBlockOwned<'_>) -> Option<(Vec<u8>, usize)> {
    let (data, captured, length) = match block {
        PcapBlockOwned::Legacy(block) => (block.data, block.caplen, block.origlen),
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            (block.data, block.caplen, block.origlen)
        }
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            (block.data, block.origlen, block.origlen)
        }
        PcapBlockOwned::LegacyHeader(_) | PcapBlockOwned::NG(_) => return None,
    };
    // Blocks are padded.
    let end = data.len().min(captured as usize);
    Some((data[..end].to_vec(), length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcap file with packets of these octets.
    fn pcap(packets: &[&[u8]], lost: u32) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 8]);
        file.extend(65_535_u32.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for packet in packets {
            file.extend([0; 8]);
            file.extend((packet.len() as u32).to_le_bytes());
            file.extend((packet.len() as u32 + lost).to_le_bytes());
            file.extend(*packet);
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

    /// A pcapng file with packets of these octets.
    fn pcapng(packets: &[&[u8]]) -> Vec<u8> {
        let section = [
            0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
        ];
        let mut file = block(0x0a0d_0d0a, &section);
        file.extend(block(1, &[1, 0, 0, 0, 0, 0, 0, 0]));
        for packet in packets {
            let length = (packet.len() as u32).to_le_bytes();
            let body = [&[0; 12][..], &length, &length, packet].concat();
            file.extend(block(6, &body));
        }
        file
    }

    #[test]
    fn packets_are_found_by_their_numbers_in_both_formats() {
        let packets: [&[u8]; 3] = [&[1; 60], &[2; 61], &[3; 99]];
        for file in [pcap(&packets, 0), pcapng(&packets)] {
            for (number, packet) in (1..).zip(packets) {
                assert_eq!(read(&file[..], number).as_deref(), Ok(packet));
            }
            assert_eq!(read(&file[..], 4), Err(CaptureError::TooFew(3)));
        }
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        assert_eq!(
            read(&b"no capture at all"[..], 1),
            Err(CaptureError::Format)
        );
        assert_eq!(read(&b""[..], 1), Err(CaptureError::Format));
        let cut = pcap(&[&[1; 60]], 40);
        assert_eq!(read(&cut[..], 1), Err(CaptureError::Cut(1)));
        let file = pcap(&[&[1; 60]], 0);
        let damaged = read(&file[..file.len() - 5], 1);
        assert!(damaged.is_err(), "{damaged:?}");
    }
}
