//! The sandbox of the daemon.

use std::{path::Path, thread};

use nix::sys::prctl;

use super::{Host, Report};
use crate::privileges::sandbox;

/// Examines how far the kernel restricts the daemon, with a thread that enters the sandbox and ends.
pub fn examine(host: &Host<'_>, report: &mut Report) {
    if !host.config.node.sandbox {
        let text =
            "off (node.sandbox): a weakness of the daemon gives away all that its user may do";
        report.note("sandbox", text);
        return;
    }
    let outcome = thread::scope(|scope| {
        let restricted = scope.spawn(|| {
            prctl::set_no_new_privs().map(|()| sandbox::restrict(host.config, Path::new("/")))
        });
        restricted.join().ok()
    });
    match outcome {
        Some(Ok(outcome)) if outcome.has_calls() => report.fine("sandbox", outcome.to_string()),
        Some(Ok(outcome)) => report.note("sandbox", outcome.to_string()),
        Some(Err(error)) => report.note("sandbox", format!("the daemon has none: {error}")),
        None => report.note("sandbox", "the daemon has none"),
    }
}
