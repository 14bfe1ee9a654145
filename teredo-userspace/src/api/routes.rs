//! The requests that the API answers: one list for the router and for the OpenAPI document.

use std::sync::LazyLock;

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::Value;

use super::{
    capture::{PCAPNG, capture},
    events::{ConditionChange, Lost, RoleChange, events},
    explain::{ExplainRequest, explain},
    forms::{
        EndpointText, NetworkText, NumberText, PeerText, PointsText, PrefixText, RateNumber,
        ReasonsText, RoleText, SnaplenNumber,
    },
    handle::Handle,
    health::{healthz, readyz},
    history::Hour,
    openapi::{self, Route},
    peers::{all_peers, peers},
    problem::Problem,
    server::Access,
    types::{Condition, Peer, PeerList, PeerState, Status},
};
use crate::{
    explain::Explanation,
    metrics::{self, Format, Path},
};

/// The media type of texts.
const TEXT: &str = "text/plain; charset=utf-8";
/// What is said of a request that the node does not answer.
const STOPPING: &str = "The daemon is stopping.";
/// The same of a request that has to wait for its turn.
const STOPPING_OR_BUSY: &str =
    "The daemon is stopping, or lists of peers to others take all the time.";

/// Returns all requests.
pub fn routes() -> Vec<Route<Access>> {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    vec![
        Route::get("/v1/status", status, "Tells the state of the daemon.")
            .alias(&["/status"])
            .answers::<Status>("The state, and all counters.")
            .fails(unavailable, STOPPING),
        Route::get("/v1/peers", peers, "Lists peers, all of them without a parameter.")
            .parameter::<PrefixText>("prefix", "Only peers in this prefix, or with this address.")
            .parameter::<EndpointText>("endpoint", "Only peers at this IPv4 address, or this address and port.")
            .parameter::<PeerState>("state", "Only peers in this state.")
            .parameter::<Path>("path", "Only peers whose packets take this path.")
            .parameter::<NumberText<1>>("limit", "The most peers of the answer, at least 1.")
            .parameter::<NumberText<0>>("after", "Goes on with the list: `next` of the answer before.")
            .answers::<PeerList>("The list, or a part of it.")
            .fails(StatusCode::BAD_REQUEST, "A parameter is wrong.")
            .fails(unavailable, STOPPING_OR_BUSY),
        Route::get("/v1/conditions", conditions, "Lists the conditions that are true.")
            .answers::<Vec<Condition>>("The conditions; none if all roles do their whole jobs.")
            .fails(unavailable, STOPPING),
        Route::get("/v1/history", history, "Tells the numbers of the last hour.")
            .answers::<Hour>("The intervals of the last hour."),
        Route::get("/v1/events", events, "Sends events until the reader or the daemon ends.")
            .event::<ConditionChange>("condition-began")
            .event::<ConditionChange>("condition-ended")
            .event::<RoleChange>("role-state")
            .event::<Status>("status")
            .event::<Lost>("lost")
            .answers_as::<String>(
                StatusCode::OK,
                "text/event-stream",
                "Server-sent events, whose data is JSON; the schema is that of each event. `status` comes once a \
                 second, `lost` after events that the reader did not take in time, the others when something \
                 changes.",
            )
            .fails(unavailable, "The daemon is stopping, or too many readers are connected."),
        Route::ask::<ExplainRequest, _, _>("/v1/explain", explain, "Explains what the daemon would do with a packet.")
            .answers::<Explanation>("The explanation.")
            .fails(StatusCode::BAD_REQUEST, "The subject or the packet cannot be read.")
            .fails(unavailable, STOPPING),
        Route::get("/v1/openapi.json", document, "Describes the API.")
            .answers::<serde_json::Map<String, Value>>("This document."),
        Route::get("/metrics", prometheus, "Tells all counters to Prometheus.")
            .answers_as::<String>(StatusCode::OK, Format::Text.media_type(), "The metrics.")
            .answers_as::<String>(StatusCode::OK, Format::OpenMetrics.media_type(), "The metrics.")
            .fails(unavailable, STOPPING),
        Route::get("/healthz", healthz, "Tells whether every role does its job.")
            .answers_as::<String>(StatusCode::OK, TEXT, "Every role does its job.")
            .answers_as::<String>(unavailable, TEXT, "A line for each reason why not."),
        Route::get("/readyz", readyz, "Tells whether every role does its job and accepts peers.")
            .answers_as::<String>(StatusCode::OK, TEXT, "It does.")
            .answers_as::<String>(unavailable, TEXT, "A line for each reason why not."),
        Route::get("/v1/capture", capture, "Sends packets at chosen points, until the reader or the daemon ends.")
            .for_operators()
            .parameter::<PointsText>("points", "The points, with commas.")
            .parameter::<ReasonsText>("reason", "The reasons, with commas.")
            .parameter::<PeerText>("peer", "An address or endpoint.")
            .parameter::<NetworkText>("prefix", "A network.")
            .parameter::<RoleText>("role", "A role.")
            .parameter::<NumberText<1, { u32::MAX as u64 }>>("sample", "One packet of so many.")
            .parameter::<RateNumber>("rate", "The most packets a second.")
            .parameter::<SnaplenNumber>("snaplen", "The most octets of each packet.")
            .parameter::<NumberText<1>>("count", "The number of packets after which the capture ends.")
            .parameter::<NumberText<1, { u32::MAX as u64 }>>("duration", "The seconds after which it ends.")
            .answers_as::<String>(StatusCode::OK, PCAPNG, "The packets, in the format pcapng.")
            .fails(StatusCode::BAD_REQUEST, "A parameter is wrong.")
            .fails(StatusCode::CONFLICT, "There is a capture already, or no XDP program.")
            .fails(unavailable, STOPPING),
        Route::post("/v1/drain", drain, "Makes the daemon accept no new peers and clients.")
            .alias(&["/drain"])
            .answers_empty("It drains.")
            .fails(unavailable, STOPPING),
        Route::post("/v1/withdraw", withdraw, "Withdraws the relay's route, and waits until routers have followed.")
            .answers_empty("The daemon may be stopped.")
            .fails(unavailable, STOPPING),
        Route::post("/v1/replace", replace, "Starts a new process in the place of this one.")
            .alias(&["/replace"])
            .answers_empty("The new process runs.")
            .fails(StatusCode::CONFLICT, "The new process does not run, and this one goes on.")
            .fails(unavailable, STOPPING),
        // The lists of earlier releases have no cursor.
        Route::get("/peers", all_peers, "Lists all peers, as earlier releases did.")
            .answers::<Vec<Peer>>("The list.")
            .fails(unavailable, STOPPING_OR_BUSY),
    ]
}

