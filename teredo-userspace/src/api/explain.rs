//! `POST /v1/explain`: what the daemon would do with a packet, and why. It changes nothing.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddrV4},
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::Duration,
};

use axum::{Json, body::Bytes, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    filter::Filter,
    forms::{PacketText, SubjectText},
    handle::{PAGE, Stopped},
    problem::Problem,
    server::Access,
    types::{Peer, PeerState},
};
use crate::explain::{self, Decoded, Explanation, Facts, Packet, Question, Subject};

/// The network namespace of this process.
pub const NETWORK_NAMESPACE: &str = "/proc/self/ns/net";

/// The interval between two explanations for one listening socket, each of which copies tables.
const QUESTION_INTERVAL: Duration = Duration::from_millis(100);

/// The turns of the explanations of one listening socket, which are given one after the other.
#[derive(Clone)]
pub struct Questions(Arc<Mutex<Interval>>);

impl Default for Questions {
    fn default() -> Self {
        let mut turns = interval(QUESTION_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Arc::new(Mutex::new(turns)))
    }
}

impl Questions {
    /// Waits for the next turn, which ends when the guard is dropped.
    async fn turn(&self) -> MutexGuard<'_, Interval> {
        let mut turns = self.0.lock().await;
        turns.tick().await;
        turns
    }
}

/// The body of a request: a subject or a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["subject"]}, {"required": ["packet"]}]))]
pub struct ExplainRequest {
    /// An address, an endpoint, or a flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SubjectText")]
    pub subject: Option<String>,
    /// A packet in hexadecimal digits: an Ethernet frame, or IPv4 or IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PacketText")]
    pub packet: Option<String>,
}

impl ExplainRequest {
    fn subject(&self) -> Result<Subject, String> {
        match (&self.subject, &self.packet) {
            (Some(subject), None) => Subject::parse(subject).map_err(|error| error.to_string()),
            (None, Some(packet)) => explain::parse_hexadecimal(packet)
                .and_then(|octets| Packet::parse(&octets))
                .map(Subject::Packet)
                .map_err(|error| error.to_string()),
            _ => Err("the request needs either `subject` or `packet`".to_owned()),
        }
    }
}

/// Answers a question.
pub async fn explain(
    State(access): State<Access>,
    body: Bytes,
) -> Result<Json<Explanation>, Problem> {
    let request = serde_json::from_slice::<ExplainRequest>(&body);
    let request = request.map_err(|error| format!("the request is not as documented: {error}"));
    let subject = request.and_then(|request| request.subject());
    let subject = subject.map_err(Problem::bad_request)?;
    Ok(Json(answer(&access, &subject).await?))
}

async fn answer(access: &Access, subject: &Subject) -> Result<Explanation, Stopped> {
    let _turn = access.questions.turn().await;
    let at = match subject {
        Subject::Endpoint(endpoint) => peers_at(access, *endpoint).await?,
        _ => Vec::new(),
    };
    let question = Question::about(subject, at);
    let mut facts = access.handle.explain(question.clone()).await?;
    if let Some(silent) = silent_client(subject, &facts) {
        facts.relatives = relatives(access, silent, &facts).await?;
    }
    // Without the kernel's answers there is still much to say.
    let host = explain::look_at_host(&question.destinations(subject, &facts)).await;
    let mut explanation = explain::explain(subject, *facts, &host.unwrap_or_default());
    let namespace = fs::metadata(NETWORK_NAMESPACE);
    explanation.network_namespace = namespace.ok().map(|namespace| namespace.ino());
    Ok(explanation)
}

/// Returns the most important peers at an endpoint.
async fn peers_at(access: &Access, endpoint: SocketAddrV4) -> Result<Vec<Ipv6Addr>, Stopped> {
    let filter = Filter {
        endpoint: Some((*endpoint.ip(), Some(endpoint.port()))),
        ..Filter::default()
    };
    let peers = matching(access, filter, |_| true).await?;
    Ok(peers.into_iter().map(|peer| peer.address).collect())
}

/// Returns the Teredo client in question if it does not answer.
fn silent_client(subject: &Subject, facts: &Facts) -> Option<Decoded> {
    let (Subject::Address(address)
    | Subject::Flow {
        destination: address,
        ..
    }) = subject
    else {
        return None;
    };
    let known = facts.peer(*address)?;
    let is_silent = known.peer.state == PeerState::Untrusted && known.unanswered > 0;
    Decoded::of(*address, facts.prefix).filter(|_| is_silent)
}

/// Returns the peers of the same server behind the same NAT.
async fn relatives(access: &Access, silent: Decoded, facts: &Facts) -> Result<Vec<Peer>, Stopped> {
    let prefix = facts.prefix;
    let filter = Filter {
        endpoint: Some((*silent.mapped.ip(), None)),
        ..Filter::default()
    };
    matching(access, filter, |peer| {
        Decoded::of(peer.address, prefix).is_some_and(|decoded| decoded.server == silent.server)
    })
    .await
}

/// The most peers that an explanation names.
const FEW: usize = 16;

/// Returns the first peers that are of interest.
async fn matching(
    access: &Access,
    filter: Filter,
    is_wanted: impl Fn(&Peer) -> bool,
) -> Result<Vec<Peer>, Stopped> {
    let mut found = Vec::new();
    let mut cursor = Some(0);
    while let Some(start) = cursor
        && found.len() < FEW
    {
        let page = access.listings.page(&access.handle, start, PAGE, filter);
        let page = page.await?;
        found.extend(page.peers.into_iter().filter(&is_wanted));
        cursor = page.next;
    }
    found.truncate(FEW);
    Ok(found)
}
