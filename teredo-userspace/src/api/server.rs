//! The HTTP server of the API.

use std::{io, iter, sync::Arc};

use axum::{
    Router,
    extract::FromRef,
    http::{Method, StatusCode, Uri},
    middleware,
    routing::post,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    connections,
    events::READERS,
    handle::{Gate, Handle},
    listener::{Listener, Listeners},
    origin,
    peers::Turns,
    problem::Problem,
    routes::routes,
};

/// The access of one listening socket to the node. Each socket has its own share, so that readers on
/// TCP, where any user may connect, delay neither packets nor the operator on the unix socket.
#[derive(Clone)]
pub struct Access {
    /// The way to the node.
    pub handle: Handle,
    /// The turns of its lists of peers.
    pub listings: Turns,
    /// The places for readers of events.
    pub readers: Arc<Semaphore>,
}

impl Access {
    fn new(handle: Handle) -> Self {
        Self {
            handle,
            listings: Turns::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        }
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
        let (mut on_unix, mut on_tcp) = (Router::new(), Router::new());
        for route in routes() {
            for path in iter::once(&route.path).chain(route.aliases) {
                let handler = route.handler.clone();
                on_tcp = match route.is_for_all {
                    true => on_tcp.route(path, handler.clone()),
                    false => on_tcp.route(path, post(refuse)),
                };
                on_unix = on_unix.route(path, handler);
            }
        }
        let complete = |router: Router<Access>| {
            router
                .fallback(nothing_here)
                .method_not_allowed_fallback(not_that_method)
        };
        Self {
            on_unix: complete(on_unix),
            on_tcp: complete(on_tcp).layer(middleware::from_fn(origin::refuse_web_pages)),
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
#[cfg(any(test, feature = "testing"))]
pub async fn converse<S>(stream: S, handle: Handle, is_tcp: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Routers { on_unix, on_tcp } = Routers::new();
    let router = if is_tcp { on_tcp } else { on_unix };
    connections::converse_alone(stream, router.with_state(Access::new(handle))).await;
}

/// Refuses changes on TCP, since any user may connect there.
async fn refuse() -> Problem {
    let why = "clients on TCP are not authenticated, use a unix socket of node.api";
    Problem::new(StatusCode::FORBIDDEN, why)
}

async fn nothing_here(uri: Uri) -> Problem {
    let why = format!(
        "there is nothing at {}; GET /v1/openapi.json lists what there is",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, why)
}

async fn not_that_method(method: Method, uri: Uri) -> Problem {
    let why = format!(
        "{} does not answer {method}; GET /v1/openapi.json lists what it answers",
        uri.path()
    );
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, why)
}
