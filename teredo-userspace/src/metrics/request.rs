//! What the server is asked for, as statistics name it.

use teredo_common::verdict::Verdict;
use teredo_proto::server::Service;

/// A request and how it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// What came.
    pub kind: &'static str,
    /// What was done for it.
    pub result: &'static str,
}

impl Request {
    /// What the fast path did by itself; `None` for verdicts that answer nobody.
    #[must_use]
    pub fn answered(verdict: Verdict) -> Option<Self> {
        let service = match verdict {
            Verdict::RespondAdvertised => Service::Advertised,
            Verdict::RespondForwarded => Service::BubbleForwarded,
            _ => return None,
        };
        Some(service.into())
    }
}

impl From<Service> for Request {
    fn from(service: Service) -> Self {
        let (kind, result) = match service {
            Service::Advertised => ("solicitation", "advertised"),
            Service::AdvertisedSecure => ("solicitation", "advertised-secure"),
            Service::BubbleForwarded => ("bubble", "forwarded"),
            Service::RelayBubbleForwarded => ("relay-bubble", "forwarded"),
            Service::EchoAnswered => ("echo", "answered"),
            Service::EchoForwarded => ("echo", "forwarded"),
            Service::EchoNative => ("echo", "native"),
            Service::TunnelReceived => ("tunnel", "received"),
            Service::TunnelSent => ("tunnel", "sent"),
        };
        Self { kind, result }
    }
}
