//! `GET /v1/capture`: packets at chosen points of their way, as they come.

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};

use super::{handle::Handle, parameters::Parameters, problem::Problem};
use crate::capture::{self, Refusal};

/// The type of captures.
pub const PCAPNG: &str = "application/x-pcapng";

/// Sends packets until the client has enough.
pub async fn capture(
    State(handle): State<Handle>,
    Parameters(query): Parameters<capture::Query>,
) -> Result<Response, Problem> {
    let parts = capture::start(handle, &query).await.map_err(problem)?;
    Ok(([(CONTENT_TYPE, PCAPNG)], Body::from_stream(parts)).into_response())
}

fn problem(refusal: Refusal) -> Problem {
    let status = match &refusal {
        Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        Refusal::Busy | Refusal::Role { .. } | Refusal::Xdp(_) => StatusCode::CONFLICT,
        Refusal::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refusal.to_string())
}
