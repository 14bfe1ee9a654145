//! The user to run as.

use super::{Host, Report};
use crate::privileges;

/// Examines whether the daemon can become the configured user.
pub fn examine(host: &Host<'_>, report: &mut Report) {
    if host.config.node.user.is_empty() {
        return;
    }
    match privileges::plan_user_change(host.config) {
        Ok(_) => report.fine("user", format!("will be {}", host.config.node.user)),
        Err(error) => report.trouble("user", error.to_string()),
    }
}
