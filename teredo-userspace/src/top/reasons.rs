//! The reasons of drops in words, those of the documentation.

use std::{collections::BTreeMap, sync::LazyLock};

const DOCUMENTATION: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/statistics.md"
));

static MEANINGS: LazyLock<BTreeMap<&str, BTreeMap<&str, String>>> = LazyLock::new(meanings);

/// Returns the meaning of a reason for which packets are dropped by a daemon with these roles.
pub fn dropped(roles: &[String], reason: &str) -> Option<&'static str> {
    let roles = roles.iter().map(String::as_str);
    roles
        .chain(["fast path"])
        .find_map(|role| meaning(&format!("Dropped by the {role}"), reason))
}

/// Returns the meaning of a reason for which the fast path passes frames.
pub fn passed(reason: &str) -> Option<&'static str> {
    meaning("Passed by the fast path", reason)
}

fn meaning(section: &str, reason: &str) -> Option<&'static str> {
    MEANINGS.get(section)?.get(reason).map(String::as_str)
}

/// Reads the tables of the documentation, by section and reason.
fn meanings() -> BTreeMap<&'static str, BTreeMap<&'static str, String>> {
    let mut section = "";
    let mut meanings = BTreeMap::<_, BTreeMap<_, _>>::new();
    for line in DOCUMENTATION.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some(row) = line.strip_prefix("| `")
            && let Some((reason, rest)) = row.split_once("` | ")
        {
            let text = rest.trim_end().trim_end_matches('|').trim();
            let meanings = meanings.entry(section).or_default();
            meanings.insert(reason, plain(text));
        }
    }
    meanings
}

/// Returns a text without the marks of Markdown.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain += before;
        let Some((label, after)) = after.split_once("](") else {
            rest = after;
            continue;
        };
        plain += label;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain += rest;
    plain.replace('`', "")
}

#[cfg(test)]
mod tests {
    use teredo_common::verdict::{Action, Verdict};
    use teredo_proto::{client, relay, server};

    use super::*;

    #[test]
    fn every_reason_has_a_meaning() {
        let has = |role: &str, reason| {
            let meaning = dropped(&[role.to_owned()], reason);
            assert!(
                meaning.is_some_and(|meaning| !meaning.is_empty()),
                "{role} {reason}"
            );
        };
        for reason in relay::DropReason::ALL {
            has("relay", reason.reason());
        }
        for reason in server::DropReason::ALL {
            has("server", reason.reason());
        }
        for reason in client::DropReason::ALL {
            has("client", reason.reason());
        }
        for verdict in Verdict::ALL {
            match verdict.action() {
                Action::Drop => has("none", verdict.reason()),
                Action::Pass => assert!(passed(verdict.reason()).is_some()),
                Action::Forward => {}
            }
        }
    }

    #[test]
    fn meanings_are_plain_text() {
        assert_eq!(plain("see [a page](b.md#c), `x` too"), "see a page, x too");
        let text = dropped(&[], "decap-other-limit").unwrap();
        assert!(text.ends_with("have used up their budget."), "{text}");
    }
}
