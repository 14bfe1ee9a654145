//! Asking a running daemon.

use std::{io, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::config::ApiAddress;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer, in one sentence with the mend.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no daemon answers on {address}: {source}; start it with `teredo run`")]
    NotRunning {
        /// Where.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("{address} is not for this user; run this as root or as a user of the socket's group")]
    NotAllowed {
        /// Where.
        address: String,
    },
    /// It does not do this here.
    #[error("the daemon on {address} refuses: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// What it says.
        reason: String,
    },
    /// It answers, but not as it should.
    #[error("the daemon on {address} gives no answer: {reason}; its log may tell more")]
    NoAnswer {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
}

/// The body of the answer to `GET path`.
///
/// # Errors
///
/// When no daemon answers in time.
pub async fn get(address: &ApiAddress, path: &str) -> Result<Bytes, Error> {
    ask(address, Method::GET, path).await
}

/// Has the daemon do something: `POST path`.
///
/// # Errors
///
/// When no daemon answers in time, or it refuses.
pub async fn post(address: &ApiAddress, path: &str) -> Result<(), Error> {
    ask(address, Method::POST, path).await.map(drop)
}

async fn ask(address: &ApiAddress, method: Method, path: &str) -> Result<Bytes, Error> {
    let answer = async {
        match address {
            ApiAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                request(stream, address, method, path).await
            }
            ApiAddress::Tcp(socket) => {
                let stream = TcpStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                request(stream, address, method, path).await
            }
        }
    };
    let too_late = |_| no_answer(address, format!("none within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, answer).await.map_err(too_late)?
}

async fn request<S>(
    stream: S,
    address: &ApiAddress,
    method: Method,
    path: &str,
) -> Result<Bytes, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| no_answer(address, error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "teredo")
        .body(Empty::<Bytes>::new())
        .map_err(|error| no_answer(address, error))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(failed)?
        .to_bytes();
    connection.abort();
    let said = || String::from_utf8_lossy(&body);
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::FORBIDDEN => Err(Error::Refused {
            address: address.to_string(),
            reason: said().into_owned(),
        }),
        status => Err(no_answer(address, format!("{status} {}", said()))),
    }
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
