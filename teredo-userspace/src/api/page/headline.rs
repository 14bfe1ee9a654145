//! What is seen first: whether all is well, and if not, what is wrong and the remedy.

use maud::{Markup, html};

use super::{
    numbers::{duration, grouped},
    words,
};
use crate::{
    api::types::{Condition, Status, Verdict},
    condition::Severity,
};

/// The states of a client that is on its way to an address.
const ON_THE_WAY: [&str; 3] = ["stopped", "starting", "second"];

/// The state of the daemon in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Every role does its job.
    Ok,
    /// A role has yet to begin.
    Starting,
    /// A role takes nothing new.
    Draining,
    /// A role does its job slower or not completely.
    Degraded,
    /// A role does not do its job.
    Down,
}

impl Word {
    fn of(status: &Status) -> Self {
        let client = status.client.as_ref();
        match status.verdict {
            Verdict::Down => Self::Down,
            Verdict::Degraded => Self::Degraded,
            Verdict::Ok if !status.draining.is_empty() => Self::Draining,
            Verdict::Ok if status.roles.is_empty() => Self::Starting,
            Verdict::Ok if client.is_some_and(|client| ON_THE_WAY.contains(&&*client.state)) => {
                Self::Starting
            }
            Verdict::Ok => Self::Ok,
        }
    }

    /// The word, which is also the name of its class in the style.
    const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    /// A sign beside it, since not everybody sees colours.
    const fn sign(self) -> &'static str {
        match self {
            Self::Ok => "✓",
            Self::Starting => "…",
            Self::Draining => "↓",
            Self::Degraded => "!",
            Self::Down => "✕",
        }
    }
}

/// Returns the class of the whole page, and its title.
pub fn title(status: &Status) -> (&'static str, String) {
    let word = Word::of(status).text();
    (word, format!("{word} · {} · teredo", status.name))
}

/// Renders the band at the top.
pub fn band(status: &Status) -> Markup {
    let word = Word::of(status);
    html! {
        // Only changes of the state are read aloud.
        div #band class={ "band " (word.text()) } role="status" aria-atomic="true" {
            span .sign aria-hidden="true" { (word.sign()) }
            div {
                h1 { (word.text()) }
                p { (words::with_code(&sentence(word, status))) }
            }
        }
    }
}

/// Says what the word means here. It stays the same as long as the state does.
fn sentence(word: Word, status: &Status) -> String {
    let roles = status.roles.join(" and ");
    match word {
        Word::Ok => match status.client.as_ref().and_then(|client| client.address) {
            Some(address) => format!("The client has the address {address}."),
            None => format!("The {roles} {} at work.", verb(&status.roles)),
        },
        Word::Starting if status.roles.is_empty() => "No role runs yet.".to_owned(),
        Word::Starting => format!("The {roles} has no address yet."),
        Word::Draining => format!(
            "The {} {} nothing new. Stop the daemon when no peers remain.",
            status.draining.join(" and "),
            if status.draining.len() == 1 {
                "takes"
            } else {
                "take"
            },
        ),
        Word::Degraded => first(status, Severity::Degraded),
        Word::Down => first(status, Severity::Down),
    }
}

/// Returns the first reason of this severity, with its remedy, and the number of the others.
fn first(status: &Status, severity: Severity) -> String {
    let mut conditions = status.conditions.iter();
    let first = conditions.find(|condition| condition.severity == severity);
    let text = first.map_or("", |first| &first.text);
    match status.conditions.len() {
        0 | 1 => text.to_owned(),
        number => format!("{text} (and {} more)", number - 1),
    }
}

fn verb(roles: &[String]) -> &'static str {
    if roles.len() == 1 { "is" } else { "are" }
}

/// Renders the conditions, those that matter most first.
pub fn conditions_list(status: &Status) -> Markup {
    let mut conditions: Vec<_> = status.conditions.iter().collect();
    conditions.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
    html! {
        section #conditions aria-labelledby="conditions-title" {
            h2 #conditions-title { "Conditions" }
            @if conditions.is_empty() {
                p .nothing { "None." }
            } @else {
                ul .conditions {
                    @for condition in conditions { (item(condition)) }
                }
            }
        }
    }
}

fn item(condition: &Condition) -> Markup {
    let severity = match condition.severity {
        Severity::Degraded => "degraded",
        Severity::Down => "down",
    };
    html! {
        li .(severity) {
            p .what { (words::with_code(&condition.text)) }
            p .which {
                span .badge { (severity) }
                " " code { (condition.kind) }
                " " (condition.role)
                @if !condition.subject.is_empty() { " " code { (condition.subject) } }
                " for " (duration(condition.since_seconds))
            }
        }
    }
}

/// Renders the line about the daemon itself.
pub fn daemon(status: &Status) -> Markup {
    html! {
        p #daemon {
            strong { (status.name) }
            " teredo " (status.version)
            " · " (status.roles.join(", "))
            " · up " (duration(status.uptime_seconds))
            @for (role, endpoints) in &status.endpoints {
                " · " (role) " at UDP "
                @for (number, endpoint) in endpoints.iter().enumerate() {
                    @if number > 0 { ", " }
                    (endpoint)
                }
            }
            @for (role, date) in &status.sunset { " · the " (role) " ends on " (date) }
            @if !status.draining.is_empty() {
                @let remaining = status.peers.trusted + status.peers.untrusted;
                " · " (grouped(remaining))
                @if remaining == 1 { " peer remains" } @else { " peers remain" }
            }
        }
    }
}
