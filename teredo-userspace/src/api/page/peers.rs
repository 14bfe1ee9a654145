//! The peers, filtered, and as many as a person reads.

use maud::{Markup, html};
use serde::Deserialize;

use super::numbers::{duration, grouped, octets};
use crate::{
    api::{
        filter::{self, parse_endpoint, parse_prefix},
        handle::Stopped,
        server::Access,
        types::{Count, Peer, PeerState, Status},
    },
    metrics::Path,
};

/// The most peers on a page.
const ROWS: usize = 50;
/// The most lists of the node that one page looks through: some 10,000 peers at least.
const LISTS: usize = 64;

/// The fields of the form, as they were typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    prefix: String,
    endpoint: String,
    state: String,
    path: String,
    after: String,
}

/// What the fields select.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    filter: filter::Filter,
    /// The node's cursor at which the list goes on.
    after: u64,
}

impl Filter {
    /// Reads the fields.
    ///
    /// # Errors
    ///
    /// A sentence with the first field that cannot be read.
    pub fn parse(&self) -> Result<Wanted, String> {
        let wrong =
            |field, value: &str, permitted| format!("{field} “{value}” is not {permitted}.");
        let prefix = match self.prefix.trim() {
            "" => None,
            text => Some(parse_prefix(text).ok_or_else(|| {
                wrong(
                    "The address",
                    text,
                    "an IPv6 address or prefix such as 2001:0:5333::/48",
                )
            })?),
        };
        let endpoint = match self.endpoint.trim() {
            "" => None,
            text => Some(parse_endpoint(text).ok_or_else(|| {
                wrong("The endpoint", text, "an IPv4 address, with a port or not")
            })?),
        };
        let state = match &*self.state {
            "" => None,
            "trusted" => Some(PeerState::Trusted),
            "untrusted" => Some(PeerState::Untrusted),
            other => return Err(wrong("The state", other, "trusted or untrusted")),
        };
        let path = match &*self.path {
            "" => None,
            "xdp" => Some(Path::Xdp),
            "userspace" => Some(Path::Userspace),
            other => return Err(wrong("The path", other, "xdp or userspace")),
        };
        let after = match &*self.after {
            "" => 0,
            text => (text.parse()).map_err(|_| wrong("The place", text, "one of this list"))?,
        };
        let filter = filter::Filter {
            prefix,
            endpoint,
            state,
            path,
        };
        Ok(Wanted { filter, after })
    }

    /// Returns the address of the page at another place.
    fn link(&self, after: Option<u64>) -> String {
        let mut link = "/?".to_owned();
        let after = after.map(|cursor| cursor.to_string());
        for (name, value) in [
            ("prefix", &*self.prefix),
            ("endpoint", &self.endpoint),
            ("state", &self.state),
            ("path", &self.path),
            ("after", after.as_deref().unwrap_or_default()),
        ] {
            if !value.is_empty() {
                // What parses has no character that an address must not have, other than these.
                let value = value.trim().replace('/', "%2F");
                link += &format!("{name}={value}&");
            }
        }
        link.pop();
        link + "#peers"
    }

    fn is_set(&self) -> bool {
        [&self.prefix, &self.endpoint, &self.state, &self.path]
            .iter()
            .any(|field| !field.trim().is_empty())
    }
}

/// The peers of one page.
#[derive(Debug, Default)]
pub struct Listing {
    peers: Vec<Peer>,
    next: Option<u64>,
    refusal: Option<String>,
}

impl Listing {
    /// Returns an empty page with the reason why there is none.
    pub fn refused(refusal: String) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::default()
        }
    }

    /// Reads the peers that are wanted from the node.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn read(access: &Access, wanted: &Wanted) -> Result<Self, Stopped> {
        let mut listing = Self::default();
        let mut cursor = wanted.after;
        for _ in 0..LISTS {
            let most = ROWS - listing.peers.len();
            let list = (access.listings).page(&access.handle, cursor, most, wanted.filter);
            let list = list.await?;
            listing.peers.extend(list.peers);
            listing.next = list.next;
            match list.next {
                Some(next) if listing.peers.len() < ROWS => cursor = next,
                _ => break,
            }
        }
        Ok(listing)
    }

    /// Renders the form and the table.
    pub fn render(&self, status: &Status, filter: &Filter) -> Markup {
        html! {
            section #peers aria-labelledby="peers-title" {
                h2 #peers-title {
                    "Peers " span .unit {
                        (grouped(status.peers.trusted + status.peers.untrusted))
                    }
                }
                (form(filter))
                @if let Some(refusal) = &self.refusal {
                    p .refusal role="alert" { (refusal) }
                } @else {
                    (self.table(filter))
                }
            }
        }
    }

    fn table(&self, filter: &Filter) -> Markup {
        html! {
            @if self.peers.is_empty() {
                p .nothing {
                    @if self.next.is_some() { "None among those that were looked at so far." }
                    @else if filter.is_set() { "No peer is like that." }
                    @else { "None." }
                }
            } @else {
                div .scroll tabindex="0" role="region" aria-labelledby="peers-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Teredo address" }
                            th scope="col" { "Mapped endpoint" }
                            th scope="col" { "State" }
                            th scope="col" { "Path" }
                            th .number scope="col" { "Heard" }
                            th .number scope="col" { "Sent to" }
                            th .number scope="col" { "From it" }
                            th .number scope="col" { "To it" }
                        } }
                        tbody { @for peer in &self.peers { (row(peer)) } }
                    }
                }
            }
            nav .pages aria-label="Pages of peers" {
                @if !filter.after.is_empty() { a href=(filter.link(None)) { "From the beginning" } }
                @if let Some(next) = self.next {
                    a href=(filter.link(Some(next))) rel="next" { "More peers" }
                }
            }
        }
    }
}

