//! The health pages, for supervisors and load balancers.

use std::time::Duration;

use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::handle::Handle;
use crate::{
    condition::{Condition, Severity},
    metrics::{Role, Snapshot},
};

/// The time within which the node must answer. A node that starts, or hangs, does not.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// The states of a client that is on its way to an address.
const ON_THE_WAY: [&str; 3] = ["stopped", "starting", "second"];

/// A page: whether all is well, and a line for each thing to know, or `ok`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    is_well: bool,
    text: String,
}

impl Page {
    fn new(is_well: bool, lines: &[String]) -> Self {
        let text = match lines {
            [] => "ok\n".to_owned(),
            lines => lines.iter().map(|line| format!("{line}\n")).collect(),
        };
        Self { is_well, text }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let status = if self.is_well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let headers = [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
        ];
        (status, headers, self.text).into_response()
    }
}

/// `GET /healthz`: whether every role does its job.
pub async fn healthz(State(handle): State<Handle>) -> Response {
    answer(&handle, health).await
}

/// `GET /readyz`: whether every role does its job, and accepts new peers and clients.
pub async fn readyz(State(handle): State<Handle>) -> Response {
    answer(&handle, readiness).await
}

async fn answer(handle: &Handle, page: fn(&Snapshot) -> Page) -> Response {
    let line = match timeout(NODE_TIMEOUT, handle.snapshot()).await {
        Ok(Ok(snapshot)) => return page(&snapshot).into_response(),
        Ok(Err(stopped)) => format!("stopping daemon: {stopped}"),
        Err(_) => "starting daemon: it does not answer yet".to_owned(),
    };
    Page::new(false, &[line]).into_response()
}

fn health(snapshot: &Snapshot) -> Page {
    let conditions = || snapshot.conditions.iter().map(|lasting| &lasting.condition);
    let is_well = conditions().all(|condition| condition.kind.severity() < Severity::Down);
    Page::new(is_well, &conditions().map(line).collect::<Vec<_>>())
}

fn readiness(snapshot: &Snapshot) -> Page {
    let conditions = snapshot.conditions.iter();
    let mut lines: Vec<_> = conditions.map(|lasting| line(&lasting.condition)).collect();
    let known = lines.len();
    for (role, state) in &snapshot.roles {
        if state.is_draining {
            let role = role.name();
            lines.push(format!(
                "draining {role}: it accepts no new peers or clients"
            ));
        }
    }
    if snapshot.roles.is_empty() {
        lines.push("starting daemon: no role runs yet".to_owned());
    }
    if let Some(client) = &snapshot.client
        && ON_THE_WAY.contains(&&*client.state)
    {
        let role = Role::Client.name();
        lines.push(format!("starting {role}: it has no address yet"));
    }
    Page::new(health(snapshot).is_well && lines.len() == known, &lines)
}

/// Returns the line of a condition: kind, role, subject and text.
fn line(condition: &Condition) -> String {
    let (kind, role) = (condition.kind.name(), condition.role.name());
    let subject = match &*condition.subject {
        "" => String::new(),
        subject => format!(" {subject}"),
    };
    format!(
        "{kind} {role}{subject}: {}",
        condition.text.replace('\n', " ")
    )
}

#[cfg(test)]
mod tests {
    use teredo_common::time::Instant;

    use super::*;
    use crate::{
        condition::{Kind, Lasting},
        metrics::{ClientStatus, RoleState},
    };

    fn snapshot(kinds: &[Kind]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.roles.insert(Role::Relay, RoleState::default());
        snapshot.conditions = kinds
            .iter()
            .map(|&kind| Lasting {
                condition: Condition {
                    kind,
                    role: Role::Relay,
                    subject: "eth0".to_owned(),
                    text: "set it\nup".to_owned(),
                },
                since: Instant::ZERO,
            })
            .collect();
        snapshot
    }

    fn page(is_well: bool, text: &str) -> Page {
        Page {
            is_well,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_role_that_is_down_is_not_healthy() {
        assert_eq!(health(&snapshot(&[])), page(true, "ok\n"));
        let degraded = "fast-path-off relay eth0: set it up\n";
        assert_eq!(
            health(&snapshot(&[Kind::FastPathOff])),
            page(true, degraded)
        );
        let both = snapshot(&[Kind::FastPathOff, Kind::Route]);
        let text = format!("{degraded}route relay eth0: set it up\n");
        assert_eq!(health(&both), page(false, &text));
        assert_eq!(readiness(&both), page(false, &text));
    }

    #[test]
    fn a_role_that_drains_or_starts_is_not_ready() {
        assert_eq!(readiness(&snapshot(&[])), page(true, "ok\n"));
        let mut draining = snapshot(&[]);
        let state = RoleState {
            is_draining: true,
            sunset: None,
        };
        draining.roles.insert(Role::Server, state);
        let text = "draining server: it accepts no new peers or clients\n";
        assert_eq!(readiness(&draining), page(false, text));
        assert!(health(&draining).is_well);
        assert!(!readiness(&Snapshot::default()).is_well);
        for (state, is_ready) in [("starting", false), ("qualified", true)] {
            let mut client = snapshot(&[]);
            client.client = Some(ClientStatus {
                state: state.to_owned(),
                ..ClientStatus::default()
            });
            assert_eq!(readiness(&client).is_well, is_ready, "{state}");
            assert!(health(&client).is_well);
        }
    }
}
