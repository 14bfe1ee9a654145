//! Rules for addresses that may be sent to, stored as a mapping, or relayed (requirements L-05, L-07, S-12).
//!
//! All functions take octets in network byte order, and run in the XDP program too.

/// The rule by which IPv4 endpoints are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv4Scope {
    /// The list of RFC 4380 and the special-purpose blocks of RFC 6890.
    #[default]
    Strict,
    /// The list of RFC 4380 section 5.2.4.
    Rfc4380,
    /// Private addresses too: for closed test networks only.
    Lab,
}

impl Ipv4Scope {
    /// Whether `address` is global unicast under this rule.
    pub const fn accepts(self, address: [u8; 4]) -> bool {
        match self {
            Self::Strict => is_rfc4380_global(address) && !is_special_purpose(address),
            Self::Rfc4380 => is_rfc4380_global(address),
            Self::Lab => !is_never_unicast(address),
        }
    }
}

/// This network, loopback, multicast and limited broadcast.
const fn is_never_unicast(address: [u8; 4]) -> bool {
    matches!(address, [0 | 127 | 224..=239, ..] | [255, 255, 255, 255])
}

const fn is_rfc4380_global(address: [u8; 4]) -> bool {
    !is_never_unicast(address)
        && !matches!(
            address,
            [10, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..] | [192, 88, 99, _]
        )
}

const fn is_special_purpose(address: [u8; 4]) -> bool {
    matches!(
        address,
        [100, 64..=127, ..]
            | [192, 0, 0 | 2, _]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [240..=255, ..]
    )
}

/// Whether an IPv6 address is unicast of global scope: not unspecified, loopback, IPv4-mapped,
/// IPv4-compatible, link-local, site-local, unique local or multicast. Teredo addresses are.
#[inline(always)]
pub const fn is_global_unicast(address: &[u8; 16]) -> bool {
    match address[0] {
        // ::/64 holds the unspecified, loopback, mapped and compatible addresses; the rest of ::/8
        // has the prefix of NAT64, 64:ff9b::/96.
        0 => {
            let [_, a, b, c, d, e, f, g, ..] = *address;
            a | b | c | d | e | f | g != 0
        }
        0xff | 0xfc | 0xfd => false,
        // fe80::/10 and fec0::/10.
        0xfe => address[1] & 0x80 == 0,
        _ => true,
    }
}

/// Whether an IPv6 address is link-local unicast, fe80::/10.
#[inline(always)]
pub const fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

/// Whether an IPv6 address may be the source of a packet from another node: not multicast, and not
/// in ::/64, where the unspecified, loopback, mapped and compatible addresses are.
#[inline(always)]
pub const fn may_be_source(address: &[u8; 16]) -> bool {
    match address[0] {
        0 => is_global_unicast(address),
        first => first != 0xff,
    }
}

/// The IPv4 address that a 6to4 (RFC 3056) or ISATAP (RFC 5214) address carries (requirement L-07).
#[inline(always)]
pub const fn embedded_router(address: &[u8; 16]) -> Option<[u8; 4]> {
    if address[0] == 0x20 && address[1] == 0x02 {
        return Some([address[2], address[3], address[4], address[5]]);
    }
    // The interface identifier of ISATAP: 00-00-5e-fe, with or without the universal bit.
    let isatap =
        address[8] & !0x02 == 0 && address[9] == 0 && address[10] == 0x5e && address[11] == 0xfe;
    if isatap {
        return Some([address[12], address[13], address[14], address[15]]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn v4(text: &str) -> [u8; 4] {
        text.parse::<Ipv4Addr>().unwrap().octets()
    }

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn v25_global_unicast() {
        let both = [
            "9.0.0.1",
            "11.0.0.0",
            "100.63.255.255",
            "126.255.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.88.98.255",
            "192.169.0.0",
            "223.255.255.255",
        ];
        let neither = [
            "0.1.2.3",
            "10.255.255.255",
            "127.0.0.1",
            "169.254.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.88.99.1",
            "224.0.0.253",
            "255.255.255.255",
        ];
        let rfc4380_alone = [
            "100.64.0.0",
            "192.0.0.8",
            "192.0.2.45",
            "198.18.0.1",
            "198.51.100.118",
            "203.0.113.120",
            "240.0.0.1",
        ];
        for address in both {
            assert!(Ipv4Scope::Rfc4380.accepts(v4(address)), "{address}");
            assert!(Ipv4Scope::Strict.accepts(v4(address)), "{address}");
        }
        for address in neither {
            assert!(!Ipv4Scope::Rfc4380.accepts(v4(address)), "{address}");
            assert!(!Ipv4Scope::Strict.accepts(v4(address)), "{address}");
        }
        for address in rfc4380_alone {
            assert!(Ipv4Scope::Rfc4380.accepts(v4(address)), "{address}");
            assert!(!Ipv4Scope::Strict.accepts(v4(address)), "{address}");
        }
    }

    #[test]
    fn strict_blocks_end_where_the_registry_says() {
        for inside in [
            "100.127.255.255",
            "192.0.0.255",
            "192.0.2.0",
            "198.19.255.255",
            "255.0.0.1",
        ] {
            assert!(!Ipv4Scope::Strict.accepts(v4(inside)), "{inside}");
        }
        for outside in [
            "100.128.0.0",
            "192.0.1.1",
            "192.0.3.0",
            "198.20.0.0",
            "198.51.101.0",
            "203.0.114.0",
        ] {
            assert!(Ipv4Scope::Strict.accepts(v4(outside)), "{outside}");
        }
    }

    #[test]
    fn lab_scope_accepts_private_but_never_loopback_or_multicast() {
        assert!(Ipv4Scope::Lab.accepts(v4("10.0.0.1")));
        assert!(Ipv4Scope::Lab.accepts(v4("192.168.7.9")));
        for never in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.253",
            "239.1.1.1",
            "255.255.255.255",
        ] {
            assert!(!Ipv4Scope::Lab.accepts(v4(never)), "{never}");
        }
    }

    #[test]
    fn ipv6_scopes() {
        for global in [
            "2001:db8::1",
            "2002:102:304::1",
            "2001:0:102:304::1",
            "3ffe::1",
            "64:ff9b::1",
        ] {
            assert!(is_global_unicast(&v6(global)), "{global}");
        }
        for other in [
            "::",
            "::1",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
        ] {
            assert!(!is_global_unicast(&v6(other)), "{other}");
        }
        assert!(is_link_local(&v6("fe80::1")) && is_link_local(&v6("febf::1")));
        assert!(!is_link_local(&v6("fec0::1")) && !is_link_local(&v6("2001:db8::1")));
    }

    #[test]
    fn ipv6_sources() {
        for source in ["fe80::1", "fec0::1", "fd12::1", "2001:db8::1", "64:ff9b::1"] {
            assert!(may_be_source(&v6(source)), "{source}");
        }
        for never in [
            "::",
            "::1",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "ff02::1",
            "ffff::1",
        ] {
            assert!(!may_be_source(&v6(never)), "{never}");
        }
    }

    #[test]
    fn embedded_routers() {
        assert_eq!(embedded_router(&v6("2002:102:304::1")), Some([1, 2, 3, 4]));
        assert_eq!(
            embedded_router(&v6("2001:db8::5efe:102:304")),
            Some([1, 2, 3, 4])
        );
        assert_eq!(
            embedded_router(&v6("2001:db8::200:5efe:102:304")),
            Some([1, 2, 3, 4])
        );
        assert_eq!(embedded_router(&v6("2001:db8::300:5efe:102:304")), None);
        assert_eq!(embedded_router(&v6("2001:db8::1")), None);
    }
}
