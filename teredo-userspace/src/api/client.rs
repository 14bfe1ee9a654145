//! The client side of the API: requests to a running daemon.

use std::{io, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header::HOST,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{connections::BEGIN_TIMEOUT, problem::Problem};
use crate::config::ApiAddress;

/// The most time that each part of an answer may take; its beginning if nothing but reading is to be done.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a request failed. Each is a sentence for the user, with the remedy.
#[derive(Debug, Error)]
pub enum Error {
    /// No daemon listens.
    #[error("no daemon answers on {address}: {source}; start it with `teredo run`")]
    NotRunning {
        /// Address of the API.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// This user has no access to the socket.
    #[error(
        "this user has no access to {address}; run this as root or as a user of the socket's group"
    )]
    NotAllowed {
        /// Address of the API.
        address: String,
    },
    /// The daemon refuses the request on this address.
    #[error("the daemon on {address} refuses: {reason}")]
    Refused {
        /// Address of the API.
        address: String,
        /// The reason that the daemon gives.
        reason: String,
    },
    /// The daemon does not know the path, usually because it is older than this program.
    #[error("the daemon on {address} does not know {path}; it is of another version")]
    Unknown {
        /// Address of the API.
        address: String,
        /// The path.
        path: String,
    },
    /// The daemon does not answer as it should.
    #[error("the daemon on {address} gives no answer: {reason}; its log may say more")]
    NoAnswer {
        /// Address of the API.
        address: String,
        /// The failure.
        reason: String,
    },
}

/// Sends `GET path` and returns the body of the answer.
///
/// # Errors
///
/// When no daemon answers in time.
pub async fn get(address: &ApiAddress, path: &str) -> Result<Bytes, Error> {
    request(address, Method::GET, path, Bytes::new()).await
}

/// Sends `POST path`.
///
/// # Errors
///
/// When no daemon answers in time, or it refuses.
pub async fn post(address: &ApiAddress, path: &str) -> Result<(), Error> {
    let body = Bytes::new();
    request(address, Method::POST, path, body).await.map(drop)
}

/// Sends `POST path` with this body and returns the body of the answer.
///
/// # Errors
///
/// When no daemon answers in time, or it refuses.
pub async fn ask(address: &ApiAddress, path: &str, body: Bytes) -> Result<Bytes, Error> {
    request(address, Method::POST, path, body).await
}

/// Sends `GET path`, and calls `visit` with every part of the answer, which may take any time, until that returns
/// whether it has enough.
///
/// # Errors
///
/// When no daemon answers in time, or it refuses.
pub async fn stream(
    address: &ApiAddress,
    path: &str,
    mut visit: impl FnMut(Bytes) -> io::Result<bool>,
) -> Result<io::Result<()>, Error> {
    let response = begin(address, Method::GET, path, Bytes::new()).await?;
    if response.status() != StatusCode::OK {
        return collect(address, path, response).await.map(|_| Ok(()));
    }
    let mut frames = response.into_body();
    while let Some(frame) = frames.frame().await {
        let frame = frame.map_err(|error| no_answer(address, error))?;
        if let Ok(part) = frame.into_data() {
            match visit(part) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(Ok(()))
}

async fn request(
    address: &ApiAddress,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, Error> {
    let response = begin(address, method, path, body).await?;
    collect(address, path, response).await
}

/// Sends a request, and returns the beginning of the answer when that has come in time.
async fn begin(
    address: &ApiAddress,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, Error> {
    // A withdrawn route and a new process take their time.
    let patience = match method {
        Method::GET => ANSWER_TIMEOUT,
        _ => BEGIN_TIMEOUT,
    };
    let response = async {
        match address {
            ApiAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                send(stream, address, method, path, body).await
            }
            ApiAddress::Tcp(socket) => {
                let stream = TcpStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                send(stream, address, method, path, body).await
            }
        }
    };
    within(patience, address, response).await?
}

/// Returns the whole body of an answer.
async fn collect(
    address: &ApiAddress,
    path: &str,
    response: Response<Incoming>,
) -> Result<Bytes, Error> {
    let status = response.status();
    let mut frames = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = within(ANSWER_TIMEOUT, address, frames.frame()).await? {
        let frame = frame.map_err(|error| no_answer(address, error))?;
        body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    let said = || match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => problem.detail,
        // A daemon of an earlier release.
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    match status {
        StatusCode::OK => Ok(body.into()),
        StatusCode::BAD_REQUEST
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE => Err(Error::Refused {
            address: address.to_string(),
            reason: said(),
        }),
        StatusCode::NOT_FOUND => Err(Error::Unknown {
            address: address.to_string(),
            path: path.to_owned(),
        }),
        status => Err(no_answer(address, format!("{status} {}", said()))),
    }
}

/// Waits for a part of an answer for this long.
async fn within<T>(
    patience: Duration,
    address: &ApiAddress,
    part: impl Future<Output = T>,
) -> Result<T, Error> {
    let late = || format!("none within {} s", patience.as_secs());
    let part = timeout(patience, part).await;
    part.map_err(|_| no_answer(address, late()))
}

/// Sends a request and returns the beginning of the answer.
async fn send<S>(
    stream: S,
    address: &ApiAddress,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| no_answer(address, error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // It ends with the answer, or when that is dropped.
    tokio::spawn(connection);
    let host = match address {
        ApiAddress::Unix(_) => "localhost".to_owned(),
        ApiAddress::Tcp(socket) => socket.to_string(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .body(Full::new(body))
        .map_err(|error| no_answer(address, error))?;
    sender.send_request(request).await.map_err(failed)
}

fn refused(address: &ApiAddress, source: io::Error) -> Error {
    let address = address.to_string();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotAllowed { address },
        _ => Error::NotRunning { address, source },
    }
}

fn no_answer(address: &ApiAddress, reason: impl ToString) -> Error {
    Error::NoAnswer {
        address: address.to_string(),
        reason: reason.to_string(),
    }
}
