//! `GET /v1/capture`: packets at chosen points of their way, as they come.

use axum::{
    Extension,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;

use super::{connections::Progress, handle::Handle, problem::Problem};
use crate::capture::{self, Refusal};

/// The type of captures.
pub const PCAPNG: &str = "application/x-pcapng";

/// Sends packets until the client has enough.
pub async fn capture(
    State(handle): State<Handle>,
    Extension(progress): Extension<Progress>,
    query: Result<Query<capture::Query>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let parts = capture::start(handle, &query).await.map_err(problem)?;
    let parts = parts.inspect(move |_| progress.note());
    Ok(([(CONTENT_TYPE, PCAPNG)], Body::from_stream(parts)).into_response())
}

fn problem(refusal: Refusal) -> Problem {
    let status = match &refusal {
        Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        Refusal::Busy | Refusal::Xdp(_) => StatusCode::CONFLICT,
        Refusal::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refusal.to_string())
}
