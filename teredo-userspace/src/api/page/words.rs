//! The meaning of each counter, in the words of the documentation.

use std::{collections::HashMap, sync::LazyLock};

use maud::{Markup, html};

use crate::metrics::{Path, Role};

const DOCUMENTATION: &str = include_str!("../../../../docs/statistics.md");

/// The meanings, by section of the documentation and name.
static MEANINGS: LazyLock<HashMap<(&str, &str), &str>> = LazyLock::new(|| {
    let mut meanings = HashMap::new();
    let mut section = "";
    for line in DOCUMENTATION.lines() {
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

/// Returns the meaning of a reason for drops, if it is documented.
pub fn dropped(role: Role, path: Path, reason: &str) -> Option<&'static str> {
    let section = match (path, role) {
        (Path::Xdp, _) => "Dropped by the fast path",
        (Path::Userspace, Role::Relay) => "Dropped by the relay",
        (Path::Userspace, Role::Server) => "Dropped by the server",
        (Path::Userspace, Role::Client) => "Dropped by the client",
    };
    MEANINGS.get(&(section, reason)).copied()
}

/// Returns the meaning of a reason for which the fast path passes frames, if it is documented.
pub fn passed(reason: &str) -> Option<&'static str> {
    MEANINGS.get(&("Passed by the fast path", reason)).copied()
}

/// Returns the meaning of a client's state, if it is documented.
pub fn state(name: &str) -> Option<&'static str> {
    MEANINGS.get(&("State of the client", name)).copied()
}

/// Shows Markdown of the documentation: code as such, and of links the text.
pub fn render(markdown: &str) -> Markup {
    with_code(&without_links(markdown))
}

/// Shows a text with its commands and names between backticks as such.
pub fn with_code(text: &str) -> Markup {
    html! {
        @for (number, part) in text.split('`').enumerate() {
            @if number % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn without_links(markdown: &str) -> String {
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

#[cfg(test)]
mod tests {
    use teredo_common::verdict::{Action, Direction, Verdict};
    use teredo_proto::{client, relay, server};

    use super::*;
    use crate::metrics::STATES;

    #[test]
    fn every_reason_has_a_meaning() {
        for verdict in Verdict::ALL {
            let role = match verdict.direction() {
                Some(Direction::Respond) => Role::Server,
                _ => Role::Relay,
            };
            let meaning = match verdict.action() {
                Action::Drop => dropped(role, Path::Xdp, verdict.reason()),
                Action::Pass => passed(verdict.reason()),
                Action::Forward => continue,
            };
            assert!(meaning.is_some(), "{verdict:?}");
        }
        let relay = relay::DropReason::ALL.iter().map(|reason| reason.reason());
        let server = server::DropReason::ALL.iter().map(|reason| reason.reason());
        let client = client::DropReason::ALL.iter().map(|reason| reason.reason());
        let relay = relay.map(|reason| (Role::Relay, reason));
        let server = server.map(|reason| (Role::Server, reason));
        let client = client.map(|reason| (Role::Client, reason));
        for (role, reason) in relay.chain(server).chain(client) {
            let meaning = dropped(role, Path::Userspace, reason);
            assert!(meaning.is_some(), "{role:?} {reason}");
        }
        assert!(STATES.iter().all(|name| state(name).is_some()));
    }

    #[test]
    fn markdown_is_shown_without_its_signs() {
        let text = render("As `a<b`, see [the budget](x.md#y) [sic] & [more](z).").into_string();
        let expected = "As <code>a&lt;b</code>, see the budget [sic] &amp; more.";
        assert_eq!(text, expected);
    }
}
