//! The daemon's answers, as far as the view needs them.

use std::net::{Ipv6Addr, SocketAddrV4};

use serde::Deserialize;

use crate::api::types::{PeerState, Status};

/// The answers to one question.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The status.
    pub status: Status,
    /// A page of peers, if the daemon can send one.
    pub peers: Listing,
    /// The opened peer, if the daemon has it.
    pub opened: Option<Peer>,
}

/// The reason why there are no answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason, as a sentence.
    pub reason: String,
    /// Whether nobody listens, so that the process has ended.
    pub is_gone: bool,
}

/// What the daemon says about peers.
#[derive(Clone, Debug)]
pub enum Listing {
    /// A page of them.
    Page(Page),
    /// It has no pages, and more peers than are asked for at once.
    TooMany,
}

/// A page of peers.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Page {
    /// The peers.
    pub peers: Vec<Peer>,
    /// The beginning of the next page; absent after the last.
    #[serde(default)]
    pub next: Option<Cursor>,
}

/// The place at which a page begins. Only the daemon knows its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Cursor {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// A peer. Fields that a daemon does not have are unknown.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Peer {
    /// Its address.
    pub address: Ipv6Addr,
    /// Source and destination of its datagrams.
    pub mapped: SocketAddrV4,
    /// Whether the mapping is confirmed.
    pub state: PeerState,
    /// Whether the mapping differs from the one in the address.
    #[serde(default)]
    pub symmetric: bool,
    /// Whether the mapping is proved.
    #[serde(default)]
    pub proved: bool,
    /// Whether it is on the same link.
    #[serde(default)]
    pub local: bool,
    /// Whether the fast path has it.
    #[serde(default)]
    pub xdp: bool,
    /// Seconds since a packet of it arrived.
    #[serde(default)]
    pub last_received_seconds: Option<f64>,
    /// Seconds since a packet was sent to it.
    #[serde(default)]
    pub last_sent_seconds: Option<f64>,
    /// Packets since it is known.
    #[serde(default)]
    pub packets: Option<Both>,
    /// Octets of them.
    #[serde(default)]
    pub bytes: Option<Both>,
}

/// A number for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Both {
    /// To the peer.
    #[serde(default)]
    pub encap: u64,
    /// From the peer.
    #[serde(default)]
    pub decap: u64,
}

impl Both {
    /// The sum.
    pub fn total(self) -> u64 {
        self.encap.saturating_add(self.decap)
    }
}

/// What the view asks next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Parameters that select peers.
    pub selection: Vec<(&'static str, String)>,
    /// The beginning of the page of peers.
    pub after: Option<Cursor>,
    /// The peer that is opened.
    pub opened: Option<Ipv6Addr>,
}

/// The most peers of a page.
pub const PAGE: usize = 1_000;

impl Question {
    /// Returns the path of the page of peers.
    pub fn peers(&self) -> String {
        let mut path = format!("/v1/peers?limit={PAGE}");
        for (name, value) in &self.selection {
            path += &format!("&{name}={}", encode(value));
        }
        match &self.after {
            Some(Cursor::Text(cursor)) => path += &format!("&after={}", encode(cursor)),
            Some(Cursor::Number(cursor)) => path += &format!("&after={cursor}"),
            None => {}
        }
        path
    }

    /// Returns the path of the opened peer.
    pub fn opened(&self) -> Option<String> {
        let address = self.opened?;
        Some(format!("/v1/peers?limit=1&prefix={address}/128"))
    }
}

/// Encodes what may not be part of a value in a URI (RFC 3986 section 3.4).
fn encode(value: &str) -> String {
    let mut text = String::new();
    for octet in value.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                text.push(char::from(octet));
            }
            _ => text += &format!("%{octet:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_and_its_values_are_encoded() {
        let question = Question {
            selection: vec![("prefix", "2001:0:9::/48".to_owned())],
            after: Some(Cursor::Text("a+b&c".to_owned())),
            opened: Some(Ipv6Addr::LOCALHOST),
        };
        assert_eq!(
            question.peers(),
            "/v1/peers?limit=1000&prefix=2001:0:9::/48&after=a%2Bb%26c"
        );
        let opened = "/v1/peers?limit=1&prefix=::1/128";
        assert_eq!(question.opened().as_deref(), Some(opened));
    }

    #[test]
    fn what_a_daemon_does_not_know_is_unknown() {
        let page = r#"{"peers": [{"address": "2001:0:900:1::1", "mapped": "9.0.0.1:4096",
            "state": "trusted", "last_received_seconds": null, "later": {}}], "next": 7}"#;
        let page: Page = serde_json::from_str(page).unwrap();
        assert_eq!(page.next, Some(Cursor::Number(7)));
        assert_eq!(page.peers[0].packets, None);
        assert!(!page.peers[0].xdp);
    }
}
