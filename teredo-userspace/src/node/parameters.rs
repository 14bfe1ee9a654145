//! The parameters of the protocol and the XDP program, from the configuration and the host's
//! addresses.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result};
use rand::{TryRng as _, rngs::SysRng};
use teredo_common::{
    budget::{Allowance, Budget, Class},
    limiter::{Limits, Rate},
    maps::Settings,
    prefixes::TeredoPrefixes,
};
use teredo_proto::{
    Ipv4Rates, Ipv6Rates, Pace, relay,
    server::{self, RegisteredClient},
};

use super::fast_path;
use crate::{
    config::{self, Config},
    datapath::route::OwnAddresses,
};

/// Divides the total rate per second to get the total burst.
const TOTAL_BURST: u32 = 10;

/// Returns the configuration of the relay's protocol.
pub fn relay_config(
    config: &Config,
    relay: &config::RelaySection,
    endpoint: SocketAddrV4,
    own: &OwnAddresses,
) -> relay::Config {
    relay::Config {
        prefix: config.node.prefix,
        teredo: TeredoPrefixes::new(config.service_prefixes()),
        served: relay.serve.clone(),
        host_specific: relay.host_specific,
        own_ipv4: own.ipv4.clone(),
        own_ipv6: own.ipv6.clone(),
        own_server: config.server.as_ref().map(config::ServerSection::primary),
        ipv4_scope: relay.ipv4_scope,
        mtu: relay.mtu,
        max_peers: relay.max_peers,
        queue_per_peer: relay.queue_per_peer,
        queue_total_bytes: relay.queue_total_bytes,
        direct_bubbles: relay.direct_bubbles,
        server_pace: Pace {
            first: relay.bubble_rate,
            total: relay.bubble_total_rate,
            ..Pace::DEFAULT
        },
        new_peer_rates: Ipv6Rates::of_subnet(relay.new_peer_rate, relay.new_peer_total_rate),
        question_rates: Ipv4Rates::of_address(relay.unproved_rate),
        unproved_rates: Ipv4Rates::of_address(relay.unproved_rate),
        unreachable_rate: Rate::new(relay.unreachable_rate, relay.unreachable_rate),
        ..relay::Config::new(endpoint.into())
    }
}

/// Returns the configuration of the server's protocol. `relay` is the endpoint of a relay beside it, `seed`
/// that of the limits of an earlier process.
///
/// # Errors
///
/// When the system has no random numbers.
pub fn server_config(
    config: &Config,
    section: &config::ServerSection,
    relay: Option<SocketAddrV4>,
    own: &OwnAddresses,
    clients: Vec<RegisteredClient>,
    seed: Option<u64>,
) -> Result<server::Config> {
    let [primary, secondary] = section.ipv4;
    Ok(server::Config {
        port: section.port,
        prefixes: config.service_prefixes().collect(),
        own_ipv4: own.ipv4.clone(),
        relay: relay.map(Into::into),
        ipv4_scope: section.ipv4_scope,
        mtu: (section.mtu != 0).then_some(section.mtu),
        require_authentication: section.require_auth,
        clients,
        forward_echo: section.forward_echo,
        forward_echo_reply: section.forward_echo_replies,
        forward_foreign: section.forward_foreign,
        icmpv6_payload: section.icmpv6_payload,
        allow: section.allow.clone(),
        limits: Limits {
            seed: match seed {
                Some(seed) => seed,
                None => u64::from_ne_bytes(random()?),
            },
            source: Rate::new(section.rate, section.burst),
            network: Rate::new(section.network_rate, section.network_burst),
            total: Rate::new(section.total_rate, section.total_rate / TOTAL_BURST),
        },
        ..server::Config::new(primary, secondary)
    })
}

/// Returns the relay's constants for the XDP program. `tunnel` is the index of the TUN interface, 0 if
/// there is none.
pub fn settings(
    config: &Config,
    relay: &config::RelaySection,
    endpoint: SocketAddrV4,
    peer_lifetime: Duration,
    tunnel: u32,
) -> Settings {
    Settings {
        peer_lifetime: peer_lifetime.as_nanos() as u64,
        relay: endpoint.into(),
        mtu: relay.mtu,
        prefix: config.node.prefix,
        tunnel,
        flags: fast_path::flags(relay.xdp.outer_checksum),
        interface_mask: 0,
        teredo: TeredoPrefixes::new(config.service_prefixes()),
    }
}

/// Returns the allowances of what the XDP program leaves to the daemon (L-20).
pub fn budget(config: &Config) -> Budget {
    let mut budget = Budget::default();
    let mut allow = |class: Class, per_second| {
        budget.allowances[class as usize] = Allowance::new(per_second);
    };
    if let Some(relay) = &config.relay {
        let rates = &relay.xdp;
        allow(Class::Other, rates.other_rate);
        allow(Class::Claim, rates.claim_rate);
        allow(Class::Cookie, rates.answer_rate);
        allow(Class::Peer, rates.peer_rate);
        allow(Class::Fragment, rates.fragment_rate);
        // The default rate of bubbles to such servers, so that each packet that passes gets one.
        allow(Class::Native, rates.new_peer_rate.div_ceil(4));
        allow(Class::NativeKnown, rates.new_peer_rate);
        allow(Class::NativePeer, rates.peer_rate);
    }
    if let Some(server) = &config.server {
        allow(Class::Server, server.xdp.daemon_rate);
    }
    budget
}

/// Returns octets that cannot be guessed.
///
/// # Errors
///
/// When the system has no random numbers.
pub fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut octets = [0; LENGTH];
    SysRng
        .try_fill_bytes(&mut octets)
        .context("the system has no random numbers")?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use teredo_common::address::ServicePrefix;

    use super::*;

    #[test]
    fn l10_every_prefix_of_either_role_is_teredo_to_relay_and_program() {
        let text = "[node]\nprefix = \"2a01:203::/32\"\n[relay]\n[server]\n\
                    ipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\nextra-prefixes = [\"2a01:204::/32\"]";
        let config = Config::parse(text, Path::new("teredo.toml")).unwrap();
        let section = config.relay.as_ref().unwrap();
        let endpoint = "198.51.100.3:3545".parse().unwrap();
        let relay = relay_config(&config, section, endpoint, &OwnAddresses::default());
        let settings = settings(&config, section, endpoint, Duration::ZERO, 1);
        for teredo in [relay.teredo, settings.teredo] {
            let own = [[0x2a, 1, 2, 3], [0x2a, 1, 2, 4]].map(ServicePrefix);
            for prefix in own
                .into_iter()
                .chain([ServicePrefix::STANDARD, ServicePrefix::DRAFT])
            {
                assert!(teredo.0.contains(&prefix), "{prefix}");
            }
        }
    }
}
