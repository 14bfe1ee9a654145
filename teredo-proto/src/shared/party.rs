//! The parties that share tables and turns.

use teredo_common::address::Endpoint;

/// The cause of an entry or a packet: the /64 of its IPv6 source, or an IPv4 endpoint. Parties whose
/// first octets are the same belong to one network.
pub type Party = [u8; 8];

/// Lengths in octets of the networks that are compared, largest network first: /32, /48, /56 and
/// /64 of IPv6.
pub const LENGTHS: [usize; 4] = [4, 6, 7, 8];

/// The party of what no packet caused.
pub const NOBODY: Party = [0; 8];

/// Returns the party of an IPv4 endpoint. Its networks are the /16, the /24, the address, and,
/// nearly, the endpoint.
pub fn of_endpoint(endpoint: Endpoint) -> Party {
    let [a, b, c, d] = endpoint.address;
    let [e, f] = endpoint.port;
    [0, 0, a, b, 0, c, d, e ^ f]
}

/// Returns the network of a party, `length` octets long.
pub fn network(mut party: Party, length: usize) -> Party {
    party[length..].fill(0);
    party
}
