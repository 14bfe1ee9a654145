//! The scene of `cargo xtask run --fleet 3`: relays behind a router, of which keys kill one and start it again.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Read as _, Write as _, stdin, stdout},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use teredo_lab::{
    fleet::{self, Conversation, Fleet, Member, RELAYS, SERVICE},
    traffic::UdpStream,
};

use crate::Signals;

/// The time between two datagrams of a stream.
const INTERVAL: Duration = Duration::from_millis(2);
/// The time between two pictures.
const PERIOD: Duration = Duration::from_secs(1);

/// A terminal that passes each key at once, until this is dropped.
struct Keys(Option<Termios>);

impl Keys {
    fn new() -> Self {
        let before = stdin().is_terminal().then(|| tcgetattr(stdin()));
        let before = before.and_then(Result::ok);
        if let Some(before) = &before {
            let mut at_once = before.clone();
            at_once.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
            at_once.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
            at_once.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
            // Without it, a key needs the return key.
            let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &at_once);
        }
        Self(before)
    }

    /// Returns the relays whose keys were pressed.
    fn pressed(&self) -> Vec<usize> {
        let mut keys = [0; 16];
        let count = match self.0 {
            Some(_) => stdin().read(&mut keys).unwrap_or(0),
            None => 0,
        };
        let numbers = keys[..count]
            .iter()
            .map(|key| usize::from(key.wrapping_sub(b'1')));
        numbers.filter(|number| *number < RELAYS.into()).collect()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}

/// Plays the scene, and returns whether no datagram was lost. Without a terminal, the first relay is killed after
/// a third of the time, and started again after another.
pub fn play(seconds: Option<u64>, signals: &Signals) -> Result<bool> {
    let scene = fleet::scene()?;
    let mut fleet = Fleet::start(&scene)?;
    println!(
        "fleet             {RELAYS} relays with the address {SERVICE}, behind a router with BIRD"
    );
    let conversation = Conversation::start(&scene, INTERVAL)?;
    let streams = conversation.streams;
    println!(
        "streams           {} of 500 datagrams a second, of three clients and a host",
        streams.len()
    );
    let keys = Keys::new();
    if keys.0.is_some() {
        println!("keys              1, 2, 3: kill a relay, or start it again; Ctrl+C: end");
    }
    println!();
    let start = Instant::now();
    let end = seconds.map(|seconds| start + Duration::from_secs(seconds));
    let mut script = script(seconds.filter(|_| keys.0.is_none()));
    let (mut lines, mut next) = (0, start);
    while end.is_none_or(|end| Instant::now() < end) {
        let due = script.extract_if(.., |(after, _)| start.elapsed() >= *after);
        let due: Vec<_> = due
            .map(|(_, number)| number)
            .chain(keys.pressed())
            .collect();
        for number in due {
            toggle(&mut fleet.members[number])?;
        }
        lines = show(&picture(start.elapsed(), &fleet, &streams)?, lines)?;
        next += PERIOD;
        if signals.come_before(end.map_or(next, |end| next.min(end)))? {
            break;
        }
    }
    let (mut sent, mut received, mut longest) = (0, 0, Duration::ZERO);
    for stream in streams {
        let report = stream.stop()?;
        sent += report.sent;
        received += report.received;
        longest = longest.max(report.longest_gap);
    }
    println!();
    println!(
        "{received} of {sent} datagrams arrived; the longest gap of a stream: {} ms",
        longest.as_millis()
    );
    Ok(received == sent)
}

/// The moments, from the start, at which the first relay ends and begins again.
fn script(seconds: Option<u64>) -> Vec<(Duration, usize)> {
    let thirds = seconds.map(|seconds| Duration::from_secs(seconds) / 3);
    thirds
        .into_iter()
        .flat_map(|third| [(third, 0), (third * 2, 0)])
        .collect()
}

fn toggle(member: &mut Member) -> Result<()> {
    match member.relay.daemon.status()? {
        None => member.relay.daemon.kill().map(drop),
        Some(_) => member.start_again(),
    }
}

/// Describes the relays and the streams.
fn picture(elapsed: Duration, fleet: &Fleet, streams: &[UdpStream]) -> Result<String> {
    let mut text = String::new();
    let sent: u64 = streams.iter().map(UdpStream::sent).sum();
    let received: u64 = streams.iter().map(UdpStream::received).sum();
    let seconds = elapsed.as_secs();
    writeln!(
        text,
        "{seconds:>4} s  {received} datagrams arrived, {} are under way or lost",
        sent.saturating_sub(received)
    )?;
    for member in &fleet.members {
        let number = member.number();
        match member.relay.status() {
            Ok(status) => {
                let (encap, decap) = (status.packets.encap, status.packets.decap);
                let packets = [encap.xdp + encap.userspace, decap.xdp + decap.userspace];
                let [encap, decap] = packets;
                writeln!(
                    text,
                    "        relay {number}: {} peers, {encap} packets to them, {decap} from them",
                    status.peers.trusted
                )?;
            }
            Err(_) => writeln!(text, "        relay {number}: killed")?,
        }
    }
    Ok(text)
}

/// Shows a picture in place of the last one with so many lines, and returns the lines that the next one replaces.
fn show(text: &str, lines: usize) -> Result<usize> {
    let mut out = stdout().lock();
    let is_terminal = out.is_terminal();
    if is_terminal && lines > 0 {
        write!(out, "\x1b[{lines}F\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush().context("the picture cannot be shown")?;
    Ok(if is_terminal { text.lines().count() } else { 0 })
}
