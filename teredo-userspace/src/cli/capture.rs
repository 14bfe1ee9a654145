//! `teredo capture`: packets of a running daemon, as a file in the format pcapng.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use clap::Args;
use tokio::signal::ctrl_c;

use super::{Daemon, ask::socket, start_runtime};
use crate::api::client;

/// The blocks of the format that are counted.
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// The options of statistics: packets without room, and packets that were not looked at.
const LOST: u16 = 5;
const LIMITED: u16 = 7;
/// Octets of the longest block: much more than any that the daemon sends.
const LONGEST: usize = 1 << 20;

/// The options of `teredo capture`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    /// File to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    write: PathBuf,
    /// Points, with commas: received, passed, dropped, forwarded, sent; with xdp: or daemon: in front those there
    /// alone; xdp or daemon for all there [default: xdp,daemon]
    #[arg(long, value_name = "POINTS")]
    points: Option<String>,
    /// Only packets with one of these reasons, with commas, as in `teredo status`
    #[arg(long, value_name = "REASONS")]
    reason: Option<String>,
    /// Only packets from or to this Teredo address, IPv6 address, or IPv4 address with or without port
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// Only packets from or to this network
    #[arg(long, value_name = "NETWORK")]
    prefix: Option<String>,
    /// Only packets of this role
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Look at one packet of so many
    #[arg(long, value_name = "N")]
    sample: Option<u32>,
    /// Most packets a second, at the XDP program and at the daemon [default: 1000]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Most octets of each packet [default: 256]
    #[arg(long, value_name = "OCTETS")]
    snaplen: Option<u32>,
    /// End after so many packets
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u32>,
}

/// The destination of the packets.
struct Output {
    to: Box<dyn Write>,
    /// A file that is created with its first octets, so that a capture that does not begin leaves it as it is.
    file: Option<PathBuf>,
}

/// The file that is being written: whole blocks only.
struct Blocks<W> {
    to: W,
    /// The begin of a block.
    rest: Vec<u8>,
    packets: u64,
    /// Packets that are missing, by interface: those without room, and those that were not looked at.
    missing: Vec<[u64; 2]>,
}

/// Writes packets until there are enough, or the user ends it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let is_stdout = arguments.write.as_os_str() == "-";
    if is_stdout && io::stdout().is_terminal() {
        bail!("packets are not for a terminal: name a file with --write, or read from a pipe");
    }
    let address = socket(&arguments.daemon)?;
    let mut blocks = Blocks::new(match is_stdout {
        true => Output::new(io::stdout()),
        false => Output::file(&arguments.write),
    });
    let path = path(arguments);
    start_runtime()?.block_on(async {
        let capture = client::stream(&address, &path, |part| {
            blocks.add(&part)?;
            Ok(arguments.count.is_some_and(|count| blocks.packets > count))
        });
        tokio::select! {
            ended = capture => anyhow::Ok(ended??),
            _ = ctrl_c() => Ok(()),
        }
    })?;
    blocks.to.flush()?;
    eprintln!("{}", blocks.summary());
    Ok(())
}

/// Returns the path of the request.
fn path(arguments: &Arguments) -> String {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let parameters = [
        ("points", arguments.points.clone()),
        ("reason", arguments.reason.clone()),
        ("peer", arguments.peer.clone()),
        ("prefix", arguments.prefix.clone()),
        ("role", arguments.role.clone()),
        ("sample", number(arguments.sample)),
        ("rate", number(arguments.rate)),
        ("snaplen", number(arguments.snaplen)),
        ("count", arguments.count.map(|count| count.to_string())),
        ("duration", number(arguments.duration)),
    ];
    let given = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    format!("/v1/capture?{}", given.collect::<Vec<_>>().join("&"))
}

