//! The report of a probe, as text and JSON.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use serde::Serialize;
use teredo_proto::{
    nat::{Filtering, Kind, Mapping, Ports},
    probe::{Findings, Lifetime, Reach, Way},
};

use super::failure::Failure;
use crate::{cli::output::sentence, config::ServerName};

/// The findings as `--json` prints them. Unknown findings are null.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether a client would work.
    works: bool,
    /// The same, with the reason, in one line.
    verdict: String,
    /// Suggestions for the user.
    hints: Vec<&'static str>,
    /// The obstacle, if a client would not work.
    error: Option<Problem>,
    server: Server,
    nat: Nat,
    /// The service socket, as this host knows it.
    local: SocketAddrV4,
    /// The service socket, as the server sees it.
    mapped: Option<SocketAddrV4>,
    /// The address that a client would have.
    address: Option<Ipv6Addr>,
    /// The server's MTU, in octets.
    mtu: Option<u16>,
    /// With `--interval`.
    refresh: Option<Refresh>,
    /// With `--relay-of`.
    relay: Option<Relay>,
}

/// An obstacle.
#[derive(Debug, Serialize)]
struct Problem {
    /// A word for it.
    kind: &'static str,
    /// One sentence about it.
    text: String,
}

/// A measurement without findings, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct FailureReport {
    works: bool,
    verdict: String,
    hints: Vec<&'static str>,
    error: Problem,
}

impl FailureReport {
    pub fn new(failure: Failure) -> Self {
        let kind = failure.kind();
        let text = sentence(&failure.into());
        Self {
            works: false,
            verdict: format!("Teredo cannot be measured: {text}"),
            hints: Vec::new(),
            error: Problem { kind, text },
        }
    }
}

#[derive(Debug, Serialize)]
struct Server {
    name: String,
    port: u16,
    primary: Address,
    secondary: Address,
    forwards_bubbles: Option<bool>,
}

