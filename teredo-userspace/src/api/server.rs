//! The HTTP server of the API.

use std::{
    future::{IntoFuture as _, pending},
    io,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use tokio::task::JoinSet;

use super::{
    handle::{Handle, Page, Stopped},
    listener::{Listener, Listeners},
    types::Status,
};
use crate::metrics;

/// Answers requests until the future is dropped, which also removes the sockets' files.
///
/// # Errors
///
/// When a listening socket fails for good.
pub async fn serve(listeners: Listeners, handle: Handle) -> io::Result<()> {
    let readers = Router::new()
        .route("/status", get(status))
        .route("/peers", get(peers))
        .route("/metrics", get(prometheus));
    let on_unix = readers.clone().route("/drain", post(drain));
    let on_unix = on_unix.with_state(handle.clone());
    let on_tcp = readers.route("/drain", post(refuse)).with_state(handle);
    let (sockets, _files) = listeners.into_parts();
    let mut servers = JoinSet::new();
    for socket in sockets {
        match socket {
            Listener::Unix(socket) => {
                servers.spawn(axum::serve(socket, on_unix.clone()).into_future());
            }
            Listener::Tcp(socket) => {
                servers.spawn(axum::serve(socket, on_tcp.clone()).into_future());
            }
        }
    }
    match servers.join_next().await {
        Some(ended) => ended.map_err(io::Error::other)?,
        None => pending().await,
    }
}

impl IntoResponse for Stopped {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, self.to_string()).into_response()
    }
}

async fn status(State(handle): State<Handle>) -> Result<Json<Status>, Stopped> {
    Ok(Json(Status::from(&handle.snapshot().await?)))
}

async fn drain(State(handle): State<Handle>) -> Result<(), Stopped> {
    handle.drain().await
}

/// Refuses to drain on TCP, since any user may connect there.
async fn refuse() -> (StatusCode, &'static str) {
    let why = "clients on TCP are not authenticated, use a unix socket of node.api";
    (StatusCode::FORBIDDEN, why)
}

async fn prometheus(State(handle): State<Handle>) -> Result<Response, Stopped> {
    let text = metrics::render(handle.snapshot().await?);
    Ok(match text {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
}

/// Sends one JSON array, page by page as the client reads, so that the node never lists all peers at
/// once.
async fn peers(State(handle): State<Handle>) -> Result<Response, Stopped> {
    let start = Array {
        page: handle.peers(0).await?,
        is_open: false,
        has_elements: false,
    };
    let pages = stream::try_unfold(Some(start), move |state| {
        let handle = handle.clone();
        async move {
            let Some(mut array) = state else {
                return Ok::<_, io::Error>(None);
            };
            let text = array.text()?;
            let next = array.page.next;
            let state = match next {
                Some(cursor) => {
                    array.page = handle.peers(cursor).await.map_err(io::Error::other)?;
                    Some(array)
                }
                None => None,
            };
            Ok(Some((text, state)))
        }
    });
    let body = Body::from_stream(pages);
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// A JSON array of peers that is being written.
struct Array {
    page: Page,
    is_open: bool,
    has_elements: bool,
}

impl Array {
    /// Returns the part of the text for the current page.
    fn text(&mut self) -> serde_json::Result<Bytes> {
        let mut text = Vec::new();
        if !self.is_open {
            text.push(b'[');
            self.is_open = true;
        }
        for peer in &self.page.peers {
            if self.has_elements {
                text.push(b',');
            }
            self.has_elements = true;
            serde_json::to_writer(&mut text, peer)?;
        }
        if self.page.next.is_none() {
            text.push(b']');
        }
        Ok(text.into())
    }
}
