//! The client side of the API: requests to a running daemon.

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

/// The most time that an answer may take.
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
    let answer = async {
        match address {
            ApiAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                exchange(stream, address, method, path).await
            }
            ApiAddress::Tcp(socket) => {
                let stream = TcpStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(address, error))?;
                exchange(stream, address, method, path).await
            }
        }
    };
    let too_late = |_| {
        no_answer(
            address,
            format!("none within {} s", ANSWER_TIMEOUT.as_secs()),
        )
    };
    timeout(ANSWER_TIMEOUT, answer).await.map_err(too_late)?
}

async fn exchange<S>(
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
