//! Settings of the kernel that a tunnel or a router needs.

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Host, Report};
use crate::{host::Setting, plan};

/// The directory of the kernel's settings.
const SETTINGS: &str = "/proc/sys/net";

/// The facts about a host.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// Whether a role switches forwarding on for its tunnel.
    has_forwarding_tunnel: bool,
    /// Whether a role has a tunnel, which needs IPv6.
    has_tunnel: bool,
    is_read_only: bool,
    /// Whether new interfaces have no IPv6.
    is_ipv6_disabled: bool,
    /// Whether this host forwards IPv6.
    forwards: bool,
    /// Interfaces of announced IPv6 default routes, whose announcements are not accepted while this host
    /// forwards.
    announced: Vec<String>,
}

/// A finding: how it matters and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Waiting(String),
    Degraded(String),
}

/// Examines the settings.
pub fn examine(host: &Host<'_>, report: &mut Report) {
    let config = host.config;
    let service = config
        .server
        .iter()
        .any(|server| server.has_tunnel_service());
    let relay = config.relay.as_ref();
    let facts = Facts {
        has_forwarding_tunnel: service || relay.is_some_and(|relay| !relay.host_specific),
        has_tunnel: service || relay.is_some() || config.client.is_some(),
        is_read_only: statvfs(SETTINGS).is_ok_and(|at| at.flags().contains(FsFlags::ST_RDONLY)),
        is_ipv6_disabled: Setting::ipv6("default", "disable_ipv6").number() == Some(1),
        forwards: Setting::ipv6_forwarding("all").number() == Some(1),
        announced: plan::announced_links(&host.network)
            .map(|link| link.name.clone())
            .collect(),
    };
    for finding in judge(&facts) {
        match finding {
            // A daemon that runs has its settings.
            Finding::Waiting(_) if host.is_running => {}
            Finding::Waiting(text) => report.waiting("settings", text),
            Finding::Degraded(text) => report.degraded("settings", text),
        }
    }
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_stopped = facts.has_tunnel && facts.is_ipv6_disabled;
    if facts.is_read_only && (facts.has_forwarding_tunnel || is_stopped) {
        findings.push(Finding::Waiting(
            "/proc/sys is read-only, so the daemon cannot set up its tunnel: in a container, mount it \
             writable (`docker run --privileged`, or `--security-opt systempaths=unconfined`)"
                .to_owned(),
        ));
    }
    if facts.forwards {
        for name in &facts.announced {
            findings.push(Finding::Degraded(format!(
                "the IPv6 default route by {name} was announced by a router, but this host forwards, \
                 so the kernel accepts no announcement any more and the route will expire: `{}`",
                accept(name)
            )));
        }
    }
    findings
}

/// Returns the command that lets a router accept announcements of others.
fn accept(interface: &str) -> String {
    format!("sysctl -w net.ipv6.conf.{interface}.accept_ra=2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_needs_settings_that_can_be_written_and_ipv6() {
        let none = Facts::default();
        let relay = Facts {
            has_forwarding_tunnel: true,
            has_tunnel: true,
            ..none.clone()
        };
        let host_specific = Facts {
            has_forwarding_tunnel: false,
            ..relay.clone()
        };
        let client = Facts {
            has_tunnel: true,
            ..none.clone()
        };
        // Neither, read-only, IPv6 disabled, both.
        for (facts, expected) in [
            (none, [0, 0, 0, 0]),
            (relay, [0, 1, 0, 1]),
            (host_specific, [0, 0, 0, 1]),
            (client, [0, 0, 0, 1]),
        ] {
            for (index, count) in expected.into_iter().enumerate() {
                let facts = Facts {
                    is_read_only: index & 1 != 0,
                    is_ipv6_disabled: index & 2 != 0,
                    ..facts.clone()
                };
                assert_eq!(judge(&facts).len(), count, "{facts:?}");
            }
        }
    }

    #[test]
    fn a_router_keeps_an_announced_route_with_two_alone() {
        for (forwards, announced, is_lost) in [
            (true, vec!["eth0".to_owned()], true),
            (true, Vec::new(), false),
            (false, vec!["eth0".to_owned()], false),
        ] {
            let facts = Facts {
                forwards,
                announced,
                ..Facts::default()
            };
            assert_eq!(!judge(&facts).is_empty(), is_lost, "{facts:?}");
        }
    }
}
