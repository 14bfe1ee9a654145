//! The parsers of files, texts and requests, for the fuzz targets of another crate.

use teredo_proto::wire::authentication::{Algorithm, Key};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    api::Handle,
    check,
    config::{Config, log_filter, secrets},
};

/// Checks the filter of a log.
///
/// # Errors
///
/// The sentence about it.
pub fn log_filter(text: &str) -> Result<(), String> {
    log_filter::check(text).map_err(|error| error.to_string())
}

/// Returns the key in the contents of a file.
///
/// # Errors
///
/// The sentence about it.
pub fn secret(algorithm: Algorithm, text: &[u8]) -> Result<Key, String> {
    secrets::parse(algorithm, text).map_err(|refusal| refusal.to_string())
}

/// Judges the output of `nft -j list ruleset` and of `iptables-legacy-save` for a configuration. Returns
/// a sentence for each thing that the rules may drop.
#[must_use]
pub fn firewall(config: &Config, nftables: &str, iptables: &str) -> Vec<String> {
    check::judge_firewall(config, nftables, iptables)
}

/// Answers the request of one connection to the API, as on a TCP socket or on the unix socket.
pub async fn api<S: AsyncRead + AsyncWrite + Unpin>(stream: S, handle: Handle, is_tcp: bool) {
    crate::api::converse(stream, handle, is_tcp).await;
}
