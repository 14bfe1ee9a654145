//! The HTTP server of the API.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{FromRef, Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    connections::{self, Endless},
    handle::{Gate, Handle, Page, Stopped},
    health::{healthz, readyz},
    listener::{Listener, Listeners},
    origin,
    types::Status,
};
use crate::{capture, metrics};

/// The most lists of peers that one listening socket sends at the same time.
const LISTINGS: usize = 2;
/// The type of captures.
const PCAPNG: &str = "application/x-pcapng";
/// The interval between two pages of peers for one listening socket.
const PAGE_INTERVAL: Duration = Duration::from_millis(5);

/// The access of one listening socket to the node. Each socket has its own share, so that readers on
/// TCP, where any user may connect, delay neither packets nor the operator on the unix socket.
#[derive(Clone)]
struct Access {
    handle: Handle,
    listings: Arc<Semaphore>,
    pages: Arc<Mutex<Interval>>,
}

impl Access {
    fn new(handle: Handle) -> Self {
        let mut pages = interval(PAGE_INTERVAL);
        pages.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            handle,
            listings: Arc::new(Semaphore::new(LISTINGS)),
            pages: Arc::new(Mutex::new(pages)),
        }
    }

    /// Returns a page of peers when it is its turn.
    async fn page(&self, cursor: u64) -> Result<Page, Stopped> {
        self.pages.lock().await.tick().await;
        self.handle.peers(cursor).await
    }
}

impl FromRef<Access> for Handle {
    fn from_ref(access: &Access) -> Self {
        access.handle.clone()
    }
}

/// The answers on sockets of each kind.
struct Routers {
    on_unix: Router<Access>,
    on_tcp: Router<Access>,
}

impl Routers {
    fn new() -> Self {
        let readers = Router::new()
            .route("/status", get(status))
            .route("/peers", get(peers))
            .route("/metrics", get(prometheus))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz));
        Self {
            on_unix: readers
                .clone()
                .route("/v1/capture", get(capture))
                .route("/drain", post(drain))
                .route("/replace", post(replace)),
            on_tcp: readers
                .route("/v1/capture", get(refuse))
                .route("/drain", post(refuse))
                .route("/replace", post(refuse))
                .layer(middleware::from_fn(origin::refuse_web_pages)),
        }
    }
}

/// Answers requests until the gate is closed, or the future is dropped, which also removes the sockets'
/// files.
///
/// # Errors
///
/// When a listening socket cannot be used.
pub async fn serve(listeners: Listeners, handle: Handle) -> io::Result<()> {
    let mut gate = handle.gate();
    let Routers { on_unix, on_tcp } = Routers::new();
    let (sockets, _files) = listeners.into_parts();
    let mut servers = JoinSet::new();
    for socket in sockets {
        let access = Access::new(handle.clone());
        match socket {
            Listener::Unix(socket) => {
                let socket = UnixListener::from_std(socket)?;
                servers.spawn(connections::serve(
                    socket,
                    on_unix.clone().with_state(access),
                    gate.clone(),
                ));
            }
            Listener::Tcp(socket) => {
                let socket = TcpListener::from_std(socket)?;
                servers.spawn(connections::serve(
                    socket,
                    on_tcp.clone().with_state(access),
                    gate.clone(),
                ));
            }
        }
    }
    while let Some(ended) = servers.join_next().await {
        ended.map_err(io::Error::other)?;
    }
    // Without a listening socket, too. If nobody can close the gate, the node has ended.
    let _ = gate.wait_for(|gate| *gate == Gate::Closed).await;
    Ok(())
}

/// Answers the request of one connection, as that of a TCP socket or of the unix socket.
#[cfg(feature = "testing")]
pub async fn converse<S>(stream: S, handle: Handle, is_tcp: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Routers { on_unix, on_tcp } = Routers::new();
    let router = if is_tcp { on_tcp } else { on_unix };
    connections::converse_alone(stream, router.with_state(Access::new(handle))).await;
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

async fn replace(State(handle): State<Handle>) -> Result<Response, Stopped> {
    Ok(match handle.replace().await? {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::CONFLICT, reason).into_response(),
    })
}

/// Refuses changes on TCP, since any user may connect there.
async fn refuse() -> (StatusCode, &'static str) {
    let why = "clients on TCP are not authenticated, use a unix socket of node.api";
    (StatusCode::FORBIDDEN, why)
}

/// Sends packets at chosen points of their way, until the client has enough.
async fn capture(
    State(handle): State<Handle>,
    query: Result<Query<capture::Query>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return (StatusCode::BAD_REQUEST, error.body_text()).into_response(),
    };
    match capture::start(handle, &query).await {
        Ok(parts) => {
            let body = Body::from_stream(parts);
            (Extension(Endless), [(CONTENT_TYPE, PCAPNG)], body).into_response()
        }
        Err(error) => {
            let status = match &error {
                capture::Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
                capture::Refusal::Busy | capture::Refusal::Xdp(_) => StatusCode::CONFLICT,
                capture::Refusal::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, error.to_string()).into_response()
        }
    }
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
async fn peers(State(access): State<Access>) -> Result<Response, Stopped> {
    // The semaphore is never closed.
    let turn = access.listings.clone().acquire_owned().await.ok();
    let start = Array {
        page: access.page(0).await?,
        is_open: false,
        has_elements: false,
    };
    let pages = stream::try_unfold(Some((start, turn)), move |state| {
        let access = access.clone();
        async move {
            let Some((mut array, turn)) = state else {
                return Ok::<_, io::Error>(None);
            };
            let text = array.text()?;
            let next = array.page.next;
            let state = match next {
                Some(cursor) => {
                    array.page = access.page(cursor).await.map_err(io::Error::other)?;
                    Some((array, turn))
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
