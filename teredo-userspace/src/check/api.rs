//! The addresses of the API.

use std::net::TcpListener;

use super::{Host, Report};
use crate::{
    api::listener::{self, Leftover},
    config::ApiAddress,
    privileges,
};

/// Examines whether the API can listen.
pub fn examine(host: &Host<'_>, report: &mut Report) {
    // A user that cannot be had is trouble already.
    let change = privileges::plan_user_change(host.config).ok().flatten();
    let owner = change.map(|change| change.owner());
    for address in &host.config.node.api {
        if host.is_running {
            report.fine("api", format!("answers on {address}"));
            continue;
        }
        match address {
            ApiAddress::Unix(path) => match listener::examine(path, owner) {
                Ok(Leftover::Nothing) => report.fine("api", format!("{address} is free")),
                Ok(Leftover::DeadSocket) => {
                    let text = format!("{address} was left by a dead daemon, to be replaced");
                    report.fine("api", text);
                }
                Err(error) => report.trouble("api", error.to_string()),
            },
            ApiAddress::Tcp(socket) => match TcpListener::bind(socket) {
                Ok(_) if socket.ip().is_loopback() => {
                    report.fine("api", format!("{address} is free"));
                }
                Ok(_) => report.note(
                    "api",
                    format!(
                        "hosts that reach {address} and have the token can read the peers; tokens \
                         travel in the clear unless a proxy adds TLS"
                    ),
                ),
                Err(source) => {
                    let error = listener::Error::Refused {
                        address: address.to_string(),
                        source,
                    };
                    report.trouble("api", error.to_string());
                }
            },
        }
    }
    if host.config.node.api.is_empty() {
        report.note(
            "api",
            "node.api is empty: the daemon cannot be asked anything",
        );
    }
}
