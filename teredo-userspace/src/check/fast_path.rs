//! The interfaces of the fast path, and its mode.

use std::{collections::HashSet, io, net::SocketAddrV4};

use rtnetlink::packet_route::link::InfoKind;
use teredo_proto::server::RegisteredClient;

use super::{Host, Report, owner, vrf};
use crate::{
    config::FastPathRequest,
    datapath::xdp::{self, AttachPolicy, Interface, XdpFeatures, xdp_features},
    host::Link,
    metrics::{Attachment, Mode},
    node::fast_path,
};

/// Up to this MTU a frame fits into one page, which native programs need.
const NATIVE_MTU: u32 = 3_498;

/// Examines every interface that the program would be attached to, and loads the program for a moment.
/// `relay_endpoint` and `clients` are parameters of the program.
pub fn examine(
    host: &Host<'_>,
    relay_endpoint: Option<SocketAddrV4>,
    clients: Vec<RegisteredClient>,
    report: &mut Report,
) {
    let relay = host.config.relay.as_ref().map(|relay| relay.xdp.mode);
    let server = host.config.server.as_ref().map(|server| server.xdp.mode);
    for (role, mode) in [("relay", relay), ("server", server)] {
        if mode == Some(AttachPolicy::Off) {
            let text = format!("{role}.xdp.mode is \"off\": everything goes through userspace");
            report.note("fast path", text);
        }
    }
    let Some(wanted) = host.config.fast_path() else {
        return;
    };
    let links = links(host, wanted);
    if links.is_empty() {
        // Nothing to attach to is a condition.
        return;
    }
    let other = links.iter().find(|link| !link.is_ethernet);
    let is_named = |link: &&Link| wanted.named().any(|name| name == link.name);
    let is_host_specific = host
        .config
        .relay
        .as_ref()
        .is_some_and(|relay| relay.host_specific);
    if is_host_specific && wanted.server.is_none() {
        let reason = "relay.host-specific is set: all packets are this host's own";
        report.xdp = attachments(&links, Mode::Off, reason);
        return report.note("fast path", format!("off, since {reason}"));
    }
    if let Some(link) = other {
        let reason = format!(
            "interface {} is not Ethernet: name others in {}, or set {} = \"off\"",
            link.name,
            wanted.interfaces_keys(),
            wanted.mode_keys()
        );
        report.xdp = attachments(&links, Mode::Off, &reason);
        // What the operator has named was meant.
        if wanted.mode != AttachPolicy::Auto || is_named(link) {
            report.trouble("fast path", reason);
        }
        return;
    }
    let is_troubled = links
        .iter()
        .filter(|link| !is_usable(host, wanted, link, report))
        .count()
        > 0;
    if is_troubled {
        return;
    }
    controllers(host, wanted, &links, report);
    if let (Some(relay), Some(endpoint)) = (&host.config.relay, relay_endpoint) {
        vrf::interfaces(host, relay, *endpoint.ip(), &links, report);
    }
    default_routes(host, wanted, &links, report);
    predict(wanted, &trunks(host, &links), report);
    if !is_loaded(host, wanted.mode, relay_endpoint, clients, report) {
        return;
    }
    for attachment in report.xdp.clone() {
        let text = match &*attachment.reason {
            "" => format!("{}: {}", attachment.interface, attachment.mode),
            reason => format!("{}: {}, {reason}", attachment.interface, attachment.mode),
        };
        report.fine("fast path", text);
    }
}

/// Returns the interfaces that the configuration means, as far as they exist, each once.
fn links<'a>(host: &'a Host<'_>, wanted: FastPathRequest<'_>) -> Vec<&'a Link> {
    let mut links = Vec::new();
    if wanted.relay.is_some_and(<[_]>::is_empty) {
        links.extend(host.network.default_links());
    }
    if wanted.server.is_some_and(<[_]>::is_empty) {
        let addresses = host.config.server.iter().flat_map(|server| server.ipv4);
        links.extend(addresses.flat_map(|address| host.network.links_with(address)));
    }
    links.extend(wanted.named().filter_map(|name| host.network.link(name)));
    let mut seen = HashSet::new();
    links.retain(|link| seen.insert(link.index));
    links
}

/// Returns the interfaces that the program is attached to: those below VLAN interfaces, where XDP sees their tags.
fn trunks<'a>(host: &'a Host<'_>, links: &[&'a Link]) -> Vec<&'a Link> {
    let links = links.iter();
    let mut found: Vec<&Link> = links
        .map(|&link| host.network.trunk_of(link).map_or(link, |(lower, _)| lower))
        .collect();
    let mut seen = HashSet::new();
    found.retain(|link| seen.insert(link.index));
    found
}

/// Returns whether a program can be attached to the interface at all, and reports why not.
fn is_usable(
    host: &Host<'_>,
    wanted: FastPathRequest<'_>,
    link: &Link,
    report: &mut Report,
) -> bool {
    let name = &link.name;
    let Some(number) = link.xdp_program else {
        return true;
    };
    // That of an earlier run is replaced.
    if host.is_running || xdp::pinned_program(&host.config.node.name, link.index) == Some(number) {
        return true;
    }
    report.trouble(
        "fast path",
        format!(
            "{} is attached to {name}, which takes only one: detach it ({}), leave {name} out of {}, or \
             set {} = \"off\"",
            owner::program(number),
            xdp::detach_remedy(name, number),
            wanted.interfaces_keys(),
            wanted.mode_keys()
        ),
    );
    false
}

