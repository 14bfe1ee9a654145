//! The capabilities of this process.

use caps::{CapSet, Capability};

use crate::config::{Config, ServerSection};

/// The first port that needs no capability by default.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Returns the capabilities that the daemon needs while it runs.
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

/// Returns the needed capabilities that this process lacks.
#[must_use]
pub fn missing(config: &Config) -> Vec<Capability> {
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON, which Linux 5.8 split from it.
    let is_admin = has(Capability::CAP_SYS_ADMIN);
    let has_equivalent = |capability: Capability| {
        is_admin && matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
    };
    needed(config)
        .into_iter()
        .filter(|&capability| !has(capability) && !has_equivalent(capability))
        .collect()
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
}
