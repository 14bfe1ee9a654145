//! Reasons in the words of the documentation.

use teredo_common::verdict::{Action, Verdict};

use crate::metrics::Role;

/// The page that describes every reason.
const PAGE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/statistics.md"
));

/// Returns the meaning of a reason for which a role's daemon drops packets.
pub fn of_role(role: Role, reason: &str) -> &'static str {
    find(&format!("## Dropped by the {}", role.name()), reason)
}

/// Returns the meaning of a verdict of the fast path, if it does not forward the frame.
pub fn of_verdict(verdict: Verdict) -> &'static str {
    let title = match verdict.action() {
        Action::Drop => "## Dropped by the fast path",
        Action::Pass => "## Passed by the fast path",
        Action::Forward => return "It is forwarded.",
    };
    find(title, verdict.reason())
}

/// Returns the meaning in the table below a title; empty if there is none.
fn find(title: &str, reason: &str) -> &'static str {
    let mut lines = PAGE.lines().skip_while(|line| *line != title).skip(1);
    let row = format!("| `{reason}` | ");
    let rows = lines.by_ref().take_while(|line| !line.starts_with("## "));
    let meaning = rows.into_iter().find_map(|line| line.strip_prefix(&*row));
    meaning.map_or("", |meaning| meaning.trim_end_matches(['|', ' ']))
}

#[cfg(test)]
mod tests {
    use teredo_proto::{client, relay, server};

    use super::*;

    #[test]
    fn every_reason_has_a_meaning() {
        for reason in relay::DropReason::ALL {
            assert_ne!(of_role(Role::Relay, reason.reason()), "", "{reason:?}");
        }
        for reason in server::DropReason::ALL {
            assert_ne!(of_role(Role::Server, reason.reason()), "", "{reason:?}");
        }
        for reason in client::DropReason::ALL {
            assert_ne!(of_role(Role::Client, reason.reason()), "", "{reason:?}");
        }
        for &verdict in Verdict::ALL {
            assert_ne!(of_verdict(verdict), "", "{verdict:?}");
        }
        assert_eq!(
            of_role(Role::Relay, "encap-draining"),
            "The relay drains and accepts no new peers."
        );
    }
}