/// Returns whether the kernel accepts the program, and reports why not.
fn is_loaded(
    host: &Host<'_>,
    mode: AttachPolicy,
    relay_endpoint: Option<SocketAddrV4>,
    clients: Vec<RegisteredClient>,
    report: &mut Report,
) -> bool {
    // Without the relay's address, which is reported already, the program is not the right one.
    let is_complete = host.config.relay.is_none() || relay_endpoint.is_some();
    if !host.is_thorough || !is_complete {
        return true;
    }
    let Err(error) = fast_path::try_to_load(
        host.config,
        &host.network,
        &host.plan,
        relay_endpoint,
        clients,
    ) else {
        return true;
    };
    let error = match error.downcast::<xdp::Error>() {
        Ok(xdp::Error::Permission { .. }) => {
            let text =
                "not tried: this process may not load BPF programs; run `teredo check` as root";
            report.note("fast path", text);
            return true;
        }
        Ok(error) => {
            if let xdp::Error::Refused(refusal) = &error {
                refusal.log().clone_into(&mut report.verifier_log);
            }
            error.to_string()
        }
        Err(error) => format!("{error:#}"),
    };
    for attachment in &mut report.xdp {
        attachment.mode = Mode::Off;
        attachment.reason.clone_from(&error);
    }
    match mode {
        AttachPolicy::Auto => report.degraded("fast path", format!("there is none: {error}")),
        _ => report.trouble("fast path", error),
    }
    false
}

/// Reports named interfaces that are ports of another one, which routes lead through.
fn controllers(host: &Host<'_>, wanted: FastPathRequest<'_>, links: &[&Link], report: &mut Report) {
    for link in links {
        let Some(controller) = host.network.controller_of(link) else {
            continue;
        };
        let kind = match controller.kind {
            Some(InfoKind::Bond) => "bond",
            Some(InfoKind::Bridge) => "bridge",
            // Routes lead through the interfaces of a VRF themselves.
            _ => continue,
        };
        let (name, controller) = (&link.name, &controller.name);
        let text = format!(
            "{name} is a port of the {kind} {controller}, which routes lead through: name \
             {controller} in {} instead, or no packet leaves on the fast path",
            wanted.interfaces_keys()
        );
        report.degraded("fast path", text);
    }
}

/// Reports default routes that lead through interfaces which are not named.
fn default_routes(
    host: &Host<'_>,
    wanted: FastPathRequest<'_>,
    links: &[&Link],
    report: &mut Report,
) {
    if wanted.relay.is_none_or(<[_]>::is_empty) {
        return;
    }
    for link in host.network.default_links() {
        if links.iter().any(|other| other.index == link.index) {
            continue;
        }
        let text = format!(
            "a default route leads through {}, which {} does not name: packets that take it leave \
             through userspace",
            link.name,
            wanted.interfaces_keys()
        );
        report.note("fast path", text);
    }
}

/// Native and generic programs do not send to each other's interfaces, so all get the same mode.
fn predict(wanted: FastPathRequest<'_>, links: &[&Link], report: &mut Report) {
    let obstacle = match wanted.mode {
        AttachPolicy::Generic => None,
        _ => links.iter().find_map(|link| {
            native_obstacle(link, xdp_features(link.index)).or_else(|| bare_end(link))
        }),
    };
    let (mode, reason) = match (wanted.mode, obstacle) {
        (AttachPolicy::Generic, _) => (Mode::Generic, String::new()),
        (AttachPolicy::Native, Some(why)) => {
            let keys = wanted.mode_keys();
            let text = format!("{why}; set {keys} to \"auto\" or \"generic\"");
            return report.trouble("fast path", text);
        }
        (_, Some(why)) => (Mode::Generic, format!("since {why}")),
        (_, None) => (Mode::Native, String::new()),
    };
    report.xdp = attachments(links, mode, &reason);
    for link in links.iter().filter(|_| mode == Mode::Native) {
        if let Some(trouble) = xdp::known_trouble(&link.name) {
            report.note("fast path", format!("{}: {trouble}", link.name));
        }
    }
}

/// Returns why frames that a native program sends through the interface would vanish.
fn bare_end(link: &Link) -> Option<String> {
    let interface = Interface::named(&link.name).ok()?;
    let obstacle = xdp::native_obstacle(&[interface]).ok()??;
    Some(obstacle.to_string())
}

fn attachments(links: &[&Link], mode: Mode, reason: &str) -> Vec<Attachment> {
    links
        .iter()
        .map(|link| Attachment {
            interface: link.name.clone(),
            mode,
            reason: reason.to_owned(),
            dropped: 0,
        })
        .collect()
}

/// Why the program cannot run in the interface's driver; none if it can, or if only trying tells.
fn native_obstacle(link: &Link, features: io::Result<XdpFeatures>) -> Option<String> {
    let name = &link.name;
    match features {
        // Kernels before Linux 6.3 do not report features.
        _ if link.kind == Some(InfoKind::Vlan) => Some(format!(
            "{name} is a VLAN interface, and the kernel has no native XDP for those"
        )),
        Ok(features) if !features.is_native() => Some(match link.kind {
            Some(InfoKind::Veth) => format!(
                "{name} has no native XDP now: a veth needs at least as many receive queues as its \
                 peer has transmit queues"
            ),
            Some(InfoKind::Bond) => {
                format!("{name} has no native XDP now: a bond needs ports whose drivers have it")
            }
            _ => format!("the driver of {name} does not run XDP programs"),
        }),
        _ if link.mtu > NATIVE_MTU => Some(format!(
            "the MTU of {name} is {}, more than the {NATIVE_MTU} that fit in a page",
            link.mtu
        )),
        _ => None,
    }
}
