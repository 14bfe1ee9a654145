//! What the running daemon would do with a packet now, and why: `teredo explain`.
//!
//! [`Subject`] is the question. The node answers with [`Facts`], which hold copies of the machines and of the
//! maps, so that trying a packet changes nothing. [`explain`] lets them decide, looks at the kernel's
//! routes, and gives a list of [`Step`]s, of which the most important one is the cause.

mod capture;
mod facts;
mod fast_path;
mod frames;
mod host;
mod link;
mod packet;
mod steps;
mod subject;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use teredo_common::address::{ServicePrefix, TeredoAddress};

pub use capture::{CaptureError, read as read_capture};
pub use facts::{Facts, FastPathFacts, KnownPeer, Question, RelayFacts, ServerFacts};
pub use host::{HostFacts, look as look_at_host};
pub use packet::{Packet, PacketError, parse_hexadecimal};
pub use steps::{explain, explain_alone};
pub use subject::{Subject, SubjectError};

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The subject as it was understood.
    pub subject: String,
    /// The fields of the Teredo address in question, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teredo: Option<Decoded>,
    /// The findings, in the order of a packet's way.
    pub steps: Vec<Step>,
    /// The outcome.
    pub verdict: Verdict,
    /// One sentence: the cause, with the remedy if there is one.
    pub cause: String,
    /// The inode of the daemon's network namespace, in which a firewall matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<u64>,
}

/// The outcome for the subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Packets go through at once.
    Passes,
    /// Packets wait until the other end has answered.
    Waits,
    /// Something is in the way.
    Fault,
    /// There is too little to say.
    #[default]
    Unknown,
}

impl Verdict {
    /// Returns how much the outcome matters beside that of another role.
    const fn weight(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Passes => 1,
            Self::Waits => 2,
            Self::Fault => 3,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The part of the way.
    pub stage: Stage,
    /// How it matters.
    pub finding: Finding,
    /// The reason in statistics, or the kind of a condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence; of a fault, with the remedy.
    pub text: String,
}

/// A part of the way. The order is that in which parts are shown.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The address, endpoint or packet itself.
    Subject,
    /// The peer, as the daemon knows it.
    Peer,
    /// The data path of the XDP program.
    FastPath,
    /// The protocol in the daemon.
    Daemon,
    /// Routes, neighbours, the firewall, and conditions of the host.
    Host,
    /// Limits near their ends.
    Limits,
}

impl Stage {
    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Peer => "peer",
            Self::FastPath => "fast path",
            Self::Daemon => "daemon",
            Self::Host => "host",
            Self::Limits => "limits",
        }
    }

    /// Returns the place of a fault of this stage among the possible causes: the lower, the more
    /// fundamental. A silent peer may be the effect of everything else.
    const fn rank(self) -> u8 {
        match self {
            Self::Subject => 0,
            Self::Host => 1,
            Self::Daemon => 2,
            Self::Limits => 3,
            Self::FastPath => 4,
            Self::Peer => 5,
        }
    }
}

/// How a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// As it should be.
    Fine,
    /// Worth knowing.
    Note,
    /// It keeps packets from arriving.
    Fault,
}

/// The fields of a Teredo address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decoded {
    /// The address.
    pub address: Ipv6Addr,
    /// The client's server.
    pub server: Ipv4Addr,
    /// The flags field.
    pub flags: u16,
    /// The client's mapping.
    pub mapped: SocketAddrV4,
}

impl Decoded {
    /// Returns the fields of an address in `prefix`, or in that of the standard service or its draft.
    #[must_use]
    pub fn of(address: Ipv6Addr, prefix: ServicePrefix) -> Option<Self> {
        let prefixes = [prefix, ServicePrefix::STANDARD, ServicePrefix::DRAFT];
        let mut fields = prefixes
            .into_iter()
            .filter_map(|prefix| TeredoAddress::decode(address, prefix));
        fields.next().map(|fields| Self {
            address,
            server: fields.server,
            flags: fields.flags,
            mapped: fields.mapped.into(),
        })
    }
}

impl Step {
    /// Returns a finding that is as it should be.
    #[must_use]
    pub fn fine(stage: Stage, text: impl Into<String>) -> Self {
        Self::new(stage, Finding::Fine, text)
    }

    /// Returns a finding that is worth knowing.
    #[must_use]
    pub fn note(stage: Stage, text: impl Into<String>) -> Self {
        Self::new(stage, Finding::Note, text)
    }

    /// Returns a fault: a sentence with the remedy.
    #[must_use]
    pub fn fault(stage: Stage, text: impl Into<String>) -> Self {
        Self::new(stage, Finding::Fault, text)
    }

    /// Returns the finding with its reason in statistics.
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    fn new(stage: Stage, finding: Finding, text: impl Into<String>) -> Self {
        Self {
            stage,
            finding,
            reason: None,
            text: text.into(),
        }
    }
}

impl Explanation {
    /// Adds a finding, and makes it the cause if it is the most fundamental fault.
    pub fn add(&mut self, step: Step) {
        self.steps.push(step);
        self.steps.sort_by_key(|step| step.stage);
        let faults = self
            .steps
            .iter()
            .filter(|step| step.finding == Finding::Fault);
        // The first of the same rank.
        if let Some(fault) = faults.min_by_key(|step| step.stage.rank()) {
            self.verdict = Verdict::Fault;
            self.cause.clone_from(&fault.text);
        }
    }

    /// Sets the outcome and its sentence, unless another role has come to one that matters more, or as much.
    fn conclude(&mut self, verdict: Verdict, cause: impl Into<String>) {
        if self.cause.is_empty() || verdict.weight() > self.verdict.weight() {
            self.verdict = verdict;
            self.cause = cause.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_that_matters_most_is_the_cause() {
        let mut explanation = Explanation::default();
        for (verdict, text, cause) in [
            (Verdict::Unknown, "nothing is known", "nothing is known"),
            (Verdict::Passes, "the relay sends it", "the relay sends it"),
            (Verdict::Passes, "the server answers", "the relay sends it"),
            (Verdict::Waits, "it waits", "it waits"),
            (Verdict::Passes, "the server answers", "it waits"),
            (Verdict::Unknown, "nothing is known", "it waits"),
        ] {
            explanation.conclude(verdict, text);
            assert_eq!(explanation.cause, cause);
        }
    }

    #[test]
    fn the_most_fundamental_fault_is_the_cause() {
        let mut explanation = Explanation::default();
        explanation.conclude(Verdict::Passes, "all is well");
        explanation.add(Step::fine(Stage::Daemon, "sent"));
        assert_eq!(explanation.verdict, Verdict::Passes);
        for (stage, text, cause) in [
            (Stage::Peer, "it is silent", "it is silent"),
            (Stage::Daemon, "it is dropped", "it is dropped"),
            (Stage::Host, "there is no route", "there is no route"),
            (Stage::Host, "and no neighbour", "there is no route"),
            (Stage::Limits, "all is full", "there is no route"),
        ] {
            explanation.add(Step::fault(stage, text));
            assert_eq!(explanation.cause, cause);
        }
        explanation.conclude(Verdict::Waits, "it waits");
        assert_eq!(explanation.verdict, Verdict::Fault);
        let stages: Vec<_> = explanation.steps.iter().map(|step| step.stage).collect();
        assert!(stages.is_sorted(), "{stages:?}");
    }
}
