//! The output of the scene.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Result;
use teredo_lab::{
    Teredo,
    teredo::{Paths, Status, between, fast_share, is_trusted},
};

use crate::traffic::{Counts, Traffic};

/// Most peers that are shown.
const PEERS: usize = 5;

/// Our programs in the scene.
#[derive(Clone, Copy)]
pub struct Ours<'a> {
    /// The relay.
    pub relay: Option<&'a Teredo>,
    /// The server.
    pub server: Option<&'a Teredo>,
    /// The client.
    pub client: Option<&'a Teredo>,
}

/// The live display and the summary.
pub struct Display<'a> {
    ours: Ours<'a>,
    first: Option<Status>,
    last: Option<(Instant, Status)>,
    /// Lines on the screen that the next picture replaces.
    lines: usize,
}

impl<'a> Display<'a> {
    /// Makes a display of the traffic and of our programs.
    pub fn new(ours: Ours<'a>) -> Result<Self> {
        let first = ours.relay.map(Teredo::status).transpose()?;
        Ok(Self {
            ours,
            last: first.clone().map(|status| (Instant::now(), status)),
            first,
            lines: 0,
        })
    }

    /// Shows the state, and the changes since the last call.
    pub fn show(&mut self, elapsed: Duration, traffic: &Traffic) -> Result<()> {
        let mut text = String::new();
        writeln!(
            text,
            "{:>4} s  ping {}  TCP {} connections, {} MB checked",
            elapsed.as_secs(),
            replies(traffic),
            connections(traffic),
            octets(traffic) / 1_000_000,
        )?;
        if let Some(relay) = self.ours.relay {
            let (now, status) = (Instant::now(), relay.status()?);
            if let Some((then, last)) = &self.last {
                write_rates(&mut text, &status, last, (now - *then).as_secs_f64())?;
            }
            write_peers(&mut text, relay, &status)?;
            self.last = Some((now, status));
        }
        if let Some(server) = self.ours.server {
            writeln!(text, "        {}", served(server)?)?;
        }
        if let Some(client) = self.ours.client {
            writeln!(text, "        {}", qualified(client)?)?;
        }
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            // To the first line of the last picture, then clear to the end of the screen.
            if self.lines > 0 {
                write!(out, "\x1b[{}F\x1b[J", self.lines)?;
            }
            self.lines = text.lines().count();
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Shows the totals.
    pub fn summary(&mut self, traffic: &Traffic, checked: usize, bad: &[String]) -> Result<()> {
        println!();
        println!(
            "ping {}, TCP {} connections, {} MB, every octet as sent",
            replies(traffic),
            connections(traffic),
            octets(traffic) / 1_000_000
        );
        println!(
            "checksums of {checked} packets at the host: {} bad",
            bad.len()
        );
        for line in bad.iter().take(3) {
            println!("  {}", line.trim());
        }
        if let Some(relay) = self.ours.relay {
            self.last = Some((Instant::now(), relay.status()?));
        }
        if let Some(total) = self.total() {
            for (name, paths) in total {
                println!(
                    "{name}: {} packets in XDP, {} in userspace ({:.2} % in XDP)",
                    paths.xdp,
                    paths.userspace,
                    100.0 * fast_share(paths)
                );
            }
        }
        if let Some(server) = self.ours.server {
            println!("{}", served(server)?);
        }
        if let Some(client) = self.ours.client {
            println!("{}", qualified(client)?);
        }
        let failures = traffic.failures();
        for failure in failures.iter().take(5) {
            println!("failed: {failure}");
        }
        Ok(())
    }

    /// Whether our relay's fast path has carried packets in both directions.
    pub fn relay_was_fast(&self) -> Option<bool> {
        let total = self.total()?;
        Some(total.iter().all(|(_, paths)| paths.xdp > 0))
    }

    /// Whether our server's fast path has answered packets.
    pub fn server_was_fast(&self) -> Result<Option<bool>> {
        let advertised = self.ours.server.map(Teredo::advertised).transpose()?;
        Ok(advertised.map(|paths| paths.xdp > 0))
    }

    fn total(&self) -> Option<[(&'static str, Paths); 2]> {
        let total = between(self.first.as_ref()?.packets, self.last.as_ref()?.1.packets);
        Some([(ENCAP, total.encap), (DECAP, total.decap)])
    }
}

const ENCAP: &str = "host to client";
const DECAP: &str = "client to host";

fn write_rates(text: &mut String, status: &Status, last: &Status, seconds: f64) -> Result<()> {
    let packets = between(last.packets, status.packets);
    let octets = between(last.bytes, status.bytes);
    for (name, packets, octets) in [
        (ENCAP, packets.encap, octets.encap),
        (DECAP, packets.decap, octets.decap),
    ] {
        writeln!(
            text,
            "        {name}  XDP {:>8.0} packets/s {:>7.1} Mbit/s   userspace {:>6.0} packets/s \
             {:>6.1} Mbit/s   {:>6.2} % in XDP",
            packets.xdp as f64 / seconds,
            octets.xdp as f64 * 8e-6 / seconds,
            packets.userspace as f64 / seconds,
            octets.userspace as f64 * 8e-6 / seconds,
            100.0 * fast_share(packets)
        )?;
    }
    Ok(())
}

fn write_peers(text: &mut String, relay: &Teredo, status: &Status) -> Result<()> {
    writeln!(
        text,
        "        peers {} trusted, {} untrusted   bubbles {} sent, {} received   dropped {}   \
         left by XDP to the kernel {}",
        status.peers.trusted,
        status.peers.untrusted,
        status.bubbles.sent,
        status.bubbles.received,
        status.dropped.values().sum::<u64>(),
        status.passed.values().sum::<u64>()
    )?;
    for peer in relay.peers()?.iter().take(PEERS) {
        let state = if is_trusted(peer) {
            "trusted"
        } else {
            "untrusted"
        };
        let path = if peer.xdp { "XDP" } else { "userspace" };
        writeln!(
            text,
            "        peer {} at {}, {state}, {path}",
            peer.address, peer.mapped
        )?;
    }
    Ok(())
}

/// The server's counters since its start, for each path.
fn served(server: &Teredo) -> Result<String> {
    let part = |kind, result, name: &str| {
        let paths = server.served(kind, result)?;
        anyhow::Ok(format!(
            "{name} {} in XDP, {} in userspace",
            paths.xdp, paths.userspace
        ))
    };
    let test = server.served("echo", "native")?;
    Ok(format!(
        "server  {}   {}   tests forwarded {}",
        part("solicitation", "advertised", "solicitations answered")?,
        part("bubble", "forwarded", "bubbles forwarded")?,
        test.xdp + test.userspace
    ))
}

/// The state of the client.
fn qualified(client: &Teredo) -> Result<String> {
    let status = client.status()?;
    let packets = status.packets;
    let Some(client) = status.client else {
        return Ok(String::new());
    };
    let mapped = client.mapped.map(|mapped| format!(" at {mapped}"));
    Ok(format!(
        "client  {}{}   solicitations {}   into the tunnel {} packets, out of it {}   bubbles {} \
         sent, {} received",
        client.state,
        mapped.unwrap_or_default(),
        client.solicitations,
        packets.encap.userspace,
        packets.decap.userspace,
        status.bubbles.sent,
        status.bubbles.received
    ))
}

fn replies(traffic: &Traffic) -> String {
    let one = |counts: &Counts| {
        let (replies, pings) = (&counts.replies, &counts.pings);
        format!(
            "{} of {}",
            replies.load(Ordering::Relaxed),
            pings.load(Ordering::Relaxed)
        )
    };
    format!(
        "{} from the client, {} from the host",
        one(&traffic.client),
        one(&traffic.host)
    )
}

fn connections(traffic: &Traffic) -> String {
    format!(
        "{} + {}",
        traffic.client.connections.load(Ordering::Relaxed),
        traffic.host.connections.load(Ordering::Relaxed)
    )
}

fn octets(traffic: &Traffic) -> u64 {
    let octets = |counts: &Counts| counts.octets.load(Ordering::Relaxed);
    octets(&traffic.client) + octets(&traffic.host)
}
