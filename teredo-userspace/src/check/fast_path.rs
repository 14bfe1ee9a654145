//! Where the fast path would run, and how.

use std::io;

use super::{
    Host, Report,
    network::Link,
    owner,
    xdp_features::{XdpFeatures, xdp_features},
};
use crate::{
    config::{Relay, Xdp, XdpMode},
    datapath::route::Routes,
    metrics::{Attachment, Mode},
};

/// Name of our program in the kernel.
const OUR_PROGRAM: &str = "teredo";
/// Up to this MTU a frame fits into one page, which native programs need.
const NATIVE_MTU: u32 = 3_498;

/// Looks at every interface that the program would be attached to.
pub async fn examine(host: &Host<'_>, relay: &Relay, report: &mut Report) {
    let xdp = &relay.xdp;
    if xdp.mode == XdpMode::Off {
        return report.note(
            "fast path",
            "relay.xdp.mode is \"off\": everything goes through userspace",
        );
    }
    let Some(links) = links(host, xdp, report).await else {
        return;
    };
    let other = links.iter().find(|link| !link.is_ethernet);
    let obstacle = if links.is_empty() {
        Some(
            "relay.xdp.interfaces is empty and no default route tells them: name the interfaces \
             towards the IPv4 and the IPv6 internet"
                .to_owned(),
        )
    } else if relay.host_specific {
        Some("relay.host-specific is set: all packets are this host's own".to_owned())
    } else {
        other.map(|link| {
            format!(
                "interface {} is not Ethernet: name others in relay.xdp.interfaces, or set \
                 relay.xdp.mode = \"off\"",
                link.name
            )
        })
    };
    if let Some(obstacle) = obstacle {
        // What the operator has named was meant.
        let is_bearable =
            xdp.mode == XdpMode::Auto && (other.is_none() || xdp.interfaces.is_empty());
        if !is_bearable {
            return report.trouble("fast path", obstacle);
        }
        report.note("fast path", format!("off, since {obstacle}"));
        report.xdp = attachments(&links, Mode::Off, &obstacle);
        return;
    }
    let is_troubled = links
        .iter()
        .filter(|link| !is_usable(host, link, report))
        .count()
        > 0;
    if is_troubled {
        return;
    }
    predict(xdp.mode, &links, report);
    for attachment in report.xdp.clone() {
        let text = match &*attachment.reason {
            "" => format!("{}: {}", attachment.interface, attachment.mode),
            reason => format!("{}: {}, {reason}", attachment.interface, attachment.mode),
        };
        report.fine("fast path", text);
    }
}

/// The interfaces that the configuration means.
async fn links<'a>(host: &'a Host<'_>, xdp: &Xdp, report: &mut Report) -> Option<Vec<&'a Link>> {
    let mut links = Vec::new();
    if xdp.interfaces.is_empty() {
        let indices = match Routes::open() {
            Ok(routes) => routes.default_interfaces().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        links.extend(
            indices
                .iter()
                .filter_map(|&index| host.network.link_numbered(index)),
        );
    }
    for name in &xdp.interfaces {
        match host.network.link(name) {
            Some(link) => links.push(link),
            None => {
                let there: Vec<_> = host.network.links.iter().map(|link| &*link.name).collect();
                report.trouble(
                    "fast path",
                    format!(
                        "there is no interface {name}, which relay.xdp.interfaces names: this host \
                         has {}",
                        there.join(", ")
                    ),
                );
                return None;
            }
        }
    }
    Some(links)
}

/// Whether a program can be attached to the interface at all; says why not.
fn is_usable(host: &Host<'_>, link: &Link, report: &mut Report) -> bool {
    let name = &link.name;
    if !link.is_up {
        let text = format!("interface {name} is down: `ip link set {name} up`");
        report.note("fast path", text);
    }
    let Some(number) = link.xdp_program else {
        return true;
    };
    if host.is_running || owner::program_name(number).as_deref() == Some(OUR_PROGRAM) {
        return true;
    }
    report.trouble(
        "fast path",
        format!(
            "{} is attached to {name}, which takes only one: detach it with `ip link set dev {name} \
             xdp off` or by stopping its owner, leave {name} out of relay.xdp.interfaces, or set \
             relay.xdp.mode = \"off\"",
            owner::program(number)
        ),
    );
    false
}

/// Native and generic programs do not send to each other's interfaces, so all get the same mode.
fn predict(mode: XdpMode, links: &[&Link], report: &mut Report) {
    let obstacle = match mode {
        XdpMode::Generic => None,
        _ => links.iter().find_map(|link| {
            native_obstacle(link, xdp_features(link.index)).map(|why| (link, why))
        }),
    };
    let (mode, reason) = match (mode, obstacle) {
        (XdpMode::Generic, _) => (Mode::Generic, String::new()),
        (XdpMode::Native, Some((_, why))) => {
            let text = format!("{why}; set relay.xdp.mode to \"auto\" or \"generic\"");
            return report.trouble("fast path", text);
        }
        (_, Some((_, why))) => (Mode::Generic, format!("since {why}")),
        (_, None) => (Mode::Native, String::new()),
    };
    report.xdp = attachments(links, mode, &reason);
}

fn attachments(links: &[&Link], mode: Mode, reason: &str) -> Vec<Attachment> {
    links
        .iter()
        .map(|link| Attachment {
            interface: link.name.clone(),
            mode,
            reason: reason.to_owned(),
        })
        .collect()
}

/// Why the program cannot run in the interface's driver; none if it can, or if only trying tells.
fn native_obstacle(link: &Link, features: io::Result<XdpFeatures>) -> Option<String> {
    let name = &link.name;
    match features {
        Ok(features) if !features.is_native() => Some(format!(
            "the driver of {name} does not run XDP programs now (a veth needs at least as many \
             receive queues as its peer has transmit queues)"
        )),
        _ if link.mtu > NATIVE_MTU => Some(format!(
            "the MTU of {name} is {}, more than the {NATIVE_MTU} that fit in a page",
            link.mtu
        )),
        _ => None,
    }
}