/// Returns text as it may be in the query of a request.
fn encoded(text: &str) -> String {
    let encode = |octet: u8| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':' | b',' | b'/' => {
            char::from(octet).to_string()
        }
        _ => format!("%{octet:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl Output {
    fn new(to: impl Write + 'static) -> Self {
        Self {
            to: Box::new(to),
            file: None,
        }
    }

    fn file(path: &Path) -> Self {
        Self {
            file: Some(path.to_owned()),
            ..Self::new(io::sink())
        }
    }
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if let Some(path) = &self.file {
            let file = File::create(path).map_err(|error| {
                let text = format!("cannot write {}: {error}", path.display());
                io::Error::new(error.kind(), text)
            })?;
            *self = Self::new(file);
        }
        self.to.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Blocks<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            rest: Vec::new(),
            packets: 0,
            missing: Vec::new(),
        }
    }

    /// Writes the blocks that are whole now.
    fn add(&mut self, part: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(part);
        let mut start = 0;
        while let Some(length) = word(&self.rest, start + 4) {
            let length = length as usize;
            if !(12..=LONGEST).contains(&length) {
                return Err(io::Error::other(
                    "the daemon sends something else than packets",
                ));
            }
            let Some(block) = self.rest.get(start..start + length) else {
                break;
            };
            match word(block, 0) {
                Some(PACKET) => self.packets += 1,
                Some(STATISTICS) => note(&mut self.missing, block),
                _ => {}
            }
            start += length;
        }
        self.to.write_all(&self.rest[..start])?;
        self.to.flush()?;
        self.rest.drain(..start);
        Ok(())
    }

    fn summary(&self) -> String {
        let sum = |place: usize| self.missing.iter().map(|one| one[place]).sum::<u64>();
        format!(
            "{} packets captured, {} lost for want of room, {} not looked at because of the rate",
            self.packets,
            sum(0),
            sum(1)
        )
    }
}

/// Notes how many packets are missing, as a block of statistics says.
fn note(missing: &mut Vec<[u64; 2]>, block: &[u8]) {
    let Some(interface) = word(block, 8).map(|interface| interface as usize) else {
        return;
    };
    if interface >= missing.len() && interface < LONGEST {
        missing.resize(interface + 1, [0; 2]);
    }
    let Some(missing) = missing.get_mut(interface) else {
        return;
    };
    let mut at = 20;
    while let Some(header) = word(block, at) {
        let [a, b, c, d] = header.to_ne_bytes();
        let (code, length) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        let value = word(block, at + 4).zip(word(block, at + 8));
        let place = match code {
            LOST => Some(0),
            LIMITED => Some(1),
            _ => None,
        };
        if let (Some(place), Some((low, high))) = (place, value) {
            let octets = [low.to_ne_bytes(), high.to_ne_bytes()].concat();
            missing[place] = u64::from_ne_bytes(octets.try_into().unwrap_or_default());
        }
        at += 4 + usize::from(length).next_multiple_of(4);
    }
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    let word = octets.get(at..at + 4)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn block(kind: u32, content: &[u8]) -> Vec<u8> {
        let length = (content.len() + 12) as u32;
        let mut block = kind.to_ne_bytes().to_vec();
        block.extend(length.to_ne_bytes());
        block.extend(content);
        block.extend(length.to_ne_bytes());
        block
    }

    fn statistics(interface: u32, lost: u64, limited: u64) -> Vec<u8> {
        let mut content = interface.to_ne_bytes().to_vec();
        content.extend([0; 8]);
        for (code, value) in [(4u16, 9), (LOST, lost), (LIMITED, limited)] {
            content.extend(code.to_ne_bytes());
            content.extend(8u16.to_ne_bytes());
            content.extend(value.to_ne_bytes());
        }
        block(STATISTICS, &content)
    }

    #[test]
    fn only_whole_blocks_are_written_however_they_come() {
        let packet = block(PACKET, &[1; 40]);
        let file = [
            packet.clone(),
            statistics(0, 1, 2),
            packet.clone(),
            statistics(0, 5, 1 << 40),
            statistics(1, 1, 0),
        ]
        .concat();
        for step in [1, 7, 64, 1000] {
            let mut blocks = Blocks::new(Vec::new());
            for part in file.chunks(step) {
                blocks.add(part).unwrap();
            }
            blocks.add(&packet[..20]).unwrap();
            assert_eq!(blocks.to, file);
            assert_eq!(
                blocks.summary(),
                "2 packets captured, 6 lost for want of room, 1099511627776 not looked at because of the rate"
            );
        }
    }

    #[test]
    fn a_file_stays_as_it_is_until_packets_come() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "old").unwrap();
        let packet = block(PACKET, &[1; 40]);
        let mut blocks = Blocks::new(Output::file(&path));
        blocks.add(&packet[..20]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        blocks.add(&packet[20..]).unwrap();
        blocks.add(&packet).unwrap();
        assert_eq!(fs::read(&path).unwrap(), packet.repeat(2));
        let mut nowhere = Blocks::new(Output::file(&path.join("below")));
        let error = nowhere.add(&packet).unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
    }

    #[test]
    fn anything_else_is_an_error() {
        for octets in [[0; 16], [255; 16]] {
            assert!(Blocks::new(Vec::new()).add(&octets).is_err());
        }
    }

    #[test]
    fn values_are_encoded() {
        assert_eq!(encoded("2001:db8::/32"), "2001:db8::/32");
        assert_eq!(encoded("a b&c=%"), "a%20b%26c%3D%25");
    }
}
