//! Addresses, and which of them are acceptable.

use std::net::Ipv6Addr;

use teredo_common::{
    address::{
        Endpoint, ServicePrefix, TeredoAddress, embedded_mapping, embedded_server, has_cone_flag,
        server_link_local,
    },
    scope::{Ipv4Scope, embedded_router, is_global_unicast, is_link_local, may_be_source},
};

use crate::bytes::Bytes;

/// Reads an IPv6 address in each way, and compares the rules with those of the standard library.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let octets: [u8; 16] = bytes.array();
    let address = Ipv6Addr::from(octets);
    let prefix = ServicePrefix(bytes.array());
    teredo(address, prefix);
    let [a, b, c, d, ..] = octets;
    teredo(address, ServicePrefix([a, b, c, d]));
    scopes(address);
    let mapped = Endpoint::new(bytes.array::<4>().into(), bytes.short());
    ipv4(mapped);
    let own = TeredoAddress::new(mapped.ip(), mapped).encode();
    teredo(own, ServicePrefix::STANDARD);
    let link_local = server_link_local(mapped.ip(), mapped.port()).octets();
    assert!(is_link_local(&link_local) && !is_global_unicast(&link_local));
}

/// Decoding and encoding are inverse.
fn teredo(address: Ipv6Addr, prefix: ServicePrefix) {
    let octets = address.octets();
    let decoded = TeredoAddress::decode(address, prefix);
    let has_port = embedded_mapping(&octets).port() != 0;
    assert_eq!(decoded.is_some(), prefix.contains(&octets) && has_port);
    let Some(fields) = decoded else { return };
    assert_eq!(fields.encode(), address, "W-12");
    assert_eq!(fields.mapped, embedded_mapping(&octets));
    assert_eq!(fields.server.octets(), embedded_server(&octets));
    assert_eq!(fields.is_cone(), has_cone_flag(&octets));
}

fn scopes(address: Ipv6Addr) {
    let octets = address.octets();
    let is_special = address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_unique_local()
        || address.is_unicast_link_local();
    if is_special {
        assert!(!is_global_unicast(&octets), "{address}");
    }
    if is_global_unicast(&octets) {
        assert!(may_be_source(&octets), "{address}");
    }
    assert_eq!(is_link_local(&octets), address.is_unicast_link_local());
    if octets[..2] == [0x20, 2] {
        let [_, _, a, b, c, d, ..] = octets;
        assert_eq!(embedded_router(&octets), Some([a, b, c, d]), "L-07");
    }
}

/// The rules are ordered: what a stricter one accepts, so do the others.
fn ipv4(endpoint: Endpoint) {
    let (ip, address) = (endpoint.ip(), endpoint.address);
    let [strict, rfc, lab] = [Ipv4Scope::Strict, Ipv4Scope::Rfc4380, Ipv4Scope::Lab];
    assert!(!strict.accepts(address) || rfc.accepts(address));
    assert!(!rfc.accepts(address) || lab.accepts(address));
    let is_never = ip.is_multicast() || ip.is_loopback() || ip.is_broadcast() || address[0] == 0;
    assert_eq!(lab.accepts(address), !is_never, "{ip}: L-05");
    if ip.is_private() || ip.is_link_local() {
        assert!(!rfc.accepts(address), "{ip}: L-05");
    }
    if ip.is_documentation() {
        assert!(!strict.accepts(address), "{ip}: L-05");
    }
    let indication = endpoint.origin_indication();
    let [_, _, p, q, a, b, c, d] = indication;
    let origin = Endpoint {
        address: [!a, !b, !c, !d],
        port: [!p, !q],
    };
    assert_eq!((origin, &indication[..2]), (endpoint, &[0, 0][..]), "W-02");
}
