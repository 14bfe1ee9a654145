//! `GET /`: the state of the daemon as a web page.
//!
//! The whole page is made here, as tables and pictures that need no script. The script asks for the same
//! page again and again and puts what has changed in its place. Nothing comes from elsewhere: style, script
//! and icon are files of this directory, and [`headers`] forbids everything else.

mod document;
mod drops;
mod graphs;
pub mod headers;
mod headline;
mod numbers;
mod peers;
mod picture;
mod roles;
mod tiles;
mod words;

#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{parameters::Parameters, problem::Problem, server::Access};
use peers::{Filter, Listing};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const ICON: &str = include_str!("icon.svg");

/// Returns the routes of the page and its files.
pub fn routes() -> Router<Access> {
    Router::new()
        .route("/", get(page))
        .route("/page/style.css", get(|| file("text/css", STYLE)))
        .route("/page/script.js", get(|| file("text/javascript", SCRIPT)))
        .route("/page/icon.svg", get(|| file("image/svg+xml", ICON)))
}

async fn page(
    State(access): State<Access>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Response, Problem> {
    let snapshot = access.handle.snapshot().await?;
    let listing = match filter.parse() {
        Ok(wanted) => Listing::read(&access, &wanted).await?,
        Err(refusal) => Listing::refused(refusal),
    };
    let hour = access.history.describe();
    let page = document::render(&snapshot, &hour, &filter, &listing).into_string();
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, page).into_response())
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    // They change with the daemon's version.
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text)
}