async fn status(State(handle): State<Handle>) -> Result<Json<Status>, Problem> {
    Ok(Json(Status::from(&handle.snapshot().await?)))
}

async fn conditions(State(handle): State<Handle>) -> Result<Json<Vec<Condition>>, Problem> {
    let status = Status::from(&handle.snapshot().await?);
    Ok(Json(status.conditions))
}

async fn history(State(access): State<Access>) -> Json<Hour> {
    Json(access.history.describe())
}

async fn document() -> Response {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document(&routes()).to_string());
    ([(CONTENT_TYPE, "application/json")], &**DOCUMENT).into_response()
}

async fn prometheus(State(handle): State<Handle>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept);
    let text = metrics::render(handle.snapshot().await?, format);
    let text = text.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no metrics"))?;
    Ok(([(CONTENT_TYPE, format.media_type())], text).into_response())
}

async fn drain(State(handle): State<Handle>) -> Result<(), Problem> {
    Ok(handle.drain().await?)
}

async fn withdraw(State(handle): State<Handle>) -> Result<(), Problem> {
    Ok(handle.withdraw().await?)
}

async fn replace(State(handle): State<Handle>) -> Result<(), Problem> {
    let replaced = handle.replace().await?;
    replaced.map_err(|reason| Problem::new(StatusCode::CONFLICT, reason))
}
