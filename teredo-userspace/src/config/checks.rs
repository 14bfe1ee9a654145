//! Checks of values against each other, when each of them alone is valid.

mod client;

use std::collections::{HashMap, HashSet};

use teredo_common::scope::is_global_unicast;

use super::{
    Config, Ipv4Choice, RelaySection, ServerSection, document::Document, error::Error, network,
    values,
};
use crate::datapath::xdp::AttachPolicy;

/// Refuses combinations of values that the roles cannot serve.
pub fn check(config: &Config, document: &Document<'_>) -> Result<(), Error> {
    check_api(config, document)?;
    if let Some(relay) = &config.relay {
        check_accounting(config, relay, document)?;
        check_served(config, relay, document)?;
        check_fleet(relay, document)?;
    }
    if let Some(server) = &config.server {
        check_prefixes(config, server, document)?;
        check_clients(config, server, document)?;
    }
    if let (Some(relay), Some(server)) = (&config.relay, &config.server) {
        check_both(relay, server, document)?;
    }
    if let Some(section) = &config.client {
        check_client_is_alone(config, document)?;
        client::check(section, document)?;
    }
    Ok(())
}

/// Refuses to answer other hosts without asking for a token.
fn check_api(config: &Config, document: &Document<'_>) -> Result<(), Error> {
    let exposed = config
        .node
        .api
        .iter()
        .find(|address| !address.is_of_this_host());
    match exposed {
        Some(address) if config.node.api_token_file.is_none() => {
            let conflict = format!(
                "node.api = \"{address}\" answers other hosts, which must present a token: set \
                 node.api-token-file, or use an address of loopback such as \"tcp:127.0.0.1:9580\""
            );
            Err(document.conflict("node", "api", conflict))
        }
        _ => Ok(()),
    }
}

/// Refuses a client beside another role: a client runs without native IPv6, the others need it.
fn check_client_is_alone(config: &Config, document: &Document<'_>) -> Result<(), Error> {
    let other = match (&config.relay, &config.server) {
        (Some(_), _) => "relay",
        (_, Some(_)) => "server",
        (None, None) => return Ok(()),
    };
    let conflict = format!(
        "[client] and [{other}] are in one file, but a {other} needs the native IPv6 that a client \
         does without: remove one of them"
    );
    Err(document.conflict("client", "server", conflict))
}

/// Refuses to report what is not counted.
fn check_accounting(
    config: &Config,
    relay: &RelaySection,
    document: &Document<'_>,
) -> Result<(), Error> {
    match &config.node.ipfix.collector {
        Some(collector) if !relay.accounting => {
            let conflict = format!(
                "relay.accounting = false leaves nothing to report to node.ipfix.collector = \"{collector}\": \
                 remove one of them"
            );
            Err(document.conflict("relay", "accounting", conflict))
        }
        _ => Ok(()),
    }
}

/// Refuses a served network whose addresses are never relayed to.
fn check_served(
    config: &Config,
    relay: &RelaySection,
    document: &Document<'_>,
) -> Result<(), Error> {
    let teredo = network(config.node.prefix);
    let never = values::never_served();
    let in_vain = relay.serve.iter().find(|network| {
        never
            .iter()
            .chain([&teredo])
            .any(|range| range.contains(*network))
    });
    match in_vain {
        Some(network) => {
            let reason = format!("{network} contains no address that a relay may relay to");
            Err(document.refuse("relay", "serve", &reason))
        }
        None => Ok(()),
    }
}

/// Refuses a fleet of which something is missing.
fn check_fleet(relay: &RelaySection, document: &Document<'_>) -> Result<(), Error> {
    let fleet = &relay.fleet;
    let refuse = |key, reason: &str| Err(document.refuse("relay.fleet", key, reason));
    if fleet.members.is_empty() && fleet.listen.is_none() && fleet.key_file.is_none() {
        return Ok(());
    }
    if fleet.listen.is_none() {
        let missing = "[relay.fleet] has no listen: the other relays of the fleet know this one by its address and \
                       port, such as listen = \"10.0.0.1:3546\"";
        return Err(document.conflict("relay.fleet", "members", missing.to_owned()));
    }
    if fleet
        .listen
        .is_some_and(|listen| listen.ip().is_unspecified() || listen.port() == 0)
    {
        return refuse(
            "listen",
            "the other relays of the fleet know this one by its address and port",
        );
    }
    if !fleet.has_others() {
        let missing = "[relay.fleet] has no members beside this relay: list the others, such as members = \
                       [\"10.0.0.1:3546\", \"10.0.0.2:3546\"]";
        return Err(document.conflict("relay.fleet", "members", missing.to_owned()));
    }
    if fleet.key_file.is_none() {
        let missing = "[relay.fleet] has no key-file: the relays of a fleet have a key in common, such as key-file = \
                       \"/etc/teredo/fleet.key\"";
        return Err(document.conflict("relay.fleet", "listen", missing.to_owned()));
    }
    if relay.host_specific {
        return refuse(
            "members",
            "relay.host-specific = true serves one host, and a fleet does not",
        );
    }
    let conflict = |conflict: &str| {
        let conflict = conflict.to_owned();
        Err(document.conflict("relay.fleet", "listen", conflict))
    };
    if relay.ipv4 == Ipv4Choice::Auto {
        return conflict(
            "[relay.fleet] needs relay.ipv4: the relays of a fleet have one address in common, and \"auto\" is one of \
             this host",
        );
    }
    if !relay.route {
        return conflict(
            "[relay.fleet] contradicts relay.route = false: by its route, a relay of a fleet announces itself when it \
             has the peers of the others; remove relay.route",
        );
    }
    Ok(())
}

