//! The last events before a broken rule.

use std::{collections::VecDeque, fmt};

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::wire::{
    encapsulation,
    ipv6::Header,
    trailer::{self, Trailer},
};

use crate::{node::Output, packet, world::NodeId};

/// Number of events kept.
const LENGTH: usize = 150;

#[derive(Debug, Default)]
pub(super) struct Trace {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    node: NodeId,
    is_arrival: bool,
    from: Endpoint,
    to: Endpoint,
    payload: Vec<u8>,
}

impl Trace {
    pub fn arrived(
        &mut self,
        at: Instant,
        node: NodeId,
        from: Endpoint,
        to: Endpoint,
        payload: &[u8],
    ) {
        self.push(Entry {
            at,
            node,
            is_arrival: true,
            from,
            to,
            payload: payload.to_vec(),
        });
    }

    pub fn acted(&mut self, at: Instant, node: NodeId, output: &[Output]) {
        for packet in output {
            let nowhere = Endpoint::default();
            let (from, to, payload) = match packet {
                Output::Datagram { from, to, payload } => (*from, *to, payload),
                Output::Multicast { from, payload } => (*from, nowhere, payload),
                Output::Ipv6(packet) => (nowhere, nowhere, packet),
                Output::Fleet(_) => continue,
            };
            self.push(Entry {
                at,
                node,
                is_arrival: false,
                from,
                to,
                payload: payload.clone(),
            });
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == LENGTH {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            let seconds = entry.at.as_nanos() as f64 / 1e9;
            let direction = if entry.is_arrival { "<-" } else { "->" };
            writeln!(
                formatter,
                "{seconds:9.4} {:?} {direction} {} to {}: {}",
                entry.node,
                entry.from,
                entry.to,
                describe(&entry.payload)
            )?;
        }
        Ok(())
    }
}

/// A payload in a few words.
fn describe(payload: &[u8]) -> String {
    let Ok(parts) = encapsulation::parse(payload) else {
        return format!("{} octets of something", payload.len());
    };
    let Ok(header) = Header::parse(parts.packet) else {
        return "no packet".into();
    };
    let (source, destination) = (
        std::net::Ipv6Addr::from(header.source()),
        std::net::Ipv6Addr::from(header.destination()),
    );
    let what = if header.is_bubble() {
        "bubble".into()
    } else {
        let kind = parts.packet.get(40).copied().unwrap_or(0);
        format!(
            "{:?} ({}/{kind})",
            packet::read(parts.packet),
            header.next_header()
        )
    };
    let mut text = format!("{what} {source} to {destination}");
    if let Some(origin) = parts.origin {
        text += &format!(", origin {origin}");
    }
    for trailer in trailer::parse(parts.trailers) {
        text += &match trailer {
            Ok(Trailer::AlternateAddresses(list)) => {
                let list: Vec<_> = list
                    .endpoints()
                    .map(|endpoint| endpoint.to_string())
                    .collect();
                format!(", also at {list:?}")
            }
            other => format!(", {other:?}"),
        };
    }
    text
}
