//! The XDP program's part of the plan.

use std::net::SocketAddrV4;

use teredo_common::vlan::Trunk;

use super::{FastPathItem, Item, Plan, Port, Refusal, State, Vlan};
use crate::{
    condition::Kind,
    config::{Config, FastPathRequest},
    datapath::xdp::AttachPolicy,
    host::{Link, Setting, Snapshot},
    metrics::Role,
};

impl Plan {
    /// Adds the XDP program, if a role with a fast path can serve.
    pub(super) fn add_fast_path(
        &mut self,
        config: &Config,
        host: &Snapshot,
        state: &State,
        serves: bool,
        answers: bool,
    ) {
        let Some(wanted) = config.fast_path() else {
            return;
        };
        let (mut links, mut relay, mut server) = (Vec::<&Link>::new(), None, None);
        let is_host_specific = config
            .relay
            .as_ref()
            .is_some_and(|relay| relay.host_specific);
        if is_host_specific && wanted.server.is_none() {
            let interfaces = host.default_links().into_iter();
            self.refusal = Some(Refusal {
                interfaces: interfaces.map(|link| link.name.clone()).collect(),
                reason: "relay.host-specific is set: all packets are this host's own".to_owned(),
            });
        }
        if is_host_specific && wanted.relay.is_some() && wanted.mode != AttachPolicy::Auto {
            let text = format!(
                "there is no fast path, since relay.host-specific is set and all packets are this host's own: \
                 set {} to \"auto\" or \"off\"",
                wanted.mode_keys()
            );
            self.lacks(Role::Relay, Kind::FastPathOff, "", text);
        }
        // All packets of a host-specific relay are this host's own.
        let section = config.relay.as_ref().filter(|relay| !relay.host_specific);
        if let (Some(names), Some(section)) = (wanted.relay, section) {
            let found = if names.is_empty() {
                host.default_links()
            } else {
                self.named(Role::Relay, names, &wanted, host)
            };
            let address = self.relay_address;
            if found.is_empty() && names.is_empty() && address.is_some() {
                let text = format!(
                    "no default route implies the interfaces: name in {} those towards the IPv4 and the \
                     IPv6 internet",
                    wanted.interfaces_keys()
                );
                self.lacks(Role::Relay, Kind::FastPathOff, "", text);
            } else if serves
                && let (Some(address), Some(tunnel)) =
                    (address, state.own.tunnels.get(&Role::Relay))
            {
                relay = Some((SocketAddrV4::new(address, section.port), *tunnel));
                links.extend(found);
            }
        }
        if let (Some(names), Some(section)) = (wanted.server, &config.server) {
            let [primary, secondary] = section.ipv4.map(|address| host.links_with(address).next());
            let found = if names.is_empty() {
                [primary, secondary].into_iter().flatten().collect()
            } else {
                self.named(Role::Server, names, &wanted, host)
            };
            if answers
                && !found.is_empty()
                && let (Some(primary), Some(secondary)) = (primary, secondary)
            {
                server = Some([primary.index, secondary.index]);
                links.extend(found);
            }
        }
        if relay.is_none() && server.is_none() {
            return;
        }
        let links = self.usable(&wanted, links);
        let (links, vlans) = trunks(links, host, state);
        let links = self.untagged(&wanted, links, host, state);
        if links.is_empty() {
            return;
        }
        if relay.is_none() {
            // Route look-ups of the program start at the loopback interface, which has to forward.
            self.items.push(Item::Setting {
                role: Role::Server,
                setting: Setting::ipv4_forwarding("lo"),
                value: "1",
            });
        }
        let mut interfaces: Vec<Port> = links
            .into_iter()
            .map(|(link, is_served)| Port {
                is_served,
                index: link.index,
                mtu: link.mtu,
                foreign_program: link
                    .xdp_program
                    .filter(|program| Some(*program) != state.own.program),
            })
            .collect();
        interfaces.sort();
        interfaces.dedup();
        self.items.push(Item::FastPath(FastPathItem {
            interfaces,
            vlans,
            relay,
            server,
        }));
    }

