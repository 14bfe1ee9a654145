//! The blocks of a pcapng file: a section, interfaces, packets with comments, statistics.

/// Of the format.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const MAGIC: u32 = 0x1a2b_3c4d;
/// The option at the end of others.
const END: u16 = 0;
const COMMENT: u16 = 1;

/// Frames begin with an Ethernet header.
pub const ETHERNET: u16 = 1;
/// Packets begin with an IPv4 or IPv6 header.
pub const RAW: u16 = 101;

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The number of the interface, in the order of their blocks.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Octets that it had.
    pub length: u32,
    /// The first of them.
    pub octets: &'a [u8],
    /// The comment.
    pub comment: &'a str,
    /// Whether it came here, and does not leave.
    pub is_inbound: bool,
    /// Its number, the same at every point.
    pub number: Option<u64>,
    /// What the XDP program returned.
    pub action: Option<u8>,
}

/// The block that is being written.
struct Block<'a> {
    file: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn begin(file: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = file.len();
        file.extend(kind.to_ne_bytes());
        file.extend([0; 4]);
        Self { file, start }
    }

    fn word(&mut self, word: u32) {
        self.file.extend(word.to_ne_bytes());
    }

    /// Writes a time, whose halves have an order of their own.
    fn time(&mut self, time: u64) {
        self.word((time >> 32) as u32);
        self.word(time as u32);
    }

    /// Writes octets, and zeros up to the next word.
    fn octets(&mut self, octets: &[u8]) {
        self.file.extend(octets);
        let excess = octets.len() % 4;
        if excess > 0 {
            self.file.extend(&[0; 4][excess..]);
        }
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // No option is longer than that.
        let value = &value[..value.len().min(u16::MAX.into())];
        self.file.extend(code.to_ne_bytes());
        self.file.extend((value.len() as u16).to_ne_bytes());
        self.octets(value);
    }

    fn end(mut self) {
        self.option(END, &[]);
        let length = (self.file.len() + 4 - self.start) as u32;
        self.word(length);
        self.file[self.start + 4..self.start + 8].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Writes the begin of a section.
pub fn section(file: &mut Vec<u8>, application: &str, comment: &str) {
    let mut block = Block::begin(file, SECTION);
    block.word(MAGIC);
    block.octets(&[1u16.to_ne_bytes(), 0u16.to_ne_bytes()].concat());
    // The length of the section is not known.
    block.octets(&u64::MAX.to_ne_bytes());
    block.option(COMMENT, comment.as_bytes());
    block.option(4, application.as_bytes());
    block.end();
}

/// Writes an interface, whose packets have at most so many octets.
pub fn interface(file: &mut Vec<u8>, link: u16, snaplen: u32, name: &str, description: &str) {
    let mut block = Block::begin(file, INTERFACE);
    block.octets(&[link.to_ne_bytes(), [0; 2]].concat());
    block.word(snaplen);
    block.option(2, name.as_bytes());
    block.option(3, description.as_bytes());
    // Times are in nanoseconds.
    block.option(9, &[9]);
    block.end();
}

/// Writes a packet.
pub fn packet(file: &mut Vec<u8>, packet: &Packet<'_>) {
    let mut block = Block::begin(file, PACKET);
    block.word(packet.interface);
    block.time(packet.time);
    block.word(packet.octets.len() as u32);
    block.word(packet.length);
    block.octets(packet.octets);
    block.option(COMMENT, packet.comment.as_bytes());
    let direction: u32 = if packet.is_inbound { 1 } else { 2 };
    block.option(2, &direction.to_ne_bytes());
    if let Some(number) = packet.number {
        block.option(5, &number.to_ne_bytes());
    }
    if let Some(action) = packet.action {
        // 1: of a Linux XDP program.
        let mut value = vec![1];
        value.extend(u64::from(action).to_ne_bytes());
        block.option(7, &value);
    }
    block.end();
}

/// Writes how many packets of an interface were captured until now, how many were lost for want of room, and how many
/// were not looked at.
pub fn statistics(
    file: &mut Vec<u8>,
    interface: u32,
    time: u64,
    captured: u64,
    lost: u64,
    limited: u64,
) {
    let mut block = Block::begin(file, STATISTICS);
    block.word(interface);
    block.time(time);
    block.option(4, &(captured + lost + limited).to_ne_bytes());
    block.option(5, &lost.to_ne_bytes());
    block.option(7, &limited.to_ne_bytes());
    block.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(file: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(file[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn blocks_are_whole_words_with_their_length_at_both_ends() {
        for length in 0..9 {
            let octets = vec![7; length];
            let mut file = Vec::new();
            section(&mut file, "teredo", &"c".repeat(length));
            interface(&mut file, RAW, 256, "any", "description");
            let packet_at = file.len();
            packet(
                &mut file,
                &Packet {
                    interface: 0,
                    time: 5 << 32 | 6,
                    length: 99,
                    octets: &octets,
                    comment: &"x".repeat(length),
                    is_inbound: true,
                    number: Some(3),
                    action: Some(2),
                },
            );
            statistics(&mut file, 0, 1, 2, 3, 4);
            let mut at = 0;
            let mut kinds = Vec::new();
            while at < file.len() {
                let length = word(&file, at + 4) as usize;
                assert_eq!(length % 4, 0);
                assert_eq!(word(&file, at + length - 4) as usize, length);
                kinds.push(word(&file, at));
                at += length;
            }
            assert_eq!(kinds, [SECTION, INTERFACE, PACKET, STATISTICS]);
            let words = [8, 12, 16, 20, 24].map(|at| word(&file, packet_at + at));
            assert_eq!(words, [0, 5, 6, length as u32, 99]);
            assert_eq!(file[packet_at + 28..packet_at + 28 + length], octets);
        }
    }
}
