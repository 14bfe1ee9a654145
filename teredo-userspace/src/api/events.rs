//! Events of the daemon for readers that stay connected, as server-sent events.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response, Sse, sse},
};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast::error::RecvError, watch};

use super::{
    handle::{Gate, Stopped, Subscription},
    problem::Problem,
    server::Access,
    types::Status,
};
use crate::{
    condition::{Condition, Severity},
    metrics::{Role, Snapshot},
};

/// Events that wait for the slowest reader. It loses the oldest when there are more.
pub const WAITING: usize = 512;
/// The most readers of events on one listening socket.
pub const READERS: usize = 8;

/// An event of the node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A condition has become true.
    ConditionBegan(Condition),
    /// A condition is not true any more.
    ConditionEnded(Condition),
    /// A role has another state.
    RoleState(Role, String),
    /// A second has passed.
    Status(Arc<Snapshot>),
}

/// The data of `condition-began` and `condition-ended`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionChange {
    /// Name of the kind.
    pub kind: String,
    /// Name of the role.
    pub role: String,
    /// The interface, address, prefix or file that it concerns; may be empty.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// The reason and the remedy, as a sentence.
    pub text: String,
}

impl From<&Condition> for ConditionChange {
    fn from(condition: &Condition) -> Self {
        Self {
            kind: condition.kind.name().to_owned(),
            role: condition.role.name().to_owned(),
            subject: condition.subject.clone(),
            severity: condition.kind.severity(),
            text: condition.text.clone(),
        }
    }
}

/// The data of `role-state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleChange {
    /// Name of the role.
    pub role: String,
    /// `waiting` for the host, `running` or `draining`; of a client its state.
    pub state: String,
}

/// The data of `lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// Events that this reader has lost since the last one, because it did not read in time.
    pub events: u64,
}

impl Event {
    /// Returns the event as it is sent.
    fn encode(&self) -> sse::Event {
        match self {
            Self::ConditionBegan(condition) => {
                encode("condition-began", &ConditionChange::from(condition))
            }
            Self::ConditionEnded(condition) => {
                encode("condition-ended", &ConditionChange::from(condition))
            }
            Self::RoleState(role, state) => {
                let role = role.name().to_owned();
                let state = state.clone();
                encode("role-state", &RoleChange { role, state })
            }
            Self::Status(snapshot) => encode("status", &Status::from(&**snapshot)),
        }
    }
}

fn encode(name: &str, data: &impl Serialize) -> sse::Event {
    let event = sse::Event::default().event(name);
    // A type of this API always becomes JSON.
    event
        .json_data(data)
        .unwrap_or_else(|_| sse::Event::default().event(name))
}

/// `GET /v1/events`.
pub async fn events(State(access): State<Access>) -> Result<Response, Problem> {
    let Ok(place) = access.readers.clone().try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{READERS} readers of events are connected to this socket; end one of them"),
        ));
    };
    let subscription = access.handle.subscribe().ok_or(Stopped)?;
    let state = (subscription, access.handle.gate(), place);
    let events = stream::unfold(state, |(mut subscription, mut gate, place)| async {
        let event = next(&mut subscription, &mut gate).await?;
        Some((Ok::<_, Infallible>(event), (subscription, gate, place)))
    });
    Ok(Sse::new(events).into_response())
}

/// Waits for the next event; `None` after the last.
async fn next(
    subscription: &mut Subscription,
    gate: &mut watch::Receiver<Gate>,
) -> Option<sse::Event> {
    tokio::select! {
        // The next process has its own events.
        _ = gate.wait_for(|gate| *gate == Gate::Closed) => None,
        event = subscription.recv() => match event {
            Ok(event) => Some(event.encode()),
            Err(RecvError::Lagged(events)) => Some(encode("lost", &Lost { events })),
            Err(RecvError::Closed) => None,
        },
    }
}
