//! The server's requests, as statistics name them.

use teredo_common::verdict::Verdict;
use teredo_proto::server::Service;

/// A kind of request and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServedRequest {
    /// The request.
    pub kind: &'static str,
    /// The outcome.
    pub result: &'static str,
}

impl ServedRequest {
    /// Returns the request that a verdict of the fast path answered; `None` for other verdicts.
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

impl From<Service> for ServedRequest {
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
