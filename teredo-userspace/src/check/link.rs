//! The links by which packets leave, their gateways, and the rules that could divert them.

use std::collections::BTreeSet;

use ipnet::Ipv6Net;
use rtnetlink::packet_route::rule::RuleAction;
use teredo_common::scope::is_global_unicast;

use super::{
    Host, Report,
    routing::{PolicyRule, Routing},
};
use crate::{
    config,
    host::{Route, Snapshot},
};

/// The priority of the rule for the main table.
const MAIN_PRIORITY: u32 = 32_766;
/// The tables local and main.
const LOCAL: u32 = 255;
const MAIN: u32 = 254;

/// Examines links, gateways, addresses and rules.
pub fn examine(host: &Host<'_>, routing: &Routing, report: &mut Report) {
    for text in links(&host.network) {
        report.degraded("link", text);
    }
    for text in gateways(&host.network, routing) {
        report.degraded("gateway", text);
    }
    let prefix = config::network(host.config.node.prefix);
    if host
        .config
        .relay
        .as_ref()
        .is_some_and(|relay| !relay.host_specific)
        && !has_global_ipv6(host)
    {
        report.degraded(
            "ipv6",
            "this host has no global IPv6 address, so native hosts get no ICMPv6 error about clients \
             that do not answer: give it one, `ip -6 address add ADDRESS/64 dev INTERFACE`",
        );
    }
    for rule in &routing.rules {
        match judge_rule(rule, prefix) {
            Some((true, text)) => report.degraded("rule", text),
            Some((false, text)) => report.note("rule", text),
            None => {}
        }
    }
}

fn has_global_ipv6(host: &Host<'_>) -> bool {
    let prefix = host.config.node.prefix;
    host.network.ipv6().any(|address| {
        let octets = address.octets();
        is_global_unicast(&octets) && !prefix.contains(&octets)
    })
}

fn best_defaults(network: &Snapshot) -> impl Iterator<Item = &Route> {
    [true, false]
        .into_iter()
        .filter_map(|is_ipv4| network.best_default(is_ipv4))
}

/// Returns a sentence for each interface of a best default route without carrier.
fn links(network: &Snapshot) -> Vec<String> {
    let best = best_defaults(network);
    let indices: BTreeSet<_> = best.flat_map(|route| &route.interfaces).collect();
    let links = indices
        .into_iter()
        .filter_map(|&index| network.link_numbered(index));
    let links = links.filter(|link| link.is_up && !link.has_carrier);
    links
        .map(|link| {
            format!(
                "{} has no carrier, and a default route leads through it: check the cable or the other \
                 end",
                link.name
            )
        })
        .collect()
}

/// Returns a sentence for each gateway of a best default route that does not answer.
fn gateways(network: &Snapshot, routing: &Routing) -> Vec<String> {
    let silent = best_defaults(network).filter_map(|route| {
        let mut silent = routing.silent.iter();
        let found = silent.find(|silent| {
            Some(silent.address) == route.gateway && route.interfaces.contains(&silent.interface)
        })?;
        Some((found.address, found.interface))
    });
    silent
        .map(|(gateway, interface)| {
            let link = network.link_numbered(interface);
            let name = link.map_or("its link", |link| &link.name);
            let question = if gateway.is_ipv6() {
                "neighbour solicitations"
            } else {
                "ARP"
            };
            format!(
                "the gateway {gateway} does not answer {question} on {name}: check the default route, \
                 and that the gateway is on this link"
            )
        })
        .collect()
}

/// Judges a rule: whether it surely diverts the prefix, and a sentence; none if it does not matter.
fn judge_rule(rule: &PolicyRule, prefix: Ipv6Net) -> Option<(bool, String)> {
    let destination = rule.destination?;
    let overlaps = destination.contains(&prefix) || prefix.contains(&destination);
    if !overlaps || rule.priority >= MAIN_PRIORITY {
        return None;
    }
    let priority = rule.priority;
    let remedy = format!("`ip -6 rule del priority {priority}`");
    match rule.action {
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => Some((
            !rule.is_selective,
            format!(
                "the policy rule {priority} refuses packets to {destination}, so they do not reach the \
                 tunnel: {remedy}"
            ),
        )),
        RuleAction::ToTable if ![LOCAL, MAIN].contains(&rule.table) => Some((
            false,
            format!(
                "the policy rule {priority} looks up packets to {destination} in table {table}: add the \
                 route of {prefix} there, too, or {remedy}",
                table = rule.table
            ),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::routing::SilentNeighbour, *};
    use crate::{datapath::route::Table, host::Link};

    fn network(has_carrier: bool, gateway: &str) -> Snapshot {
        Snapshot {
            routes: vec![Route {
                table: Table::Main,
                destination: "0.0.0.0/0".parse().unwrap(),
                interfaces: vec![2],
                gateway: Some(gateway.parse().unwrap()),
                metric: 5,
                source: None,
                is_announced: false,
            }],
            links: vec![Link {
                name: "eth0".to_owned(),
                index: 2,
                mtu: 1500,
                is_ethernet: true,
                is_point_to_point: false,
                kind: None,
                controller: None,
                lower: None,
                vlan: None,
                keeps_tags: false,
                is_up: true,
                has_carrier,
                dropped: 0,
                xdp_program: None,
            }],
            ..Snapshot::default()
        }
    }

    fn routing() -> Routing {
        Routing {
            silent: vec![SilentNeighbour {
                interface: 2,
                address: "192.0.2.1".parse().unwrap(),
            }],
            rules: Vec::new(),
        }
    }

    #[test]
    fn a_way_out_needs_carrier_and_a_gateway_that_answers() {
        assert!(links(&network(true, "192.0.2.2")).is_empty());
        let mut without = network(false, "192.0.2.2");
        assert_eq!(links(&without).len(), 1);
        let better = Route {
            interfaces: vec![3],
            metric: 4,
            ..without.routes[0].clone()
        };
        without.routes.push(better);
        assert!(links(&without).is_empty());
        without.routes.clear();
        assert!(links(&without).is_empty());
        assert!(gateways(&network(true, "192.0.2.2"), &routing()).is_empty());
        let silent = gateways(&network(true, "192.0.2.1"), &routing());
        assert!(
            silent[0].contains("192.0.2.1 does not answer ARP on eth0"),
            "{silent:?}"
        );
    }

    #[test]
    fn rules_for_the_prefix_are_told() {
        let prefix = "2001::/32".parse().unwrap();
        let rule = |destination: Option<&str>, action, table| PolicyRule {
            priority: 100,
            destination: destination.map(|destination| destination.parse().unwrap()),
            is_selective: false,
            action,
            table,
        };
        let judge = |rule| judge_rule(&rule, prefix).map(|(is_sure, _)| is_sure);
        let to = Some("2001::/32");
        assert_eq!(judge(rule(to, RuleAction::Unreachable, 0)), Some(true));
        assert_eq!(
            judge(rule(Some("2000::/3"), RuleAction::ToTable, 50)),
            Some(false)
        );
        assert_eq!(
            judge(rule(Some("2001:0:1::/48"), RuleAction::ToTable, 50)),
            Some(false)
        );
        assert_eq!(judge(rule(to, RuleAction::ToTable, 254)), None);
        assert_eq!(
            judge(rule(Some("fd00::/8"), RuleAction::Unreachable, 0)),
            None
        );
        assert_eq!(judge(rule(None, RuleAction::ToTable, 50)), None);
        let late = PolicyRule {
            priority: 40_000,
            ..rule(to, RuleAction::Unreachable, 0)
        };
        assert_eq!(judge(late), None);
    }
}
