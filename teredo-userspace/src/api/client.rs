//! The client side of the API: requests to a running daemon.

use std::{io, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty};
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

use crate::config::ApiAddress;

/// The most time that each part of an answer may take.
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
    request(address, Method::GET, path).await
}

/// Sends `POST path`.
///
/// # Errors
///
/// When no daemon answers in time, or it refuses.
pub async fn post(address: &ApiAddress, path: &str) -> Result<(), Error> {
    request(address, Method::POST, path).await.map(drop)
}

async fn request(address: &ApiAddress, method: Method, path: &str) -> Result<Bytes, Error> {
    let response = async {
        match address {
            ApiAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                send(stream, address, method, path).await
            }
            ApiAddress::Tcp(socket) => {
                let stream = TcpStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                send(stream, address, method, path).await
            }
        }
    };
    let response = in_time(address, response).await??;
    let status = response.status();
    let mut frames = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = in_time(address, frames.frame()).await? {
        let frame = frame.map_err(|error| no_answer(address, error))?;
        body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    let said = || String::from_utf8_lossy(&body).into_owned();
    match status {
        StatusCode::OK => Ok(body.into()),
        StatusCode::FORBIDDEN | StatusCode::CONFLICT => Err(Error::Refused {
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

/// Waits for a part of an answer.
async fn in_time<T>(address: &ApiAddress, part: impl Future<Output = T>) -> Result<T, Error> {
    let late = || format!("none within {} s", ANSWER_TIMEOUT.as_secs());
    let part = timeout(ANSWER_TIMEOUT, part).await;
    part.map_err(|_| no_answer(address, late()))
}

/// Sends a request and returns the beginning of the answer.
async fn send<S>(
    stream: S,
    address: &ApiAddress,
    method: Method,
    path: &str,
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
        .body(Empty::<Bytes>::new())
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
