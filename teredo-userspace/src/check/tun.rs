//! The tunnel interface.

use std::{fs::OpenOptions, io};

use super::{Host, Report};
use crate::datapath::tun::TunError;

const CONTROL_FILE: &str = "/dev/net/tun";

/// Examines whether the tunnel interface can be made.
pub fn examine(host: &Host<'_>, name: &str, report: &mut Report) {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(CONTROL_FILE) {
        let error = match error.kind() {
            io::ErrorKind::PermissionDenied => TunError::Permission(name.to_owned()),
            _ => TunError::NoDriver,
        };
        return report.trouble("tun", error.to_string());
    }
    match host.network.link(name) {
        None => report.fine("tun", format!("{name} will be made")),
        Some(_) if host.is_running => report.fine("tun", format!("{name} is there")),
        Some(link) if !link.is_tun() => {
            report.trouble("tun", TunError::Foreign(name.to_owned()).to_string());
        }
        Some(link) if link.has_carrier => {
            report.trouble("tun", TunError::Busy(name.to_owned()).to_string());
        }
        Some(_) => report.fine(
            "tun",
            format!("{name} is there without owner, to be taken over"),
        ),
    }
}