fn check_prefixes(
    config: &Config,
    server: &ServerSection,
    document: &Document<'_>,
) -> Result<(), Error> {
    if server.extra_prefixes.contains(&config.node.prefix) {
        let reason = format!(
            "{} is node.prefix, which is served anyway",
            config.node.prefix
        );
        return Err(document.refuse("server", "extra-prefixes", &reason));
    }
    Ok(())
}

fn check_clients(
    config: &Config,
    server: &ServerSection,
    document: &Document<'_>,
) -> Result<(), Error> {
    if server.require_auth && server.clients.is_empty() {
        let reason = "no client would be served without a section [[server.client]]";
        return Err(document.refuse("server", "require-auth", reason));
    }
    let (mut ids, mut owners) = (HashSet::new(), HashMap::new());
    for (index, client) in server.clients.iter().enumerate() {
        let refuse =
            |key, reason: &str| Err(document.refuse_entry("server.client", index, key, reason));
        if !ids.insert(&client.id) {
            return refuse("id", "another client has it, too");
        }
        let Some(prefix) = client.prefix else {
            continue;
        };
        if let Some(owner) = owners.insert(prefix, &client.id) {
            return refuse("prefix", &format!("the client {owner} has it, too"));
        }
        let octets = prefix.addr().octets();
        if config
            .service_prefixes()
            .any(|teredo| teredo.contains(&octets))
        {
            return refuse("prefix", "it is part of a Teredo service prefix");
        }
        if !is_global_unicast(&octets) {
            return refuse("prefix", "it is not global unicast");
        }
    }
    Ok(())
}

/// Refuses conflicts between a relay and a server in one process.
fn check_both(
    relay: &RelaySection,
    server: &ServerSection,
    document: &Document<'_>,
) -> Result<(), Error> {
    let conflict = |[first, second]: [(&str, &str); 2], why: &str| {
        // At a key that is present, since one of them may have its default.
        let (section, key) = if document.has(second.0, second.1) {
            second
        } else {
            first
        };
        Err(document.conflict(section, key, why.to_owned()))
    };
    if relay.ipv4 == Ipv4Choice::Address(server.secondary()) && relay.port == server.port {
        return conflict(
            [("server", "ipv4"), ("relay", "ipv4")],
            &format!(
                "relay.ipv4 = \"{}\" is the server's secondary address on the same port: a relay may \
                 share only the port of the primary address; set another relay.port",
                server.secondary()
            ),
        );
    }
    if server.has_tunnel_service() && relay.tun == server.tun {
        return conflict(
            [("relay", "tun"), ("server", "tun")],
            &format!(
                "relay.tun and server.tun are both \"{}\": each needs an interface of its own",
                relay.tun
            ),
        );
    }
    if relay.xdp.mode == AttachPolicy::Off || server.xdp.mode == AttachPolicy::Off {
        return Ok(());
    }
    if relay.xdp.mode != server.xdp.mode {
        return conflict(
            [("relay.xdp", "mode"), ("server.xdp", "mode")],
            &format!(
                "relay.xdp.mode is \"{}\" and server.xdp.mode is \"{}\", but one program serves both \
                 roles: set both to the same, or one to \"off\"",
                relay.xdp.mode, server.xdp.mode
            ),
        );
    }
    if relay.xdp.pin != server.xdp.pin {
        return conflict(
            [("relay.xdp", "pin"), ("server.xdp", "pin")],
            &format!(
                "relay.xdp.pin is {} and server.xdp.pin is {}, but one program serves both roles: \
                 set both to the same",
                relay.xdp.pin, server.xdp.pin
            ),
        );
    }
    Ok(())
}
