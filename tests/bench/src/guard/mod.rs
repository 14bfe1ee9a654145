//! The guard (`cargo xtask bench --guard`): the work of the XDP program for each of a fixed set of
//! packets, and its size, against recorded figures.
//!
//! The program is loaded once more beside the one that the daemon's library has loaded, with the same
//! maps, and with a counter in each of its basic blocks. It runs in the kernel on one packet after
//! another. The counts do not depend on the machine's speed or load.

pub mod code;
pub mod counters;
pub mod frames;
pub mod instruction;
pub mod kernel;
pub mod lines;
pub mod rare;
pub mod record;
pub mod time;
pub mod twin;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use teredo_common::verdict::Verdict;
use teredo_lab::{cpu, fixture::Fixture};

use self::{
    frames::{Host, Packet},
    kernel::Size,
    time::Time,
    twin::{Twin, Work},
};

/// The work for one packet.
#[derive(Clone, Debug, Serialize)]
pub struct PacketReport {
    /// The packet's name.
    pub packet: &'static str,
    /// The work.
    #[serde(flatten)]
    pub work: Work,
}

/// The program of one host.
#[derive(Clone, Debug, Serialize)]
pub struct HostReport {
    /// The host's name.
    pub host: &'static str,
    /// The size of its program.
    pub size: Size,
    /// The work for each packet.
    pub packets: Vec<PacketReport>,
}

/// Times that each host starts. Its seeds are random: two packets may meet in a place of a table, and one of them
/// takes a longer way.
const STARTS: usize = 3;

/// Counts the work of the program on every host of the set: the least of a few starts.
///
/// # Errors
///
/// Fails without root, when the kernel refuses a program, or when the program decides otherwise about
/// a packet than the set says.
pub fn measure() -> Result<Vec<HostReport>> {
    let hosts = Host::all();
    let reports = hosts
        .iter()
        .map(|host| measure_host(host).with_context(|| format!("the host \"{}\"", host.name)));
    reports.collect()
}

fn measure_host(host: &Host) -> Result<HostReport> {
    let mut least = measure_start(host)?;
    for _ in 1..STARTS {
        for (least, other) in least.packets.iter_mut().zip(measure_start(host)?.packets) {
            if other.work.instructions < least.work.instructions {
                *least = other;
            }
        }
    }
    Ok(least)
}

fn measure_start(host: &Host) -> Result<HostReport> {
    let mut fixture = host.start()?;
    let twin = Twin::of(&fixture.program.xdp()?.info()?)?;
    let packets = host.packets.iter().map(|packet| {
        let work = measure_packet(&fixture, &twin, packet)
            .with_context(|| format!("the packet \"{}\"", packet.name))?;
        Ok(PacketReport {
            packet: packet.name,
            work,
        })
    });
    Ok(HostReport {
        host: host.name,
        packets: packets.collect::<Result<_>>()?,
        size: twin.size().clone(),
    })
}

fn measure_packet(fixture: &Fixture, twin: &Twin, packet: &Packet) -> Result<Work> {
    let interface = fixture.interface(packet.port);
    let run = || -> Result<Work> {
        let (_, work) = fixture.namespace.run(|| {
            // Always on the same core, as the program remembers some things for each.
            cpu::pin(cpu::RELAY)?;
            twin.run(interface, &packet.frame)
        })??;
        Ok(work)
    };
    if packet.is_repeated {
        run()?;
    }
    let before = fixture.program.counters()?;
    let work = run()?;
    let after = fixture.program.counters()?;
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    let verdicts: Vec<Verdict> = moved.map(|((verdict, _), _)| *verdict).collect();
    ensure!(
        verdicts == [packet.verdict],
        "the program has decided {verdicts:?} instead of {:?}",
        packet.verdict
    );
    Ok(work)
}

/// The table of what was counted, with the changes since the record.
#[must_use]
pub fn table(reports: &[HostReport]) -> String {
    let mut text = String::new();
    let change = |host: &str, row: &str, now| match record::change(host, row, now) {
        Some(change) => format!("{:+.1} %", change * 100.0),
        None => "new".to_owned(),
    };
    for HostReport {
        host,
        size,
        packets,
    } in reports
    {
        let Size {
            translated,
            compiled,
            verified,
            stack,
        } = size;
        text += &format!(
            "\n{host}: {translated} instructions loaded ({}), {compiled} octets compiled, {verified} \
             followed by the verifier, {} octets of stack\n  {:<24} {:>12} {:>8} {:>9} {:>8}\n",
            change(host, "program", (*translated).into()),
            stack.iter().sum::<u16>(),
            "",
            "instructions",
            "",
            "look-ups",
            "helpers"
        );
        for PacketReport { packet, work } in packets {
            text += &format!(
                "  {packet:<24} {:>12} {:>8} {:>9} {:>8}\n",
                work.instructions,
                change(host, packet, work.instructions),
                work.lookups,
                work.helpers
            );
        }
    }
    text
}

/// The table of times.
#[must_use]
pub fn times_table(times: &[Time]) -> String {
    let mut text = String::from("\ntime per packet, of the reference program's\n");
    for Time { name, ratio } in times {
        let change = match record::change(record::TIME, name, record::permille(*ratio)) {
            Some(change) => format!("{:+.1} %", change * 100.0),
            None => "new".to_owned(),
        };
        text += &format!("  {name:<24} {:>22} {change:>9}\n", ratio.text(1.0, 3));
    }
    text
}

/// The table of the times of rare frames.
#[must_use]
pub fn rare_table(times: &[Time]) -> String {
    let mut text = String::from("\ntime of rare frames, of usual ones\n");
    for Time { name, ratio } in times {
        text += &format!("  {name:<28} {:>18}\n", ratio.text(1.0, 2));
    }
    text
}

/// The lines of the source that take the most instructions of a packet, on each host that has it.
///
/// # Errors
///
/// Fails when no host has such a packet.
pub fn explain(reports: &[HostReport], name: &str) -> Result<String> {
    let mut text = String::new();
    for report in reports {
        let packets = report.packets.iter();
        for packet in packets.filter(|packet| packet.packet == name) {
            text += &format!("\n{}, {name}: instructions by line\n", report.host);
            let mut lines: Vec<_> = packet.work.lines.iter().collect();
            lines.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (line, count) in lines {
                text += &format!("{count:>6}  {line}\n");
            }
        }
    }
    let names = || {
        let packets = reports.iter().flat_map(|report| &report.packets);
        let names: std::collections::BTreeSet<_> = packets.map(|packet| packet.packet).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    ensure!(
        !text.is_empty(),
        "no packet is called \"{name}\"; there are {}",
        names()
    );
    Ok(text)
}