fn row(peer: &Peer) -> Markup {
    let state = match (peer.state, peer.symmetric) {
        (PeerState::Untrusted, _) => "untrusted",
        _ if peer.local => "trusted (local)",
        (PeerState::Trusted, true) => "trusted (symmetric)",
        (PeerState::Trusted, false) => "trusted",
    };
    let ago = |seconds: Option<f64>| {
        seconds.map_or("never".to_owned(), |seconds| {
            format!("{} ago", duration(seconds))
        })
    };
    html! {
        tr {
            th scope="row" { code { (peer.address) } }
            td { code { (peer.mapped) } }
            td { (state) }
            td { @if peer.xdp { "fast path" } @else { "daemon" } }
            td .number { (ago(peer.last_received_seconds)) }
            td .number { (ago(peer.last_sent_seconds)) }
            (traffic(peer, |count| count.decap))
            (traffic(peer, |count| count.encap))
        }
    }
}

/// Shows the traffic in one direction, if it is counted.
fn traffic(peer: &Peer, of: fn(Count) -> u64) -> Markup {
    html! {
        @if let (Some(packets), Some(bytes)) = (peer.packets, peer.bytes) {
            td .number title={ (grouped(of(packets))) " packets" } { (octets(of(bytes))) }
        } @else {
            td .number { "not counted" }
        }
    }
}

fn form(filter: &Filter) -> Markup {
    let choice = |name: &str, label: &str, value: &str, options: [(&str, &str); 3]| {
        html! {
            label { (label)
                select name=(name) {
                    @for (option, text) in options {
                        option value=(option) selected[option == value] { (text) }
                    }
                }
            }
        }
    };
    html! {
        form .filter method="get" action="/#peers" {
            label { "Address or prefix"
                input type="text" name="prefix" value=(filter.prefix) placeholder="2001:0:…"
                    autocomplete="off" spellcheck="false" maxlength="64";
            }
            label { "Endpoint"
                input type="text" name="endpoint" value=(filter.endpoint)
                    placeholder="192.0.2.1:4096" autocomplete="off" spellcheck="false" maxlength="64";
            }
            (choice("state", "State", &filter.state, [
                ("", "all"), ("trusted", "trusted"), ("untrusted", "untrusted"),
            ]))
            (choice("path", "Path", &filter.path, [
                ("", "all"), ("xdp", "fast path"), ("userspace", "daemon"),
            ]))
            button type="submit" { "Filter" }
            @if filter.is_set() { a href="/#peers" { "Show all" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    }

    #[test]
    fn peers_are_selected_by_every_field() {
        type Change = fn(&mut Filter, &str);
        let prefix: Change = |filter, value| filter.prefix = value.to_owned();
        let endpoint: Change = |filter, value| filter.endpoint = value.to_owned();
        let state: Change = |filter, value| filter.state = value.to_owned();
        let path: Change = |filter, value| filter.path = value.to_owned();
        for (change, value, is_wanted) in [
            (prefix, "", true),
            (prefix, " 2001:0:5333:1::1 ", true),
            (prefix, "2001:0:5333:1::2", false),
            (prefix, "2001:0:5333::/48", true),
            (prefix, "2001:0:5334::/48", false),
            (endpoint, "192.0.2.1", true),
            (endpoint, "192.0.2.1:4096", true),
            (endpoint, "192.0.2.1:4097", false),
            (endpoint, "192.0.2.2", false),
            (state, "trusted", true),
            (state, "untrusted", false),
            (path, "xdp", true),
            (path, "userspace", false),
        ] {
            let wanted = filter(|filter| change(filter, value)).parse().unwrap();
            let (address, mapped) = ("2001:0:5333:1::1", "192.0.2.1:4096");
            let (address, mapped) = (address.parse().unwrap(), mapped.parse().unwrap());
            let is_like_that = wanted.filter.admits(address, mapped, PeerState::Trusted)
                && wanted.filter.admits_path(Path::Xdp);
            assert_eq!(is_like_that, is_wanted, "{value}");
        }
        for (change, value) in [
            (prefix, "2001::/129"),
            (prefix, "<script>"),
            (endpoint, "192.0.2.1:"),
            (endpoint, "2001::1"),
            (state, "odd"),
            (path, "odd"),
        ] {
            let refusal = filter(|filter| change(filter, value)).parse().unwrap_err();
            assert!(refusal.contains(value), "{refusal}");
        }
    }

    #[test]
    fn links_keep_the_filter() {
        let filter = filter(|filter| {
            filter.prefix = "2001::/32".to_owned();
            filter.state = "trusted".to_owned();
            filter.after = "12".to_owned();
        });
        assert_eq!(
            filter.link(Some(750)),
            "/?prefix=2001::%2F32&state=trusted&after=750#peers"
        );
        assert_eq!(
            filter.link(None),
            "/?prefix=2001::%2F32&state=trusted#peers"
        );
        assert_eq!(Filter::default().link(None), "/#peers");
    }
}
