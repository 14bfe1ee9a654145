//! The HTTP server of the API.

use std::{io, iter, sync::Arc};

use axum::{
    Router,
    extract::FromRef,
    http::{Method, StatusCode, Uri},
    middleware,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    connections,
    events::READERS,
    explain::Questions,
    handle::{Gate, Handle},
    history::Recorder,
    listener::{Listener, Listeners},
    origin::{self, Guard, Place},
    page,
    peers::Turns,
    problem::Problem,
    routes::routes,
};
use crate::config::{ApiAddress, secrets::Token};

/// The access of one listening socket to the node. Each socket has its own share, so that readers on
/// TCP, where any user may connect, delay neither packets nor the operator on the unix socket.
#[derive(Clone)]
pub struct Access {
    /// The way to the node.
    pub handle: Handle,
    /// The last hour.
    pub history: Recorder,
    /// The turns of its lists of peers.
    pub listings: Turns,
    /// The turns of its explanations.
    pub questions: Questions,
    /// The places for readers of events.
    pub readers: Arc<Semaphore>,
}

impl Access {
    fn new(handle: Handle, history: Recorder) -> Self {
        Self {
            handle,
            history,
            listings: Turns::default(),
            questions: Questions::default(),
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
    on_loopback: Router<Access>,
    on_network: Router<Access>,
}

impl Routers {
    fn new(token: Option<Token>) -> Self {
        let (mut on_unix, mut on_tcp) = (page::routes(), page::routes());
        for route in routes() {
            for path in iter::once(&route.path).chain(route.aliases) {
                let handler = route.handler.clone();
                on_tcp = match route.is_for_all {
                    true => on_tcp.route(path, handler.clone()),
                    false => on_tcp.route(path, route.handled_by(refuse)),
                };
                on_unix = on_unix.route(path, handler);
            }
        }
        let complete = |router: Router<Access>, place| {
            let guard = Guard::new(place, token.clone());
            router
                .fallback(nothing_here)
                .method_not_allowed_fallback(not_that_method)
                .layer(middleware::from_fn(connections::receive))
                .layer(middleware::from_fn_with_state(guard, origin::admit))
                .layer(middleware::from_fn(page::headers::protect))
        };
        Self {
            on_unix: complete(on_unix, Place::Unix),
            on_loopback: complete(on_tcp.clone(), Place::Loopback),
            on_network: complete(on_tcp, Place::Network),
        }
    }
}

/// Answers requests until the gate is closed, or the future is dropped, which also removes the sockets' files. On
/// addresses that are not loopback, a request has to have the token.
///
/// # Errors
///
/// When a listening socket cannot be used.
pub async fn serve(listeners: Listeners, handle: Handle, token: Option<Token>) -> io::Result<()> {
    let mut gate = handle.gate();
    let Routers {
        on_unix,
        on_loopback,
        on_network,
    } = Routers::new(token);
    let (sockets, _files) = listeners.into_parts();
    let history = Recorder::default();
    // Dropped at the end, which ends it.
    let mut recorders = JoinSet::new();
    recorders.spawn(history.clone().run(handle.clone()));
    let mut servers = JoinSet::new();
    for socket in sockets {
        let access = Access::new(handle.clone(), history.clone());
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
                let address = ApiAddress::Tcp(socket.local_addr()?);
                let router = match address.is_of_this_host() {
                    true => &on_loopback,
                    false => &on_network,
                };
                let socket = TcpListener::from_std(socket)?;
                servers.spawn(connections::serve(
                    socket,
                    router.clone().with_state(access),
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
    let routers = Routers::new(None);
    let router = match is_tcp {
        true => routers.on_loopback,
        false => routers.on_unix,
    };
    connections::converse_alone(
        stream,
        router.with_state(Access::new(handle, Recorder::default())),
    )
    .await;
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
