//! The reverse path filter (RFC 3704), which drops datagrams that do not come by the way back.

use std::net::Ipv4Addr;

use super::{Host, Report};
use crate::host::Setting;

/// The strict mode of `rp_filter`.
const STRICT: u64 = 1;

/// An interface with addresses of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: String,
    /// The higher one of the settings of this interface and of all, which counts.
    filter: u64,
    /// Whether packets to the internet leave by it.
    is_way_out: bool,
}

/// Examines whether the filter drops datagrams to the addresses of the roles.
pub fn examine(host: &Host<'_>, addresses: &[Ipv4Addr], report: &mut Report) {
    let filter = |name: &str| {
        Setting::ipv4(name, "rp_filter")
            .number()
            .unwrap_or_default()
    };
    let network = &host.network;
    let ways_out = network.ways_out(true);
    let mut interfaces = Vec::new();
    for link in addresses
        .iter()
        .flat_map(|&address| network.links_with(address))
    {
        let interface = Interface {
            name: link.name.clone(),
            filter: filter(&link.name).max(filter("all")),
            is_way_out: ways_out.contains(&link),
        };
        if !interfaces.contains(&interface) {
            interfaces.push(interface);
        }
    }
    match judge(&interfaces) {
        Some(text) => report.degraded("reverse path", text),
        None if !addresses.is_empty() && addresses.iter().all(|own| network.has_ipv4(*own)) => {
            report.fine("reverse path", "no datagram is filtered by its way back");
        }
        None => {}
    }
}

/// Strict filtering loses what arrives where no route leads back.
fn judge(interfaces: &[Interface]) -> Option<String> {
    // Without a default route nobody knows the way out yet.
    if !interfaces.iter().any(|interface| interface.is_way_out) && interfaces.len() < 2 {
        return None;
    }
    let strict = interfaces
        .iter()
        .find(|interface| interface.filter == STRICT && !interface.is_way_out)?;
    let name = &strict.name;
    Some(format!(
        "rp_filter is strict on {name}, by which no default route leads: datagrams to the addresses \
         there are dropped; `sysctl -w net.ipv4.conf.{name}.rp_filter=2`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, filter: u64, is_way_out: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            filter,
            is_way_out,
        }
    }

    #[test]
    fn strict_filtering_matters_beside_the_way_out() {
        let out = interface("eth0", 1, true);
        assert_eq!(judge(std::slice::from_ref(&out)), None);
        for (filter, is_lost) in [(0, false), (1, true), (2, false)] {
            let text = judge(&[out.clone(), interface("eth1", filter, false)]);
            assert_eq!(text.is_some(), is_lost, "{filter}");
            if let Some(text) = text {
                assert!(text.contains("net.ipv4.conf.eth1.rp_filter=2"), "{text}");
            }
        }
        // Both lead out, by policy or as equals.
        assert_eq!(judge(&[out, interface("eth1", 1, true)]), None);
        assert_eq!(judge(&[interface("eth1", 1, false)]), None);
    }
}
