//! Virtual routing and forwarding: interfaces with routing tables of their own.

use std::{net::Ipv4Addr, os::fd::AsFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt};

use super::{Host, Report};
use crate::{config::RelaySection, host::Link};

/// The routing tables of an address and of this process.
#[derive(Clone, Copy, Debug)]
struct Placement<'a> {
    address: Ipv4Addr,
    /// The VRF that has the address; none for the default routing table.
    of_address: Option<&'a str>,
    /// The VRF that this process's sockets are bound to.
    of_process: Option<&'a str>,
}

/// A relay's tunnel, which is outside of every VRF when the relay has made it.
#[derive(Clone, Copy, Debug)]
struct Tunnel<'a> {
    name: &'a str,
    prefix: &'a str,
    /// Whether the relay adds the route itself.
    has_route: bool,
}

/// Examines whether the address and this process are in the same VRF, and reports what a relay needs
/// there. Returns `false` if the address cannot be used.
pub fn examine(
    host: &Host<'_>,
    address: Ipv4Addr,
    relay: Option<&RelaySection>,
    report: &mut Report,
) -> bool {
    let network = &host.network;
    let of_address = network
        .links_with(address)
        .find_map(|link| network.vrf_of(link))
        .map(|vrf| &*vrf.name);
    let of_process = own_device().filter(|name| network.link(name).is_some_and(Link::is_vrf));
    let placement = Placement {
        address,
        of_address,
        of_process: of_process.as_deref(),
    };
    let prefix = host.config.node.prefix.to_string();
    let tunnel = relay.map(|relay| Tunnel {
        name: &relay.tun,
        prefix: &prefix,
        has_route: relay.route,
    });
    match judge(placement, tunnel) {
        Ok(None) => true,
        Ok(Some(note)) => {
            report.note("vrf", note);
            true
        }
        Err(trouble) => {
            report.trouble("vrf", trouble);
            false
        }
    }
}

/// Reports interfaces of a relay that are not in the VRF of its address.
pub fn interfaces(
    host: &Host<'_>,
    relay: &RelaySection,
    address: Ipv4Addr,
    links: &[&Link],
    report: &mut Report,
) {
    let vrf_of = |link| host.network.vrf_of(link).map(|vrf| &*vrf.name);
    let of_relay = host.network.links_with(address).find_map(vrf_of);
    for link in links {
        match stranded(&link.name, vrf_of(link), of_relay) {
            None => {}
            // Without it, the operator adds the routes, perhaps also between the tables.
            Some(text) if relay.route => report.degraded("vrf", text),
            Some(text) => report.note("vrf", text),
        }
    }
}

/// Returns a sentence about an interface whose packets are routed by another table than the relay's.
fn stranded(interface: &str, of_interface: Option<&str>, of_relay: Option<&str>) -> Option<String> {
    let place = match (of_interface, of_relay) {
        (of_interface, of_relay) if of_interface == of_relay => return None,
        (None, Some(vrf)) => format!("not in the VRF {vrf}, where the relay is"),
        (vrf, _) => format!(
            "in the VRF {}, where the relay is not",
            vrf.unwrap_or_default()
        ),
    };
    Some(format!(
        "{interface} is {place}: packets that arrive there reach the relay only if routes lead from \
         one table to the other; have all interfaces of the relay in one VRF, or set relay.route = \
         false and add the routes yourself"
    ))
}

/// Returns a note, or the reason why it does not work.
fn judge(placement: Placement<'_>, tunnel: Option<Tunnel<'_>>) -> Result<Option<String>, String> {
    let address = placement.address;
    match (placement.of_address, placement.of_process) {
        (None, None) => Ok(None),
        (Some(vrf), process) if process != Some(vrf) => Err(format!(
            "{address} is an address in the VRF {vrf}, where this process is not: start it with `ip \
             vrf exec {vrf} teredo run`"
        )),
        (None, Some(vrf)) => Err(format!(
            "this process is in the VRF {vrf}, where {address} is not: start it without `ip vrf exec`"
        )),
        (Some(vrf), _) => match tunnel {
            None => Ok(None),
            Some(Tunnel {
                name,
                prefix,
                has_route: true,
            }) => Err(format!(
                "the interface {name} and the route of {prefix} would be outside of the VRF {vrf}, so \
                 that nothing is forwarded: set relay.route = false, and once the relay runs, `ip link \
                 set {name} master {vrf}` and `ip -6 route add {prefix} dev {name} vrf {vrf}`"
            )),
            Some(Tunnel { name, prefix, .. }) => Ok(Some(format!(
                "the relay is in the VRF {vrf}: once it runs, `ip link set {name} master {vrf}` and `ip \
                 -6 route add {prefix} dev {name} vrf {vrf}`"
            ))),
        },
    }
}

/// Returns the interface that this process's sockets are bound to from the start, as `ip vrf exec`
/// arranges it.
fn own_device() -> Option<String> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None).ok()?;
    let name = getsockopt(&socket.as_fd(), sockopt::BindToDevice).ok()?;
    let name = name.into_string().ok()?;
    let name = name.trim_end_matches('\0');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 3);

    fn tunnel(has_route: bool) -> Option<Tunnel<'static>> {
        Some(Tunnel {
            name: "teredo",
            prefix: "2001::/32",
            has_route,
        })
    }

    fn judged(
        of_address: Option<&str>,
        of_process: Option<&str>,
        tunnel: Option<Tunnel<'_>>,
    ) -> Result<Option<String>, String> {
        let placement = Placement {
            address: ADDRESS,
            of_address,
            of_process,
        };
        judge(placement, tunnel)
    }

    #[test]
    fn without_a_vrf_nothing_is_said() {
        assert_eq!(judged(None, None, tunnel(true)), Ok(None));
    }

    #[test]
    fn a_process_outside_of_the_vrf_is_sent_inside() {
        for process in [None, Some("blue")] {
            let text = judged(Some("red"), process, tunnel(true)).unwrap_err();
            assert!(text.contains("ip vrf exec red teredo run"), "{text}");
        }
    }

    #[test]
    fn a_process_in_a_vrf_without_the_address_is_sent_outside() {
        let text = judged(None, Some("red"), tunnel(true)).unwrap_err();
        assert!(text.contains("without `ip vrf exec`"), "{text}");
    }

    #[test]
    fn a_tunnel_outside_of_the_vrf_is_not_silent() {
        let text = judged(Some("red"), Some("red"), tunnel(true)).unwrap_err();
        assert!(text.contains("relay.route = false"), "{text}");
        let note = judged(Some("red"), Some("red"), tunnel(false)).unwrap();
        assert!(note.unwrap().contains("ip link set teredo master red"));
    }

    #[test]
    fn an_interface_outside_of_the_relays_vrf_is_stranded() {
        assert_eq!(stranded("up0", None, None), None);
        assert_eq!(stranded("up0", Some("red"), Some("red")), None);
        for relay in [None, Some("blue")] {
            let text = stranded("up0", Some("red"), relay).unwrap();
            let start = "up0 is in the VRF red, where the relay is not";
            assert!(text.starts_with(start), "{text}");
        }
        let text = stranded("up0", None, Some("red")).unwrap();
        let start = "up0 is not in the VRF red, where the relay is";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn a_server_needs_no_tunnel() {
        assert_eq!(judged(Some("red"), Some("red"), None), Ok(None));
    }
}
