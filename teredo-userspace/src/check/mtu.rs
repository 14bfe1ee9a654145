//! The MTU of the ways out, against the MTU of the relay's tunnel.

use super::{Host, Report};
use crate::{config::RelaySection, host::Link};

/// Octets of the outer headers: IPv4 and UDP.
const OUTER: u32 = 28;
/// The least MTU of IPv6 (RFC 8200 section 5).
const LEAST: u32 = 1280;

/// Examines whether full packets of the tunnel fit.
pub fn examine(host: &Host<'_>, relay: &RelaySection, report: &mut Report) {
    let links = host.network.ways_out(true);
    let tight: Vec<_> = links
        .iter()
        .filter_map(|link| judge(link, relay.mtu.into()))
        .collect();
    if tight.is_empty() && !links.is_empty() {
        report.fine("mtu", format!("packets of {} octets fit", relay.mtu));
    }
    for text in tight {
        report.degraded("mtu", text);
    }
}

fn judge(link: &Link, tunnel: u32) -> Option<String> {
    let needed = tunnel + OUTER;
    let name = &link.name;
    (link.mtu < needed).then(|| {
        let lower = if tunnel > LEAST {
            format!(", or set relay.mtu to {}", link.mtu.saturating_sub(OUTER).max(LEAST))
        } else {
            String::new()
        };
        format!(
            "the MTU of {name} is {}, but packets of relay.mtu = {tunnel} need {needed}: they leave in \
             fragments, which many NATs drop; `ip link set {name} mtu {needed}`{lower}",
            link.mtu
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mtu: u32) -> Link {
        Link {
            name: "eth0".to_owned(),
            index: 2,
            mtu,
            is_ethernet: true,
            is_point_to_point: false,
            kind: None,
            controller: None,
            lower: None,
            vlan: None,
            keeps_tags: false,
            is_up: true,
            has_carrier: true,
            dropped: 0,
            xdp_program: None,
        }
    }

    #[test]
    fn the_outer_headers_need_room() {
        assert_eq!(judge(&link(1500), 1280), None);
        assert_eq!(judge(&link(1308), 1280), None);
        let text = judge(&link(1300), 1280).unwrap();
        assert!(
            text.contains("mtu 1308`") && !text.contains("relay.mtu to"),
            "{text}"
        );
        let text = judge(&link(1500), 1500).unwrap();
        assert!(
            text.contains("need 1528") && text.ends_with("set relay.mtu to 1472"),
            "{text}"
        );
    }
}
