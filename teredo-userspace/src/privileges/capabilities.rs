//! The capabilities of this process.

use std::collections::HashSet;

use caps::{CapSet, Capability, errors::CapsError};

use crate::config::{Config, ServerSection};

/// The first port that needs no capability by default.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Returns the capabilities without which the daemon does not run.
#[must_use]
pub fn needed(config: &Config) -> Vec<Capability> {
    let mut needed = Vec::new();
    let server = config.server.as_ref();
    // For TUN interfaces, addresses, routes and XDP. A client changes them whenever the network does.
    let is_admin = config.relay.is_some()
        || config.client.is_some()
        || config.fast_path().is_some()
        || server.is_some_and(ServerSection::has_tunnel_service);
    if is_admin {
        needed.push(Capability::CAP_NET_ADMIN);
    }
    // For connectivity tests.
    if server.is_some_and(|server| server.forward_echo || server.forward_echo_replies) {
        needed.push(Capability::CAP_NET_RAW);
    }
    if config.fast_path().is_some() {
        needed.extend([Capability::CAP_BPF, Capability::CAP_PERFMON]);
    }
    let relay = config.relay.iter().map(|relay| relay.port);
    let client = config.client.iter().map(|client| client.port);
    // 0 lets the kernel choose a port, never a privileged one.
    if relay
        .chain(server.map(|server| server.port))
        .chain(client)
        .any(|port| (1..UNPRIVILEGED_PORT).contains(&port))
    {
        needed.push(Capability::CAP_NET_BIND_SERVICE);
    }
    needed
}

/// Returns the capabilities that the daemon keeps if it has them: those that it needs, that to listen
/// for VLAN tags which are hidden from the fast path, those with which the sockets of a server get
/// larger buffers and a mailbox, and for `is_root`, which alone can have a kernel thread for a tunnel, that
/// to restrain this thread.
#[must_use]
pub fn kept(config: &Config, is_root: bool) -> Vec<Capability> {
    let mut kept = needed(config);
    let mut keep = |capability| {
        if !kept.contains(&capability) {
            kept.push(capability);
        }
    };
    if config.fast_path().is_some() {
        keep(Capability::CAP_NET_RAW);
    }
    if config.server.is_some() {
        keep(Capability::CAP_NET_ADMIN);
        keep(Capability::CAP_BPF);
    }
    if is_root && config.has_tunnel() {
        keep(Capability::CAP_SYS_NICE);
    }
    kept
}

/// Returns the capabilities of this process that the daemon keeps, as root or another user.
///
/// # Errors
///
/// When the kernel does not name the capabilities of this process.
pub fn held(config: &Config, is_root: bool) -> Result<HashSet<Capability>, CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut kept: HashSet<_> = kept(config, is_root).into_iter().collect();
    if kept
        .iter()
        .any(|&one| is_of_admin(one) && !permitted.contains(&one))
    {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    Ok(kept.intersection(&permitted).copied().collect())
}

/// Takes all but the capabilities of `keep` from the bounding set, if this process may.
///
/// Without the capability to do so, the others stay there, and are of no use to a process that gets no
/// new privileges.
///
/// # Errors
///
/// When the kernel refuses though the process has the capability.
pub fn bound(keep: &HashSet<Capability>) -> Result<(), CapsError> {
    let bounding = caps::read(None, CapSet::Bounding)?;
    let excess: Vec<_> = bounding.difference(keep).copied().collect();
    if !excess.is_empty() && !has(Capability::CAP_SETPCAP) {
        let excess = list(&excess);
        tracing::debug!("{excess} cannot be taken from the bounding set: no CAP_SETPCAP");
        return Ok(());
    }
    for capability in excess {
        caps::drop(None, CapSet::Bounding, capability)?;
    }
    Ok(())
}

/// Gives up all capabilities but those of `keep`, which the process is permitted to have.
///
/// # Errors
///
/// When the kernel refuses.
pub fn keep_only(keep: &HashSet<Capability>) -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, keep)?;
    caps::set(None, CapSet::Permitted, keep)?;
    caps::clear(None, CapSet::Inheritable)
}

/// Returns the needed capabilities that this process lacks.
#[must_use]
pub fn missing(config: &Config) -> Vec<Capability> {
    let is_admin = has(Capability::CAP_SYS_ADMIN);
    let has = |capability| has(capability) || (is_admin && is_of_admin(capability));
    let mut needed = needed(config);
    needed.retain(|&capability| !has(capability));
    needed
}

/// Returns whether `CAP_SYS_ADMIN` includes the capability, which Linux 5.8 split from it.
fn is_of_admin(capability: Capability) -> bool {
    matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Lists capabilities as in a sentence.
#[must_use]
pub fn list(capabilities: &[Capability]) -> String {
    let names: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::RelaySection, datapath::xdp::AttachPolicy};

    #[test]
    fn a_relay_needs_only_the_capabilities_of_its_settings() {
        let mut relay = RelaySection::default();
        let needed = |relay: &RelaySection| {
            needed(&Config {
                relay: Some(relay.clone()),
                ..Config::default()
            })
        };
        assert_eq!(
            list(&needed(&relay)),
            "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON"
        );
        relay.xdp.mode = AttachPolicy::Off;
        assert_eq!(list(&needed(&relay)), "CAP_NET_ADMIN");
        relay.port = 1023;
        assert_eq!(
            list(&needed(&relay)),
            "CAP_NET_ADMIN and CAP_NET_BIND_SERVICE"
        );
    }

    #[test]
    fn a_client_needs_no_more_than_its_interface() {
        let of = |port: u16| {
            let text = format!("[client]\nserver = \"9.0.0.1\"\nport = {port}");
            let config = Config::parse(&text, std::path::Path::new("test")).unwrap();
            list(&needed(&config))
        };
        assert_eq!(of(0), "CAP_NET_ADMIN");
        assert_eq!(of(1024), "CAP_NET_ADMIN");
        assert_eq!(of(1023), "CAP_NET_ADMIN and CAP_NET_BIND_SERVICE");
    }

    #[test]
    fn a_server_needs_no_more_than_a_raw_socket() {
        let of = |text: &str| {
            let server = "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\n";
            let file = std::path::Path::new("test");
            let config = Config::parse(&format!("{server}{text}"), file).unwrap();
            list(&needed(&config))
        };
        let all = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON";
        assert_eq!(of(""), all);
        assert_eq!(of("xdp.mode = \"off\""), "CAP_NET_RAW");
        assert_eq!(of("xdp.mode = \"off\"\nforward-echo = false"), "");
        let tunnel = "xdp.mode = \"off\"\nforward-echo = false\n[[server.client]]\nid = \"x\"\n\
                      secret-file = \"/x\"\nprefix = \"2001:db8::/64\"";
        assert_eq!(of(tunnel), "CAP_NET_ADMIN");
        let port = "xdp.mode = \"off\"\nport = 500";
        assert_eq!(of(port), "CAP_NET_RAW and CAP_NET_BIND_SERVICE");
    }
    #[test]
    fn a_server_keeps_what_makes_its_sockets_faster() {
        let text = "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\nxdp.mode = \"off\"";
        let config = Config::parse(text, std::path::Path::new("test")).unwrap();
        assert_eq!(
            list(&kept(&config, true)),
            "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF"
        );
    }
}
