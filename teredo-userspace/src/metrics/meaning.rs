//! The meaning of each counter, in the words of the documentation.

use std::{collections::BTreeMap, sync::LazyLock};

use teredo_common::verdict::{Action, Verdict};

use super::Role;

/// The page that describes every counter.
const PAGE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/statistics.md"
));

/// The section of the page for frames that the program drops.
const DROPPED: &str = "Dropped by the fast path";
/// The section for frames that it passes.
const PASSED: &str = "Passed by the fast path";

/// The meanings, by section of the page and name.
static MEANINGS: LazyLock<BTreeMap<(&str, &str), &str>> = LazyLock::new(|| {
    let mut meanings = BTreeMap::new();
    let mut section = "";
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some((name, meaning)) = row(line) {
            meanings.insert((section, name), meaning);
        }
    }
    meanings
});

/// Returns the name and the last cell of a row whose first cell is a name.
fn row(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
    let cells = rest.trim_end().strip_suffix(" |")?;
    Some((name, cells.rsplit_once("| ")?.1))
}

fn find(section: &str, name: &str) -> Option<&'static str> {
    MEANINGS.get(&(section, name)).copied()
}

/// Returns the meaning of a reason for which a role's daemon drops packets, in Markdown.
#[must_use]
pub fn dropped(role: Role, reason: &str) -> Option<&'static str> {
    let section = match role {
        Role::Relay => "Dropped by the relay",
        Role::Server => "Dropped by the server",
        Role::Client => "Dropped by the client",
    };
    find(section, reason)
}

/// Returns the meaning of a reason for which the fast path drops frames, in Markdown.
#[must_use]
pub fn dropped_by_fast_path(reason: &str) -> Option<&'static str> {
    find(DROPPED, reason)
}

/// Returns the meaning of a reason for which the fast path passes frames, in Markdown.
#[must_use]
pub fn passed(reason: &str) -> Option<&'static str> {
    find(PASSED, reason)
}

/// Returns the meaning of a verdict of the fast path, in Markdown.
#[must_use]
pub fn of_verdict(verdict: Verdict) -> &'static str {
    let meaning = match verdict.action() {
        Action::Drop => dropped_by_fast_path(verdict.reason()),
        Action::Pass => passed(verdict.reason()),
        Action::Forward => Some("It is forwarded."),
    };
    meaning.unwrap_or_default()
}

/// Returns the meaning of a client's state, in Markdown.
#[must_use]
pub fn of_client_state(name: &str) -> Option<&'static str> {
    find("State of the client", name)
}

/// Returns Markdown with the texts of its links in place of them.
#[must_use]
pub fn without_links(markdown: &str) -> String {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        rest = match link.split_once("](") {
            Some((label, target)) if !label.contains(']') => {
                text.push_str(label);
                target.split_once(')').map_or("", |(_, after)| after)
            }
            _ => {
                text.push('[');
                link
            }
        };
    }
    text + rest
}

/// Returns Markdown as plain text.
#[must_use]
pub fn plain(markdown: &str) -> String {
    without_links(markdown).replace('`', "")
}

#[cfg(test)]
mod tests {
    use teredo_proto::{client, relay, server};

    use super::*;
    use crate::metrics::STATES;

    #[test]
    fn every_reason_has_a_meaning() {
        let relay = relay::DropReason::ALL.iter().map(|reason| reason.reason());
        let server = server::DropReason::ALL.iter().map(|reason| reason.reason());
        let client = client::DropReason::ALL.iter().map(|reason| reason.reason());
        let relay = relay.map(|reason| (Role::Relay, reason));
        let server = server.map(|reason| (Role::Server, reason));
        let client = client.map(|reason| (Role::Client, reason));
        for (role, reason) in relay.chain(server).chain(client) {
            assert!(dropped(role, reason).is_some(), "{role:?} {reason}");
        }
        for &verdict in Verdict::ALL {
            assert_ne!(of_verdict(verdict), "", "{verdict:?}");
        }
        assert!(STATES.iter().all(|name| of_client_state(name).is_some()));
        assert_eq!(
            dropped(Role::Relay, "encap-draining"),
            Some("The relay drains and accepts no new peers.")
        );
    }

    #[test]
    fn meanings_are_whole_and_plain() {
        let text = "As `a<b`, see [the budget](x.md#y) [sic] & [more](z).";
        assert_eq!(plain(text), "As a<b, see the budget [sic] & more.");
        let text = plain(dropped_by_fast_path("decap-other-limit").unwrap());
        assert!(text.ends_with("have used up their budget."), "{text}");
    }
}
