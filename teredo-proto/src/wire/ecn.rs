//! Explicit congestion notification (RFC 3168): the lowest two bits of a type of service or of a
//! traffic class.

/// The sender does not take part.
pub const NOT_CAPABLE: u8 = 0;
/// The packet met congestion.
pub const CONGESTION_EXPERIENCED: u8 = 3;

/// Whether a decapsulated packet has to be dropped: the datagram around it met congestion, and the
/// packet cannot carry the mark (RFC 6040 section 4.2). Both arguments are the two bits, 0 to 3.
pub const fn must_drop(outer: u8, inner: u8) -> bool {
    outer == CONGESTION_EXPERIENCED && inner == NOT_CAPABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_mark_drops() {
        for outer in 0..4 {
            for inner in 0..4 {
                assert_eq!(must_drop(outer, inner), (outer, inner) == (3, 0));
            }
        }
    }
}
