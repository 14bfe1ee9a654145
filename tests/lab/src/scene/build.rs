//! Construction of the scene's namespaces.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use anyhow::Result;

use super::{
    Host, IPV4_INTERFACE, IPV6_INTERFACE, ONE_ARM, Place, RELAY, RELAY_IPV6, SECONDARY,
    SECONDARY_INTERFACE, SERVER, SERVER_IPV6, Site,
};
use crate::{Internet, Namespace, Nat, NatKind};

/// The service port of the first client; each further client has the next port.
const CLIENT_PORT: u16 = 40001;

fn native_address(host: u16) -> Ipv6Addr {
    let mut segments = RELAY_IPV6.segments();
    segments[7] = host;
    segments.into()
}

pub(super) fn relay(ipv4: &mut Internet, ipv6: Option<&mut Internet>) -> Result<Namespace> {
    let relay = Namespace::new("relay")?;
    let interfaces = if let Some(ipv6) = ipv6 {
        ipv4.plug_xdp(&relay, IPV4_INTERFACE)?;
        ipv6.plug_xdp(&relay, IPV6_INTERFACE)?;
        [IPV4_INTERFACE, IPV6_INTERFACE]
    } else {
        ipv4.plug_xdp(&relay, ONE_ARM)?;
        [ONE_ARM; 2]
    };
    relay.ip_batch(&format!(
        "addr add {}/16 dev {}
        addr add {RELAY_IPV6}/64 dev {} nodad",
        RELAY.ip(),
        interfaces[0],
        interfaces[1]
    ))?;
    relay.sysctl("net.ipv6.conf.all.forwarding", 1)?;
    Ok(relay)
}

pub(super) fn server(
    ipv4: &mut Internet,
    ipv6: Option<&mut Internet>,
    place: Place,
) -> Result<Namespace> {
    let server = Namespace::new("server")?;
    ipv4.plug_xdp(&server, IPV4_INTERFACE)?;
    // Each address may be resolved through its own interface only.
    server.sysctl("net.ipv4.conf.all.arp_ignore", 1)?;
    server.sysctl("net.ipv4.conf.all.arp_announce", 2)?;
    let secondary = if place == Place::TwoInterfaces {
        ipv4.plug_xdp(&server, SECONDARY_INTERFACE)?;
        format!("{SECONDARY}/32 dev {SECONDARY_INTERFACE}")
    } else {
        format!("{SECONDARY}/16 dev {IPV4_INTERFACE}")
    };
    ipv6.map_or(&*ipv4, |ipv6| &*ipv6)
        .plug(&server, IPV6_INTERFACE)?;
    server.ip_batch(&format!(
        "addr add {SERVER}/16 dev {IPV4_INTERFACE}
        addr add {secondary}
        addr add {SERVER_IPV6}/64 dev {IPV6_INTERFACE} nodad
        route add 2001::/32 via {RELAY_IPV6}"
    ))?;
    Ok(server)
}

pub(super) fn host(internet: &Internet, number: u8) -> Result<Host> {
    let namespace = Namespace::new(&format!("host{number}"))?;
    let address = native_address(0x10 + u16::from(number));
    internet.plug(&namespace, IPV6_INTERFACE)?;
    namespace.ip_batch(&format!(
        "addr add {address}/64 dev {IPV6_INTERFACE} nodad
        route add 2001::/32 via {RELAY_IPV6}"
    ))?;
    Ok(Host { namespace, address })
}

pub(super) fn site(internet: &Internet, number: u8, kind: NatKind) -> Result<Site> {
    let port = CLIENT_PORT + u16::from(number);
    let inside = SocketAddrV4::new(Ipv4Addr::new(192, 168, number, 2), port);
    let wan = Ipv4Addr::new(20, 0, 10 + number, 1);
    let lan = Ipv4Addr::new(192, 168, number, 1);
    let nat = Nat::new(&format!("nat{number}"), internet, wan, lan, inside, kind)?;
    let client = Namespace::new(&format!("client{number}"))?;
    nat.connect(&client, *inside.ip())?;
    Ok(Site { nat, client, port })
}
