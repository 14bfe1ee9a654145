//! What arrives from the network, and the arithmetic of addresses and checksums.

pub mod address;
pub mod authentication;
pub mod checksum;
pub mod encapsulation;
pub mod fleet;
pub mod ipv6;
pub mod router;

/// Returns the position of `part` in `whole`.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    let at = part.as_ptr() as usize - whole.as_ptr() as usize;
    assert!(at + part.len() <= whole.len(), "not a part");
    at
}
