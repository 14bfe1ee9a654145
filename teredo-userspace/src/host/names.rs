//! Looking up the addresses of servers and relays that are configured by name.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use teredo_common::scope::Ipv4Scope;
use tokio::net::lookup_host;

/// Most addresses that are used of one name.
const ADDRESSES_MAX: usize = 8;

/// Looks up the IPv4 addresses of a name and returns the first few that `scope` accepts.
///
/// # Errors
///
/// A clause for the user that says why there are none.
pub async fn lookup_ipv4(name: String, scope: Ipv4Scope) -> Result<Vec<Ipv4Addr>, String> {
    let found = lookup_host((name, 0)).await;
    let found = found.map_err(|error| error.to_string())?;
    acceptable(found.map(|address| address.ip()), scope)
}

/// Looks up the addresses of a name in one of the families, each with the port.
///
/// # Errors
///
/// A clause for the user that says why there are none.
pub async fn lookup_endpoints(
    name: &str,
    port: u16,
    is_ipv4: bool,
) -> Result<BTreeSet<SocketAddr>, String> {
    let found = lookup_host((name, port)).await;
    let found = found.map_err(|error| error.to_string())?;
    let found: BTreeSet<_> = found
        .filter(|address| address.is_ipv4() == is_ipv4)
        .collect();
    match (found.is_empty(), is_ipv4) {
        (false, _) => Ok(found),
        (true, true) => Err("it has no IPv4 address, as relay.fleet.listen is".to_owned()),
        (true, false) => Err("it has no IPv6 address, as relay.fleet.listen is".to_owned()),
    }
}

/// Returns the distinct IPv4 addresses that `scope` accepts.
fn acceptable(
    found: impl Iterator<Item = IpAddr>,
    scope: Ipv4Scope,
) -> Result<Vec<Ipv4Addr>, String> {
    let (mut addresses, mut refused) = (Vec::new(), None);
    for address in found {
        let IpAddr::V4(address) = address else {
            continue;
        };
        if !scope.accepts(address.octets()) {
            refused = Some(address);
        } else if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    match refused {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(refused) => Err(format!(
            "its address {refused} is not acceptable under client.ipv4-scope"
        )),
        None => Err("it has no IPv4 address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c01_servers_are_global_unicast() {
        let found = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            acceptable(addresses, Ipv4Scope::Strict)
        };
        let expected: Ipv4Addr = [9, 0, 0, 1].into();
        assert_eq!(
            found(&["2001:db8::1", "192.168.0.1", "9.0.0.1", "9.0.0.1"]),
            Ok(vec![expected])
        );
        assert!(found(&["192.168.0.1"]).unwrap_err().contains("192.168.0.1"));
        assert!(found(&["2001:db8::1"]).unwrap_err().contains("no IPv4"));
        assert!(found(&[]).is_err());
    }
}
