//! What the client needs of the host.

use super::{Host, Report, tun};
use crate::config::{
    Client,
    secrets::{self, Secrets},
};

/// Looks whether the client can run.
pub async fn examine(
    host: &Host<'_>,
    client: &Client,
    secrets: Result<&Secrets, &secrets::Error>,
    report: &mut Report,
) {
    tun::examine(host, &client.tun, report);
    if let Err(error) = secrets {
        report.trouble("keys", error.to_string());
    }
}
