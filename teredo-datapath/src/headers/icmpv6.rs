//! Router solicitations (RFC 4861 section 4.1).

use teredo_common::wire::ROUTER_SOLICITATION;

use crate::frame::{Frame, Octets};

/// A router solicitation up to its options.
#[derive(Clone, Copy)]
pub struct Solicitation(Octets<{ Solicitation::LENGTH }>);

impl Solicitation {
    /// Octets of a solicitation without options.
    pub const LENGTH: usize = 8;

    /// Returns the message at the start of `message`, of whatever type, if the frame has one there.
    #[inline(always)]
    pub fn of(message: Frame) -> Option<Self> {
        message.first().map(Self)
    }

    /// Whether the type is that of a router solicitation.
    #[inline(always)]
    pub fn is_solicitation(self) -> bool {
        self.0.read::<u8, 0>() == ROUTER_SOLICITATION
    }

    /// Returns the code, zero in every valid message.
    #[inline(always)]
    pub fn code(self) -> u8 {
        self.0.read::<u8, 1>()
    }

    /// Returns all octets in memory order.
    #[inline(always)]
    pub fn word(self) -> u64 {
        self.0.read::<u64, 0>()
    }
}

/// Two units of options, eight octets each.
#[derive(Clone, Copy)]
pub struct Options(Octets<{ Options::LENGTH }>);

impl Options {
    /// Octets of the options.
    pub const LENGTH: usize = 16;

    /// Returns the options after a solicitation at the start of `message`, if the frame has them.
    #[inline(always)]
    pub fn of(message: Frame) -> Option<Self> {
        message.skip::<{ Solicitation::LENGTH }>().first().map(Self)
    }

    /// Whether their lengths are valid: one option of two units, or two of one.
    #[inline(always)]
    pub fn are_valid(self) -> bool {
        match self.0.read::<u8, 1>() {
            2 => true,
            1 => self.0.read::<u8, 9>() == 1,
            _ => false,
        }
    }

    /// Returns all octets as two words in memory order.
    #[inline(always)]
    pub fn words(self) -> [u64; 2] {
        [self.0.read::<u64, 0>(), self.0.read::<u64, 8>()]
    }
}
