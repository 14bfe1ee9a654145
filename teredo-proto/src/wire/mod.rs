//! Parsing and building of what is on the wire. No sockets, no clocks, no allocation to parse.
//!
//! Nothing here assumes alignment: an element of any length may stand before the IPv6 packet
//! (requirement W-02).

pub mod authentication;
pub mod bubble;
pub mod ecn;
pub mod encapsulation;
pub mod icmpv6;
pub mod ipv6;
pub mod router;
pub mod trailer;

/// The octets that hexadecimal digits stand for; spaces do not count.
#[cfg(test)]
pub(crate) fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2));
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