    /// Returns the interfaces, or none if frames with VLAN tags arrive by one of them where XDP may not
    /// see the tags.
    fn untagged<'a>(
        &mut self,
        wanted: &FastPathRequest<'_>,
        links: Vec<(&'a Link, bool)>,
        host: &Snapshot,
        state: &State,
    ) -> Vec<(&'a Link, bool)> {
        let reason = links.iter().find_map(|(link, _)| {
            let name = &link.name;
            let clause = if state.hidden_tags.contains(&link.index) {
                format!(
                    "frames with VLAN tags arrive by {name}, where XDP does not see the tags: keep them from \
                     it, or leave the tags in the frames (on a veth `ethtool -K OTHER-END txvlan off`), and \
                     restart the daemon"
                )
            } else {
                let vlan = host.vlan_on(link).filter(|_| link.hides_tags())?;
                format!(
                    "{name} carries the VLAN interface {}, and XDP may not see the VLAN tags in its frames: \
                     name VLAN interfaces or others in {}",
                    vlan.name,
                    wanted.interfaces_keys()
                )
            };
            Some((name.clone(), clause))
        });
        let Some((name, reason)) = reason else {
            return links;
        };
        let role = wanted.role();
        self.refusal = Some(Refusal {
            interfaces: links.iter().map(|(link, _)| link.name.clone()).collect(),
            reason: reason.clone(),
        });
        self.lacks(role, Kind::FastPathOff, &name, reason);
        Vec::new()
    }

    /// Returns the named interfaces that exist, and reports the others.
    fn named<'a>(
        &mut self,
        role: Role,
        names: &[String],
        wanted: &FastPathRequest<'_>,
        host: &'a Snapshot,
    ) -> Vec<&'a Link> {
        let mut found = Vec::new();
        for name in names {
            if let Some(link) = host.link(name) {
                found.push(link);
                continue;
            }
            let present: Vec<_> = host.links.iter().map(|link| &*link.name).collect();
            let text = format!(
                "there is no interface {name}, which {} names: this host has {}",
                wanted.interfaces_keys(),
                present.join(", ")
            );
            self.lacks(role, Kind::InterfaceMissing, name, text);
        }
        found
    }

    /// Returns the interfaces that carry Ethernet frames, each once, and reports those that do not or
    /// that are down. A program on some interfaces of the others cannot send to them, which the kernel
    /// does then.
    fn usable<'a>(&mut self, wanted: &FastPathRequest<'_>, links: Vec<&'a Link>) -> Vec<&'a Link> {
        let role = wanted.role();
        let mut usable: Vec<&Link> = Vec::new();
        for &link in &links {
            if usable.iter().any(|other| other.index == link.index) {
                continue;
            }
            let name = &link.name;
            if !link.is_ethernet {
                let reason = format!(
                    "interface {name} is not Ethernet: name others in {}, or set {} = \"off\"",
                    wanted.interfaces_keys(),
                    wanted.mode_keys()
                );
                self.refusal = Some(Refusal {
                    interfaces: links.iter().map(|link| link.name.clone()).collect(),
                    reason: reason.clone(),
                });
                // What the operator has named was meant.
                let is_named = wanted.named().any(|named| named == name);
                if is_named || wanted.mode != AttachPolicy::Auto {
                    self.lacks(role, Kind::FastPathOff, name, reason);
                }
                return Vec::new();
            }
            if !link.is_up {
                let text = format!("interface {name} is down: `ip link set {name} up`");
                self.lacks(role, Kind::InterfaceMissing, name, text);
            }
            usable.push(link);
        }
        usable
    }
}

/// Returns the interfaces to attach the program to, each once and with whether it is for their frames without VLAN
/// tags, and the VLAN interfaces above them. Where XDP does not see the tags, the program is for the VLAN
/// interface itself.
fn trunks<'a>(
    links: Vec<&'a Link>,
    host: &'a Snapshot,
    state: &State,
) -> (Vec<(&'a Link, bool)>, Vec<Vlan>) {
    let (mut found, mut vlans) = (Vec::<(&Link, bool)>::new(), Vec::new());
    let mut add = |link: &'a Link, is_served: bool| match found
        .iter_mut()
        .find(|(one, _)| one.index == link.index)
    {
        Some((_, served)) => *served |= is_served,
        None => found.push((link, is_served)),
    };
    for link in links {
        let trunk = host.trunk_of(link);
        match trunk.filter(|(lower, _)| !state.hidden_tags.contains(&lower.index)) {
            Some((lower, tags)) => {
                add(lower, false);
                vlans.push(Vlan {
                    index: link.index,
                    trunk: Trunk {
                        interface: lower.index,
                        tags,
                    },
                });
            }
            None => add(link, true),
        }
    }
    vlans.sort();
    (found, vlans)
}
