//! The counters of a daemon, as `GET /metrics` names them, and those of the kernel.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use teredo_lab::{Namespace, miredo::INTERFACE};

/// Numbers by name.
pub type Numbers = BTreeMap<String, u64>;

/// Longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel's counters of packets that did not go on, and of those that it answers.
const KERNEL: [&str; 22] = [
    "Ip6InHdrErrors",
    "Ip6InTooBigErrors",
    "Ip6InNoRoutes",
    "Ip6InAddrErrors",
    "Ip6InUnknownProtos",
    "Ip6InTruncatedPkts",
    "Ip6InDiscards",
    "Ip6OutDiscards",
    "Ip6OutNoRoutes",
    "Icmp6OutEchoReplies",
    "Udp6InErrors",
    "Udp6NoPorts",
    "IpInHdrErrors",
    "IpInAddrErrors",
    "IpInUnknownProtos",
    "IpInDiscards",
    "IpOutDiscards",
    "IpOutNoRoutes",
    "IpReasmFails",
    "UdpNoPorts",
    "UdpInErrors",
    "UdpSndbufErrors",
];

/// Reads the metrics of the daemon whose API has this socket.
///
/// # Errors
///
/// Fails when the daemon does not answer in time, or in another form.
pub fn of_daemon(socket: &Path) -> Result<Numbers> {
    let text = get(socket, "/metrics")?;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let numbers = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').context("a sample has a value")?;
        Ok((name.to_owned(), value.parse::<f64>()? as u64))
    });
    numbers.collect()
}

/// Asks the API at this socket for a page and returns its body.
///
/// # Errors
///
/// Fails when the daemon does not answer in time.
pub fn get(socket: &Path, page: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("connect to the API")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(body.to_owned())
}

/// Reads the kernel's counters of lost packets in a namespace: those of the protocols, and those of
/// each interface.
///
/// # Errors
///
/// Fails when the kernel's files cannot be read.
pub fn of_kernel(namespace: &Namespace) -> Result<Numbers> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let tunnel = format!("dev_snmp6/{INTERFACE}");
    let [snmp, snmp6, dev, tunnel] = namespace.run(|| {
        anyhow::Ok([
            read("snmp")?,
            read("snmp6").unwrap_or_default(),
            read("dev")?,
            read(&tunnel).unwrap_or_default(),
        ])
    })??;
    let mut numbers = Numbers::new();
    for line in snmp6.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(value)) = (words.next(), words.next()) {
            numbers.insert(name.to_owned(), value.parse()?);
        }
    }
    let lines: Vec<_> = snmp.lines().collect();
    for [names, values] in lines.as_chunks().0 {
        let protocol = names.split(':').next().unwrap_or_default();
        let names = names.split_whitespace().skip(1);
        for (name, value) in names.zip(values.split_whitespace().skip(1)) {
            // Some settings among them are negative.
            if let Ok(value) = value.parse() {
                numbers.insert(format!("{protocol}{name}"), value);
            }
        }
    }
    numbers.retain(|name, _| KERNEL.contains(&name.as_str()));
    numbers.extend(of_interfaces(&dev));
    numbers.extend(own_packets(&tunnel).into_iter().flatten());
    Ok(numbers)
}

/// The packets that the kernel of the host itself has sent to a tunnel: all, and those to groups, such as
/// reports of listeners. An interface that is made anew has another name.
fn own_packets(table: &str) -> Option<[(String, u64); 2]> {
    let number = |name: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let index = number("ifIndex")?;
    Some([
        (
            format!("own packets to interface {index}"),
            number("Ip6OutRequests")?,
        ),
        (
            format!("multicasts to interface {index}"),
            number("Ip6OutMcastPkts")?,
        ),
    ])
}

/// The lost packets of every interface but the loopback.
fn of_interfaces(dev: &str) -> Numbers {
    /// Places in /proc/net/dev.
    const LOST: [(usize, &str); 4] = [
        (2, "receive errors"),
        (3, "receive drops"),
        (10, "send errors"),
        (11, "send drops"),
    ];
    let mut numbers = Numbers::new();
    for line in dev.lines().skip(2) {
        let Some((name, values)) = line.split_once(':') else {
            continue;
        };
        let values: Vec<_> = values.split_whitespace().collect();
        for (place, what) in LOST {
            let value = values.get(place).and_then(|value| value.parse().ok());
            if name.trim() != "lo" {
                numbers.insert(format!("{} {what}", name.trim()), value.unwrap_or(0));
            }
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_interfaces_is_parsed() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 1 9 9 0 0 0 0 1 1 9 9 0 0 0 0\n\
                     v4: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let expected = [
            ("v4 receive drops", 4),
            ("v4 receive errors", 3),
            ("v4 send drops", 7),
            ("v4 send errors", 6),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(of_interfaces(table), Numbers::from(expected));
    }
}