/// One of the server's addresses.
#[derive(Debug, Serialize)]
struct Address {
    address: Ipv4Addr,
    answers: bool,
    round_trip_seconds: Option<f64>,
    /// Why its answers are not accepted, as the statistics of a client name it.
    rejected: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Nat {
    present: Option<bool>,
    /// In the terms of game consoles.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    /// In the terms of RFC 4787.
    mapping: Option<&'static str>,
    filtering: Option<&'static str>,
    hairpinning: Option<bool>,
    ports: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Refresh {
    /// The interval that a client would measure.
    seconds: f64,
    /// The longest time without traffic after which the mapping was kept,
    kept_seconds: Option<f64>,
    /// and the shortest after which it was lost.
    lost_seconds: Option<f64>,
}

/// The relay by which packets of a native host come to clients.
#[derive(Debug, Serialize)]
struct Relay {
    host: Ipv6Addr,
    /// Absent if the host does not answer.
    endpoint: Option<SocketAddrV4>,
    /// From the test to its answer, the introduction of the relay included.
    first_answer_seconds: Option<f64>,
    /// Whether the relay introduced itself before the answer came.
    introduced: Option<bool>,
}

impl Relay {
    fn new((host, way): (Ipv6Addr, Way)) -> Self {
        let answer = match way {
            Way::NoServer | Way::Silent => None,
            Way::Answers {
                relay,
                first,
                introduced,
            } => Some((relay.into(), first.as_secs_f64(), introduced)),
        };
        Self {
            host,
            endpoint: answer.map(|(relay, ..)| relay),
            first_answer_seconds: answer.map(|(_, first, _)| first),
            introduced: answer.map(|(.., introduced)| introduced),
        }
    }

    fn to_text(&self) -> String {
        let host = self.host;
        match (self.endpoint, self.first_answer_seconds) {
            (Some(relay), Some(seconds)) => {
                let milliseconds = 1000.0 * seconds;
                format!("{relay} for {host}, which answers after {milliseconds:.1} ms")
            }
            _ => format!(
                "{host} does not answer: it is not there, its network has no relay, or the server does not \
                 forward connectivity tests"
            ),
        }
    }
}

impl Report {
    pub fn new(
        name: &ServerName,
        findings: &Findings,
        lifetime: Option<Lifetime>,
        way: Option<(Ipv6Addr, Way)>,
    ) -> Self {
        let verdict = judge(name, findings);
        let seconds = |time: Option<Duration>| time.as_ref().map(Duration::as_secs_f64);
        Self {
            works: findings.works(),
            verdict: verdict.text,
            hints: verdict.hints,
            error: verdict.error,
            server: Server {
                name: name.to_string(),
                port: name.port,
                primary: Address::new(findings.server.primary, findings.primary),
                secondary: Address::new(findings.server.secondary, findings.secondary),
                forwards_bubbles: findings.bubbles,
            },
            nat: Nat {
                present: findings.is_behind_nat(),
                kind: findings.kind().map(Kind::name),
                mapping: findings.mapping.map(Mapping::name),
                filtering: findings.filtering.map(Filtering::name),
                hairpinning: findings.hairpinning,
                ports: findings.ports.map(Ports::name),
            },
            local: findings.local.into(),
            mapped: findings.mapped.map(Into::into),
            address: findings.address,
            mtu: findings.mtu,
            refresh: lifetime.map(|lifetime| Refresh {
                seconds: lifetime.refresh().as_secs_f64(),
                kept_seconds: seconds(lifetime.kept),
                lost_seconds: seconds(lifetime.lost),
            }),
            relay: way.map(Relay::new),
        }
    }

    /// Returns whether a client would work.
    pub const fn works(&self) -> bool {
        self.works
    }

    /// Returns the verdict, a line for each finding, and the hints.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n\n", self.verdict);
        let mut line = |name: &str, value: Option<String>| {
            let value = value.as_deref().unwrap_or("not known");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:13} {value}");
        };
        let known = |name: Option<&str>| name.map(str::to_owned);
        let yes_or_no = |is_so: Option<bool>| known(is_so.map(|is| if is { "yes" } else { "no" }));
        line("server", Some(self.server.primary.to_text()));
        line("  secondary", Some(self.server.secondary.to_text()));
        if self.server.primary.answers {
            line(
                "  bubbles",
                known(self.server.forwards_bubbles.map(forwarded)),
            );
            line("NAT", yes_or_no(self.nat.present));
            line("  type", known(self.nat.kind));
            line("  mapping", known(self.nat.mapping));
            line("  filtering", known(self.nat.filtering));
            line("  ports", known(self.nat.ports));
            if self.nat.present == Some(true) {
                line("  hairpinning", yes_or_no(self.nat.hairpinning));
            }
        }
        line("local", Some(self.local.to_string()));
        if let (Some(mapped), Some(address), Some(mtu)) = (self.mapped, self.address, self.mtu) {
            line("mapped", Some(mapped.to_string()));
            line("address", Some(address.to_string()));
            line("MTU", Some(mtu.to_string()));
        }
        if let Some(refresh) = &self.refresh {
            line("refresh", Some(refresh.to_text()));
        }
        if let Some(relay) = &self.relay {
            line("relay", Some(relay.to_text()));
        }
        if !self.hints.is_empty() {
            text.push('\n');
        }
        for hint in &self.hints {
            text += hint;
            text.push('\n');
        }
        text
    }
}

fn forwarded(are: bool) -> &'static str {
    if are { "forwarded" } else { "not forwarded" }
}

impl Address {
    fn new(address: Ipv4Addr, reach: Reach) -> Self {
        let (round_trip, rejected) = match reach {
            Reach::Answers(round_trip) => (Some(round_trip.as_secs_f64()), None),
            Reach::Silent => (None, None),
            Reach::Rejected(reason) => (None, Some(reason.reason())),
        };
        Self {
            address,
            answers: reach.is_answer(),
            round_trip_seconds: round_trip,
            rejected,
        }
    }

    fn to_text(&self) -> String {
        let address = self.address;
        match (self.round_trip_seconds, self.rejected) {
            (Some(seconds), _) => format!("{address} answers in {:.1} ms", 1000.0 * seconds),
            (None, Some(reason)) => format!("{address} answers wrongly ({reason})"),
            (None, None) => format!("{address} does not answer"),
        }
    }
}

impl Refresh {
    fn to_text(&self) -> String {
        let seconds = self.seconds;
        match (self.kept_seconds, self.lost_seconds) {
            (None, _) => "the NAT keeps no mapping long enough".to_owned(),
            (Some(kept), None) => {
                format!("{seconds} s (mappings are kept for {kept} s and longer)")
            }
            (Some(kept), Some(lost)) => {
                format!("{seconds} s (mappings are kept for {kept} s, not for {lost} s)")
            }
        }
    }
}

