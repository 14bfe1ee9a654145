//! The findings, for people and programs.

use serde::Serialize;

use super::memory::Memory;
use crate::{
    condition::{Condition, Kind, Severity},
    metrics::Attachment,
    plan::Fix,
};

/// How a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It runs, but somebody should know this.
    Note,
    /// It runs, but without a part that the configuration asks for.
    Degraded,
    /// It starts, but does its job only when the host has changed.
    Waiting,
    /// It does not run, or not as configured.
    Trouble,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject of the examination.
    pub subject: &'static str,
    /// How it matters.
    pub verdict: Verdict,
    /// A sentence; of trouble, with the remedy.
    pub text: String,
    /// The condition that a running daemon would have.
    #[serde(skip)]
    pub condition: Option<Kind>,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order of looking; what others depend on comes first.
    pub findings: Vec<Finding>,
    /// The interfaces of the fast path, with the mode that it would have.
    pub xdp: Vec<Attachment>,
    /// The verifier's whole log, if the kernel refuses the program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verifier_log: String,
    /// Changes of the host that end some of the findings.
    #[serde(skip)]
    pub fixes: Vec<Fix>,
    /// The memory that the configuration takes.
    pub memory: Memory,
}

impl Report {
    /// A report in which nothing was looked at.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self {
            findings: Vec::new(),
            xdp: Vec::new(),
            verifier_log: String::new(),
            fixes: Vec::new(),
            memory,
        }
    }

    /// Adds a finding.
    pub fn add(&mut self, verdict: Verdict, subject: &'static str, text: impl Into<String>) {
        self.findings.push(Finding {
            subject,
            verdict,
            text: text.into(),
            condition: None,
        });
    }

    /// Adds something that is as it should be.
    pub fn fine(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(Verdict::Fine, subject, text);
    }

    /// Adds something to know.
    pub fn note(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(Verdict::Note, subject, text);
    }

    /// Adds trouble.
    pub fn trouble(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(Verdict::Trouble, subject, text);
    }

    /// Adds something that the daemon waits for.
    pub fn waiting(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(Verdict::Waiting, subject, text);
    }

    /// Adds something that the daemon does without.
    pub fn degraded(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(Verdict::Degraded, subject, text);
    }

    /// Adds a condition that a daemon would have.
    pub fn condition(&mut self, condition: &Condition) {
        self.findings.push(Finding {
            subject: subject(condition.kind),
            verdict: match condition.kind.severity() {
                Severity::Degraded => Verdict::Degraded,
                Severity::Down => Verdict::Waiting,
            },
            text: condition.text.clone(),
            condition: Some(condition.kind),
        });
    }

    /// Returns everything that is not as the configuration asks for.
    pub fn defects(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| {
            matches!(
                finding.verdict,
                Verdict::Degraded | Verdict::Waiting | Verdict::Trouble
            )
        })
    }

    /// Returns everything that keeps the daemon from running.
    pub fn troubles(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Trouble)
    }
}

/// Returns the subject under which a condition is shown.
const fn subject(kind: Kind) -> &'static str {
    match kind {
        Kind::AddressMissing | Kind::NoNetwork => "address",
        Kind::Setting => "forwarding",
        Kind::Route | Kind::RouteDamped | Kind::RouteDiverted => "route",
        Kind::Tunnel | Kind::TunnelAddress => "tun",
        Kind::InterfaceMissing | Kind::FastPathOff | Kind::FastPathDrops | Kind::MapFull => {
            "fast path"
        }
        Kind::FleetOutOfStep => "fleet",
        Kind::NoNativeRoute => "native",
        Kind::NameUnknown | Kind::ServerSilent | Kind::SecondarySilent | Kind::SymmetricNat => {
            "server"
        }
        Kind::Socket => "port",
        Kind::Firewall => "firewall",
        Kind::Resources | Kind::Contested | Kind::CollectorUnreachable => "daemon",
    }
}
