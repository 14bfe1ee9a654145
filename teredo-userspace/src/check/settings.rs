//! Settings of the kernel that a tunnel or a router needs.

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{
    Host, Report,
    kernel_settings::{number, of_interface},
    routing::Routing,
};

/// The directory of the kernel's settings.
const SETTINGS: &str = "/proc/sys";

/// The value of `accept_ra` with which the kernel accepts announcements unless it forwards. With 0
/// another program may accept them, whose routes stay.
const BY_HOSTS: u64 = 1;

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
    /// Interfaces of IPv6 default routes that routers have announced, with their `accept_ra`.
    announced: Vec<(String, u64)>,
}

/// A finding: how it matters and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Waiting(String),
    Degraded(String),
}

/// Examines the settings.
pub fn examine(host: &Host<'_>, routing: &Routing, report: &mut Report) {
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
        is_ipv6_disabled: number("net/ipv6/conf/default/disable_ipv6") == Some(1),
        forwards: number("net/ipv6/conf/all/forwarding") == Some(1),
        announced: announced(host, routing),
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

/// Returns the interfaces of announced IPv6 default routes, with their `accept_ra`.
fn announced(host: &Host<'_>, routing: &Routing) -> Vec<(String, u64)> {
    let routes = routing.defaults.iter();
    let routes = routes.filter(|route| route.is_ipv6 && route.is_announced);
    let links = routes.filter_map(|route| host.network.link_numbered(route.interface));
    links
        .map(|link| {
            let accepts = of_interface("ipv6", &link.name, "accept_ra").unwrap_or_default();
            (link.name.clone(), accepts)
        })
        .collect()
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
    for (name, accepts) in &facts.announced {
        if facts.forwards && *accepts == BY_HOSTS {
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
        for (forwards, accepts, is_lost) in [(true, 1, true), (true, 2, false), (false, 1, false)] {
            let facts = Facts {
                forwards,
                announced: vec![("eth0".to_owned(), accepts)],
                ..Facts::default()
            };
            assert_eq!(!judge(&facts).is_empty(), is_lost, "{forwards} {accepts}");
        }
    }
}