/// The way to an open NAT.
const OPEN_NAT: &[&str] = &[
    "For an open type, enable UPnP in the router, or let it forward a UDP port to this host:",
    "client.port in the configuration, --port here.",
];
/// The drawback of a strict NAT.
const STRICT: &[&str] =
    &["Some peers cannot be reached: none behind other strict NATs, few behind moderate ones."];

/// The result in words.
struct Verdict {
    text: String,
    hints: Vec<&'static str>,
    error: Option<Problem>,
}

impl Verdict {
    fn works(nat: &str, hints: Vec<&'static str>) -> Self {
        Self {
            text: format!("Teredo works: {nat}"),
            hints,
            error: None,
        }
    }

    fn fails(kind: &'static str, why: String, hints: Vec<&'static str>) -> Self {
        Self {
            text: format!("Teredo does not work: {why}"),
            hints,
            error: Some(Problem { kind, text: why }),
        }
    }
}

/// Returns whether Teredo works, and suggestions.
fn judge(name: &ServerName, findings: &Findings) -> Verdict {
    use Reach::{Answers, Rejected, Silent};
    let (primary, secondary) = (findings.server.primary, findings.server.secondary);
    let port = findings.server.port;
    match (findings.primary, findings.secondary) {
        (Silent, Silent) => Verdict::fails(
            "no-answer",
            format!("no answer from {} port {port}/udp", name.host),
            vec![
                "The server may be down, or serve only clients with keys, or a firewall may block UDP \
                 to this port.",
                "Try another server, and another network.",
            ],
        ),
        (Silent, _) => Verdict::fails(
            "primary-silent",
            format!("{primary} port {port}/udp does not answer; its neighbour {secondary} does"),
            vec!["Is the other address the primary one?"],
        ),
        (Rejected(_), _) => Verdict::fails(
            "primary-rejected",
            format!("{primary} answers, but not as a server with this primary address"),
            vec!["Is it the server's secondary address?"],
        ),
        (Answers(_), Silent | Rejected(_)) => Verdict::fails(
            "secondary-silent",
            format!("the server's secondary address {secondary} does not answer"),
            vec!["If the secondary address is another one: --secondary, and client.secondary."],
        ),
        (Answers(_), Answers(_)) => judge_mapping(findings),
    }
}

/// Returns the same for a server that answers.
fn judge_mapping(findings: &Findings) -> Verdict {
    if findings.is_global() != Some(true) {
        let mapped = findings.mapped.map(|mapped| mapped.ip().to_string());
        let mapped = mapped.unwrap_or_default();
        return Verdict::fails(
            "mapped-not-global",
            format!(
                "the server sees this host at {mapped}, which is not an address of the internet"
            ),
            vec!["Use a server on the internet, not one in the same private network."],
        );
    }
    match findings.bubbles {
        Some(true) => judge_nat(findings),
        Some(false) => Verdict::fails(
            "no-bubbles",
            "the server answers, but forwards no bubbles, without which no peer can be reached"
                .to_owned(),
            vec!["Try another server."],
        ),
        None => Verdict::fails(
            "answers-limited",
            "the server answers one port of this host, but not all".to_owned(),
            vec!["Try again in a minute; the server may have limited its answers."],
        ),
    }
}

/// Returns the verdict where a client works: the type of the NAT, and ways to a better one.
fn judge_nat(findings: &Findings) -> Verdict {
    let hints = match findings.kind() {
        Some(Kind::Moderate) => OPEN_NAT.to_vec(),
        Some(Kind::Strict) => [STRICT, OPEN_NAT].concat(),
        Some(Kind::Open) | None => vec![],
    };
    match (findings.kind(), findings.is_behind_nat()) {
        (Some(Kind::Open), Some(false)) => Verdict::works("there is no NAT", vec![]),
        (_, Some(false)) => Verdict::works(
            "there is no NAT, but a firewall",
            vec!["For an open type, let the firewall accept UDP to the client's port."],
        ),
        _ => Verdict::works(
            &format!("NAT type {}", findings.behaviour().type_name()),
            hints,
        ),
    }
}
